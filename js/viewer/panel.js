// @ts-check
// Creates the viewer's elements. Texts from outside are set as text, never as HTML.
import { formatFactors, computeGeometricMean } from "../factors.js"
import { translate } from "./texts.js"

const ICONS = {
  play: "M7 5v14l12-7z",
  stop: "M7 5v14h3V5zM14 5v14h3V5z",
  out: "M5 12h14",
  in: "M12 5v14M5 12h14",
  whole: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  split: "M12 3v18M9 8l-4 4l4 4M15 8l4 4l-4 4",
  bicubic: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  save: "M12 4v11M7 10l5 5l5-5M5 20h14",
  clip: "M4 5h16v14H4zM4 9.5h16M8 5v4.5M12 5v4.5M16 5v4.5M10.5 12v5l4-2.5z",
  target: "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13M15.5 15.5l5 5M10.5 7.5v6M7.5 10.5h6",
  full: "M14 4h6v6M10 20H4v-6M20 4l-7 7M4 20l7-7",
  good: "M7 11v9H4v-9zM7 11l4-8a2 2 0 0 1 2 2v4h6l-1.8 10.2a1 1 0 0 1-1 .8H7",
  bad: "M7 13V4H4v9zM7 13l4 8a2 2 0 0 0 2-2v-4h6L17.2 4.8a1 1 0 0 0-1-.8H7",
  chain: "M5 12h13M13 7l5 5l-5 5",
}

function addElement(parent, tag, className, content = "") {
  const made = parent.appendChild(document.createElement(tag))
  made.className = className
  made.textContent = content
  return made
}

function addButton(parent, icon, word = "") {
  const made = addElement(parent, "button", icon)
  made.type = "button"
  const picture = made.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"))
  picture.setAttribute("viewBox", "0 0 24 24")
  picture.appendChild(document.createElementNS(picture.namespaceURI, "path"))
  setIcon(made, icon)
  if (word) addElement(made, "span", "word", word)
  return made
}

/** Give a button another icon, with the tooltip of that icon. */
export function setIcon(button, icon) {
  const title = translate(icon)
  if (button.title === title) return
  button.title = title
  button.setAttribute("aria-label", title)
  button.querySelector("path").setAttribute("d", ICONS[icon])
}

function addWordButton(parent, name) {
  const made = addElement(parent, "button", name, translate(name))
  made.type = "button"
  return made
}

/** Create the line to drag, with a label for each side. */
function makeSplit(stage) {
  const split = addElement(stage, "div", "divider")
  split.tabIndex = 0
  split.setAttribute("role", "slider")
  split.setAttribute("aria-label", translate("split"))
  split.setAttribute("aria-valuemin", "0")
  split.setAttribute("aria-valuemax", "100")
  split.title = translate("splitHint")
  addElement(split, "span", "grip")
  addElement(split, "span", "side plain", translate("plainSide"))
  addElement(split, "span", "side zoomed", translate("zoomedSide"))
  return split
}

