// @ts-check
// Computes where the layers of a chain lie and what a view shows of them.
//
// All lengths are in pixels of the deepest layer. Rounding errors grow with the distance from it, but the
// pixels that can be seen there are larger too. So no error is visible, even with sixteen steps of 8x.
import { computeGeometricMean } from "../factors.js"

/**
 * @typedef {{x: number, y: number, kx: number, ky: number, width: number, height: number,
 *   factors: number[]}} Layer  x, y: its upper left corner; kx, ky: the sides of one of its pixels;
 *   width, height: its sides, counted in its own pixels; factors: its magnification across and down.
 * @typedef {{x: number, y: number, span: number}} View  Its middle and the length of its shorter side.
 * @typedef {{width: number, height: number}} Size
 */

/** A pixel of the deepest layer in view covers at most this many pixels of the screen along a side. */
const MAX_PIXEL_SIZE = 24

/**
 * A layer is opaque after this share of the zoom from the layer before. coz/render/zoom_video.py has the
 * same value.
 */
export const FADE_SHARE = 1 / 3

/** Ease t from 0 to 1, with slope 0 at both ends, as coz/render/zoom_video.py does. */
export const smooth = (t) => t * t * (3 - 2 * t)

/** Layers whose sizes differ by less than this ratio count as equal. */
const SAME_SIZE_RATIO = 1.001

/** Compute the layers from the record of a chain. @returns {Layer[]} */
export function placeLayers({ frames, windows }) {
  const layers = []
  let [x, y, kx, ky] = [0, 0, 1, 1]
  for (let i = frames.length - 1; i >= 0; i--) {
    const [width, height] = frames[i]
    layers.unshift({ x, y, kx, ky, width, height, factors: [1, 1] })
    if (!i) break
    const [left, top, across, down] = windows[i - 1]
    kx *= width / across
    ky *= height / down
    x -= left * kx
    y -= top * ky
  }
  // The source's pixels are shown as squares. Those of deeper layers may differ a little, because the
  // sides of windows are rounded.
  const square = kx / ky
  for (const layer of layers) {
    layer.y *= square
    layer.ky *= square
  }
  for (const layer of layers)
    layer.factors = [layers[1].kx / layer.kx, layers[1].ky / layer.ky]
  return layers
}

/** Return the side of one pixel of the screen, in pixels of the deepest layer. */
export const computeScreenPixel = (view, size) => view.span / Math.min(size.width, size.height)

/** Return the side of one pixel of the screen for the view that shows all of a layer. */
function computeScreenPixelToFit(layer, size) {
  return Math.max((layer.width * layer.kx) / size.width, (layer.height * layer.ky) / size.height)
}

/** Return the view that shows all of a layer. */
export function fitView(layer, size) {
  return {
    x: layer.x + (layer.width * layer.kx) / 2,
    y: layer.y + (layer.height * layer.ky) / 2,
    span: computeScreenPixelToFit(layer, size) * Math.min(size.width, size.height),
  }
}

/** Compute how far a view has zoomed in: 0 shows all of the layer before, 1 all of this layer. */
export function computeProgress(layers, layer, view, size) {
  const start = computeScreenPixelToFit(layers[layer - 1], size)
  const end = computeScreenPixelToFit(layers[layer], size)
  if (start < end * SAME_SIZE_RATIO) return 1
  return Math.log(start / computeScreenPixel(view, size)) / Math.log(start / end)
}

/** Compute the opacity of a layer over the one before it. */
export function computeOpacity(layers, layer, view, size) {
  if (!layer) return 1
  // A first frame that was downscaled is not drawn, because the source shows the same in finer pixels.
  if (layer === 1 && layers[1].kx > layers[0].kx * SAME_SIZE_RATIO) return 0
  return smooth(Math.min(Math.max(computeProgress(layers, layer, view, size) / FADE_SHARE, 0), 1))
}

