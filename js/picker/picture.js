// @ts-check
// Which picture a node works on, as far as the page can know it without running anything.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

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

/**
 * Not node.getInputLink: of a subgraph node that gives a link inside.
 *
 * @param {any} node
 * @param {number} slot
 */
const linkInto = (node, slot) => node.graph?.getLink(node.inputs[slot]?.link)

/** @param {any} node @param {string} name */
export const isLinked = (node, name) => Boolean(linkInto(node, node.findInputSlot(name)))

/** The node that stands for a subgraph in the graph around it. @param {any} graph */
function nodeAround(graph) {
  const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()]
  const nodes = graphs.flatMap((/** @type {any} */ g) => g.nodes)
  return nodes.find((node) => node.isSubgraphNode() && node.subgraph === graph)
}

/**
 * The widget that an input of a node gets its value from: its own, or that of the subgraph node
 * around it. Null where another node makes the value.
 *
 * @param {any} node
 * @param {string} name
 * @returns {any}
 */
export function widgetOf(node, name) {
  const link = linkInto(node, node.findInputSlot(name))
  if (!link) return node.widgets?.find((/** @type {any} */ widget) => widget.name === name)
  const outer = node.graph.getNodeById(link.origin_id) ? null : nodeAround(node.graph)
  const input = outer?.inputs[link.origin_slot]
  return input ? widgetOf(outer, input.widget?.name ?? input.name) : null
}

/**
 * As the frontend keys its outputs: the id, in a subgraph with the subgraph's before it.
 *
 * @param {any} node
 */
const locator = (node) =>
  node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`

/** @param {any} node */
const keyOf = (node) => `${app.rootGraph.id}/${locator(node)}`

/** @param {Record<string, string>} file */
const viewUrl = ({ filename, subfolder, type }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)

/**
 * The node that a link starts at, through reroutes and the borders of subgraphs.
 *
 * @param {any} graph
 * @param {any} link
 * @returns {any}
 */
function startOf(graph, link) {
  if (!link) return null
  const node = graph.getNodeById(link.origin_id)
  if (!node) {
    const outer = nodeAround(graph)
    return outer ? startOf(outer.graph, linkInto(outer, link.origin_slot)) : null
  }
  if (node.isSubgraphNode())
    return startOf(node.subgraph, node.subgraph.outputNode.slots[link.origin_slot].getLinks()[0])
  if (node.type === "Reroute") return startOf(graph, linkInto(node, 0))
  return node
}

/**
 * @param {any} node
 * @returns {string | null}
 */
function urlOf(node) {
  const isSample = node.type === "CoZSamplePicture"
  const name = widgetOf(node, isSample ? "picture" : "image")?.value
  if (node.mode !== 0 || typeof name !== "string") return null
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
  const start = startOf(node.graph, linkInto(node, node.findInputSlot("image")))
  if (!start) return null
  const url = urlOf(start)
  return { key: url ?? `${start.graph.id}/${start.id}`, url }
}

/**
 * The newest output of a node that the server still remembers: after a reload the page has none.
 *
 * @param {any} node
 * @returns {Promise<Saved | undefined>}
 */
async function remembered(node) {
  const answer = await api.fetchApi("/history?max_items=16")
  const runs = answer.ok ? Object.values(await answer.json()).reverse() : []
  for (const { prompt, outputs, meta } of runs) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== app.rootGraph.id) continue
    for (const [id, output] of Object.entries(outputs)) {
      // In a subgraph the ids of the nodes around it stand before, in either form.
      const shownOn = (meta[id]?.display_node ?? id).split(":").at(-1)
      if (output.coz_source && shownOn === String(node.id)) return output.coz_source[0]
    }
  }
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
  const output = app.nodeOutputs?.[locator(node)]?.coz_source?.[0]
  if (output && output.filename !== runs.get(id)?.saved.filename)
    runs.set(id, { saved: output, key: origin.key })
  const run = runs.get(id)
  if (run?.key === origin.key) return { url: viewUrl(run.saved), saved: run.saved }
  if (origin.url) return { url: origin.url }
  if (!run && !asked.has(id)) {
    asked.add(id)
    remembered(node).then((saved) => {
      if (saved && !runs.has(id)) runs.set(id, { saved, key: origin.key })
    })
  }
  return null
}

/** Forget a run's picture that the server no longer has. @param {any} node */
export function forgetRun(node) {
  const run = runs.get(keyOf(node))
  if (run) run.key = ""
}
