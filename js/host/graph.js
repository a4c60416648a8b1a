// @ts-check
// Finds links and values in the graph, across the borders of subgraphs.
import { app } from "../../../scripts/app.js"
import { redraw } from "./canvas.js"

/** Return the graph of the workflow and those of its subgraphs. @returns {any[]} */
export const listGraphs = () => [app.rootGraph, ...app.rootGraph.subgraphs.values()]

/** @param {string} path such as "12:5": node 5 in the subgraph of node 12 */
export function findNode(path) {
  const ids = path.split(":")
  const id = ids.pop()
  const graph = ids.reduce((around, outer) => around?.getNodeById(outer)?.subgraph, app.rootGraph)
  return graph?.getNodeById(id)
}

export const getWorkflowId = () => app.rootGraph.id

/**
 * Return the link into an input. For a subgraph node, node.getInputLink would return a link inside the
 * subgraph instead.
 *
 * @param {any} node
 * @param {string} name of an input
 */
const getLinkInto = (node, name) => getSlotLink(node, node.findInputSlot(name))

/** @param {any} node @param {number} slot */
const getSlotLink = (node, slot) => node.graph?.getLink(node.inputs[slot]?.link)

/** Return the node that stands for a subgraph in the outer graph. @param {any} graph */
function findSubgraphNode(graph) {
  const nodes = listGraphs().flatMap(({ nodes }) => nodes)
  return nodes.find((node) => node.isSubgraphNode() && node.subgraph === graph)
}

/**
 * Return the widget that gives an input its value: the node's own, or one of the subgraph node around
 * it. Return null where another node computes the value.
 *
 * @param {any} node
 * @param {string} name
 * @returns {any}
 */
export function findWidget(node, name) {
  const own = node.widgets?.find((/** @type {any} */ widget) => widget.name === name)
  const link = getLinkInto(node, name)
  if (!link) return own
  if (node.graph.getNodeById(link.origin_id)) return findLinkedNode(node, name) ? null : own
  const outer = findSubgraphNode(node.graph)
  const input = outer?.inputs[link.origin_slot]
  return input ? findWidget(outer, input.widget?.name ?? input.name) : null
}

/**
 * Return the node whose output an input gets in a run, behind reroutes, bypassed nodes and the borders
 * of subgraphs. Return null where there is none.
 *
 * @param {any} node
 * @param {string} name of an input
 */
export const findLinkedNode = (node, name) =>
  findStart(node.graph, getLinkInto(node, name), node.inputs[node.findInputSlot(name)]?.type)

const MUTED = 2
const BYPASSED = 4

/**
 * Follow a link back to the node whose output it gets in a run, as findLinkedNode does.
 *
 * @param {any} graph
 * @param {any} link
 * @param {string} type of the input
 * @returns {any}
 */
function findStart(graph, link, type) {
  if (!link) return null
  const node = graph.getNodeById(link.origin_id)
  if (!node) {
    const outer = findSubgraphNode(graph)
    return outer ? findStart(outer.graph, getSlotLink(outer, link.origin_slot), type) : null
  }
  if (node.mode === MUTED) return null
  if (node.mode === BYPASSED) return findStart(graph, findPassedLink(node, link.origin_slot, type), type)
  if (node.isSubgraphNode()) {
    const output = node.subgraph.outputNode.slots[link.origin_slot]
    return findStart(node.subgraph, output.getLinks()[0], type)
  }
  if (node.type === "Reroute") return findStart(graph, getSlotLink(node, 0), type)
  return node
}

/**
 * Return the link that a bypassed node passes on, as the frontend's ExecutableNodeDTO chooses it.
 *
 * @param {any} node
 * @param {number} output
 * @param {string} type
 */
function findPassedLink({ graph, inputs }, output, type) {
  const same = inputs.filter((/** @type {any} */ input) => input.type === type)
  const passed = [inputs[output], ...same, ...inputs].find(
    (input) => input && globalThis.LiteGraph.isValidConnection(input.type, type),
  )
  return graph.getLink(passed?.link)
}

/**
 * Return the input through which another node sets a node's target: mask, chain, or a linked center_x or
 * center_y.
 *
 * @param {any} node
 */
export const findTargetInput = (node) =>
  ["mask", "chain"].find((name) => findLinkedNode(node, name)) ??
  ["center_x", "center_y"].find((name) => !findWidget(node, name))

/**
 * Choose a value of a combo, as a click on it does.
 *
 * @param {any} node
 * @param {string} name
 * @param {string} value
 */
export function chooseValue(node, name, value) {
  const widget = findWidget(node, name)
  if (!widget) return
  const { values } = widget.options
  if (Array.isArray(values) && !values.includes(value)) values.push(value)
  app.canvas.emitBeforeChange()
  widget.value = value
  widget.callback?.(value, app.canvas, node)
  app.canvas.emitAfterChange()
  redraw()
}

/** Let Ctrl+Z return to the present state. */
function markUndoPoint() {
  app.canvas.emitBeforeChange()
  app.canvas.emitAfterChange()
}

/**
 * Set a node's target as one change that Ctrl+Z undoes. Undo points are set before and after the change,
 * because newer frontends add a change to an undo point that was set shortly before.
 *
 * @param {any} node
 * @param {{x: number, y: number}} target
 */
export function setTarget(node, target) {
  markUndoPoint()
  for (const [name, value] of [["center_x", target.x], ["center_y", target.y]]) {
    const widget = findWidget(node, name)
    widget.callback?.(value, app.canvas, node) // rounds to the widget's step
    widget.value = value
  }
  markUndoPoint()
  redraw()
}
