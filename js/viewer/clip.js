// @ts-check
// Downloads the flight through the chain as a video that the server renders.
import { api } from "../../../scripts/api.js"
import { getFileUrl } from "../host/outputs.js"
import { download, setText } from "./panel.js"
import { canPlay } from "./play.js"
import { translate } from "./texts.js"

export class Clip {
  /** @param {import("./viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer
    /** @type {AbortController | null} */
    this.abortController = null
  }

  async toggle() {
    if (this.abortController) return this.stop()
    const { viewer } = this
    if (!canPlay(viewer)) return viewer.showMessage(translate("oneFrame"))
    const { signal } = (this.abortController = new AbortController())
    viewer.showMessage("")
    this.showProgress(0)
    try {
      const query = new URLSearchParams({ run: viewer.shown.chain.layers[0].filename })
      const options = { method: "POST", signal }
      const answer = await api.fetchApi(`/chain_of_zoom/clip?${query}`, options)
      if (!answer.ok) throw new Error(await answer.text())
      const file = await this.readProgress(answer)
      const video = await api.fetchApi(getFileUrl(file), { signal })
      if (!video.ok) throw new Error(`${video.status} ${video.statusText}`)
      download(await video.blob(), "zoom.mp4")
    } catch (error) {
      if (signal.aborted) viewer.showMessage(translate("clipStopped"))
      else viewer.showMessage(translate("noClip", { reason: error.message }), true)
    } finally {
      this.abortController = null
      this.showProgress(null)
    }
  }

  stop() {
    this.abortController?.abort()
  }

  /**
   * Read the server's answer, lines of JSON that report the progress, and return the finished file.
   *
   * @param {Response} answer
   * @returns {Promise<import("./record.js").File>}
   */
  async readProgress(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    for (let rest = ""; ; ) {
      const { value, done } = await reader.read()
      if (done) throw new Error(translate("clipBroken"))
      const lines = (rest + value).split("\n")
      rest = lines.pop()
      for (const { progress, file, error } of lines.map((line) => JSON.parse(line))) {
        if (error) throw new Error(error)
        if (file) return file
        this.showProgress(progress)
      }
    }
  }

  /** @param {number | null} progress 0 to 1, or null while no clip is made */
  showProgress(progress) {
    const { clip } = this.viewer.panel.buttons
    const percent = progress === null ? "" : `${Math.floor(progress * 100)} %`
    setText(clip.querySelector(".percent"), percent)
    clip.title = percent ? translate("clipStop") : translate("clip")
    clip.setAttribute("aria-label", percent ? `${clip.title} (${percent})` : clip.title)
    clip.setAttribute("aria-pressed", String(!!percent))
  }
}
