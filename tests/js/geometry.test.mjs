import assert from "node:assert/strict"
import test from "node:test"

import { formatFactors, formatFactor } from "../../js/factors.js"
import {
  formatFactorBetween,
  placeFirstFrame,
  mapToSource,
  planWindows,
  placeWindow,
} from "../../js/picker/geometry.js"
import { listScales } from "../../js/viewer/panel.js"
import { placeLayers } from "../../js/viewer/places.js"
import { python } from "./python.mjs"

const flat = ({ x, y, width, height }) => [x, y, width, height]

test("the picker draws the windows that are cut", () => {
  for (const { height, width, size, frame, scale, steps, target, answer } of python.windows) {
    const first = placeFirstFrame(height, width, size, frame, target)
    assert.deepEqual(
      [
        [first.height, first.width, first.target.x, first.target.y],
        flat(placeWindow(height, width, scale, target)),
        ...planWindows(first, scale, steps).map(flat),
      ],
      answer,
    )
  }
})

test("the drawn windows lie in the source where the chain has them", () => {
  const { height, width, target, windows, names } = python.source
  const first = placeFirstFrame(height, width, 64, "native pixels", target)
  const regions = mapToSource(first, planWindows(first, 2.7, 5))
  assert.deepEqual(regions.map(flat), windows)
  assert.deepEqual(regions.map((region) => formatFactorBetween(regions[0], region)), names)
})

test("factors are written as the server writes them", () => {
  for (const [factor, text] of python.factors) {
    assert.equal(formatFactor(factor), text)
    assert.equal(formatFactors([factor, factor]), text)
  }
})

test("a step has the same name on the scale bar, in the picker and on the strip", () => {
  for (const { record, name } of python.names) {
    const [, , width, height] = record.windows[1]
    assert.equal(listScales(placeLayers(record), 1)[1].name, name)
    assert.equal(formatFactorBetween({ width: 64, height: 64 }, { width, height }), name)
  }
})
