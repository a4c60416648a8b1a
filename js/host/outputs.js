// @ts-check
// What a node last sent in a run, and where its files are.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { allGraphs } from "./graph.js"
import { after } from "./hook.js"

/** The newest runs among which one of this workflow is looked for. */
const NEWEST = 32

/** Milliseconds until the server is asked again: at first, and after many failures. */
const RETRY = { first: 1000, longest: 60_000 }

/** @typedef {{filename: string, subfolder: string, type: string}} File */

/**
 * As the frontend keys its outputs: the id, in a subgraph with the subgraph's before it.
 *
 * @param {any} node
 */
export const locator = (node) =>
  node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`

/** What the frontend has kept of a node's last run. @param {any} node */
export const keptOutput = (node) => app.nodeOutputs?.[locator(node)]

/** Whether the workflow has a node of that type and id. @param {string} id @param {string} type */
const isInUse = (id, type) =>
  allGraphs().some(({ nodes }) => nodes.some((node) => node.type === type && String(node.id) === id))

/**
 * The newest run in the server's history that gave a node an output.
 *
 * Where the server does not answer, it is asked again as long as the node exists.
 *
 * @param {any} node
 * @param {string} key that the output has
 * @returns {Promise<{output: any, id: string, prompt: Record<string, any>, start: number} | null>}
 *   `prompt` is what ran, in which the node is `id`; `start` is in milliseconds since 1970
 */
export async function pastRun(node, key) {
  for (const { prompt, outputs, meta, status } of await newestRuns(node)) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== app.rootGraph.id) continue
    const events = Object.fromEntries(status?.messages ?? [])
    const start = events.execution_start?.timestamp ?? 0
    const left = new Map()
    // A loop that ran once for each picture of a list has several: the last one, as on the page.
    for (const [source, output] of Object.entries(outputs).reverse()) {
      if (!output[key]) continue
      const id = meta?.[source]?.display_node ?? source
      const run = { output, id, prompt: prompt[2], start }
      // In a subgraph the ids of the nodes around it stand before, in either form.
      const shownOn = id.split(":").at(-1)
      if (shownOn === String(node.id)) return run
      const isLeft = prompt[2][id]?.class_type === node.type && !isInUse(shownOn, node.type)
      if (isLeft && !left.has(id)) left.set(id, run)
    }
    // Its id is new where it was taken out of a subgraph, or put into one.
    const isNew = !Object.keys(prompt[2]).some((id) => id.split(":").at(-1) === String(node.id))
    if (isNew && left.size === 1) return left.values().next().value
  }
  return null
}

/**
 * What the server's history has of a node's last run: after the page was loaded anew.
 *
 * @param {any} node
 * @param {string} key that the output has
 */
export const pastOutput = async (node, key) => (await pastRun(node, key))?.output ?? null

/** @param {any} node @returns {Promise<any[]>} */
async function newestRuns(node) {
  for (let pause = RETRY.first; node.graph; pause = Math.min(2 * pause, RETRY.longest)) {
    const runs = await pastRuns()
    if (runs) return runs
    await new Promise((done) => setTimeout(done, pause))
  }
  return []
}

/** @type {Promise<any[] | null> | null} */
let asked = null

/** The newest runs first. The nodes of a workflow that is loaded share one request. */
function pastRuns() {
  asked ??= askForRuns().finally(() => (asked = null))
  return asked
}

/** Null where the server does not answer. */
async function askForRuns() {
  try {
    const answer = await api.fetchApi(`/history?max_items=${NEWEST}`)
    return answer.ok ? Object.values(await answer.json()).reverse() : null
  } catch {
    return null
  }
}

/** Of nodes that draw what their runs send: how. */
const receivers = new WeakMap()

/**
 * Gives what the runs of a node send: when it comes, when the frontend puts it back (another
 * workflow's tab, a run of the queue) and from the history.
 *
 * @param {any} node
 * @param {string} key that the output has
 * @param {(output: any) => void} receive
 * @param {() => void} [lack] called after a workflow was loaded for whose node there is no output
 */
export function receiveOutputs(node, key, receive, lack) {
  receivers.set(node, [...(receivers.get(node) ?? []), receive])
  after(node, "onExecuted", receive)
  // A workflow was loaded: a moment later its node knows its id.
  after(node, "onConfigure", () => {
    setTimeout(async () => {
      if (!node.graph) return // removed since
      const past = keptOutput(node) ?? (await pastOutput(node, key))
      if (!node.graph) return
      const output = keptOutput(node) ?? past // run again meanwhile
      receive(output)
      if (!output) lack?.()
    })
  })
}

/** The frontend has put outputs back: another workflow's tab, or a run from the history. */
export function giveReturnedOutputs() {
  if (!app.isGraphReady) return
  for (const { nodes } of allGraphs())
    for (const node of nodes)
      for (const receive of receivers.get(node) ?? []) receive(keptOutput(node))
}

/** @param {File} file */
export const fileAddress = ({ filename, subfolder, type }) =>
  `/view?${new URLSearchParams({ filename, subfolder, type })}`
