// @ts-check
// What the server sent about a run, and where to find it again.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

/** The newest runs among which one of this workflow is looked for. */
const NEWEST = 32

/**
 * @typedef {{filename: string, subfolder: string, type: string}} Saved
 * @typedef {{layers: Saved[], bicubic: Saved[], record: any}} Chain
 */

/** One for each chain: a list of pictures gives the loop, and so the viewer, several. */
export function chainsOf(output) {
  const layers = [...(output?.coz_layers ?? [])]
  const bicubic = [...(output?.coz_bicubic ?? [])]
  return (output?.coz_chain ?? []).map((json) => {
    const record = JSON.parse(json)
    return {
      record,
      layers: layers.splice(0, record.frames.length),
      bicubic: bicubic.splice(0, record.frames.length - 2),
    }
  })
}

export function addressOf({ filename, subfolder, type }) {
  return `/view?${new URLSearchParams({ filename, subfolder, type })}`
}

const placeOf = (node) => `coz_view/${node.graph.id}/${node.id}`

/** Keeps where one looks: with the workflow, and for a reload before the frontend has saved that. */
export function keepView(node, view) {
  node.properties.coz_view = view
  sessionStorage.setItem(placeOf(node), JSON.stringify(view))
}

export function keptView(node) {
  const latest = sessionStorage.getItem(placeOf(node))
  return latest ? JSON.parse(latest) : node.properties.coz_view
}

/** What the frontend has kept of a node's last run. */
export function keptOutput(node) {
  const inRoot = node.graph === app.rootGraph
  return app.nodeOutputs[inRoot ? node.id : `${node.graph.id}:${node.id}`]
}

/** What the server's history has of it: after the page was loaded anew. */
export async function pastOutput(node) {
  const answer = await api.fetchApi(`/history?max_items=${NEWEST}`)
  for (const { prompt, outputs } of Object.values(await answer.json()).reverse()) {
    if (prompt[3].extra_pnginfo?.workflow?.id !== app.rootGraph.id) continue
    const found = Object.keys(outputs).find(
      (id) => outputs[id].coz_layers && id.split(":").at(-1) === String(node.id),
    )
    if (found) return outputs[found]
  }
  return null
}
