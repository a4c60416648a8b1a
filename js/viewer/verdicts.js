// @ts-check
import { api } from "../../../scripts/api.js"

const keyOf = (chain, step) => `${chain.layers[0].filename}/${step}`

/** What the reader said of the prompts of the steps. */
export class Verdicts {
  constructor() {
    this.given = new Map()
  }

  of(chain, step) {
    return this.given.get(keyOf(chain, step))
  }

  /** Tells the server. @returns {Promise<boolean>} whether it did not have it yet */
  async give(chain, step, good) {
    const answer = await api.fetchApi("/chain_of_zoom/preference", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ run: chain.layers[0].filename, step, good }),
    })
    const { added, error } = await answer.json()
    if (error) throw new Error(error)
    this.given.set(keyOf(chain, step), good)
    return added
  }
}
