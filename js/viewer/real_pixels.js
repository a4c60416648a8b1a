// @ts-check
// Counts the pixels of the photograph in a view. coz/chain/real_pixels.py has the same rules and texts.
import { roundToThreeDigits } from "../factors.js"
import { translate } from "./texts.js"

/** Colors by magnification of the real pixels: 1x (all real), 4x, 16x, 64x, and 256x or more. */
export const COLOR_STOPS = [
  [63, 185, 80],
  [165, 201, 58],
  [227, 179, 65],
  [240, 136, 62],
  [248, 81, 73],
]

/** A view up to this zoom counts as one of the whole frame. */
const MAX_WHOLE_ZOOM = 1.001

/** @typedef {{width: number, height: number, share: number}} RealPixels */

/**
 * Count the pixels of the photograph that a layer shows, from the windows. ``share`` is their number for
 * each pixel of the frame. The steps see only the first frame. If the first frame is a downscaled
 * photograph, the pixels of the first frame are counted instead.
 *
 * @returns {RealPixels}
 */
export function countRealPixels({ frames, windows }, layer) {
  const computeSides = (ancestor) => {
    let sides = frames[layer]
    for (let i = layer; i > ancestor; i--)
      sides = sides.map((side, axis) => side * (windows[i - 1][2 + axis] / frames[i][axis]))
    return sides
  }
  let [width, height] = computeSides(0)
  if (layer > 1) {
    const [across, down] = computeSides(1)
    if (across * down < width * height) [width, height] = [across, down]
  }
  return { width, height, share: (width * height) / (frames[layer][0] * frames[layer][1]) }
}

/**
 * Count the pixels of the photograph that a view of a layer shows. If the view's shape differs from the
 * frame's, only its largest part with the frame's shape counts.
 *
 * @param {number} zoom of the view, compared with the view of the whole frame
 * @param {number} scale pixels of the screen for one of the frame, along a side
 * @returns {RealPixels}
 */
export function countRealPixelsInView(record, layer, zoom, scale) {
  const real = countRealPixels(record, layer)
  // A view of an all-real frame is all real too, unless it enlarges a part of the frame.
  if (real.share >= 1 && (zoom < MAX_WHOLE_ZOOM || scale <= 1)) return real
  const [source] = record.frames
  const width = Math.min(real.width / zoom, source[0])
  const height = Math.min(real.height / zoom, source[1])
  return { width, height, share: (real.share * width * height) / (real.width * real.height) }
}

/** @param {RealPixels} real */
export function describeRealPixels(real) {
  if (real.share >= 1) return translate("allReal")
  const [width, height] = [real.width, real.height].map(roundToThreeDigits)
  if (width * height < 1) return translate("belowOne")
  return translate(width * height === 1 ? "realPixel" : "realPixels", { width, height })
}

/** @param {number} share @returns {number[]} red, green and blue, 0 to 255 */
export function pickRealPixelsColor(share) {
  const last = COLOR_STOPS.length - 1
  const place = Math.min(Math.max(-Math.log(share) / Math.log(16), 0), last)
  const below = Math.min(Math.floor(place), last - 1)
  return COLOR_STOPS[below].map((from, i) =>
    Math.round(from + (COLOR_STOPS[below + 1][i] - from) * (place - below)),
  )
}
