// @ts-check
// Newer frontends show the templates as apps.
import { app } from "../../../scripts/app.js"

/**
 * Add the workflow's id to the ids of its app's inputs, as the frontend does when it saves them.
 *
 * The files of the templates do not hold the workflow's id, because all copies of a template would then
 * count as one workflow. All frontends accept inputs without it, but newer ones log a warning about them
 * when another workflow is opened.
 */
export function completeAppInputIds() {
  for (const input of app.rootGraph.extra?.linearData?.inputs ?? []) {
    const [id, name] = input
    const { widgets } = app.rootGraph.getNodeById(id) ?? {}
    const widget = widgets?.find((/** @type {any} */ widget) => widget.name === name)
    if (widget?.widgetId) input[0] = widget.widgetId
  }
}
