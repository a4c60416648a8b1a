// @ts-check
// The windows that a node will cut from its picture, by its widgets.
import { widgetOf } from "../host/graph.js"
import { factorLabel, firstFrame, inSource, planWindows, zoomWindow } from "./geometry.js"

/** @typedef {import("./geometry.js").Target} Target */

/** What the windows of a node depend on, besides the picture and the target. */
export const WIDGETS = {
  CoZChainLoop: ["size", "frame", "scale", "steps"],
  CoZFitImage: ["size", "frame"],
  CoZCropCenterZoom: ["scale"],
}

/**
 * From the largest to the smallest, as fractions of the picture; none while the node lacks a widget.
 *
 * @param {any} node
 * @param {{width: number, height: number}} size of the picture
 * @param {Target} target
 */
export function windowsOf(node, { width, height }, target) {
  const type = /** @type {keyof WIDGETS} */ (node.constructor.comfyClass)
  if (!WIDGETS[type].every((name) => widgetOf(node, name))) return []
  const [size, frame, scale, steps] = WIDGETS.CoZChainLoop.map((name) => widgetOf(node, name)?.value)
  let regions, whole
  if (type === "CoZCropCenterZoom") {
    whole = { x: 0, y: 0, width, height }
    regions = [zoomWindow(height, width, scale, target)]
  } else {
    const first = firstFrame(height, width, size, frame, target)
    regions = inSource(first, planWindows(first, scale ?? 1, steps ?? 0))
    whole = regions[0]
  }
  return regions.map((region) => ({
    region: {
      x: region.x / width,
      y: region.y / height,
      width: region.width / width,
      height: region.height / height,
    },
    label: factorLabel(whole, region),
  }))
}
