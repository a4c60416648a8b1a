// @ts-check
// Updates everything around the image that depends on the view.
import { formatFactors, computeGeometricMean } from "../factors.js"
import { isOutsideChain } from "./back.js"
import { setIcon, setText } from "./panel.js"
import * as places from "./places.js"
import { Play } from "./play.js"
import {
  countRealPixelsInView,
  describeRealPixels,
  pickRealPixelsColor,
} from "./real_pixels.js"
import { translate } from "./texts.js"

/** Lowest agreement in dB for each wording, as in coz/fidelity/back_projection.py. */
const AGREEMENT_WORDS = [
  [40, "repeats"],
  [30, "close"],
  [20, "departs"],
]

/** A higher agreement is shown as "over 99 dB", as in coz/fidelity/back_projection.py. */
const MAX_DECIBELS = 99

/** Whether to show a factor. Below 1x the image is displayed smaller than it is. */
export const isFactorShown = (factor) => factor >= 0.9995

/** @param {import("./viewer.js").Viewer} viewer */
export function updatePanel(viewer) {
  const { panel, layers, view, size, currentLayer, bicubic } = viewer
  const { record } = viewer.shown.chain
  const { label, prompt, promptRow, buttons } = panel
  const step = currentLayer - 1
  const factors = places.computeFactors(layers, view, size)
  const factor = computeGeometricMean(factors)
  const name = nameCurrentLayer(viewer)
  setText(label, isFactorShown(factor) ? `${formatFactors(factors)} · ${name}` : name)
  updateRealPixels(viewer)
  const agreement = step > 0 && !bicubic ? record.agreements?.[step - 1] : null
  setText(panel.agreement, agreement == null ? "" : describeAgreement(step, agreement))
  const written = step > 0 && !bicubic ? record.prompts[step - 1] : ""
  const hasPrompts = record.prompts.some(Boolean)
  const note = ["shownWhole", "shownFirst"][currentLayer] ?? (bicubic ? "shownBicubic" : "noPrompt")
  setText(prompt, written || (note === "noPrompt" && !hasPrompts ? "" : translate(note)))
  prompt.classList.toggle("note", !written)
  promptRow.title = written
  const mark = viewer.promptMarks.get(viewer.shown.chain, step)
  for (const [button, good] of [[buttons.good, true], [buttons.bad, false]]) {
    button.hidden = !hasPrompts
    button.disabled = !written
    button.setAttribute("aria-pressed", String(mark === good))
  }
  buttons.bicubic.setAttribute("aria-pressed", String(bicubic))
  const isPlaying = viewer.flight instanceof Play
  buttons.play.setAttribute("aria-pressed", String(isPlaying))
  setIcon(buttons.play, isPlaying ? "stop" : "play")
  panel.root.classList.toggle("bicubic", bicubic)
  panel.outsideChain.hidden = !isOutsideChain(viewer)
  setText(panel.notice, panel.outsideChain.hidden ? "" : translate("outsideChain"))
  buttons.chain.hidden = viewer.chains.length < 2
  viewer.bar.move(factor, currentLayer)
  outlineNext(viewer, currentLayer + 1)
}

function nameCurrentLayer({ layers, view, size, currentLayer }) {
  if (currentLayer > 1) return translate("step", { step: currentLayer - 1, steps: layers.length - 2 })
  if (currentLayer) return translate("first")
  return translate(places.computeZoom(layers[0], view, size) < 1.001 ? "allLabel" : "partLabel")
}

/** Update how many pixels of the photograph are in view. */
function updateRealPixels({ panel, layers, view, size, currentLayer, bicubic, shown }) {
  const { record } = shown.chain
  const zoom = places.computeZoom(layers[currentLayer], view, size)
  const { sx, sy } = places.computePlace(layers[currentLayer], view, size)
  const real = countRealPixelsInView(record, currentLayer, zoom, Math.max(sx, sy))
  setText(panel.real, describeRealPixels(real))
  const isInvented = currentLayer > 1 && !bicubic
  const rest = isInvented ? "restInvented" : real.share >= 1 ? "restNothing" : "restPlain"
  setText(panel.rest, translate(rest))
  panel.dot.style.background = `rgb(${pickRealPixelsColor(real.share).join(" ")})`
}

/** Write how well a step agrees with its input. @param {number} step @param {number} agreement in dB */
function describeAgreement(step, agreement) {
  const [, words] = AGREEMENT_WORDS.find(([least]) => agreement >= least) ?? [0, "contradicts"]
  const decibels =
    agreement < MAX_DECIBELS ? `${agreement.toFixed(1)} dB` : translate("over", { most: MAX_DECIBELS })
  return translate(words, { step, input: translate(step > 1 ? "inventedInput" : "input"), decibels })
}

/** Outline the next frame while it is too small to be shown. */
function outlineNext({ panel, layers, view, size }, layer) {
  const { outline, canvas, stage } = panel
  outline.hidden = layer >= layers.length || places.computeOpacity(layers, layer, view, size) > 0.5
  if (outline.hidden) return
  const place = places.computePlace(layers[layer], view, size)
  outline.hidden = !places.isSeen(place, size)
  const ratio = stage.clientWidth / canvas.width
  outline.style.width = `${(place.right - place.left) * ratio}px`
  outline.style.height = `${(place.bottom - place.top) * ratio}px`
  outline.style.transform = `translate(${place.left * ratio}px, ${place.top * ratio}px)`
}
