// @ts-check
// The flight from the first picture of a chain to the deepest, again and again or once.
import { between, smooth, wholeOf } from "./places.js"
import { text } from "./texts.js"

/** Milliseconds for one step of the chain, and of rest at both ends: nodes/view/clip.py has the same. */
export const STEP = 1500
export const REST = 500

/** Views nearer in size than this are one. */
const SAME = 1.001

/** A viewer flies by itself where this share of it is on the screen. */
const ON_SCREEN = 0.5

export const isMotionReduced = () => matchMedia("(prefers-reduced-motion: reduce)").matches

/** @typedef {import("./viewer.js").Viewer} Viewer */

/** First and last view, and milliseconds between them. @param {Viewer} viewer */
function routeOf({ layers, size, shown }) {
  const from = wholeOf(layers[0], size)
  const to = wholeOf(layers.at(-1), size)
  const steps = Math.log(from.span / to.span) / Math.log(shown.chain.record.scale)
  return { from, to, time: steps * STEP }
}

/** Whether the last view differs from the first. @param {Viewer} viewer */
export function canPlay(viewer) {
  const { from, to } = routeOf(viewer)
  return from.span / to.span > SAME
}

/** A flight whose ends follow the chain and the size of the view. */
export class Play {
  /** @param {Viewer} viewer @param {{repeats: boolean}} how */
  constructor(viewer, { repeats }) {
    this.viewer = viewer
    this.repeats = repeats
    this.start = performance.now()
  }

  now() {
    const { from, to, time } = routeOf(this.viewer)
    const round = time + 2 * REST
    const passed = performance.now() - this.start
    const isOver = !this.repeats && passed >= round
    const t = isOver ? 1 : Math.min(Math.max(((passed % round) - REST) / time, 0), 1)
    const view = t < 1 ? between(from, to, smooth(t)) : to
    return { view: isMotionReduced() ? this.wholeBefore(view) : view, isOver }
  }

  /** The last of the whole layers that the flight has passed. */
  wholeBefore(view) {
    const { layers, size } = this.viewer
    const wholes = layers.map((layer) => wholeOf(layer, size))
    return wholes.findLast(({ span }) => span * SAME >= view.span) ?? wholes[0]
  }
}

/** Starts to play, or stops. @param {Viewer} viewer */
export function togglePlay(viewer) {
  if (viewer.flight instanceof Play) {
    viewer.go(viewer.view)
    viewer.remember()
  } else if (canPlay(viewer)) {
    viewer.retry()
    viewer.flight = new Play(viewer, { repeats: true })
    viewer.request()
  } else viewer.say(text("oneFrame"))
}

/** Flies once, if the reader sees the whole picture and nothing moves. @param {Viewer} viewer */
export function playOnce(viewer) {
  if (document.hidden || isMotionReduced() || !canPlay(viewer)) return
  const { shown } = viewer
  const observer = new IntersectionObserver(([{ intersectionRatio }]) => {
    observer.disconnect()
    const isWhole = viewer.shown === shown && viewer.view?.span * SAME >= routeOf(viewer).from.span
    if (intersectionRatio < ON_SCREEN || !isWhole || viewer.flight) return
    viewer.flight = new Play(viewer, { repeats: false })
    viewer.request()
  })
  observer.observe(viewer.panel.stage)
}
