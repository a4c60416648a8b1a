// @ts-check
// Links and values of the graph, through the borders of subgraphs.
import { app } from "../../scripts/app.js"

/** The graph of the workflow and those of its subgraphs. @returns {any[]} */
export const allGraphs = () => [app.rootGraph, ...app.rootGraph.subgraphs.values()]

/**
 * Not node.getInputLink: of a subgraph node that gives a link inside.
 *
 * @param {any} node
 * @param {string} name of an input
 */
const linkInto = (node, name) => slotLink(node, node.findInputSlot(name))

/** @param {any} node @param {number} slot */
const slotLink = (node, slot) => node.graph?.getLink(node.inputs[slot]?.link)

/** @param {any} node @param {string} name */
export const isLinked = (node, name) => Boolean(linkInto(node, name))

/** The node that stands for a subgraph in the graph around it. @param {any} graph */
function nodeAround(graph) {
  const nodes = allGraphs().flatMap(({ nodes }) => nodes)
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
  const link = linkInto(node, name)
  if (!link) return node.widgets?.find((/** @type {any} */ widget) => widget.name === name)
  const outer = node.graph.getNodeById(link.origin_id) ? null : nodeAround(node.graph)
  const input = outer?.inputs[link.origin_slot]
  return input ? widgetOf(outer, input.widget?.name ?? input.name) : null
}

/**
 * The node that feeds an input, beyond reroutes and the borders of subgraphs.
 *
 * @param {any} node
 * @param {string} input
 */
export const feederOf = (node, input) => startOf(node.graph, linkInto(node, input))

/**
 * @param {any} graph
 * @param {any} link
 * @returns {any}
 */
function startOf(graph, link) {
  if (!link) return null
  const node = graph.getNodeById(link.origin_id)
  if (!node) {
    const outer = nodeAround(graph)
    return outer ? startOf(outer.graph, slotLink(outer, link.origin_slot)) : null
  }
  if (node.isSubgraphNode())
    return startOf(node.subgraph, node.subgraph.outputNode.slots[link.origin_slot].getLinks()[0])
  if (node.type === "Reroute") return startOf(graph, slotLink(node, 0))
  return node
}

/** The input that sets a node's target in place of its two numbers. @param {any} node */
export const targetInput = (node) =>
  ["mask", "chain"].find((name) => isLinked(node, name)) ??
  ["center_x", "center_y"].find((name) => !widgetOf(node, name))

/** @param {any} node @param {number} x @param {number} y */
export function setTarget(node, x, y) {
  for (const [name, value] of Object.entries({ center_x: x, center_y: y })) {
    const widget = widgetOf(node, name)
    const inside = Math.min(Math.max(value, 0), 1)
    widget.callback?.(inside, app.canvas, node) // rounds to the widget's step
    widget.value = inside
  }
  app.canvas.setDirty(true, true)
}
