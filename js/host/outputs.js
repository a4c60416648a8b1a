// @ts-check
// Finds the last output of a node, and the files in it; keeps its images.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { listGraphs } from "./graph.js"
import { callAfter } from "./hook.js"

/** Number of the newest runs to search for the last run of this workflow. */
const MAX_RUNS = 32

/** Wait before the next request to a server that does not answer. It doubles each time, up to longest. */
const RETRY_MS = { first: 1000, longest: 60_000 }

/** @typedef {{filename: string, subfolder: string, type: string}} File */

/**
 * Return the key of a node's output in the frontend: the node's id. In a subgraph, the subgraph's id and a
 * colon come before it.
 *
 * @param {any} node
 */
export const getLocator = (node) =>
  node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`

/** Return what the frontend has kept of a node's last run. @param {any} node */
export const getKeptOutput = (node) => app.nodeOutputs?.[getLocator(node)]

/** Whether the workflow has a node of this type and id. @param {string} id @param {string} type */
const isInUse = (id, type) =>
  listGraphs().some(({ nodes }) => nodes.some((node) => node.type === type && String(node.id) === id))

/**
 * Return the newest run in the server's history in which a node has an output.
 *
 * While the server does not answer, the request is repeated as long as the node exists.
 *
 * @param {any} node
 * @param {string} key that the output has
 * @returns {Promise<{output: any, id: string, prompt: Record<string, any>, start: number} | null>}
 *   `prompt` is the prompt that ran; `id` is the node's id in it; `start` is in milliseconds since 1970
 */
export async function findPastRun(node, key) {
  for (const { prompt, outputs, meta, status } of await waitForRuns(node)) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== app.rootGraph.id) continue
    const events = Object.fromEntries(status?.messages ?? [])
    const start = events.execution_start?.timestamp ?? 0
    const orphans = new Map() // outputs of nodes that the workflow no longer has
    // A Chain Loop has one output for each image of a list. The last is taken, as the frontend does.
    for (const [source, output] of Object.entries(outputs).reverse()) {
      if (!output[key]) continue
      const id = meta?.[source]?.display_node ?? source
      const run = { output, id, prompt: prompt[2], start }
      // display_node and source both begin with the ids of the subgraph nodes around the node.
      const shownOn = id.split(":").at(-1)
      if (shownOn === String(node.id)) return run
      const isOrphan = prompt[2][id]?.class_type === node.type && !isInUse(shownOn, node.type)
      if (isOrphan && !orphans.has(id)) orphans.set(id, run)
    }
    // A node that was moved into a subgraph or out of one has a new id.
    const isNew = !Object.keys(prompt[2]).some((id) => id.split(":").at(-1) === String(node.id))
    if (isNew && orphans.size === 1) return orphans.values().next().value
  }
  return null
}

/**
 * Return a node's last output in the server's history, for a page that was loaded again.
 *
 * @param {any} node
 * @param {string} key that the output has
 */
export const findPastOutput = async (node, key) => (await findPastRun(node, key))?.output ?? null

/**
 * Return the newest runs. Wait for the server as long as the node exists.
 *
 * @param {any} node
 * @returns {Promise<any[]>}
 */
async function waitForRuns(node) {
  for (let pause = RETRY_MS.first; node.graph; pause = Math.min(2 * pause, RETRY_MS.longest)) {
    const runs = await fetchRunsOnce()
    if (runs) return runs
    await new Promise((done) => setTimeout(done, pause))
  }
  return []
}

/** @type {Promise<any[] | null> | null} */
let pendingRequest = null

/** Fetch the newest runs, the newest first. Nodes that are loaded together share one request. */
function fetchRunsOnce() {
  pendingRequest ??= fetchRuns().finally(() => (pendingRequest = null))
  return pendingRequest
}

/** Fetch the newest runs; return null where the server does not answer. */
async function fetchRuns() {
  try {
    const answer = await api.fetchApi(`/history?max_items=${MAX_RUNS}`)
    return answer.ok ? Object.values(await answer.json()).reverse() : null
  } catch {
    return null
  }
}

/** The functions that draw the outputs of each node. */
const receivers = new WeakMap()

/**
 * Call a function with each output of a node: after a run, when the frontend restores one (another
 * workflow's tab, a run of the queue), and from the history after a reload.
 *
 * @param {any} node
 * @param {string} key that the output has
 * @param {(output: any) => void} receive
 * @param {() => void} [onMissing] called where a loaded workflow has no output for the node
 */
export function receiveOutputs(node, key, receive, onMissing) {
  receivers.set(node, [...(receivers.get(node) ?? []), receive])
  callAfter(node, "onExecuted", receive)
  // The node of a loaded workflow gets its id a moment later.
  callAfter(node, "onConfigure", () => {
    setTimeout(async () => {
      if (!node.graph) return // removed meanwhile
      const past = getKeptOutput(node) ?? (await findPastOutput(node, key))
      if (!node.graph) return
      const output = getKeptOutput(node) ?? past // run again meanwhile
      receive(output)
      if (!output) onMissing?.()
    })
  })
}

/** Pass on the outputs that the frontend restored, of another workflow's tab or of a past run. */
export function deliverRestoredOutputs() {
  if (!app.isGraphReady) return
  for (const { nodes } of listGraphs())
    for (const node of nodes)
      for (const receive of receivers.get(node) ?? []) receive(getKeptOutput(node))
}

/** @param {File} file */
export const getFileUrl = ({ filename, subfolder, type }) =>
  `/view?${new URLSearchParams({ filename, subfolder, type })}`

/** @param {HTMLImageElement} image */
const getFileName = ({ src }) => new URL(src, location.href).searchParams.get("filename")

/**
 * Let a node go on showing all images of its output when the image of a single step loads after them.
 *
 * The frontend loads the images of several outputs of a run at the same time, and would show those that
 * come last.
 *
 * @param {any} node
 */
export function keepAllImages(node) {
  if (node.comfyClass !== "CoZChainLoop") return
  /** @type {HTMLImageElement[] | undefined} */
  let shown
  Object.defineProperty(node, "imgs", {
    configurable: true,
    enumerable: true,
    get: () => shown,
    set(/** @type {HTMLImageElement[] | undefined} */ images) {
      // The output of a step is one image; that of the chain has the first frame too.
      const isLate =
        images?.length === 1 &&
        (shown?.length ?? 0) > 1 &&
        shown?.some((image) => getFileName(image) === getFileName(images[0]))
      if (!isLate) shown = images
    },
  })
}
