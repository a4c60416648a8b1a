// @ts-check
// What to do where nothing was zoomed: back to the chain, or a new chain.
import { feederOf, setTarget, targetInput } from "../host/graph.js"
import * as places from "./places.js"
import { text } from "./texts.js"

/** Pixels of the screen to one of a frame, along a side, from which on the frame is plainly blurred. */
const BLURRED = 3

/** @typedef {import("./viewer.js").Viewer} Viewer */

/** The deepest layer of which any part is in view. @param {Viewer} viewer */
const deepestSeen = ({ layers, view, size }) =>
  layers.findLastIndex((layer) => places.isSeen(places.placeOf(layer, view, size), size))

/** Whether a frame is seen too close, and nothing of the one that was made of it. @param {Viewer} viewer */
export function isAstray(viewer) {
  const layer = deepestSeen(viewer)
  const { layers, view, size } = viewer
  if (layer === layers.length - 1) return false
  const { sx, sy } = places.placeOf(layers[layer], view, size)
  return Math.max(sx, sy) >= BLURRED * devicePixelRatio
}

/** To the frame of the chain that is nearest. @param {Viewer} viewer */
export const flyBack = (viewer) => viewer.flyTo(deepestSeen(viewer) + 1)

/** Sets the target of the loop that feeds the node to the middle of the view. @param {Viewer} viewer */
export function aimLoop(viewer) {
  const loop = feederOf(viewer.node, "chain")
  if (loop?.type !== "CoZChainLoop") return viewer.say(text("noLoop"))
  const input = targetInput(loop)
  if (input) return viewer.say(text("taken", { input }))
  const [x, y] = places.targetOf(viewer.layers, viewer.view)
  setTarget(loop, { x, y })
  viewer.say(text("aimed", { x: x.toFixed(4), y: y.toFixed(4) }))
}
