// @ts-check
// Where the layers of a chain lie, and what a view shows of them.
//
// Everything is measured in pixels of the deepest layer. A number's error grows with the distance
// from there, and so does the size of what can be looked at: sixteen steps of 8x stay exact.
import { meanOf } from "../factors.js"

/**
 * @typedef {{x: number, y: number, kx: number, ky: number, width: number, height: number,
 *   factors: number[]}} Layer  Upper left corner, size of its pixels, size in them, magnification
 *   across and down.
 * @typedef {{x: number, y: number, span: number}} View  Middle, and length of the shorter side.
 * @typedef {{width: number, height: number}} Size
 */

/** View's finest pixel is never shown larger than this many of the screen's. */
const LARGEST_PIXEL = 24

/** Of the way from a layer to the next one, when that has wholly faded in: coz/render/zoom_video.py. */
export const FADED_IN = 1 / 3

/** From 0 to 1, level at both ends: coz/render/zoom_video.py. */
export const smooth = (t) => t * t * (3 - 2 * t)

/** Two layers nearer in size than this are one. */
const SAME = 1.001

/** @returns {Layer[]} */
export function layersOf({ frames, windows }) {
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
  // The source's pixels are square on the screen; a deeper one's may not be, as sides are rounded.
  const square = kx / ky
  for (const layer of layers) {
    layer.y *= square
    layer.ky *= square
  }
  for (const layer of layers)
    layer.factors = [layers[1].kx / layer.kx, layers[1].ky / layer.ky]
  return layers
}

/** World length of one screen pixel. */
export const unitOf = (view, size) => view.span / Math.min(size.width, size.height)

function fitUnit(layer, size) {
  return Math.max((layer.width * layer.kx) / size.width, (layer.height * layer.ky) / size.height)
}

/** The view that shows all of a layer. */
export function wholeOf(layer, size) {
  return {
    x: layer.x + (layer.width * layer.kx) / 2,
    y: layer.y + (layer.height * layer.ky) / 2,
    span: fitUnit(layer, size) * Math.min(size.width, size.height),
  }
}

/** How far a view is from showing all of layer - 1 (0) to showing all of the layer (1). */
export function progress(layers, layer, view, size) {
  const start = fitUnit(layers[layer - 1], size)
  const end = fitUnit(layers[layer], size)
  return start < end * SAME ? 1 : Math.log(start / unitOf(view, size)) / Math.log(start / end)
}

/** Opacity of a layer over the one before it. */
export function opacity(layers, layer, view, size) {
  if (!layer) return 1
  // A first frame that was reduced: the source itself is the finer picture of the same.
  if (layer === 1 && layers[1].kx > layers[0].kx * SAME) return 0
  return smooth(Math.min(Math.max(progress(layers, layer, view, size) / FADED_IN, 0), 1))
}

/** Edges of a layer on a screen of that size. */
export function placeOf(layer, view, size) {
  const unit = unitOf(view, size)
  const left = (layer.x - view.x) / unit + size.width / 2
  const top = (layer.y - view.y) / unit + size.height / 2
  const [sx, sy] = [layer.kx / unit, layer.ky / unit]
  return { left, top, sx, sy, right: left + layer.width * sx, bottom: top + layer.height * sy }
}

export function isSeen(place, size) {
  return (
    place.right > 0 && place.bottom > 0 && place.left < size.width && place.top < size.height
  )
}

/** The deepest layer that shows in the middle of the view, by half or more. */
export function currentLayer(layers, view, size) {
  const holdsMiddle = ({ x, y, kx, ky, width, height }) =>
    view.x >= x && view.y >= y && view.x <= x + width * kx && view.y <= y + height * ky
  for (let i = layers.length - 1; i > 0; i--)
    if (holdsMiddle(layers[i]) && progress(layers, i, view, size) >= FADED_IN / 2) return i
  return 0
}

/** How much closer a view is than the one that shows all of a layer. */
export const zoomOn = (layer, view, size) => fitUnit(layer, size) / unitOf(view, size)

/** Factors across and down, counted from the first frame as it fills the view. */
export function factorsIn(layers, view, size) {
  const layer = layers[Math.max(currentLayer(layers, view, size), 1)]
  return layer.factors.map((factor) => factor * zoomOn(layer, view, size))
}

/** The same in one number: its square is how many pixels stand for one. */
export const magnification = (layers, view, size) => meanOf(factorsIn(layers, view, size))

/** The nearest allowed view: inside the source, no pixel larger than LARGEST_PIXEL. */
export function limited(layers, view, size) {
  const [source] = layers
  const shorter = Math.min(size.width, size.height)
  const finest = layers.findLast((layer) => isSeen(placeOf(layer, view, size), size)) ?? source
  const span = Math.min(
    Math.max(view.span, (finest.kx / LARGEST_PIXEL) * shorter),
    wholeOf(source, size).span,
  )
  const unit = span / shorter
  return {
    x: within(view.x, source.x, source.width * source.kx, size.width * unit),
    y: within(view.y, source.y, source.height * source.ky, size.height * unit),
    span,
  }
}

function within(middle, start, length, shown) {
  if (shown >= length) return start + length / 2
  return Math.min(Math.max(middle, start + shown / 2), start + length - shown / 2)
}

/** A view enlarged about a point of the screen, which stays where it is. */
export function zoomedAt(layers, view, size, factor, x, y) {
  const unit = unitOf(view, size)
  const [dx, dy] = [(x - size.width / 2) * unit, (y - size.height / 2) * unit]
  const { span } = limited(layers, { ...view, span: view.span / factor }, size)
  const shift = 1 - span / view.span
  return limited(layers, { x: view.x + dx * shift, y: view.y + dy * shift, span }, size)
}

export function movedBy(layers, view, size, dx, dy) {
  const unit = unitOf(view, size)
  return limited(layers, { ...view, x: view.x - dx * unit, y: view.y - dy * unit }, size)
}

/** The view at time t (0..1) of a flight at constant speed: coz/render/zoom_video.py, _Axis. */
export function between(start, end, t) {
  const span = start.span ** (1 - t) * end.span ** t
  const same = Math.abs(start.span / end.span - 1) < 1e-6
  const left = same ? 1 - t : (span - end.span) / (start.span - end.span)
  return { x: end.x + (start.x - end.x) * left, y: end.y + (start.y - end.y) * left, span }
}

/** The middle of a view as fractions of the source. */
export function targetOf([source], view) {
  const fraction = (value, start, length) => Math.min(Math.max((value - start) / length, 0), 1)
  return [
    fraction(view.x, source.x, source.width * source.kx),
    fraction(view.y, source.y, source.height * source.ky),
  ]
}
