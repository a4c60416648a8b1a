// @ts-check
// Everything around the picture that depends on the view.
import { factorsText, meanOf } from "../factors.js"
import { isAstray } from "./back.js"
import { setIcon, write } from "./panel.js"
import * as places from "./places.js"
import { Play } from "./play.js"
import {
  countRealPixelsInView,
  describeRealPixels,
  pickRealPixelsColor,
} from "./real_pixels.js"
import { text } from "./texts.js"

/** From how many dB on what is said of a step: coz/fidelity/back_projection.py. */
export const AGREEMENT_WORDS = [
  [40, "repeats"],
  [30, "close"],
  [20, "departs"],
]

/** What is said to be over it: coz/fidelity/back_projection.py. */
export const MOST_DECIBELS = 99

/** Below 1x, where the picture is shown smaller than it is, a factor says nothing. */
export const isFactor = (factor) => factor >= 0.9995

/** @param {import("./viewer.js").Viewer} viewer */
export function describe(viewer) {
  const { panel, layers, view, size, current, bicubic } = viewer
  const { record } = viewer.shown.chain
  const { label, measured, prompt, told, buttons } = panel
  const step = current - 1
  const factors = places.factorsIn(layers, view, size)
  const factor = meanOf(factors)
  const name = nameOf(viewer)
  write(label, isFactor(factor) ? `${factorsText(factors)} · ${name}` : name)
  describeTruth(viewer)
  const agreement = step > 0 && !bicubic ? record.agreements?.[step - 1] : null
  write(measured, agreement == null ? "" : describeAgreement(step, agreement))
  const written = step > 0 && !bicubic ? record.prompts[step - 1] : ""
  const hasPrompts = record.prompts.some(Boolean)
  const note = ["shownWhole", "shownFirst"][current] ?? (bicubic ? "shownBicubic" : "noPrompt")
  write(prompt, written || (note === "noPrompt" && !hasPrompts ? "" : text(note)))
  prompt.classList.toggle("note", !written)
  told.title = written
  const verdict = viewer.verdicts.of(viewer.shown.chain, step)
  for (const [button, good] of [[buttons.good, true], [buttons.bad, false]]) {
    button.hidden = !hasPrompts
    button.disabled = !written
    button.setAttribute("aria-pressed", String(verdict === good))
  }
  buttons.bicubic.setAttribute("aria-pressed", String(bicubic))
  const isPlaying = viewer.flight instanceof Play
  buttons.play.setAttribute("aria-pressed", String(isPlaying))
  setIcon(buttons.play, isPlaying ? "stop" : "play")
  panel.root.classList.toggle("bicubic", bicubic)
  panel.astray.hidden = !isAstray(viewer)
  write(panel.notice, panel.astray.hidden ? "" : text("astray"))
  buttons.chain.hidden = viewer.chains.length < 2
  viewer.bar.move(factor, current)
  outlineNext(viewer, current + 1)
}

function nameOf({ layers, view, size, current }) {
  if (current > 1) return text("step", { step: current - 1, steps: layers.length - 2 })
  if (current) return text("first")
  return text(places.zoomOn(layers[0], view, size) < 1.001 ? "allLabel" : "partLabel")
}

/** How much of the view is of the photograph. */
function describeTruth({ panel, layers, view, size, current, bicubic, shown }) {
  const { record } = shown.chain
  const zoom = places.zoomOn(layers[current], view, size)
  const { sx, sy } = places.placeOf(layers[current], view, size)
  const real = countRealPixelsInView(record, current, zoom, Math.max(sx, sy))
  write(panel.real, describeRealPixels(real))
  const isInvented = current > 1 && !bicubic
  const rest = isInvented ? "restInvented" : real.share >= 1 ? "restNothing" : "restPlain"
  write(panel.rest, text(rest))
  panel.dot.style.background = `rgb(${pickRealPixelsColor(real.share).join(" ")})`
}

/** @param {number} agreement in dB */
function describeAgreement(step, agreement) {
  const [, words] = AGREEMENT_WORDS.find(([least]) => agreement >= least) ?? [0, "contradicts"]
  const decibels =
    agreement < MOST_DECIBELS ? `${agreement.toFixed(1)} dB` : text("over", { most: MOST_DECIBELS })
  return text(words, { step, input: text(step > 1 ? "inventedInput" : "input"), decibels })
}

/** A frame around the next scale, while it is too small to show. */
function outlineNext({ panel, layers, view, size }, layer) {
  const { outline, canvas, stage } = panel
  outline.hidden = layer >= layers.length || places.opacity(layers, layer, view, size) > 0.5
  if (outline.hidden) return
  const place = places.placeOf(layers[layer], view, size)
  outline.hidden = !places.isSeen(place, size)
  const ratio = stage.clientWidth / canvas.width
  outline.style.width = `${(place.right - place.left) * ratio}px`
  outline.style.height = `${(place.bottom - place.top) * ratio}px`
  outline.style.transform = `translate(${place.left * ratio}px, ${place.top * ratio}px)`
}