/** Return the edges of a layer and the sides of its pixels on a screen of that size. */
export function computePlace(layer, view, size) {
  const pixel = computeScreenPixel(view, size)
  const left = (layer.x - view.x) / pixel + size.width / 2
  const top = (layer.y - view.y) / pixel + size.height / 2
  const [sx, sy] = [layer.kx / pixel, layer.ky / pixel]
  return { left, top, sx, sy, right: left + layer.width * sx, bottom: top + layer.height * sy }
}

export function isSeen(place, size) {
  return (
    place.right > 0 && place.bottom > 0 && place.left < size.width && place.top < size.height
  )
}

/**
 * Return the deepest layer that holds the middle of the view and is at least half opaque. A downscaled
 * first frame counts as if it were drawn.
 */
export function findCurrentLayer(layers, view, size) {
  const holdsMiddle = ({ x, y, kx, ky, width, height }) =>
    view.x >= x && view.y >= y && view.x <= x + width * kx && view.y <= y + height * ky
  for (let i = layers.length - 1; i > 0; i--)
    if (holdsMiddle(layers[i]) && computeProgress(layers, i, view, size) >= FADE_SHARE / 2) return i
  return 0
}

/** Return how much a view enlarges, compared with the one that shows all of a layer. */
export const computeZoom = (layer, view, size) =>
  computeScreenPixelToFit(layer, size) / computeScreenPixel(view, size)

/** Return the factors across and down, relative to the view of the whole first frame. */
export function computeFactors(layers, view, size) {
  const layer = layers[Math.max(findCurrentLayer(layers, view, size), 1)]
  return layer.factors.map((factor) => factor * computeZoom(layer, view, size))
}

/** Return the geometric mean of both factors. */
export const computeMagnification = (layers, view, size) =>
  computeGeometricMean(computeFactors(layers, view, size))

/** Return the nearest allowed view: inside the source, with no pixel above MAX_PIXEL_SIZE. */
export function limitView(layers, view, size) {
  const [source] = layers
  const shorter = Math.min(size.width, size.height)
  const finest = layers.findLast((layer) => isSeen(computePlace(layer, view, size), size)) ?? source
  const span = Math.min(
    Math.max(view.span, (finest.kx / MAX_PIXEL_SIZE) * shorter),
    fitView(source, size).span,
  )
  const pixel = span / shorter
  return {
    x: limitMiddle(view.x, source.x, source.width * source.kx, size.width * pixel),
    y: limitMiddle(view.y, source.y, source.height * source.ky, size.height * pixel),
    span,
  }
}

function limitMiddle(middle, start, length, shown) {
  if (shown >= length) return start + length / 2
  return Math.min(Math.max(middle, start + shown / 2), start + length - shown / 2)
}

/** Enlarge a view around a point of the screen, which stays in its place. */
export function zoomView(layers, view, size, factor, x, y) {
  const pixel = computeScreenPixel(view, size)
  const [dx, dy] = [(x - size.width / 2) * pixel, (y - size.height / 2) * pixel]
  const { span } = limitView(layers, { ...view, span: view.span / factor }, size)
  const shift = 1 - span / view.span
  return limitView(layers, { x: view.x + dx * shift, y: view.y + dy * shift, span }, size)
}

export function moveView(layers, view, size, dx, dy) {
  const pixel = computeScreenPixel(view, size)
  return limitView(layers, { ...view, x: view.x - dx * pixel, y: view.y - dy * pixel }, size)
}

/** Return the view at time t (0 to 1) of a flight at constant speed, as in coz/render/zoom_video.py. */
export function interpolateView(start, end, t) {
  const span = start.span ** (1 - t) * end.span ** t
  const same = Math.abs(start.span / end.span - 1) < 1e-6
  const left = same ? 1 - t : (span - end.span) / (start.span - end.span)
  return { x: end.x + (start.x - end.x) * left, y: end.y + (start.y - end.y) * left, span }
}

/** Return the middle of a view as fractions of the source. */
export function computeTarget([source], view) {
  const fraction = (value, start, length) => Math.min(Math.max((value - start) / length, 0), 1)
  return [
    fraction(view.x, source.x, source.width * source.kx),
    fraction(view.y, source.y, source.height * source.ky),
  ]
}
