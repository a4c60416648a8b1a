// @ts-check
// Links and values of the graph, through the borders of subgraphs.
import { app } from "../../../scripts/app.js"
import { redraw } from "./canvas.js"

/** The graph of the workflow and those of its subgraphs. @returns {any[]} */
export const allGraphs = () => [app.rootGraph, ...app.rootGraph.subgraphs.values()]

/** @param {string} path such as "12:5": node 5 in the subgraph of node 12 */
export function nodeAt(path) {
  const ids = path.split(":")
  const id = ids.pop()
  const graph = ids.reduce((around, outer) => around?.getNodeById(outer)?.subgraph, app.rootGraph)
  return graph?.getNodeById(id)
}

export const workflowId = () => app.rootGraph.id

/**
 * Not node.getInputLink: of a subgraph node that gives a link inside.
 *
 * @param {any} node
 * @param {string} name of an input
 */
const linkInto = (node, name) => slotLink(node, node.findInputSlot(name))

/** @param {any} node @param {number} slot */
const slotLink = (node, slot) => node.graph?.getLink(node.inputs[slot]?.link)

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
  const own = node.widgets?.find((/** @type {any} */ widget) => widget.name === name)
  const link = linkInto(node, name)
  if (!link) return own
  if (node.graph.getNodeById(link.origin_id)) return feederOf(node, name) ? null : own
  const outer = nodeAround(node.graph)
  const input = outer?.inputs[link.origin_slot]
  return input ? widgetOf(outer, input.widget?.name ?? input.name) : null
}

/**
 * The node that feeds an input of a run, beyond reroutes, bypassed nodes and the borders of
 * subgraphs; null where nothing comes.
 *
 * @param {any} node
 * @param {string} name of an input
 */
export const feederOf = (node, name) =>
  startOf(node.graph, linkInto(node, name), node.inputs[node.findInputSlot(name)]?.type)

const MUTED = 2
const BYPASSED = 4

/**
 * @param {any} graph
 * @param {any} link
 * @param {string} type that the fed input takes
 * @returns {any}
 */
function startOf(graph, link, type) {
  if (!link) return null
  const node = graph.getNodeById(link.origin_id)
  if (!node) {
    const outer = nodeAround(graph)
    return outer ? startOf(outer.graph, slotLink(outer, link.origin_slot), type) : null
  }
  if (node.mode === MUTED) return null
  if (node.mode === BYPASSED) return startOf(graph, passedLink(node, link.origin_slot, type), type)
  if (node.isSubgraphNode()) {
    const output = node.subgraph.outputNode.slots[link.origin_slot]
    return startOf(node.subgraph, output.getLinks()[0], type)
  }
  if (node.type === "Reroute") return startOf(graph, slotLink(node, 0), type)
  return node
}

/**
 * The link that a bypassed node passes on, chosen as the frontend's ExecutableNodeDTO does.
 *
 * @param {any} node
 * @param {number} output
 * @param {string} type
 */
function passedLink({ graph, inputs }, output, type) {
  const same = inputs.filter((/** @type {any} */ input) => input.type === type)
  const passed = [inputs[output], ...same, ...inputs].find(
    (input) => input && globalThis.LiteGraph.isValidConnection(input.type, type),
  )
  return graph.getLink(passed?.link)
}

/** The input that sets a node's target in place of its two numbers. @param {any} node */
export const targetInput = (node) =>
  ["mask", "chain"].find((name) => feederOf(node, name)) ??
  ["center_x", "center_y"].find((name) => !widgetOf(node, name))

/** Chooses a value of a combo, as a click on it does. @param {any} node @param {string} name @param {string} value */
export function choose(node, name, value) {
  const widget = widgetOf(node, name)
  if (!widget) return
  const { values } = widget.options
  if (Array.isArray(values) && !values.includes(value)) values.push(value)
  app.canvas.emitBeforeChange()
  widget.value = value
  widget.callback?.(value, app.canvas, node)
  app.canvas.emitAfterChange()
  redraw()
}

/** So that Ctrl+Z goes back to here. */
function remember() {
  app.canvas.emitBeforeChange()
  app.canvas.emitAfterChange()
}

/**
 * Sets a node's target, at once and between two states to go back to: newer frontends count what
 * changes soon after a state as a part of it.
 *
 * @param {any} node
 * @param {{x: number, y: number}} target
 */
export function setTarget(node, target) {
  remember()
  for (const [name, value] of [["center_x", target.x], ["center_y", target.y]]) {
    const widget = widgetOf(node, name)
    widget.callback?.(value, app.canvas, node) // rounds to the widget's step
    widget.value = value
  }
  remember()
  redraw()
}
