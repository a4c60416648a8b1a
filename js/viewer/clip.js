// @ts-check
// The flight through the chain as a video file, which the server makes.
import { api } from "../../../scripts/api.js"
import { fileAddress } from "../host/outputs.js"
import { download, write } from "./panel.js"
import { canPlay } from "./play.js"
import { text } from "./texts.js"

export class Clip {
  /** @param {import("./viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer
    /** @type {AbortController | null} */
    this.making = null
  }

  async toggle() {
    if (this.making) return this.stop()
    const { viewer } = this
    if (!canPlay(viewer)) return viewer.say(text("oneFrame"))
    const { signal } = (this.making = new AbortController())
    viewer.say("")
    this.show(0)
    try {
      const query = new URLSearchParams({ run: viewer.shown.chain.layers[0].filename })
      const options = { method: "POST", signal }
      const answer = await api.fetchApi(`/chain_of_zoom/clip?${query}`, options)
      if (!answer.ok) throw new Error(await answer.text())
      const file = await this.follow(answer)
      const video = await api.fetchApi(fileAddress(file), { signal })
      if (!video.ok) throw new Error(`${video.status} ${video.statusText}`)
      download(await video.blob(), "zoom.mp4")
    } catch (error) {
      if (signal.aborted) viewer.say(text("clipStopped"))
      else viewer.say(text("noClip", { reason: error.message }), true)
    } finally {
      this.making = null
      this.show(null)
    }
  }

  stop() {
    this.making?.abort()
  }

  /**
   * Shows the progress that the server tells, a line of JSON each.
   *
   * @param {Response} answer
   * @returns {Promise<import("./record.js").File>}
   */
  async follow(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    for (let rest = ""; ; ) {
      const { value, done } = await reader.read()
      if (done) throw new Error(text("clipBroken"))
      const lines = (rest + value).split("\n")
      rest = lines.pop()
      for (const { progress, file, error } of lines.map((line) => JSON.parse(line))) {
        if (error) throw new Error(error)
        if (file) return file
        this.show(progress)
      }
    }
  }

  /** @param {number | null} progress 0 to 1 */
  show(progress) {
    const { clip } = this.viewer.panel.buttons
    const percent = progress === null ? "" : `${Math.floor(progress * 100)} %`
    write(clip.querySelector(".percent"), percent)
    clip.title = percent ? text("clipStop") : text("clip")
    clip.setAttribute("aria-label", percent ? `${clip.title} (${percent})` : clip.title)
    clip.setAttribute("aria-pressed", String(!!percent))
  }
}
