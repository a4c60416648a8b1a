// @ts-check
// What a widget of ours leaves to the graph under it.
import { app } from "../../../scripts/app.js"

/**
 * Hands the graph the wheel and a drag with the middle button. In the classic renderer the widget
 * hides the graph from both; Nodes 2.0 hand on the wheel themselves.
 *
 * @param {HTMLElement} root
 * @param {(event: WheelEvent) => boolean} [keeps]  Whether a wheel stays the widget's.
 */
export function leaveToGraph(root, keeps = () => false) {
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

/** Whether a wheel scrolls the element that it is over. @param {WheelEvent} event */
export function scrolls({ currentTarget, deltaY }) {
  const { scrollHeight, clientHeight, scrollTop } = /** @type {Element} */ (currentTarget)
  return deltaY < 0 ? scrollTop > 0 : Math.ceil(scrollTop) < scrollHeight - clientHeight
}

/** Draws the graph anew, with the sizes that its widgets have now. */
export const redraw = () => app.canvas?.setDirty(true, true) // no canvas yet while a page loads

/** @param {DragEvent} event */
export const holdsFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files") ?? false

/**
 * Hands a node the files that are dropped on an element. In the classic renderer a widget lies above
 * the canvas, which then does not see them.
 *
 * @param {HTMLElement} root
 * @param {() => any} takerOf  The node that takes them; the page does where it takes none.
 */
export function takeFiles(root, takerOf) {
  for (const type of ["dragover", "drop"])
    root.addEventListener(type, (event) => {
      const drag = /** @type {DragEvent} */ (event)
      const taker = takerOf()
      if (!holdsFiles(drag) || !taker?.onDragDrop) return
      event.preventDefault()
      event.stopPropagation()
      if (type === "drop") taker.onDragDrop(drag)
    })
}
