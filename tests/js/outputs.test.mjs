import assert from "node:assert/strict"
import test, { beforeEach, mock } from "node:test"

import { findPastOutput } from "../../js/host/outputs.js"
import { getLoaderImage, getNodeImage } from "../../js/picker/picture.js"
import { api } from "/scripts/api.js"
import { app } from "/scripts/app.js"

const RUN_START = 1000
const SAVED = { filename: "saved.png", subfolder: "", type: "temp", width: 60, height: 40 }
const FILE = { state: "as it is", png: "", width: 60, height: 40 }

/** The answers to the next requests; a string stands for an answer that is no JSON. */
let answers
const asked = []
api.apiURL = (route) => route
api.fetchApi = async (route) => {
  asked.push(route)
  const answer = answers.length > 1 ? answers.shift() : answers[0]
  if (answer instanceof Error) throw answer
  const [status, body] = typeof answer === "string" ? [502, answer] : answer
  return new Response(typeof body === "string" ? body : JSON.stringify(body), { status })
}
mock.timers.enable({ apis: ["setTimeout"] })

const settle = async () => {
  for (let i = 0; i < 9; i++) await new Promise(setImmediate)
}
const wait = async (milliseconds) => {
  await settle()
  mock.timers.tick(milliseconds)
  await settle()
}
const AWAY = [new Error("cut"), "<html>"]

/** A node in a graph, with a link into it from another node. */
const nodeOf = (id, type, widgets, feeder) => ({
  id, type,
  widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
  inputs: [{ name: "image", link: feeder && 1 }],
  findInputSlot: (name) => (name === "image" && feeder ? 0 : -1),
  isSubgraphNode: () => false,
  graph: { ...app.rootGraph, getLink: (link) => link && { origin_id: feeder.id }, getNodeById: () => feeder },
})

/** A run of node 2, which got the file of node 1. */
const run = (workflow) => [200, {
  run: {
    prompt: [0, "run", {
      1: { class_type: "LoadImage", inputs: { image: "a.png" } },
      2: { class_type: "CoZFitImage", inputs: { image: ["1", 0] } },
    }, { extra_pnginfo: { workflow: { id: workflow } } }],
    outputs: { 2: { coz_source: [JSON.stringify(SAVED)] } },
    status: { messages: [["execution_start", { timestamp: RUN_START }]] },
  },
}]

beforeEach(() => {
  asked.length = 0
  app.rootGraph = { id: "this one", nodes: [], subgraphs: new Map() }
})

test("the past run is asked for until the server answers", async () => {
  answers = [...AWAY, run("this one")]
  let found
  findPastOutput(nodeOf(2, "CoZFitImage", {}), "coz_source").then((output) => (found = output))
  for (const [pause, count] of [[0, 1], [999, 1], [1, 2], [1999, 2], [1, 3]]) {
    await wait(pause)
    assert.equal(asked.length, count)
  }
  assert.deepEqual(JSON.parse(found.coz_source[0]), SAVED)
})

test("a node that is removed meanwhile asks no more", async () => {
  answers = [...AWAY]
  const node = nodeOf(2, "CoZFitImage", {})
  findPastOutput(node, "coz_source")
  await settle()
  node.graph = null
  await wait(5000)
  assert.equal(asked.length, 1)
})

test("what another workflow ran is not shown", async () => {
  answers = [run("another one")]
  assert.equal(await findPastOutput(nodeOf(2, "CoZFitImage", {}), "coz_source"), null)
})

test("the file is asked for until the server answers", async () => {
  answers = [...AWAY, [200, FILE]]
  const loader = nodeOf(1, "LoadImage", { image: "again.png" })
  for (const pause of [1999, 1, 1999, 1]) {
    assert.equal(getLoaderImage(loader), "loading")
    await wait(pause)
  }
  getLoaderImage(loader)
  await settle()
  assert.equal(getLoaderImage(loader).width, 60)
  assert.deepEqual(asked, Array(3).fill("/chain_of_zoom/source?node=LoadImage&image=again.png"))
})

for (const [status, problem] of [[404, "gone"], [413, "large"], [422, "unreadable"]])
  test(`a file that is ${problem} is not shown`, async () => {
    answers = [[status, {}]]
    const loader = nodeOf(1, "LoadImage", { image: problem })
    getLoaderImage(loader)
    await settle()
    assert.equal(getLoaderImage(loader), problem)
  })

for (const [file, changed, shown] of [
  ["a.png", RUN_START - 1, "/view?filename=saved.png"],
  ["a.png", RUN_START + 1, "data:image/png"],
  ["another.png", RUN_START - 1, "data:image/png"],
])
  test(`after a reload ${file} of ${changed} ms shows ${shown}`, async (t) => {
    app.rootGraph.id = t.name
    const history = run(t.name)[1]
    const node = nodeOf(2, "CoZFitImage", {}, nodeOf(1, "LoadImage", { image: file }))
    api.fetchApi = async (route) => Response.json(route.startsWith("/history") ? history : { ...FILE, changed })
    for (let i = 0; i < 4; i++) {
      getNodeImage(node)
      await settle()
    }
    assert.ok(getNodeImage(node).url.startsWith(shown))
  })
