// @ts-check
// The line that parts plain enlargement, on its left, from the frames of the chain.
import { text } from "./texts.js"

const MIDDLE = 0.5
const KEY_MOVE = 0.02
const FAST_KEY_MOVE = 0.1

export class Split {
  /** @param {import("./viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer
    /** Share of the view, from the left, that shows plain enlargement. */
    this.place = 0
    this.line = viewer.panel.split
    this.line.addEventListener("pointerdown", this.take)
    this.line.addEventListener("pointermove", this.drag)
    this.line.addEventListener("keydown", this.key)
    this.show()
  }

  toggle() {
    this.moveTo(this.place ? 0 : MIDDLE)
  }

  /** @param {number} place */
  moveTo(place) {
    this.place = Math.min(Math.max(place, 0), 1)
    this.show()
    this.viewer.remember()
    this.viewer.request()
  }

  show() {
    const percent = Math.round(this.place * 100)
    const { line } = this
    line.style.left = `${this.place * 100}%`
    line.classList.toggle("parked", !this.place)
    line.setAttribute("aria-valuenow", String(percent))
    line.setAttribute("aria-valuetext", text("splitPlace", { percent }))
    this.viewer.panel.buttons.split.setAttribute("aria-pressed", String(this.place > 0))
  }

  /** Where the pointer took the line is where it stays under it. @param {PointerEvent} event */
  take = (event) => {
    if (event.button) return
    this.line.setPointerCapture(event.pointerId)
    this.apart = this.place - this.placeOf(event)
  }

  /** @param {PointerEvent} event */
  drag = (event) => {
    if (this.line.hasPointerCapture(event.pointerId)) this.moveTo(this.placeOf(event) + this.apart)
  }

  placeOf({ clientX }) {
    const { left, width } = this.viewer.panel.stage.getBoundingClientRect()
    return (clientX - left) / width
  }

  /** @param {KeyboardEvent} event */
  key = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const move = event.shiftKey ? FAST_KEY_MOVE : KEY_MOVE
    const places = {
      ArrowLeft: this.place - move,
      ArrowRight: this.place + move,
      Home: 0,
      End: 1,
    }
    if (!(event.key in places)) return
    event.preventDefault()
    event.stopPropagation()
    this.moveTo(places[event.key])
  }
}
