// @ts-check
// The same arithmetic as coz/geometry.py, in the same order, so that the windows drawn are exactly those
// that will be cropped.
import { formatFactors } from "../factors.js"

/** @typedef {{x: number, y: number, width: number, height: number}} Window */
/** @typedef {{x: number, y: number}} Target In fractions of an image's sides. */
/** @typedef {"native pixels" | "whole picture square" | "whole picture"} FrameMode */
/** @typedef {{height: number, width: number, window: Window, target: Target}} FirstFrame */

const EDGE_TOLERANCE = 1e-6

/**
 * Place a window along one side of a frame.
 *
 * @param {number} side
 * @param {number} scale
 * @param {number} center
 */
function placeSpan(side, scale, center) {
  const length = Math.max(1, Math.floor(side / scale + EDGE_TOLERANCE))
  const start = Math.ceil(center * side - length / 2 - 0.5 - EDGE_TOLERANCE)
  return { start: Math.min(Math.max(start, 0), side - length), length }
}

/**
 * @param {number} height
 * @param {number} width
 * @param {number} scale
 * @param {Target} target
 * @returns {Window}
 */
export function placeWindow(height, width, scale, target) {
  const x = placeSpan(width, scale, target.x)
  const y = placeSpan(height, scale, target.y)
  return { x: x.start, y: y.start, width: x.length, height: y.length }
}

/**
 * Convert a target from fractions of a frame to fractions of a window in it.
 *
 * @param {number} height
 * @param {number} width
 * @param {Window} window
 * @param {Target} target
 * @returns {Target}
 */
function carryTarget(height, width, window, target) {
  const x = (target.x * width - window.x) / window.width
  const y = (target.y * height - window.y) / window.height
  return { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) }
}

/**
 * @param {number} height
 * @param {number} width
 * @param {number} size
 * @param {FrameMode} frame
 * @param {Target} target
 * @returns {FirstFrame}
 */
export function placeFirstFrame(height, width, size, frame, target) {
  const short = Math.min(height, width)
  const native = frame === "native pixels"
  const h = native ? height : Math.max(size, Math.floor((height * size) / short))
  const w = native ? width : Math.max(size, Math.floor((width * size) / short))
  const whole = frame === "whole picture"
  const cropHeight = whole ? h : Math.min(size, h)
  const cropWidth = whole ? w : Math.min(size, w)
  const window = {
    x: (placeSpan(w, w / cropWidth, target.x).start * width) / w,
    y: (placeSpan(h, h / cropHeight, target.y).start * height) / h,
    width: (cropWidth * width) / w,
    height: (cropHeight * height) / h,
  }
  const carried = carryTarget(height, width, window, target)
  return { height: cropHeight, width: cropWidth, window, target: carried }
}

/**
 * Return the windows of a chain. Each is in pixels of the frame before it, the first one of the source.
 *
 * @param {FirstFrame} first
 * @param {number} scale
 * @param {number} steps
 * @returns {Window[]}
 */
export function planWindows(first, scale, steps) {
  const { height, width } = first
  const windows = [first.window]
  let target = first.target
  for (let i = 0; i < steps; i++) {
    const window = placeWindow(height, width, scale, target)
    windows.push(window)
    target = carryTarget(height, width, window, target)
  }
  return windows
}

/**
 * Convert the windows of planWindows to pixels of the source.
 *
 * @param {FirstFrame} first
 * @param {Window[]} windows
 * @returns {Window[]}
 */
export function mapToSource({ height, width }, windows) {
  return windows.map((_, layer) => {
    let region = { x: 0, y: 0, width, height }
    for (const window of windows.slice(0, layer + 1).reverse()) {
      const fx = window.width / width
      const fy = window.height / height
      region = {
        x: window.x + region.x * fx,
        y: window.y + region.y * fy,
        width: region.width * fx,
        height: region.height * fy,
      }
    }
    return region
  })
}

/**
 * Write the factor between a region and a smaller one.
 *
 * @param {Window} from
 * @param {Window} to
 */
export const formatFactorBetween = (from, to) =>
  formatFactors([from.width / to.width, from.height / to.height])
