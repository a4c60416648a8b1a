// @ts-check
import { between, smooth } from "./places.js"

/** Milliseconds: over a step of 4x, and the longest. */
const STEP = 450
const LONGEST = 2500

/** The way from one view to another, from now on. */
export class Flight {
  constructor(from, to) {
    this.from = from
    this.to = to
    this.start = performance.now()
    const steps = Math.abs(Math.log(from.span / to.span)) / Math.log(4)
    this.duration = Math.min(STEP * Math.max(steps, 0.5), LONGEST)
  }

  /** The view by now; `to` itself at the end. */
  now() {
    const t = Math.max((performance.now() - this.start) / this.duration, 0)
    const isOver = t >= 1
    return { view: isOver ? this.to : between(this.from, this.to, smooth(t)), isOver }
  }
}
