// @ts-check
// The viewer's elements. Texts that come from outside are set as text, never as HTML.
import { factorsText, meanOf } from "../factors.js"
import { text } from "./texts.js"

const ICONS = {
  out: "M5 12h14",
  in: "M12 5v14M5 12h14",
  whole: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  deepest: "M12 3v5M12 16v5M3 12h5M16 12h5M12 11v2M11 12h2",
  bicubic: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  save: "M12 4v11M7 10l5 5l5-5M5 20h14",
  target: "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13M15.5 15.5l5 5M10.5 7.5v6M7.5 10.5h6",
  full: "M14 4h6v6M10 20H4v-6M20 4l-7 7M4 20l7-7",
  good: "M7 11v9H4v-9zM7 11l4-8a2 2 0 0 1 2 2v4h6l-1.8 10.2a1 1 0 0 1-1 .8H7",
  bad: "M7 13V4H4v9zM7 13l4 8a2 2 0 0 0 2-2v-4h6L17.2 4.8a1 1 0 0 0-1-.8H7",
  chain: "M5 12h13M13 7l5 5l-5 5",
}

function element(parent, tag, className, content = "") {
  const made = parent.appendChild(document.createElement(tag))
  made.className = className
  made.textContent = content
  return made
}

function button(parent, icon, word = "") {
  const made = element(parent, "button", icon)
  made.type = "button"
  made.title = text(icon)
  made.setAttribute("aria-label", made.title)
  const picture = made.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"))
  picture.setAttribute("viewBox", "0 0 24 24")
  const path = picture.appendChild(document.createElementNS(picture.namespaceURI, "path"))
  path.setAttribute("d", ICONS[icon])
  if (word) element(made, "span", "word", word)
  return made
}

export function makePanel() {
  const root = document.createElement("div")
  root.className = "coz-viewer"
  root.tabIndex = 0
  root.dataset.captureWheel = "true" // the host's sign for: the wheel is ours while we have focus
  root.setAttribute("role", "group")
  root.setAttribute("aria-label", text("viewer"))
  const shadow = root.attachShadow({ mode: "open" })
  const style = element(shadow, "link", "")
  style.rel = "stylesheet"
  style.href = new URL("../viewer.css", import.meta.url).href

  const stage = element(shadow, "div", "stage")
  const canvas = element(stage, "canvas", "")
  const outline = element(stage, "div", "outline")
  const facts = element(stage, "div", "facts")
  const badge = element(facts, "div", "badge")
  const dot = element(badge, "span", "dot")
  const real = element(badge, "span", "real")
  const rest = element(badge, "span", "rest")
  const label = element(facts, "div", "label")
  const measured = element(facts, "div", "measured")
  element(stage, "div", "hint", text("hint"))
  const message = element(stage, "div", "message")
  message.setAttribute("role", "status")

  const bar = element(shadow, "div", "bar")
  const told = element(shadow, "div", "told")
  const prompt = element(told, "span", "prompt")
  const good = button(told, "good")
  const bad = button(told, "bad")

  const tools = element(shadow, "div", "tools")
  const buttons = {
    out: button(tools, "out"),
    in: button(tools, "in"),
    whole: button(tools, "whole"),
    deepest: button(tools, "deepest"),
    bicubic: button(tools, "bicubic", text("bicubicWord")),
    chain: button(tools, "chain"),
    target: button(tools, "target", text("targetWord")),
    save: button(tools, "save"),
    full: button(tools, "full"),
    good,
    bad,
  }
  buttons.bicubic.setAttribute("aria-pressed", "false")
  return {
    root,
    stage,
    canvas,
    outline,
    dot,
    real,
    rest,
    label,
    measured,
    message,
    bar,
    told,
    prompt,
    buttons,
  }
}

/** @param {HTMLCanvasElement} canvas @param {string} name */
export function download(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a")
    link.href = URL.createObjectURL(blob)
    link.download = name
    link.click()
    URL.revokeObjectURL(link.href)
  })
}

/** @param {Element} element */
export function write(element, words) {
  if (element.textContent !== words) element.textContent = words
}

/** A source that is shown smaller than this beside the first frame has a place on the bar. */
const WHOLE = 0.95

/** @typedef {{name: string, factor: number, layer: number}} Scale */

/**
 * The scales that have a place on the bar.
 *
 * @param {number} whole factor at which the whole source is seen
 * @returns {Scale[]}
 */
export function scalesOf(layers, whole) {
  const scales = layers.map(({ factors }, layer) => ({
    layer,
    factor: meanOf(factors),
    name: factorsText(factors),
  }))
  const [, ...steps] = scales
  return whole < WHOLE ? [{ layer: 0, factor: whole, name: text("all") }, ...steps] : steps
}

/**
 * Fills the scale bar: a button for each scale, at its place between the first and the last.
 *
 * @param {Scale[]} scales
 * @param {(layer: number) => void} fly
 * @returns {{move: (factor: number, current: number) => void}}
 */
export function fillBar(bar, scales, fly) {
  bar.replaceChildren()
  const start = Math.log(scales[0].factor)
  const length = Math.log(scales.at(-1).factor) - start || 1
  const at = (factor) => {
    const part = (Math.log(factor) - start) / length
    return `${Math.min(Math.max(part, 0), 1) * 100}%`
  }
  const track = element(bar, "div", "track")
  const needle = element(track, "div", "needle")
  const ticks = scales.map(({ name, factor, layer }) => {
    const tick = element(track, "button", "tick")
    tick.type = "button"
    tick.title = text("fly", { scale: name })
    tick.setAttribute("aria-label", tick.title)
    tick.style.left = at(factor)
    element(tick, "span", "factor", name)
    tick.addEventListener("click", () => fly(layer))
    return tick
  })
  spaceOut(ticks)
  return {
    move(factor, current) {
      needle.style.left = at(factor)
      ticks.forEach((tick, i) => tick.classList.toggle("now", scales[i].layer === current))
    },
  }
}

/** Hides the names of ticks that would touch the one before; the last one stays. */
function spaceOut(ticks) {
  const boxes = ticks.map((tick) => {
    const middle = tick.offsetLeft + tick.offsetWidth / 2
    const half = tick.firstElementChild.offsetWidth / 2 + 2
    return { from: middle - half, to: middle + half }
  })
  const last = boxes.pop()
  let free = -Infinity
  boxes.forEach(({ from, to }, i) => {
    const fits = from > free && to < last.from
    ticks[i].classList.toggle("crowded", !fits)
    if (fits) free = to
  })
}
