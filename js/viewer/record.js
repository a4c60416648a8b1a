// @ts-check
// What the server sent about a run, and how it was looked at.

/** @typedef {import("../host/outputs.js").File} File */
/** @typedef {{layers: File[], bicubic: File[], record: any}} Chain */

/** One for each chain: a list of pictures gives the loop, and so the viewer, several. */
export function chainsOf(output) {
  return (output?.coz_chain ?? []).map((record, i) => ({
    record: JSON.parse(record),
    layers: JSON.parse(output.coz_layers[i]),
    bicubic: JSON.parse(output.coz_bicubic[i]),
  }))
}

const placeOf = (node) => `coz_view/${node.graph.id}/${node.id}`

/**
 * Keeps where one looks, for a reload and for another visit of the workflow's tab. Not in the node's
 * properties: to the frontend each look would be an edit, to be undone and saved.
 */
export const keepView = (node, view) => sessionStorage.setItem(placeOf(node), JSON.stringify(view))

export const keptView = (node) => JSON.parse(sessionStorage.getItem(placeOf(node)) ?? "null")
