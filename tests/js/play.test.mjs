import assert from "node:assert/strict"
import test, { beforeEach, mock } from "node:test"

import { Clip } from "../../js/viewer/clip.js"
import { Flight } from "../../js/viewer/flight.js"
import { placeLayers, fitView } from "../../js/viewer/places.js"
import { canPlay, Play, REST_MS, STEP_MS, togglePlay } from "../../js/viewer/play.js"
import { python } from "./python.mjs"

const SIZE = { width: 540, height: 400 }
const { record } = python.chain // of four steps of 4x
const viewerOf = (record) => ({ layers: placeLayers(record), size: SIZE, shown: { chain: { record } } })
const viewer = viewerOf(record)
const wholes = viewer.layers.map((layer) => fitView(layer, SIZE))
const TIME = 4 * STEP_MS

let clock
mock.method(performance, "now", () => clock)
beforeEach(() => (clock = 0))

const spansOf = (flight, times) =>
  times.map((time) => {
    clock = time
    return flight.computeView().view.span
  })
const falls = (spans) => spans.every((span, i) => !i || span < spans[i - 1])

test("play rests at both ends and begins again", () => {
  const play = new Play(viewer, { repeats: true })
  const [first, last] = [wholes[0].span, wholes.at(-1).span]
  assert.deepEqual(spansOf(play, [0, REST_MS, REST_MS + TIME, 2 * REST_MS + TIME - 1]), [first, first, last, last])
  assert.ok(falls(spansOf(play, Array.from({ length: 41 }, (_, i) => REST_MS + (i / 40) * TIME))))
  assert.deepEqual(spansOf(play, [2 * REST_MS + TIME]), [first])
  assert.equal(play.computeView().isOver, false)
})

test("a flight that does not repeat ends at the deepest picture", () => {
  const play = new Play(viewer, { repeats: false })
  clock = 2 * REST_MS + TIME - 1
  assert.equal(play.computeView().isOver, false)
  clock++
  assert.deepEqual(play.computeView(), { view: wholes.at(-1), isOver: true })
})

test("with reduced motion play shows one frame after another", (t) => {
  t.mock.method(globalThis, "matchMedia", () => ({ matches: true }))
  const play = new Play(viewer, { repeats: true })
  const spans = spansOf(play, Array.from({ length: 200 }, (_, i) => (i / 200) * (TIME + 2 * REST_MS)))
  const expected = wholes.slice(1).map(({ span }) => span) // the source is the first frame here
  assert.deepEqual([...new Set(spans)], expected)
})

test("a flight from a scale to another passes what lies between", () => {
  const flight = new Flight(wholes[1], wholes.at(-1))
  const times = Array.from({ length: 41 }, (_, i) => (i / 40) * flight.duration)
  const spans = spansOf(flight, times)
  assert.ok(falls(spans))
  assert.equal(flight.computeView().isOver, true)
  const steps = spans.map((span, i) => (i ? spans[i - 1] / span : 1))
  assert.ok(Math.max(...steps) < 1.5)
})

test("a chain of one frame says that there is nothing to play", async () => {
  const frames = [record.frames[1], record.frames[1]]
  const one = viewerOf({ ...record, frames, windows: [[0, 0, ...frames[0]]] })
  const said = []
  one.showMessage = (text) => said.push(text)
  assert.equal(canPlay(one), false)
  assert.equal(canPlay(viewer), true)
  togglePlay(one)
  await new Clip(one).toggle()
  assert.deepEqual(said, Array(2).fill("This chain has only one frame: there is nothing to play."))
  assert.equal(one.flight, undefined)
})
