// @ts-check
// Calls functions when the graph may have changed. Not all frontends have an event for a change of
// a widget or a link.
import { api } from "../../../scripts/api.js"

/** Delay of the check after an event that may have changed the graph. */
const CHECK_DELAY_MS = 100
/** Time between checks without an event, because scripts change graphs too. */
const POLL_MS = 1000

/** @type {Set<() => void>} */
const checks = new Set()
/** @type {ReturnType<typeof setTimeout> | undefined} */
let pendingTimer
/** @type {ReturnType<typeof setInterval> | undefined} */
let pollTimer

function runChecks() {
  clearTimeout(pendingTimer)
  pendingTimer = undefined
  for (const check of checks) check()
}

/** Run all checks soon. */
export function scheduleChecks() {
  if (checks.size) pendingTimer ??= setTimeout(runChecks, CHECK_DELAY_MS)
}

for (const type of ["pointermove", "pointerup", "keydown", "keyup", "input", "change", "focus"])
  addEventListener(type, scheduleChecks, { capture: true, passive: true })
for (const type of ["executed", "status"]) api.addEventListener(type, scheduleChecks)

/**
 * Call `check` now and whenever the graph may have changed, until `stopCalling`.
 *
 * @param {() => void} check
 */
export function callOnGraphChanges(check) {
  checks.add(check)
  pollTimer ??= setInterval(runChecks, POLL_MS)
  check()
}

/** @param {() => void} check */
export function stopCalling(check) {
  checks.delete(check)
  if (checks.size) return
  clearTimeout(pendingTimer)
  clearInterval(pollTimer)
  pendingTimer = pollTimer = undefined
}
