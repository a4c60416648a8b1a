// @ts-check
// %Node.widget% in the name of a saved chain, as the page fills it in for Save Image.
import { app } from "../../../scripts/app.js"

/** @param {any} node */
export function attachPrefix(node) {
  if (node.comfyClass !== "CoZSaveChain") return
  const widget = node.widgets.find((/** @type {any} */ { name }) => name === "filename_prefix")
  // Not imported from scripts/utils.js, which complains in the console.
  const fillIn = /** @type {any} */ (window).comfyAPI.utils.applyTextReplacements
  widget.serializeValue = () => fillIn(app.rootGraph, widget.value)
}
