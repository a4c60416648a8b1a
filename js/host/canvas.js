// @ts-check
// Passes events on a widget to the graph under it.
import { app } from "../../../scripts/app.js"

/**
 * Pass wheel events and drags with the middle button to the graph. In the classic renderer the widget would
 * block both. In Nodes 2.0 the frontend itself passes the wheel on.
 *
 * @param {HTMLElement} root
 * @param {(event: WheelEvent) => boolean} [keeps]  Whether the widget itself uses a wheel event.
 */
export function forwardToGraph(root, keeps = () => false) {
  root.addEventListener("pointerdown", (event) => {
    if (event.button === 1) app.canvas.processMouseDown(event)
  })
  root.addEventListener("pointermove", (event) => {
    if (event.buttons & 4) app.canvas.processMouseMove(event)
  })
  root.addEventListener("pointerup", (event) => {
    if (event.button === 1) app.canvas.processMouseUp(event)
  })
  root.addEventListener("wheel", (event) => {
    if (!globalThis.LiteGraph.vueNodesMode && !keeps(event)) app.canvas.processMouseWheel(event)
  })
}

/** Whether a wheel event can scroll the element under the pointer. @param {WheelEvent} event */
export function canScroll({ currentTarget, deltaY }) {
  const { scrollHeight, clientHeight, scrollTop } = /** @type {Element} */ (currentTarget)
  return deltaY < 0 ? scrollTop > 0 : Math.ceil(scrollTop) < scrollHeight - clientHeight
}

/** Draw the graph again, with the present sizes of its widgets. */
export const redraw = () => app.canvas?.setDirty(true, true) // no canvas yet while a page loads

/** @param {DragEvent} event */
export const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files") ?? false

/**
 * Pass the files that are dropped onto an element to a node. In the classic renderer the canvas does
 * not see files that are dropped onto a widget.
 *
 * @param {HTMLElement} root
 * @param {() => any} findTaker  Returns the node. If there is none, or it takes no files, the page gets
 *   them.
 */
export function forwardFiles(root, findTaker) {
  for (const type of ["dragover", "drop"])
    root.addEventListener(type, (event) => {
      const drag = /** @type {DragEvent} */ (event)
      const taker = findTaker()
      if (!hasFiles(drag) || !taker?.onDragDrop) return
      event.preventDefault()
      event.stopPropagation()
      if (type === "drop") taker.onDragDrop(drag)
    })
}

/** Return the name of the renderer of nodes that is in use. */
export const nameRenderer = () => (globalThis.LiteGraph.vueNodesMode ? "Nodes 2.0" : "classic")