export function makePanel() {
  const root = document.createElement("div")
  root.className = "coz-viewer"
  root.tabIndex = 0
  root.dataset.captureWheel = "true" // tells ComfyUI that the viewer uses the wheel while it has the focus
  root.setAttribute("role", "group")
  root.setAttribute("aria-label", translate("viewer"))
  const shadow = root.attachShadow({ mode: "open" })
  const style = addElement(shadow, "link", "")
  style.rel = "stylesheet"
  style.href = new URL("../viewer.css", import.meta.url).href

  const stage = addElement(shadow, "div", "stage")
  const canvas = addElement(stage, "canvas", "")
  const split = makeSplit(stage)
  const outline = addElement(stage, "div", "outline")
  const facts = addElement(stage, "div", "facts")
  const badge = addElement(facts, "div", "badge")
  const dot = addElement(badge, "span", "dot")
  const real = addElement(badge, "span", "real")
  const rest = addElement(badge, "span", "rest")
  const label = addElement(facts, "div", "label")
  const agreement = addElement(facts, "div", "agreement")
  addElement(stage, "div", "hint", translate("hint"))
  const outsideChain = addElement(stage, "div", "outside-chain")
  outsideChain.hidden = true
  const notice = addElement(outsideChain, "div", "notice")
  notice.setAttribute("role", "status")
  const back = addWordButton(outsideChain, "back")
  const here = addWordButton(outsideChain, "here")
  const message = addElement(stage, "div", "message")
  message.setAttribute("role", "status")

  const bar = addElement(shadow, "div", "bar")
  const promptRow = addElement(shadow, "div", "prompt-row")
  const prompt = addElement(promptRow, "span", "prompt")
  const good = addButton(promptRow, "good")
  const bad = addButton(promptRow, "bad")

  const tools = addElement(shadow, "div", "tools")
  const group = (...names) => {
    const parent = addElement(tools, "div", "group")
    const words = { bicubic: translate("bicubicWord"), target: translate("targetWord") }
    return Object.fromEntries(names.map((name) => [name, addButton(parent, name, words[name])]))
  }
  const buttons = {
    ...group("play"),
    ...group("out", "in", "whole"),
    ...group("split", "bicubic", "chain"),
    ...group("target"),
    ...group("save", "clip", "full"),
    good,
    bad,
    back,
    here,
  }
  addElement(buttons.clip, "span", "percent")
  buttons.bicubic.setAttribute("aria-pressed", "false")
  return {
    root,
    stage,
    canvas,
    split,
    outline,
    dot,
    real,
    rest,
    label,
    agreement,
    message,
    outsideChain,
    notice,
    bar,
    promptRow,
    prompt,
    buttons,
  }
}

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  URL.revokeObjectURL(link.href)
}

/** @param {Element} element */
export function setText(element, words) {
  if (element.textContent !== words) element.textContent = words
}

/** The bar gets a tick for the whole source only if the view of the whole source has a factor below this. */
const MAX_WHOLE_FACTOR = 0.95

/** @typedef {{name: string, factor: number, layer: number}} Scale */

/**
 * Return the scales that get a tick on the bar.
 *
 * @param {number} whole factor of the view of the whole source
 * @returns {Scale[]}
 */
export function listScales(layers, whole) {
  const scales = layers.map(({ factors }, layer) => ({
    layer,
    factor: computeGeometricMean(factors),
    name: formatFactors(factors),
  }))
  const [, ...steps] = scales
  return whole < MAX_WHOLE_FACTOR ? [{ layer: 0, factor: whole, name: translate("all") }, ...steps] : steps
}

/**
 * Fill the scale bar with a button for each scale, placed by the logarithm of its factor.
 *
 * @param {Scale[]} scales
 * @param {(layer: number) => void} fly
 * @returns {{move: (factor: number, currentLayer: number) => void}}
 */
export function fillBar(bar, scales, fly) {
  bar.replaceChildren()
  const start = Math.log(scales[0].factor)
  const length = Math.log(scales.at(-1).factor) - start || 1
  const computeLeft = (factor) => {
    const part = (Math.log(factor) - start) / length
    return `${Math.min(Math.max(part, 0), 1) * 100}%`
  }
  const track = addElement(bar, "div", "track")
  const needle = addElement(track, "div", "needle")
  const ticks = scales.map(({ name, factor, layer }) => {
    const tick = addElement(track, "button", "tick")
    tick.type = "button"
    tick.title = translate("fly", { scale: name })
    tick.setAttribute("aria-label", tick.title)
    tick.style.left = computeLeft(factor)
    addElement(tick, "span", "factor", name)
    tick.addEventListener("click", () => fly(layer))
    return tick
  })
  hideCrowdedNames(ticks)
  return {
    move(factor, currentLayer) {
      needle.style.left = computeLeft(factor)
      ticks.forEach((tick, i) => tick.classList.toggle("now", scales[i].layer === currentLayer))
    },
  }
}

/** Hide the names that would touch the one before or the last one. */
function hideCrowdedNames(ticks) {
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
