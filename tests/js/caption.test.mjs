import assert from "node:assert/strict"
import test from "node:test"

import { updatePanel } from "../../js/viewer/caption.js"
import { findCurrentLayer, placeLayers, moveView, fitView, zoomView } from "../../js/viewer/places.js"
import {
  COLOR_STOPS,
  countRealPixels,
  describeRealPixels,
  pickRealPixelsColor,
} from "../../js/viewer/real_pixels.js"
import { assertNear, python } from "./python.mjs"

const SIZES = [{ width: 540, height: 560 }, { width: 900, height: 400 }]
const TEXTS = ["label", "real", "rest", "agreement", "prompt"]
const PLAIN = "this view is only enlarged: nothing is invented"
const INVENTED = "in this view, the rest is invented"
const NOTHING = "nothing is invented"
const { record } = python.chain // a source of 512 x 512 and four steps of 4x

const element = () => ({
  style: {},
  classList: { toggle() {} },
  setAttribute() {},
  querySelector: element,
})
const elements = (...names) => Object.fromEntries(names.map((name) => [name, element()]))

/** What stands around a view; `look` gives the view. */
function caption(record, look, { bicubic = false, size = SIZES[0] } = {}) {
  const layers = placeLayers(record)
  const view = look(layers, size)
  const panel = {
    ...elements(...TEXTS, "promptRow", "root", "outsideChain", "notice", "dot", "outline"),
    buttons: elements("good", "bad", "bicubic", "play", "chain"),
    canvas: size,
    stage: { clientWidth: size.width },
  }
  const chains = [{ record }]
  const currentLayer = findCurrentLayer(layers, view, size)
  const [shown, promptMarks, bar] = [{ chain: chains[0] }, new Map(), { move() {} }]
  updatePanel({ panel, layers, view, size, currentLayer, bicubic, shown, promptMarks, chains, bar })
  const texts = TEXTS.map((name) => [name, panel[name].textContent ?? ""])
  return { ...Object.fromEntries(texts), color: panel.dot.style.background, good: panel.buttons.good }
}
const layer = (index) => (layers, size) => fitView(layers.at(index), size)

test("the page counts, says and colours real pixels as the server does", () => {
  for (const { record, answers } of python.counts)
    answers.forEach(({ count, words, color }, i) => {
      const real = countRealPixels(record, i)
      assertNear([real.width, real.height, real.share], count, { relative: 1e-12 })
      assert.equal(describeRealPixels(real), words)
      assert.deepEqual(pickRealPixelsColor(real.share), color)
    })
  for (const [width, height, words] of python.sides)
    assert.equal(describeRealPixels({ width, height, share: 0.1 }), words)
  assert.deepEqual(COLOR_STOPS, python.stops)
})

test("each scale says how many pixels are real", () => {
  for (const size of SIZES)
    for (let step = 0; step <= 4; step++) {
      const side = 512 / 4 ** step
      const shown = caption(record, layer(step + 1), { size })
      assert.equal(shown.label, step ? `${4 ** step}x · step ${step} of 4` : "1x · first frame")
      assert.equal(shown.real, step ? `${side} x ${side} real pixels` : "all real")
      assert.equal(shown.rest, step ? INVENTED : NOTHING)
      assert.equal(shown.color, `rgb(${COLOR_STOPS[step].join(" ")})`)
      const plain = caption(record, layer(step + 1), { size, bicubic: true })
      assert.equal(plain.real, shown.real)
      assert.equal(plain.rest, step ? PLAIN : NOTHING)
      assert.equal(plain.agreement, "")
    }
})

test("a step says how well it agrees with its input, in the server's words", () => {
  for (const { agreements, words } of python.agreements)
    words.forEach((expected, step) => {
      const shown = caption({ ...record, agreements }, layer(step + 2))
      assert.equal(shown.agreement, expected && `step ${step + 1} ${expected}`)
    })
  const { agreements, invented, real_pixels, ...older } = record
  assert.deepEqual(
    { ...caption(older, layer(-1)), good: 0 },
    { ...caption(record, layer(-1)), agreement: "", good: 0 },
  )
})

test("prompts are shown with what can be marked", () => {
  const prompts = ["a rocket", "", "-", "rust"]
  for (const [step, prompt] of prompts.entries()) {
    const shown = caption({ ...record, prompts }, layer(step + 2))
    assert.equal(shown.prompt, prompt || "This step had no prompt.")
    assert.equal(shown.good.disabled, !prompt)
  }
  assert.equal(caption({ ...record, prompts: ["", "", "", ""] }, layer(2)).prompt, "")
  assert.equal(caption(record, layer(1)).prompt, "The first frame. What lies deeper is invented.")
})

test("real pixels are counted down while zooming", () => {
  const seen = new Set()
  for (let factor = 5; factor <= 512; factor *= 1.25) {
    const shown = caption(record, (layers, size) =>
      zoomView(layers, fitView(layers[2], size), size, factor / 4, size.width / 2, size.height / 2),
    )
    assert.match(shown.label, /^\S+x · step /)
    assertNear(Number.parseFloat(shown.label), factor, { relative: 6e-3 })
    const sides = [...shown.real.matchAll(/[\d.]+/g)].map(Number)
    if (512 / factor < 0.9995) assert.equal(shown.real, "less than one real pixel")
    else assertNear(sides, [512 / factor, 512 / factor], { relative: 6e-3 })
    if (sides.length) assert.ok(!seen.has(shown.real))
    seen.add(shown.real)
  }
  assert.ok(seen.size > 18)
})

test("where nothing was zoomed a near view is only an enlargement", () => {
  const shown = caption(record, (layers, size) => {
    const zoom = (view, factor) => zoomView(layers, view, size, factor, size.width / 2, size.height / 2)
    return zoom(moveView(layers, zoom(fitView(layers[0], size), 1.25 ** 4), size, 324, 0), 1.25 ** 10)
  })
  assert.match(shown.label, /^22\.7x/)
  assert.equal(shown.rest, PLAIN)
  assert.ok(Number.parseFloat(shown.real) < 50)
})

test("a whole image has no factor below 1", () => {
  const frames = [[4000, 3000], ...record.frames.slice(1)]
  const large = { ...record, frames, windows: [[1000, 1000, 512, 512], ...record.windows.slice(1)] }
  const labels = Array.from({ length: 12 }, (_, i) =>
    caption(large, (layers, size) =>
      zoomView(layers, fitView(layers[0], size), size, 1.25 ** i, size.width / 2, size.height / 2),
    ),
  )
  assert.equal(labels[0].real, "all real")
  const names = labels.map(({ label }) => label).filter((label) => !label.startsWith("1"))
  assert.equal(names[0], "whole image")
  assert.deepEqual([...new Set(names)], ["whole image", "part of the image"])
  assert.ok(names.length < labels.length)
})

test("a first frame that was upscaled says its count", () => {
  const frames = [[128, 96], ...record.frames.slice(1)]
  const small = { ...record, frames, windows: [[16, 0, 96, 96], ...record.windows.slice(1)] }
  for (const [index, real, rest] of [
    [0, "all real", NOTHING],
    [1, "96 x 96 real pixels", PLAIN],
    [2, "24 x 24 real pixels", INVENTED],
  ]) {
    const shown = caption(small, layer(index))
    assert.deepEqual([shown.real, shown.rest], [real, rest])
  }
})
