// @ts-check
// Everything around the picture that depends on the view.
import { factorText, write } from "./panel.js"
import * as places from "./places.js"
import { text } from "./texts.js"

/** @param {import("./viewer.js").Viewer} viewer */
export function describe(viewer) {
  const { panel, layers, view, size, current, bicubic } = viewer
  const { record } = viewer.shown.chain
  const { label, measured, prompt, told, buttons } = panel
  const step = current - 1
  const factor = places.magnification(layers, view, size)
  const steps = layers.length - 2
  const name = step > 0 ? text("step", { step, steps }) : text(current ? "first" : "allLabel")
  write(label, `${factorText(factor)} · ${name}`)
  write(measured, step > 0 && !bicubic ? figures(record, step) : "")
  const written = step > 0 && !bicubic ? record.prompts[step - 1] : ""
  const note = ["shownWhole", "shownFirst"][current] ?? (bicubic ? "shownBicubic" : "noPrompt")
  write(prompt, written || text(note))
  prompt.classList.toggle("note", !written)
  told.title = written
  const verdict = viewer.verdicts.of(viewer.shown.chain, step)
  for (const [button, good] of [[buttons.good, true], [buttons.bad, false]]) {
    button.disabled = !written
    button.setAttribute("aria-pressed", String(verdict === good))
  }
  buttons.bicubic.setAttribute("aria-pressed", String(bicubic))
  buttons.chain.hidden = viewer.chains.length < 2
  viewer.bar.move(factor, current)
  outlineNext(viewer, current + 1)
}

/** How true the step is; empty where it was not measured. */
function figures({ agreements, invented }, step) {
  const agreement = agreements?.[step - 1]
  if (agreement == null) return ""
  const share = invented?.[step - 1]
  return text(agreement < 99 ? "measured" : "measuredEqual", {
    agreement: agreement.toFixed(1),
    invented: share == null ? "?" : (100 * share).toFixed(share < 0.0995 ? 1 : 0),
  })
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
