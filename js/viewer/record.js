// @ts-check
// Reads what the server sent about a run, and keeps the user's view of it.

/** @typedef {import("../host/outputs.js").File} File */
/** @typedef {{layers: File[], bicubic: File[], record: any}} Chain */

/** Return the chains of an output. A list of images gives several. */
export function parseChains(output) {
  return (output?.coz_chain ?? []).map((record, i) => ({
    record: JSON.parse(record),
    layers: JSON.parse(output.coz_layers[i]),
    bicubic: JSON.parse(output.coz_bicubic[i]),
  }))
}

const makeViewKey = (node) => `coz_view/${node.graph.id}/${node.id}`

/**
 * Keep the view for a reload and for the next visit of the workflow's tab. If it were kept in the node's
 * properties, each move would count as an edit of the workflow.
 */
export const storeView = (node, view) => sessionStorage.setItem(makeViewKey(node), JSON.stringify(view))

export const loadView = (node) => JSON.parse(sessionStorage.getItem(makeViewKey(node)) ?? "null")
