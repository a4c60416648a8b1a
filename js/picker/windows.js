// @ts-check
// Computes the windows that a node will crop from its image, from the values of its widgets.
import { findWidget } from "../host/graph.js"
import { formatFactorBetween, mapToSource, placeFirstFrame, placeWindow, planWindows } from "./geometry.js"

/** @typedef {import("./geometry.js").Target} Target */

/** Widgets that the windows of a node depend on, besides the image and the target. */
export const WINDOW_WIDGETS = {
  CoZChainLoop: ["size", "frame", "scale", "steps"],
  CoZFitImage: ["size", "frame"],
  CoZCropCenterZoom: ["scale"],
}

/**
 * Return the windows from the largest to the smallest, as fractions of the image. The list is empty
 * while the node lacks a widget.
 *
 * @param {any} node
 * @param {{width: number, height: number}} size of the image
 * @param {Target} target
 */
export function planNodeWindows(node, { width, height }, target) {
  const type = /** @type {keyof WINDOW_WIDGETS} */ (node.constructor.comfyClass)
  if (!WINDOW_WIDGETS[type].every((name) => findWidget(node, name))) return []
  const values = WINDOW_WIDGETS.CoZChainLoop.map((name) => findWidget(node, name)?.value)
  const [size, frame, scale, steps] = values
  let regions, whole
  if (type === "CoZCropCenterZoom") {
    whole = { x: 0, y: 0, width, height }
    regions = [placeWindow(height, width, scale, target)]
  } else {
    const first = placeFirstFrame(height, width, size, frame, target)
    regions = mapToSource(first, planWindows(first, scale ?? 1, steps ?? 0))
    whole = regions[0]
  }
  return regions.map((region) => ({
    region: {
      x: region.x / width,
      y: region.y / height,
      width: region.width / width,
      height: region.height / height,
    },
    label: formatFactorBetween(whole, region),
  }))
}
