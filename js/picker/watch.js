// @ts-check
// When to look at the graph again: no event of all frontends says that a widget or a link changed.
import { api } from "../../../scripts/api.js"

/** Milliseconds from an event after which something may have changed to the look. */
const SOON = 100
/** Milliseconds between looks without any event: scripts change graphs too. */
const SELDOM = 1000

/** @type {Set<() => void>} */
const looks = new Set()
/** @type {ReturnType<typeof setTimeout> | undefined} */
let soon
/** @type {ReturnType<typeof setInterval> | undefined} */
let seldom

function lookNow() {
  clearTimeout(soon)
  soon = undefined
  for (const look of looks) look()
}

/** Something may have changed. */
export function lookSoon() {
  if (looks.size) soon ??= setTimeout(lookNow, SOON)
}

for (const type of ["pointermove", "pointerup", "keydown", "keyup", "input", "change", "focus"])
  addEventListener(type, lookSoon, { capture: true, passive: true })
for (const type of ["executed", "status"]) api.addEventListener(type, lookSoon)

/** Calls `look` now and after every change, until `unwatch`. @param {() => void} look */
export function watch(look) {
  looks.add(look)
  seldom ??= setInterval(lookNow, SELDOM)
  look()
}

/** @param {() => void} look */
export function unwatch(look) {
  looks.delete(look)
  if (looks.size) return
  clearTimeout(soon)
  clearInterval(seldom)
  soon = seldom = undefined
}
