// @ts-check
// Which picture a node works on: what its last run got, or what the server says its loader gives.
import { api } from "../../../scripts/api.js"
import { feederOf, widgetOf, workflowId } from "../host/graph.js"
import { fileAddress, keptOutput, locator, pastRun } from "../host/outputs.js"
import { lookSoon } from "./watch.js"

/**
 * @typedef {{filename: string, subfolder: string, type: string,
 *   width: number, height: number, target: [number, number]}} Saved  nodes/host/images.py, save_preview
 */
/**
 * @typedef {{node: string, file: string | null}} Origin  Where a picture comes from: the id of the
 *   node, and for a loader what nodes/load/source.py is asked for its file.
 */
/**
 * @typedef {{saved: Saved, origin: Origin, start?: number, state?: string, gone?: boolean}} Run
 *   `start` is known once the server's history has confirmed the origin; `state` is that of the
 *   file that the run loaded.
 */
/**
 * @typedef {{file: string, asking: boolean, occasion: number, state?: string, changed?: number,
 *   picture?: {url: string, width: number, height: number}, problem?: Problem}} Source
 *   What the server said of a file on an occasion.
 */
/** @typedef {"run" | "loading" | "gone" | "large" | "unreadable"} Problem  Why there is no picture to show. */
/**
 * @typedef {{key: string, url: string, width: number, height: number, saved?: Saved,
 *   target?: Saved["target"]}} Picture  `key` tells one from another.
 */

/** The inputs of loader nodes that name their file: nodes/load/source.py. @type {Record<string, string>} */
const LOADERS = { LoadImage: "image", LoadImageOutput: "image", CoZSamplePicture: "picture" }
/** What CoZ Sample Picture has in own_picture where it loads its sample: nodes/load/sample_picture.py. */
export const NO_OWN_PICTURE = "none"
/** @type {Record<number, Problem>} */
const PROBLEMS = { 404: "gone", 413: "large" }
/** Runs that are remembered, of as many nodes. */
const MOST_RUNS = 64
/** Milliseconds after which a server that did not answer is asked again. */
const RETRY = 2000

/** By workflow and node: a workflow's tab makes new nodes at each visit. @type {Map<string, Run>} */
const runs = new Map()
/** The run of a node that the history has been asked about. @type {WeakMap<any, Saved | undefined>} */
const asked = new WeakMap()
/** Nodes whose run the history did not have yet. */
const unconfirmed = new Set()
/** @type {WeakMap<any, Source>} */
const sources = new WeakMap()

/** Counts the occasions on which a file may be another than before. */
let occasion = 1

/** Asks the server anew whether the files are still the same. */
export function checkFiles() {
  occasion++
  lookSoon()
}
addEventListener("focus", checkFiles) // perhaps from the program that edited the file
api.addEventListener("reconnected", checkFiles)
/** A run has ended: the history may have it now, or a moment later. */
function askAgain() {
  for (const node of unconfirmed) asked.delete(node)
  unconfirmed.clear()
  lookSoon()
}
api.addEventListener("status", () => {
  askAgain()
  setTimeout(askAgain, RETRY)
})

/** @param {any} node */
const keyOf = (node) => `${workflowId()}/${locator(node)}`

/**
 * What the server is asked for the file of a loader node.
 *
 * @param {string} type of a node
 * @param {(widget: string) => unknown} valueOf
 */
function fileOf(type, valueOf) {
  const own = type === "CoZSamplePicture" && valueOf("own_picture")
  if (own && own !== NO_OWN_PICTURE) return fileOf("LoadImage", () => own)
  const name = Object.hasOwn(LOADERS, type) ? valueOf(LOADERS[type]) : null
  return typeof name === "string" ? String(new URLSearchParams({ node: type, image: name })) : null
}

/**
 * Where the picture of a node's input `image` comes from; null where nothing is connected.
 *
 * @param {any} node
 * @returns {Origin | null}
 */
function originOf(node) {
  const start = feederOf(node, "image")
  if (!start) return null
  const file = fileOf(start.type, (widget) => widgetOf(start, widget)?.value)
  return { node: String(start.id), file }
}

/**
 * The same of a node in a prompt, where reroutes and the like are gone.
 *
 * @param {Record<string, any>} prompt
 * @param {string} id
 * @returns {Origin}
 */
function pastOrigin(prompt, id) {
  const start = String(prompt[id]?.inputs.image?.[0])
  const { class_type: type, inputs } = prompt[start] ?? {}
  const file = fileOf(type, (widget) => inputs[widget])
  return { node: start.split(":").at(-1) ?? "", file }
}

