// @ts-check
import { leaveToGraph } from "../host/canvas.js"

/** Zoom of one notch of a mouse wheel (100 units), and of a pinch on a trackpad, per unit. */
const WHEEL = 0.0025
const PINCH = 0.01

const LINE = 16

/** A double click is two that lie this near, in pixels. */
const STEADY = 4

/**
 * @param {HTMLElement} root
 * @param {HTMLCanvasElement} canvas
 * @param {{zoom: (factor: number, x: number, y: number) => void,
 *   move: (dx: number, dy: number) => void, end: () => void, next: () => void,
 *   key: (event: KeyboardEvent) => boolean, release: (event: KeyboardEvent) => void,
 *   leave: () => void}} on  Points in pixels of the canvas; ``key``: whether it is ours.
 * @returns {() => void}  Gives the wheel and the touches back, as when the focus goes.
 */
export function listen(root, canvas, on) {
  const pointers = new Map()

  const pointOf = ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect() // the graph's own zoom is in it
    return {
      x: ((clientX - box.left) / box.width) * canvas.width,
      y: ((clientY - box.top) / box.height) * canvas.height,
    }
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return
    root.focus({ preventScroll: true })
    canvas.setPointerCapture(event.pointerId)
    if (event.isPrimary) pointers.clear() // no other one is down, whatever was missed
    pointers.set(event.pointerId, pointOf(event))
  })
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId)
    if (!before) return
    const now = pointOf(event)
    pointers.set(event.pointerId, now)
    if (pointers.size === 1) on.move(now.x - before.x, now.y - before.y)
    if (pointers.size !== 2) return
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1]
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y)
    on.move((now.x - before.x) / 2, (now.y - before.y) / 2)
    if (apart(before) && apart(now))
      on.zoom(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2)
  })
  for (const type of ["pointerup", "pointercancel", "lostpointercapture"])
    canvas.addEventListener(type, (event) => {
      if (pointers.delete(event.pointerId)) on.end()
    })

  let pressed = { x: 0, y: 0 }
  canvas.addEventListener("click", (event) => {
    const now = pointOf(event)
    const near = Math.hypot(now.x - pressed.x, now.y - pressed.y) <= STEADY
    pressed = now
    if (event.detail === 2 && near) on.next()
  })

  const wheel = (event) => {
    if (!isOurs(event)) return
    if (isOverText(event)) return event.stopPropagation()
    event.preventDefault()
    event.stopPropagation()
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE : 1
    const { x, y } = pointOf(event)
    on.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? PINCH : WHEEL)), x, y)
    on.end()
  }
  const touch = (event) => isOurs(event) && event.stopPropagation()
  const isOverText = (event) => {
    const prompt = event.composedPath().find(({ className }) => className === "prompt")
    return prompt?.scrollHeight > prompt?.clientHeight
  }
  const isOurs = (event) => event.composedPath().includes(root)
  const isButton = (event) => event.composedPath()[0] instanceof HTMLButtonElement

  // In front of everything else, as the graph would zoom with our pinches; and only with focus, so
  // that a wheel which crosses the node on its way over the graph stays the graph's.
  const first = { capture: true, passive: false }
  const early = { wheel, touchstart: touch, touchmove: touch, touchend: touch }
  const each = Object.entries(early)
  const take = () => each.forEach(([type, act]) => window.addEventListener(type, act, first))
  const letGo = () => each.forEach(([type, act]) => window.removeEventListener(type, act, first))
  root.addEventListener("focusin", take)
  root.addEventListener("focusout", letGo)
  root.addEventListener("focusout", on.leave)
  leaveToGraph(root, isOverText)

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if (event.key === " " && isButton(event)) return // Space presses it
    if (!on.key(event)) return
    event.preventDefault()
    event.stopPropagation()
  })
  root.addEventListener("keyup", on.release)
  // The classic renderer would drag the node, or the graph, under a finger on the viewer.
  for (const type of ["pointerdown", "pointermove", "pointerup", "mousedown", "dblclick"])
    root.addEventListener(type, (event) => {
      if (!(/** @type {MouseEvent} */ (event).button > 0)) event.stopPropagation()
    })
  return letGo
}
