// @ts-check
import { redraw } from "./canvas.js"

/**
 * Put an element on a node as a widget that is neither saved nor sent with the prompt.
 *
 * @param {any} node
 * @param {string} name
 * @param {string} type
 * @param {HTMLElement} element
 * @param {object} options of the frontend's addDOMWidget
 */
export function showOnNode(node, name, type, element, options) {
  const widget = node.addDOMWidget(name, type, element, {
    serialize: false, // keeps it out of the prompt
    hideInPanel: true, // the frontend's side panel would show only its name
    ...options,
  })
  widget.serialize = false // keeps it out of the workflow
  return widget
}

/** @param {any} node @param {string} name of its widget */
export function removeWidget(node, name) {
  const widget = node.widgets?.find((/** @type {any} */ widget) => widget.name === name)
  if (!widget) return
  node.removeWidget(widget)
  redraw()
}
