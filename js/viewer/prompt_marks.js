// @ts-check
import { api } from "../../../scripts/api.js"

const makeKey = (chain, step) => `${chain.layers[0].filename}/${step}`

/** The user's marks of the prompts, good or bad. */
export class PromptMarks {
  constructor() {
    this.given = new Map()
  }

  get(chain, step) {
    return this.given.get(makeKey(chain, step))
  }

  /** Send a mark to the server. @returns {Promise<boolean>} whether the mark was new */
  async send(chain, step, good) {
    const answer = await api.fetchApi("/chain_of_zoom/preference", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ run: chain.layers[0].filename, step, good }),
    })
    const { added, error } = await answer.json()
    if (error) throw new Error(error)
    this.given.set(makeKey(chain, step), good)
    return added
  }
}
