// @ts-check
// The templates as apps of newer frontends.
import { app } from "../../../scripts/app.js"

/**
 * Names the inputs of the workflow's app as the frontend saves them: with the workflow's id.
 *
 * A template has no id, else the runs of all who open it would be found as those of one workflow.
 * Its short names are read, but newer frontends warn of them when the next workflow is opened.
 */
export function nameAppInputs() {
  for (const input of app.rootGraph.extra?.linearData?.inputs ?? []) {
    const [id, name] = input
    const { widgets } = app.rootGraph.getNodeById(id) ?? {}
    const widget = widgets?.find((/** @type {any} */ widget) => widget.name === name)
    if (widget?.widgetId) input[0] = widget.widgetId
  }
}
