// @ts-check
// How many pixels of the photograph a view holds: coz/chain/real_pixels.py counts and says the same.
import { roundToThreeDigits } from "../factors.js"
import { text } from "./texts.js"

/** From all real to 256x and more; each stands for 4x less than the one before. */
export const COLOR_STOPS = [
  [63, 185, 80],
  [165, 201, 58],
  [227, 179, 65],
  [240, 136, 62],
  [248, 81, 73],
]

/** A view that is nearer than this does not show the whole frame. */
const WHOLE = 1.001

/** @typedef {{width: number, height: number, share: number}} RealPixels */

/**
 * The pixels of the photograph that a layer shows, from the windows; ``share`` is how many there are
 * for each pixel of the frame. Steps see only the first frame: where that was downscaled, its own
 * pixels count.
 *
 * @returns {RealPixels}
 */
export function countRealPixels({ frames, windows }, layer) {
  const sidesIn = (ancestor) => {
    let sides = frames[layer]
    for (let i = layer; i > ancestor; i--)
      sides = sides.map((side, axis) => side * (windows[i - 1][2 + axis] / frames[i][axis]))
    return sides
  }
  let [width, height] = sidesIn(0)
  if (layer > 1) {
    const [across, down] = sidesIn(1)
    if (across * down < width * height) [width, height] = [across, down]
  }
  return { width, height, share: (width * height) / (frames[layer][0] * frames[layer][1]) }
}

/**
 * The same for the part of a view that has the frame's shape: all of the frame, where it fits.
 *
 * @param {number} zoom how much closer than that the view is
 * @param {number} scale pixels of the screen for one of the frame
 * @returns {RealPixels}
 */
export function countRealPixelsInView(record, layer, zoom, scale) {
  const real = countRealPixels(record, layer)
  // Nearer than the whole frame, and larger than its own pixels: it is only enlarged.
  if (real.share >= 1 && (zoom < WHOLE || scale <= 1)) return real
  const [source] = record.frames
  const width = Math.min(real.width / zoom, source[0])
  const height = Math.min(real.height / zoom, source[1])
  return { width, height, share: (real.share * width * height) / (real.width * real.height) }
}

/** @param {RealPixels} real */
export function describeRealPixels(real) {
  if (real.share >= 1) return text("allReal")
  const [width, height] = [real.width, real.height].map(roundToThreeDigits)
  if (width * height < 1) return text("belowOne")
  return text(width * height === 1 ? "realPixel" : "realPixels", { width, height })
}

/** @param {number} share @returns {number[]} red, green and blue of 255 */
export function pickRealPixelsColor(share) {
  const last = COLOR_STOPS.length - 1
  const place = Math.min(Math.max(-Math.log(share) / Math.log(16), 0), last)
  const below = Math.min(Math.floor(place), last - 1)
  return COLOR_STOPS[below].map((from, i) =>
    Math.round(from + (COLOR_STOPS[below + 1][i] - from) * (place - below)),
  )
}
