// @ts-check
// Newer frontends show the templates as apps.
import { app } from "../../../scripts/app.js"

/**
 * Give the inputs of the workflow's app the names that the frontend saves, which hold the workflow's id.
 *
 * A template has no id: with one, the runs of all copies of it would count as those of one workflow.
 * All frontends accept names without the id, but newer ones log a warning about them when another
 * workflow is opened.
 */
export function nameAppInputs() {
  for (const input of app.rootGraph.extra?.linearData?.inputs ?? []) {
    const [id, name] = input
    const { widgets } = app.rootGraph.getNodeById(id) ?? {}
    const widget = widgets?.find((/** @type {any} */ widget) => widget.name === name)
    if (widget?.widgetId) input[0] = widget.widgetId
  }
}
