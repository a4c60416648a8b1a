// @ts-check
// What the user can do where the chain did not zoom in: go back to the chain, or start a new one there.
import { findLinkedNode, setTarget, findTargetInput } from "../host/graph.js"
import * as places from "./places.js"
import { translate } from "./texts.js"

/** A frame looks blurred where the side of one of its pixels covers at least this many CSS pixels. */
const MIN_BLURRED_PIXEL_SIDE_PX = 3

/** @typedef {import("./viewer.js").Viewer} Viewer */

/** Return the deepest layer that is at least partly in view. @param {Viewer} viewer */
const findDeepestVisible = ({ layers, view, size }) =>
  layers.findLastIndex((layer) => places.isSeen(places.computePlace(layer, view, size), size))

/**
 * Whether the view shows a blurred part of a frame and nothing of the next frame.
 *
 * @param {Viewer} viewer
 */
export function isOutsideChain(viewer) {
  const layer = findDeepestVisible(viewer)
  const { layers, view, size } = viewer
  if (layer === layers.length - 1) return false
  const { sx, sy } = places.computePlace(layers[layer], view, size)
  return Math.max(sx, sy) >= MIN_BLURRED_PIXEL_SIDE_PX * devicePixelRatio
}

/** Fly to the next frame of the chain, which is out of view. @param {Viewer} viewer */
export const flyToChain = (viewer) => viewer.flyTo(findDeepestVisible(viewer) + 1)

/** Set the target of the connected Chain Loop to the middle of the view. @param {Viewer} viewer */
export function setLoopTarget(viewer) {
  const loop = findLinkedNode(viewer.node, "chain")
  if (loop?.type !== "CoZChainLoop") return viewer.showMessage(translate("noLoop"))
  const input = findTargetInput(loop)
  if (input) return viewer.showMessage(translate("taken", { input }))
  const [x, y] = places.computeTarget(viewer.layers, viewer.view)
  setTarget(loop, { x, y })
  viewer.showMessage(translate("aimed", { x: x.toFixed(4), y: y.toFixed(4) }))
}
