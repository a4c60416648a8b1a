// @ts-check
// What a node last sent in a run, and where its files are.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

/** The newest runs among which one of this workflow is looked for. */
const NEWEST = 32

/** @typedef {{filename: string, subfolder: string, type: string}} File */

/**
 * As the frontend keys its outputs: the id, in a subgraph with the subgraph's before it.
 *
 * @param {any} node
 */
export const locator = (node) =>
  node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`

/** What the frontend has kept of a node's last run. @param {any} node */
export const keptOutput = (node) => app.nodeOutputs?.[locator(node)]

/**
 * What the server's history has of it: after the page was loaded anew.
 *
 * @param {any} node
 * @param {string} key that the output has
 */
export async function pastOutput(node, key) {
  const answer = await api.fetchApi(`/history?max_items=${NEWEST}`)
  const runs = answer.ok ? Object.values(await answer.json()).reverse() : []
  for (const { prompt, outputs, meta } of runs) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== app.rootGraph.id) continue
    for (const [id, output] of Object.entries(outputs)) {
      // In a subgraph the ids of the nodes around it stand before, in either form.
      const shownOn = (meta?.[id]?.display_node ?? id).split(":").at(-1)
      if (output[key] && shownOn === String(node.id)) return output
    }
  }
  return null
}

/** @param {File} file */
export const fileAddress = ({ filename, subfolder, type }) =>
  `/view?${new URLSearchParams({ filename, subfolder, type })}`
