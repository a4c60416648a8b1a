// @ts-check
// The flight from the whole source to the deepest frame of a chain, in a loop or once.
import { interpolateView, smooth, fitView } from "./places.js"
import { translate } from "./texts.js"

/** Duration of the flight through one step of the chain. nodes/view/clip.py has the same. */
export const STEP_MS = 1500
/** Pause at both ends. nodes/view/clip.py has the same. */
export const REST_MS = 500

/** Views whose sizes differ by less than this ratio count as equal. */
const SAME_SIZE_RATIO = 1.001

/** A viewer flies by itself only if at least this share of it is on the screen. */
const MIN_VISIBLE_SHARE = 0.5

export const isMotionReduced = () => matchMedia("(prefers-reduced-motion: reduce)").matches

/** @typedef {import("./viewer.js").Viewer} Viewer */

/** Return the first view, the last view and the milliseconds between them. @param {Viewer} viewer */
function planRoute({ layers, size, shown }) {
  const from = fitView(layers[0], size)
  const to = fitView(layers.at(-1), size)
  const steps = Math.log(from.span / to.span) / Math.log(shown.chain.record.scale)
  return { from, to, time: steps * STEP_MS }
}

/** Whether the last view differs from the first. @param {Viewer} viewer */
export function canPlay(viewer) {
  const { from, to } = planRoute(viewer)
  return from.span / to.span > SAME_SIZE_RATIO
}

/** A flight through the whole chain. If the chain or the size changes, its ends change with them. */
export class Play {
  /** @param {Viewer} viewer @param {{repeats: boolean}} how */
  constructor(viewer, { repeats }) {
    this.viewer = viewer
    this.repeats = repeats
    this.start = performance.now()
  }

  computeView() {
    const { from, to, time } = planRoute(this.viewer)
    const round = time + 2 * REST_MS
    const passed = performance.now() - this.start
    const isOver = !this.repeats && passed >= round
    const t = isOver ? 1 : Math.min(Math.max(((passed % round) - REST_MS) / time, 0), 1)
    const view = t < 1 ? interpolateView(from, to, smooth(t)) : to
    return { view: isMotionReduced() ? this.findLastPassedView(view) : view, isOver }
  }

  /** Return the view of the whole layer that the flight passed last. */
  findLastPassedView(view) {
    const { layers, size } = this.viewer
    const wholes = layers.map((layer) => fitView(layer, size))
    return wholes.findLast(({ span }) => span * SAME_SIZE_RATIO >= view.span) ?? wholes[0]
  }
}

/** Start or stop the flight in a loop. @param {Viewer} viewer */
export function togglePlay(viewer) {
  if (viewer.flight instanceof Play) {
    viewer.jumpTo(viewer.view)
    viewer.saveView()
  } else if (canPlay(viewer)) {
    viewer.retry()
    viewer.flight = new Play(viewer, { repeats: true })
    viewer.requestDraw()
  } else viewer.showMessage(translate("oneFrame"))
}

/** Fly once, if the viewer is visible, at rest and shows the whole source. @param {Viewer} viewer */
export function playOnce(viewer) {
  if (document.hidden || isMotionReduced() || !canPlay(viewer)) return
  const { shown } = viewer
  const observer = new IntersectionObserver(([{ intersectionRatio }]) => {
    observer.disconnect()
    const isWhole =
      viewer.shown === shown && viewer.view?.span * SAME_SIZE_RATIO >= planRoute(viewer).from.span
    if (intersectionRatio < MIN_VISIBLE_SHARE || !isWhole || viewer.flight) return
    viewer.flight = new Play(viewer, { repeats: false })
    viewer.requestDraw()
  })
  observer.observe(viewer.panel.stage)
}
