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
/** Nodes whose history has been asked for. @type {Set<string>} */
const asked = new Set()

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
 * What there is to show of a node's picture, newest knowledge first.
 *
 * @param {any} node
 * @returns {{url: string, saved?: Saved} | null}
 */
export function pictureOf(node) {
  const origin = originOf(node)
  if (!origin) return null
  const id = keyOf(node)
  const saved = keptOutput(node)?.coz_source?.[0]
  if (saved && saved.filename !== runs.get(id)?.saved.filename)
    runs.set(id, { saved, key: origin.key })
  const run = runs.get(id)
  if (run?.key === origin.key) return { url: viewUrl(run.saved), saved: run.saved }
  if (origin.url) return { url: origin.url }
  if (!run && !asked.has(id)) {
    asked.add(id)
    pastOutput(node, "coz_source").then((output) => {
      if (output && !runs.has(id)) runs.set(id, { saved: output.coz_source[0], key: origin.key })
    })
  }
  return null
}

/** Forget a run's picture that the server no longer has. @param {Saved} saved */
export function forgetRun(saved) {
  for (const run of runs.values()) if (run.saved === saved) run.key = ""
}
