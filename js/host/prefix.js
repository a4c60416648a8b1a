// @ts-check
// Fills in %Node.widget% in the name of a saved chain, as the page does for Save Image.
import { app } from "../../../scripts/app.js"

/** @param {any} node */
export function expandPrefix(node) {
  if (node.comfyClass !== "CoZSaveChain") return
  const widget = node.widgets.find((/** @type {any} */ { name }) => name === "filename_prefix")
  // Importing scripts/utils.js instead would log a warning.
  const fillIn = /** @type {any} */ (window).comfyAPI.utils.applyTextReplacements
  widget.serializeValue = () => fillIn(app.rootGraph, widget.value)
}
