// @ts-check
// Which picture a node works on, as far as the page can know it without running anything.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { feederOf, widgetOf } from "../graph.js"
import { fileAddress, keptOutput, locator, pastOutput } from "../outputs.js"

/** @typedef {{key: string, url: string | null}} Origin `key` tells one source from another. */
/**
 * @typedef {{filename: string, subfolder: string, type: string,
 *   width: number, height: number, target: [number, number]}} Saved  nodes/host.py, preview_of
 */

/**
 * Per node, what it last got in a run and which origin it had then.
 *
 * @type {Map<string, {saved: Saved, key: string}>}
 */
const runs = new Map()
/** Nodes whose history has been asked for; another visit of a workflow's tab makes new ones. */
const asked = new WeakSet()
/** Files that the browser could not show: TIFF, for one. @type {Set<string>} */
const broken = new Set()
api.addEventListener("reconnected", () => broken.clear())

/** @param {any} node */
const keyOf = (node) => `${app.rootGraph.id}/${locator(node)}`

/** @param {import("../outputs.js").File} file */
const viewUrl = (file) => api.apiURL(fileAddress(file))

/**
 * @param {any} node
 * @returns {string | null}
 */
function urlOf(node) {
  const isSample = node.type === "CoZSamplePicture"
  const name = widgetOf(node, isSample ? "picture" : "image")?.value
  if (typeof name !== "string") return null
  if (isSample) return api.apiURL(`/chain_of_zoom/pictures/${encodeURIComponent(name)}`)
  if (node.type !== "LoadImage" && node.type !== "LoadImageOutput") return null
  const [, path, type = "input"] = /** @type {string[]} */ (/^(.*?)(?: \[(\w+)\])?$/s.exec(name))
  const cut = path.lastIndexOf("/")
  return viewUrl({ filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type })
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
  const url = urlOf(start)
  return { key: url ?? `${start.graph.id}/${start.id}`, url }
}

/**
 * What there is to show of a node's picture: the file that is connected, else what the last run got.
 *
 * @param {any} node
 * @returns {{url: string, file?: string, saved?: Saved, target?: Saved["target"]} | null}
 */
export function pictureOf(node) {
  const origin = originOf(node)
  if (!origin) return null
  const id = keyOf(node)
  const saved = keptOutput(node)?.coz_source?.[0]
  if (saved && saved.filename !== runs.get(id)?.saved.filename)
    runs.set(id, { saved, key: origin.key })
  const run = runs.get(id)
  const last = run?.key === origin.key ? run.saved : undefined
  const file = origin.url
  if (file && !broken.has(file)) {
    // Fetched anew after each run: another picture may lie there under the same name.
    const mark = last ? `${file.includes("?") ? "&" : "?"}after=${encodeURIComponent(last.filename)}` : ""
    return { url: file + mark, file, target: last?.target }
  }
  if (last) return { url: viewUrl(last), saved: last, target: last.target }
  if (!run && !asked.has(node)) {
    asked.add(node)
    pastOutput(node, "coz_source").then((output) => {
      if (output && !runs.has(id)) runs.set(id, { saved: output.coz_source[0], key: origin.key })
    })
  }
  return null
}

/** Not to be shown again: the browser cannot, or the server no longer has it. */
export function forget({ file, saved }) {
  if (file) broken.add(file)
  for (const run of runs.values()) if (run.saved === saved) run.key = ""
}
