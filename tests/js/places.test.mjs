import assert from "node:assert/strict"
import test from "node:test"

import { FEATHER_SHARE } from "../../js/viewer/draw.js"
import {
  FADE_SHARE,
  placeLayers,
  limitView,
  computeOpacity,
  computePlace,
  smooth,
  fitView,
  zoomView,
} from "../../js/viewer/places.js"
import { assertNear, python } from "./python.mjs"

const SIZE = { width: 600, height: 400 }

test("layers lie where the chain's windows are", () => {
  for (const { record, windows, magnifications } of python.places) {
    const layers = placeLayers(record)
    layers.forEach((layer, i) => {
      const { x, y, kx, ky } = layers[Math.max(i - 1, 0)]
      const sides = [(layer.width * layer.kx) / kx, (layer.height * layer.ky) / ky]
      assertNear([(layer.x - x) / kx, (layer.y - y) / ky, ...sides], windows[i], { absolute: 1e-9 })
      assertNear(layer.factors, magnifications[i])
    })
  }
})

test("zooming in and out again leads back to the same place", () => {
  for (const layers of python.places.map(({ record }) => placeLayers(record)))
    for (const layer of layers) {
      const whole = fitView(layer, SIZE)
      let view = whole
      for (const factor of [1.07, 1.31, 1.02, 1 / 1.07, 1 / 1.31, 1 / 1.02])
        view = zoomView(layers, view, SIZE, factor, 290, 190)
      if (limitView(layers, whole, SIZE).span !== whole.span) continue
      const { left } = computePlace(layer, limitView(layers, view, SIZE), SIZE)
      assertNear(left, computePlace(layer, whole, SIZE).left, { absolute: 1e-6 }) // pixels of the screen
    }
})

test("layers fade in as in the video", () => {
  const { record, views, weights, feather, fade, times, eased } = python.fade
  const layers = placeLayers(record)
  const size = { width: 400, height: 400 }
  assert.deepEqual([FEATHER_SHARE, FADE_SHARE], [feather, fade])
  assertNear(times.map(smooth), eased)
  const opacities = views.map((view) =>
    layers.slice(1).map((_, i) => computeOpacity(layers, i + 1, view, size)),
  )
  assertNear(opacities, weights, { absolute: 1e-6 })
})
