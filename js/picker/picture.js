// @ts-check
// Finds the image that a node works on: the image of its last run, or the image that the server reads
// from the loader's file.
import { api } from "../../../scripts/api.js"
import { findLinkedNode, findWidget, getWorkflowId } from "../host/graph.js"
import { getFileUrl, getKeptOutput, getLocator, findPastRun } from "../host/outputs.js"
import { scheduleChecks } from "./watch.js"

/**
 * @typedef {{filename: string, subfolder: string, type: string,
 *   width: number, height: number, target: [number, number]}} Saved  nodes/host/images.py, save_preview
 */
/**
 * @typedef {{node: string, fileQuery: string | null}} Origin  Where an image comes from: the id of the
 *   node, and for a loader the query that asks nodes/load/source.py for its file.
 */
/**
 * @typedef {{saved: Saved, origin: Origin, start?: number, state?: string, gone?: boolean}} Run
 *   `start` is set when the server's history has confirmed the origin. `state` is that of FileInfo when
 *   the run loaded the file. `gone` means that the server no longer has the saved image.
 */
/**
 * @typedef {{fileQuery: string, asking: boolean, checkRound: number, state?: string, changed?: number,
 *   picture?: {url: string, width: number, height: number}, problem?: Problem}} FileInfo
 *   The server's answer about a file. `state` identifies its version, `changed` is when it last changed, in
 *   milliseconds since 1970. `checkRound` is the value of the counter below when the server was asked.
 */
/** @typedef {"run" | "loading" | "gone" | "large" | "unreadable"} Problem  Why there is no image to show. */
/**
 * @typedef {{key: string, url: string, width: number, height: number, saved?: Saved,
 *   target?: Saved["target"]}} Picture  Each image has its own `key`.
 */

/**
 * Type of a loader node -> the input that names its file. nodes/load/source.py has the same.
 *
 * @type {Record<string, string>}
 */
const FILE_INPUTS = { LoadImage: "image", LoadImageOutput: "image", CoZSamplePicture: "picture" }
/** With this value of own_picture, CoZ Sample Picture (nodes/load/sample_picture.py) loads a sample. */
export const NO_OWN_PICTURE = "none"
/** @type {Record<number, Problem>} */
const PROBLEMS_BY_STATUS = { 404: "gone", 413: "large" }
/** Number of nodes whose last run is kept. */
const MAX_RUNS = 64
/** Wait before the next request to a server that did not answer. */
const RETRY_MS = 2000

/**
 * Keyed by the ids of workflow and node, because opening a workflow's tab creates new nodes.
 *
 * @type {Map<string, Run>}
 */
const runs = new Map()
/**
 * For each node, the saved image for which the history was searched most recently.
 *
 * @type {WeakMap<any, Saved | undefined>}
 */
const searchedImages = new WeakMap()
/** Nodes whose run was not yet in the history. */
const unconfirmed = new Set()
/** @type {WeakMap<any, FileInfo>} */
const fileInfos = new WeakMap()

/** It increases with each event after which a file may have changed. */
let checkRound = 1

/** Ask the server again whether the files have changed. */
export function checkFiles() {
  checkRound++
  scheduleChecks()
}
addEventListener("focus", checkFiles) // the user may have edited the file in another program
api.addEventListener("reconnected", checkFiles)
/** Search the history again for runs that it did not have yet. */
function searchHistoryAgain() {
  for (const node of unconfirmed) searchedImages.delete(node)
  unconfirmed.clear()
  scheduleChecks()
}
api.addEventListener("status", () => {
  // A run may have ended; it is in the history now or a moment later.
  searchHistoryAgain()
  setTimeout(searchHistoryAgain, RETRY_MS)
})

/** @param {any} node */
const makeRunKey = (node) => `${getWorkflowId()}/${getLocator(node)}`

/**
 * Return the query that asks the server for the file of a loader node, or null for other nodes.
 *
 * @param {string} type of a node
 * @param {(widget: string) => unknown} getValue
 */
function makeFileQuery(type, getValue) {
  const own = type === "CoZSamplePicture" && getValue("own_picture")
  if (own && own !== NO_OWN_PICTURE) return makeFileQuery("LoadImage", () => own)
  const name = Object.hasOwn(FILE_INPUTS, type) ? getValue(FILE_INPUTS[type]) : null
  return typeof name === "string" ? String(new URLSearchParams({ node: type, image: name })) : null
}

/**
 * Return where the image of a node's input `image` comes from, or null where nothing is connected.
 *
 * @param {any} node
 * @returns {Origin | null}
 */
function findOrigin(node) {
  const start = findLinkedNode(node, "image")
  if (!start) return null
  const fileQuery = makeFileQuery(start.type, (widget) => findWidget(start, widget)?.value)
  return { node: String(start.id), fileQuery }
}

/**
 * Return where the image of a node in a prompt comes from. A prompt has no reroutes and no bypassed nodes.
 *
 * @param {Record<string, any>} prompt
 * @param {string} id
 * @returns {Origin}
 */
function findPastOrigin(prompt, id) {
  const start = String(prompt[id]?.inputs.image?.[0])
  const { class_type: type, inputs } = prompt[start] ?? {}
  const fileQuery = makeFileQuery(type, (widget) => inputs[widget])
  return { node: start.split(":").at(-1) ?? "", fileQuery }
}

