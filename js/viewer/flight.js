// @ts-check
import { interpolateView, smooth } from "./places.js"

/** Duration of a flight over a factor of 4. */
const STEP_MS = 450
/** Maximum duration of a flight. */
const MAX_FLIGHT_MS = 2500

/** A flight from one view to another that starts now. */
export class Flight {
  constructor(from, to) {
    this.from = from
    this.to = to
    this.start = performance.now()
    const steps = Math.abs(Math.log(from.span / to.span)) / Math.log(4)
    this.duration = Math.min(STEP_MS * Math.max(steps, 0.5), MAX_FLIGHT_MS)
  }

  /** Return the view at this moment; at the end it is exactly `to`. */
  computeView() {
    const t = Math.max((performance.now() - this.start) / this.duration, 0)
    const isOver = t >= 1
    return { view: isOver ? this.to : interpolateView(this.from, this.to, smooth(t)), isOver }
  }
}
