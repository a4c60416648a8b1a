// @ts-check
// Hides the widgets that a node does not read with the chosen backbone and prompting. Hidden widgets
// keep their place and value, and are still sent with the prompt.
import { redraw } from "./canvas.js"
import { listGraphs } from "./graph.js"
import { callAfter } from "./hook.js"

/** The option of `prompting` with which the user types the texts. nodes/text_sources defines it. */
const TEXT_PROMPTING = "text"

/**
 * Whether the subgraph node around a node shows this widget of the node.
 *
 * @param {any} node
 * @param {string} name
 */
const isPromoted = (node, name) =>
  listGraphs().some(({ nodes }) =>
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
export function hideUnreadInputs(node) {
  /** For each backbone, the inputs that it does not read. nodes/backbones/__init__.py lists them. */
  const unread = node.constructor.nodeData?.input?.required?.backbone?.[1].coz_unread
  const findOwnWidget = (/** @type {string} */ name) =>
    node.widgets?.find((/** @type {any} */ each) => each.name === name)
  if (!unread || !findOwnWidget("prompting")) return
  const isLinked = (/** @type {string} */ name) =>
    node.inputs.some((/** @type {any} */ input) => input.widget?.name === name && input.link != null)

  /** Widgets that were hidden here; other code hides widgets too. */
  const hidden = new Set()

  /** Hide and show widgets. Return whether any changed. */
  function update() {
    const isTyped = findOwnWidget("prompting").value === TEXT_PROMPTING
    const unneeded = isTyped ? (unread[findOwnWidget("backbone").value] ?? []) : []
    let changed = false
    for (const name of new Set(Object.values(unread).flat())) {
      const found = findOwnWidget(name)
      const hides = unneeded.includes(name) && !isLinked(name) && !isPromoted(node, name)
      if (!found || hidden.has(name) === hides) continue
      for (const each of [found, ...(found.linkedWidgets ?? [])]) {
        each.hidden = hides
        each.options.hidden = hides // read by Nodes 2.0 before frontend 1.58
      }
      if (hides) hidden.add(name)
      else hidden.delete(name)
      changed = true
    }
    // Nodes 2.0 before frontend 1.58 read the flags only when the list of widgets changes.
    if (changed) node.widgets.push(node.widgets.pop())
    return changed
  }

  function updateAndResize() {
    const before = node.computeSize()[1]
    if (!update()) return
    const needed = node.computeSize()[1]
    // Shrink the node by what was hidden, and grow it only where it is too small: a node that is being
    // loaded already has its saved height.
    const height = node.size[1] + Math.min(needed - before, 0)
    node.setSize([node.size[0], Math.max(height, needed)])
    redraw()
  }

  update()
  // The saved height fits the widgets that were shown when the node was saved, so it is not changed.
  callAfter(node, "onConfigure", update)
  callAfter(node, "onConnectionsChange", updateAndResize)
  for (const name of ["backbone", "prompting"]) callAfter(findOwnWidget(name), "callback", updateAndResize)
}