/** @param {string} id @param {Run} run */
function keepRun(id, run) {
  runs.delete(id)
  runs.set(id, run)
  const [oldest] = runs.keys()
  if (runs.size > MAX_RUNS) runs.delete(oldest)
  checkFiles()
}

/** Return what a run saved about its image. @param {any} output @returns {Saved | undefined} */
function readSaved(output) {
  const [text] = output?.coz_source ?? []
  return text && JSON.parse(text)
}

/**
 * Return the last known run of a node.
 *
 * @param {any} node
 * @param {Origin} origin the node's present one
 */
function findRun(node, origin) {
  const id = makeRunKey(node)
  const saved = readSaved(getKeptOutput(node))
  if (saved && saved.filename !== runs.get(id)?.saved.filename) keepRun(id, { saved, origin })
  const run = runs.get(id)
  const isSearched = searchedImages.has(node) && searchedImages.get(node) === run?.saved
  if (run?.start === undefined && !isSearched) confirmRun(node, id, run?.saved)
  return run
}

/**
 * Find a node's last run and its origin in the history. The node's origin may have changed while it
 * ran.
 *
 * @param {any} node
 * @param {string} id
 * @param {Saved | undefined} saved
 */
async function confirmRun(node, id, saved) {
  searchedImages.set(node, saved)
  const past = await findPastRun(node, "coz_source")
  const run = runs.get(id)
  if (run?.saved !== saved) return // it ran again meanwhile
  const found = readSaved(past?.output)
  if (past && (!saved || found.filename === saved.filename))
    keepRun(id, { saved: found, origin: findPastOrigin(past.prompt, past.id), start: past.start })
  else if (run) unconfirmed.add(node)
}

/**
 * Return what the server said about a file; ask it again if the file may have changed.
 *
 * @param {any} node
 * @param {string} fileQuery
 */
function getFileInfo(node, fileQuery) {
  let info = fileInfos.get(node)
  if (info?.fileQuery !== fileQuery)
    fileInfos.set(node, (info = { fileQuery, asking: false, checkRound: 0 }))
  if (info.checkRound !== checkRound && !info.asking) fetchFileInfo(info)
  return info
}

/** @param {FileInfo} info */
async function fetchFileInfo(info) {
  info.asking = true
  const now = checkRound
  try {
    const address = `/chain_of_zoom/source?${info.fileQuery}`
    const answer = await api.fetchApi(address, { cache: "no-cache" })
    const { state, changed, png, width, height } = await answer.json()
    const url = `data:image/png;base64,${png}`
    const problem = answer.ok ? undefined : (PROBLEMS_BY_STATUS[answer.status] ?? "unreadable")
    const picture = answer.ok ? { url, width, height } : undefined
    Object.assign(info, { checkRound: now, state, changed, picture, problem })
  } catch {
    await new Promise((done) => setTimeout(done, RETRY_MS)) // the server is away
  }
  info.asking = false
  scheduleChecks()
}

/**
 * Whether the file still gives the image that a run got.
 *
 * @param {Run} run
 * @param {FileInfo} info
 */
function isCurrent(run, info) {
  if (run.start === undefined || info.problem === "gone" || !info.checkRound) return false
  if (run.state !== undefined) return run.state === info.state
  // An answer from before the end of the run is too old: the file may have changed since.
  if (info.checkRound !== checkRound) return false
  if (!info.changed) return true
  // If the file has not changed since the run began, its present state is the one that the run loaded.
  if (info.changed > run.start) return false
  run.state = info.state
  return true
}

/** @param {FileInfo | null} info @param {Saved["target"]} [target] @returns {Picture | Problem} */
function getFileImage(info, target) {
  if (info?.picture) return { key: `${info.state} ${info.fileQuery}`, ...info.picture, target }
  return info ? (info.problem ?? "loading") : "run"
}

/**
 * Return the image that a loader node gives, or why it cannot be shown.
 *
 * @param {any} loader
 * @returns {Picture | Problem}
 */
export function getLoaderImage(loader) {
  const fileQuery = makeFileQuery(loader.type, (widget) => findWidget(loader, widget)?.value)
  return getFileImage(fileQuery ? getFileInfo(loader, fileQuery) : null)
}

/**
 * Return the image to show for a node, or why there is none; null where none is connected.
 *
 * @param {any} node
 * @returns {Picture | Problem | null}
 */
export function getNodeImage(node) {
  const origin = findOrigin(node)
  if (!origin) return null
  const run = findRun(node, origin)
  const info = origin.fileQuery ? getFileInfo(node, origin.fileQuery) : null
  const isSame =
    run && (origin.fileQuery ? run.origin.fileQuery === origin.fileQuery : run.origin.node === origin.node)
  const target = isSame ? run.saved.target : undefined
  if (isSame && !run.gone && (!info || isCurrent(run, info))) {
    const { saved } = run
    const { width, height } = saved
    return { key: saved.filename, url: api.apiURL(getFileUrl(saved)), width, height, saved, target }
  }
  return getFileImage(info, target)
}

/** Note that the server no longer has the image that a run saved. @param {Picture} picture */
export function markGone({ saved }) {
  for (const run of runs.values()) if (run.saved === saved) run.gone = true
}
