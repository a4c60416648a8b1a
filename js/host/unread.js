// @ts-check
// Hides what a node does not read with the backbone and the prompting that are chosen: hidden
// widgets keep their place, their value and their part in the prompt.
import { redraw } from "./canvas.js"
import { allGraphs } from "./graph.js"
import { after } from "./hook.js"

/** The value of prompting where no model writes texts: nodes/text_sources. */
const TYPED = "text"

/** Whether a subgraph's node shows a widget of a node inside. @param {any} node @param {string} name */
const isPromoted = (node, name) =>
  allGraphs().some(({ nodes }) =>
    nodes.some(
      (/** @type {any} */ outer) =>
        outer.isSubgraphNode() &&
        outer.subgraph === node.graph &&
        outer.properties?.proxyWidgets?.some(
          (/** @type {[string, string]} */ [id, widget]) => id === String(node.id) && widget === name,
        ),
    ),
  )

/** @param {any} node */
export function hideUnread(node) {
  /** By backbone, the inputs that it does not read: nodes/backbones/__init__.py. */
  const unread = node.constructor.nodeData?.input?.required?.backbone?.[1].coz_unread
  const widget = (/** @type {string} */ name) =>
    node.widgets?.find((/** @type {any} */ each) => each.name === name)
  if (!unread || !widget("prompting")) return
  const isLinked = (/** @type {string} */ name) =>
    node.inputs.some((/** @type {any} */ input) => input.widget?.name === name && input.link != null)

  /** What this has hidden: others hide widgets too. */
  const hidden = new Set()

  /** Hides and shows what changed, and says whether anything did. */
  function update() {
    const isTyped = widget("prompting").value === TYPED
    const unneeded = isTyped ? (unread[widget("backbone").value] ?? []) : []
    let changed = false
    for (const name of new Set(Object.values(unread).flat())) {
      const found = widget(name)
      const hides = unneeded.includes(name) && !isLinked(name) && !isPromoted(node, name)
      if (!found || hidden.has(name) === hides) continue
      for (const each of [found, ...(found.linkedWidgets ?? [])]) {
        each.hidden = hides
        each.options.hidden = hides // Nodes 2.0 before 1.58 read this one
      }
      if (hides) hidden.add(name)
      else hidden.delete(name)
      changed = true
    }
    // Nodes 2.0 before 1.58 look at the flags only when the list of widgets changes.
    if (changed) node.widgets.push(node.widgets.pop())
    return changed
  }

  function look() {
    const before = node.computeSize()[1]
    if (!update()) return
    const needed = node.computeSize()[1]
    // Never more than is needed: a node that is being loaded has its saved height already.
    const height = node.size[1] + Math.min(needed - before, 0)
    node.setSize([node.size[0], Math.max(height, needed)])
    redraw()
  }

  update()
  // Its saved height is that of the widgets that it showed when it was saved.
  after(node, "onConfigure", update)
  after(node, "onConnectionsChange", look)
  for (const name of ["backbone", "prompting"]) after(widget(name), "callback", look)
}
