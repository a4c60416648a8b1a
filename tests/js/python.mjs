// What coz/ computes for the same cases: tests/test_js.py writes it.
import assert from "node:assert/strict"
import { readFileSync } from "node:fs"

export const python = JSON.parse(readFileSync(process.env.COZ_ANSWERS, "utf8"))

/** Asserts that numbers, or lists of them, differ by no more than this much of themselves, or this much. */
export function assertNear(actual, expected, { relative = 1e-9, absolute = 0 } = {}) {
  const [all, wanted] = [[actual].flat(9), [expected].flat(9)]
  assert.equal(all.length, wanted.length)
  all.forEach((value, i) => {
    const allowed = Math.max(absolute, relative * Math.abs(wanted[i]))
    assert.ok(Math.abs(value - wanted[i]) <= allowed, `${value} at ${i}, not ${wanted[i]}`)
  })
}