/** @param {string} id @param {Run} run */
function keep(id, run) {
  runs.delete(id)
  runs.set(id, run)
  const [oldest] = runs.keys()
  if (runs.size > MOST_RUNS) runs.delete(oldest)
  checkFiles()
}

/** What a run saved of its picture, by its output. @param {any} output @returns {Saved | undefined} */
function savedIn(output) {
  const [text] = output?.coz_source ?? []
  return text && JSON.parse(text)
}

/**
 * @param {any} node
 * @param {Origin} origin that it has now
 */
function runOf(node, origin) {
  const id = keyOf(node)
  const saved = savedIn(keptOutput(node))
  if (saved && saved.filename !== runs.get(id)?.saved.filename) keep(id, { saved, origin })
  const run = runs.get(id)
  const isAsked = asked.has(node) && asked.get(node) === run?.saved
  if (run?.start === undefined && !isAsked) confirm(node, id, run?.saved)
  return run
}

/**
 * Finds a node's last run in the history: with what it had as origin, which may have been another
 * by the time that it ended.
 *
 * @param {any} node
 * @param {string} id
 * @param {Saved | undefined} saved
 */
async function confirm(node, id, saved) {
  asked.set(node, saved)
  const past = await pastRun(node, "coz_source")
  const run = runs.get(id)
  if (run?.saved !== saved) return // run again meanwhile
  const found = savedIn(past?.output)
  if (past && (!saved || found.filename === saved.filename))
    keep(id, { saved: found, origin: pastOrigin(past.prompt, past.id), start: past.start })
  else if (run) unconfirmed.add(node)
}

/**
 * @param {any} node
 * @param {string} file
 */
function sourceOf(node, file) {
  let source = sources.get(node)
  if (source?.file !== file) sources.set(node, (source = { file, asking: false, occasion: 0 }))
  if (source.occasion !== occasion && !source.asking) ask(source)
  return source
}

/** @param {Source} source */
async function ask(source) {
  source.asking = true
  const now = occasion
  try {
    const address = `/chain_of_zoom/source?${source.file}`
    const answer = await api.fetchApi(address, { cache: "no-cache" })
    const { state, changed, png, width, height } = await answer.json()
    const url = `data:image/png;base64,${png}`
    const problem = answer.ok ? undefined : (PROBLEMS[answer.status] ?? "unreadable")
    const picture = answer.ok ? { url, width, height } : undefined
    Object.assign(source, { occasion: now, state, changed, picture, problem })
  } catch {
    await new Promise((done) => setTimeout(done, RETRY)) // the server is away
  }
  source.asking = false
  lookSoon()
}

/**
 * Whether what a run got is still what the file would give.
 *
 * @param {Run} run
 * @param {Source} source
 */
function isCurrent(run, source) {
  if (run.start === undefined || source.problem === "gone" || !source.occasion) return false
  if (run.state !== undefined) return run.state === source.state
  if (source.occasion !== occasion) return false // asked before the run ended
  // The file was last changed before the run: the run loaded this state of it.
  if (!source.changed) return true
  if (source.changed > run.start) return false
  run.state = source.state
  return true
}

/** @param {Source | null} source @param {Saved["target"]} [target] @returns {Picture | Problem} */
function pictureFrom(source, target) {
  if (source?.picture) return { key: `${source.state} ${source.file}`, ...source.picture, target }
  return source ? (source.problem ?? "loading") : "run"
}

/**
 * What a loader node gives, or why that cannot be shown.
 *
 * @param {any} loader
 * @returns {Picture | Problem}
 */
export function pictureIn(loader) {
  const file = fileOf(loader.type, (widget) => widgetOf(loader, widget)?.value)
  return pictureFrom(file ? sourceOf(loader, file) : null)
}

/**
 * What there is to show of a node's picture, or why there is nothing; null where none is connected.
 *
 * @param {any} node
 * @returns {Picture | Problem | null}
 */
export function pictureOf(node) {
  const origin = originOf(node)
  if (!origin) return null
  const run = runOf(node, origin)
  const source = origin.file ? sourceOf(node, origin.file) : null
  const isSame =
    run && (origin.file ? run.origin.file === origin.file : run.origin.node === origin.node)
  const target = isSame ? run.saved.target : undefined
  if (isSame && !run.gone && (!source || isCurrent(run, source))) {
    const { saved } = run
    const { width, height } = saved
    return { key: saved.filename, url: api.apiURL(fileAddress(saved)), width, height, saved, target }
  }
  return pictureFrom(source, target)
}

/** The server no longer has what a run saved. @param {Picture} picture */
export function forget({ saved }) {
  for (const run of runs.values()) if (run.saved === saved) run.gone = true
}
