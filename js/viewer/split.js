// @ts-check
// The line between plain enlargement, on its left, and the frames of the chain.
import { translate } from "./texts.js"

const START_SHARE = 0.5
const KEY_MOVE_SHARE = 0.02
const FAST_KEY_MOVE_SHARE = 0.1

export class Split {
  /** @param {import("./viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer
    /** Share of the view's width, from the left, that shows plain enlargement. */
    this.share = 0
    this.line = viewer.panel.split
    this.line.addEventListener("pointerdown", this.startDrag)
    this.line.addEventListener("pointermove", this.drag)
    this.line.addEventListener("keydown", this.handleKey)
    this.show()
  }

  toggle() {
    this.moveTo(this.share ? 0 : START_SHARE)
  }

  /** @param {number} share */
  moveTo(share) {
    this.share = Math.min(Math.max(share, 0), 1)
    this.show()
    this.viewer.saveView()
    this.viewer.requestDraw()
  }

  show() {
    const percent = Math.round(this.share * 100)
    const { line } = this
    line.style.left = `${this.share * 100}%`
    line.classList.toggle("parked", !this.share)
    line.setAttribute("aria-valuenow", String(percent))
    line.setAttribute("aria-valuetext", translate("splitPlace", { percent }))
    this.viewer.panel.buttons.split.setAttribute("aria-pressed", String(this.share > 0))
  }

  /**
   * Start a drag: note how far the line is from the pointer, so that it does not jump.
   *
   * @param {PointerEvent} event
   */
  startDrag = (event) => {
    if (event.button) return
    this.line.setPointerCapture(event.pointerId)
    this.dragOffset = this.share - this.computeShare(event)
  }

  /** @param {PointerEvent} event */
  drag = (event) => {
    if (this.line.hasPointerCapture(event.pointerId)) this.moveTo(this.computeShare(event) + this.dragOffset)
  }

  computeShare({ clientX }) {
    const { left, width } = this.viewer.panel.stage.getBoundingClientRect()
    return (clientX - left) / width
  }

  /** @param {KeyboardEvent} event */
  handleKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const move = event.shiftKey ? FAST_KEY_MOVE_SHARE : KEY_MOVE_SHARE
    const places = {
      ArrowLeft: this.share - move,
      ArrowRight: this.share + move,
      Home: 0,
      End: 1,
    }
    if (!(event.key in places)) return
    event.preventDefault()
    event.stopPropagation()
    this.moveTo(places[event.key])
  }
}
