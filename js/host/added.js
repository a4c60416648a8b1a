// @ts-check
/**
 * Widgets that options of a dynamic combo got later: name, the widget before it, default.
 * @type {[string, string, unknown][]}
 */
const ADDED_WIDGETS = [["backbone.adaptive", "backbone.denoise", false]]

/**
 * Add the values of these widgets to the nodes of a workflow that was saved before they existed.
 *
 * A file holds the values of a node's widgets by position: without these, each later widget of the node
 * would get the value of another one.
 *
 * @param {any} workflow as saved; it is changed
 */
export function addMissingValues(workflow) {
  const graphs = [workflow, ...(workflow.definitions?.subgraphs ?? [])]
  for (const { type, inputs, widgets_values: values } of graphs.flatMap(({ nodes }) => nodes)) {
    if (!type.startsWith("CoZ") || !Array.isArray(values)) continue
    const names = (inputs ?? []).flatMap((/** @type {any} */ { widget }) => widget?.name ?? [])
    for (const [name, before, value] of ADDED_WIDGETS) {
      const place = names.indexOf(before) + 1
      if (!place || names.includes(name)) continue
      names.splice(place, 0, name)
      values.splice(place, 0, value)
    }
  }
}
