// @ts-check
// Turns pointer, wheel, touch and key events into actions of the viewer.
import { forwardToGraph } from "../host/canvas.js"

/** Logarithm of the zoom for each unit of a mouse wheel; a notch has 100 units. */
const WHEEL_ZOOM = 0.0025
/** Logarithm of the zoom for each unit of a pinch on a trackpad. */
const PINCH_ZOOM = 0.01

/** Wheel units of one line, for wheels that count in lines. */
const LINE_PX = 16

/** Largest distance between the two clicks of a double click, in pixels of the canvas. */
const MAX_DOUBLE_CLICK_PX = 4

/**
 * Turn pointer, wheel, touch and key events into actions of the viewer.
 *
 * @param {HTMLElement} root
 * @param {HTMLCanvasElement} canvas
 * @param {{zoom: (factor: number, x: number, y: number) => void,
 *   move: (dx: number, dy: number) => void, end: () => void, next: () => void,
 *   key: (event: KeyboardEvent) => boolean, release: (event: KeyboardEvent) => void,
 *   leave: () => void}} on  Points are in pixels of the canvas. ``key`` returns whether it used the key.
 * @returns {() => void}  Removes the listeners for wheel and touch.
 */
export function listenToGestures(root, canvas, on) {
  const pointers = new Map()

  const toCanvasPoint = ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect() // includes the zoom of the graph
    return {
      x: ((clientX - box.left) / box.width) * canvas.width,
      y: ((clientY - box.top) / box.height) * canvas.height,
    }
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return
    root.focus({ preventScroll: true })
    canvas.setPointerCapture(event.pointerId)
    if (event.isPrimary) pointers.clear() // no other pointer is down, even if its release was missed
    pointers.set(event.pointerId, toCanvasPoint(event))
  })
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId)
    if (!before) return
    const now = toCanvasPoint(event)
    pointers.set(event.pointerId, now)
    if (pointers.size === 1) on.move(now.x - before.x, now.y - before.y)
    if (pointers.size !== 2) return
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1]
    const measureDistance = (point) => Math.hypot(point.x - other.x, point.y - other.y)
    on.move((now.x - before.x) / 2, (now.y - before.y) / 2)
    if (measureDistance(before) && measureDistance(now))
      on.zoom(measureDistance(now) / measureDistance(before), (now.x + other.x) / 2, (now.y + other.y) / 2)
  })
  for (const type of ["pointerup", "pointercancel", "lostpointercapture"])
    canvas.addEventListener(type, (event) => {
      if (pointers.delete(event.pointerId)) on.end()
    })

  let pressed = { x: 0, y: 0 }
  canvas.addEventListener("click", (event) => {
    const now = toCanvasPoint(event)
    const near = Math.hypot(now.x - pressed.x, now.y - pressed.y) <= MAX_DOUBLE_CLICK_PX
    pressed = now
    if (event.detail === 2 && near) on.next()
  })

  const handleWheel = (event) => {
    if (!isOnViewer(event)) return
    if (isOverText(event)) return event.stopPropagation()
    event.preventDefault()
    event.stopPropagation()
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1
    const { x, y } = toCanvasPoint(event)
    on.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? PINCH_ZOOM : WHEEL_ZOOM)), x, y)
    on.end()
  }
  const handleTouch = (event) => isOnViewer(event) && event.stopPropagation()
  const isOverText = (event) => {
    const prompt = event.composedPath().find(({ className }) => className === "prompt")
    return prompt?.scrollHeight > prompt?.clientHeight
  }
  const isOnViewer = (event) => event.composedPath().includes(root)
  const isButton = (event) => event.composedPath()[0] instanceof HTMLButtonElement

  // These listeners run before all others, because the graph would zoom with a pinch on the viewer too.
  // They run only while the viewer has the focus: otherwise the wheel zooms the graph.
  const options = { capture: true, passive: false }
  const handlers = {
    wheel: handleWheel,
    touchstart: handleTouch,
    touchmove: handleTouch,
    touchend: handleTouch,
  }
  const entries = Object.entries(handlers)
  const addListeners = () => entries.forEach(([type, act]) => window.addEventListener(type, act, options))
  const removeListeners = () =>
    entries.forEach(([type, act]) => window.removeEventListener(type, act, options))
  root.addEventListener("focusin", addListeners)
  root.addEventListener("focusout", removeListeners)
  root.addEventListener("focusout", on.leave)
  forwardToGraph(root, isOverText)

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if (event.key === " " && isButton(event)) return // Space presses the button
    if (!on.key(event)) return
    event.preventDefault()
    event.stopPropagation()
  })
  root.addEventListener("keyup", on.release)
  // In the classic renderer a drag on the viewer would also drag the node or the graph.
  for (const type of ["pointerdown", "pointermove", "pointerup", "mousedown", "dblclick"])
    root.addEventListener(type, (event) => {
      if (!(/** @type {MouseEvent} */ (event).button > 0)) event.stopPropagation()
    })
  return removeListeners
}
