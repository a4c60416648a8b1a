// @ts-check
import { api } from "../../../scripts/api.js"
import { formatFactor } from "../factors.js"
import { getFileUrl } from "../host/outputs.js"
import { updatePanel, isFactorShown } from "./caption.js"
import { Clip } from "./clip.js"
import { connectControls } from "./controls.js"
import { drawView, listVisibleLayers } from "./draw.js"
import { Flight } from "./flight.js"
import { download, fillBar, makePanel, listScales, setText } from "./panel.js"
import { Pictures } from "./pictures.js"
import * as places from "./places.js"
import { canPlay, isMotionReduced, Play, playOnce } from "./play.js"
import { parseChains, storeView, loadView } from "./record.js"
import { Split } from "./split.js"
import { translate } from "./texts.js"
import { PromptMarks } from "./prompt_marks.js"

/** Time that a message is shown. */
const MESSAGE_MS = 6000

export class Viewer {
  constructor(node) {
    this.node = node
    this.panel = makePanel()
    this.context = this.panel.canvas.getContext("2d", { alpha: false })
    this.scratch = new OffscreenCanvas(1, 1).getContext("2d")
    this.chains = []
    this.index = 0
    this.shown = null
    this.loading = null
    this.view = null
    this.flight = null
    this.bicubic = false
    this.promptMarks = new PromptMarks()
    this.bar = null
    this.observer = new ResizeObserver(this.resize)
    this.isOnScreen = true
    this.visibilityObserver = new IntersectionObserver((entries) => {
      this.isOnScreen = entries.at(-1).isIntersecting
      if (this.isOnScreen) this.requestDraw()
    })
    this.split = new Split(this)
    this.clip = new Clip(this)
    this.stopListening = connectControls(this)
    this.showMessage(translate("run"), true)
  }

  /** Start to watch the size of the stage and whether it is on the screen, until ``close``. */
  observe() {
    this.observer.observe(this.panel.stage)
    this.visibilityObserver.observe(this.panel.stage)
    window.addEventListener("resize", this.resize) // the browser's zoom does not change the stage's size
  }

  get size() {
    const { width, height } = this.panel.canvas
    return { width, height }
  }

  get layers() {
    return this.shown.layers
  }

  get currentLayer() {
    return places.findCurrentLayer(this.layers, this.view, this.size)
  }

  /** Note that the next output is that of a run that just ended. */
  noteRun() {
    this.hasRun = true
  }

  /** Show a run's output; the old one stays until the new images are loaded. */
  receive(output) {
    const { hasRun } = this
    this.hasRun = false
    const chains = parseChains(output)
    if (!chains.length || chains[0].layers[0].filename === this.chains[0]?.layers[0].filename) return
    this.chains = chains
    this.open(Math.min(this.index, chains.length - 1), hasRun)
  }

  /** If a view is stored for this node but its run is no longer on the server, say so. */
  reportMissing() {
    if (!this.chains.length && loadView(this.node)) this.showMessage(translate("again"), true)
  }

  open(index, hasRun = false) {
    this.index = index
    const chain = this.chains[index]
    const { frames, windows } = chain.record
    const shape = JSON.stringify([frames, windows])
    const saved = loadView(this.node)
    const view = saved?.shape === shape ? { x: saved.x, y: saved.y, span: saved.span } : null
    if (view) {
      this.bicubic = saved.bicubic
      this.split.share = saved.split ?? 0
      this.split.show()
    }
    const layers = places.placeLayers(chain.record)
    const addresses = [...chain.layers, ...chain.bicubic].map(getFileUrl)
    const get = (address) => api.fetchApi(address)
    this.loading?.pictures.close()
    const visible = view && this.size.width ? listVisibleLayers(layers, view, this.size) : [0]
    const loading = { chain, layers, shape, view, addresses, hasRun, pictures: null }
    loading.needed = visible.map((layer) => addresses[layer])
    loading.pictures = new Pictures(addresses, get, () => this.showWhenComplete(loading))
    this.loading = loading
    loading.needed.forEach((address) => loading.pictures.load(address))
  }

  showWhenComplete(opened) {
    const { error, decoded } = opened.pictures
    if (error) {
      const reason = error === "gone" ? translate("again") : translate("failed", { reason: error })
      this.showMessage(reason, true)
    } else if (opened === this.loading && opened.needed.every((address) => decoded.has(address))) {
      this.shown?.pictures.close()
      const isSame = this.shown?.shape === opened.shape
      this.shown = opened
      this.loading = null
      if (!isSame) {
        const isPlaying = this.flight instanceof Play && canPlay(this)
        this.view = opened.view
        this.flight = isPlaying ? new Play(this, this.flight) : null
      }
      this.showMessage("")
      this.updateScaleBar()
      if (opened.hasRun && !isSame) playOnce(this)
    }
    opened.pictures.prefetchNext()
    this.requestDraw()
  }

  /** Fetch again the images that failed to load. */
  retry() {
    for (const opened of [this.shown, this.loading]) {
      if (!opened?.pictures.error) continue
      opened.pictures.error = ""
      this.showMessage("")
      opened.needed.forEach((address) => opened.pictures.load(address))
    }
    this.requestDraw()
  }

  resize = () => {
    const { stage, canvas } = this.panel
    canvas.width = Math.round(stage.clientWidth * devicePixelRatio)
    canvas.height = Math.round(stage.clientHeight * devicePixelRatio)
    this.scratch.canvas.width = canvas.width
    this.scratch.canvas.height = canvas.height
    this.updateScaleBar()
    this.draw() // without this, a resized canvas would be empty until the next frame
  }

  /** Fill the scale bar for this chain and size. */
  updateScaleBar() {
    if (!this.shown || !this.size.width) return
    const { layers, size } = this
    const whole = places.computeMagnification(layers, places.fitView(layers[0], size), size)
    this.bar = fillBar(this.panel.bar, listScales(layers, whole), (layer) => this.flyTo(layer))
  }

  requestDraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null
      this.draw()
    })
  }

  draw() {
    if (!this.shown || !this.size.width) return
    if (!this.bar) this.updateScaleBar()
    const { layers, size } = this
    if (this.flight) {
      const { view, isOver } = this.flight.computeView()
      this.view = view
      if (isOver) this.flight = null
      else if (this.isOnScreen) this.requestDraw()
    }
    this.view = places.limitView(layers, this.view ?? places.fitView(layers[0], size), size)
    this.paint(this.bicubic)
    if (this.split.share && !this.bicubic) {
      this.context.save()
      this.context.beginPath()
      this.context.rect(0, 0, Math.round(this.split.share * size.width), size.height)
      this.context.clip()
      this.paint(true)
      this.context.restore()
    }
    updatePanel(this)
  }

  /** Draw the view from the chain's frames, or from plain enlargement. */
  paint(isPlain) {
    const { pictures, chain, addresses } = this.shown
    drawView(this.context, this.scratch, this.layers, this.view, (layer, scale) => {
      // The addresses of the plain enlargements follow those of the layers.
      const offset = isPlain && layer > 1 ? chain.layers.length - 2 : 0
      return pictures.pick(addresses[layer + offset], scale)
    })
  }

  showMessage(words, stays = false) {
    const { message, root } = this.panel
    clearTimeout(this.messageTimer)
    setText(message, words)
    root.classList.toggle("empty", !this.shown)
    if (words && !stays) this.messageTimer = setTimeout(() => setText(message, ""), MESSAGE_MS)
  }

  jumpTo(view) {
    this.flight = null
    this.view = view
    this.requestDraw()
  }

  zoom(factor, x, y) {
    if (this.shown) this.jumpTo(places.zoomView(this.layers, this.view, this.size, factor, x, y))
  }

  move(dx, dy) {
    if (this.shown) this.jumpTo(places.moveView(this.layers, this.view, this.size, dx, dy))
  }

  flyTo(layer) {
    this.retry()
    const to = places.fitView(this.layers[layer], this.size)
    this.saveView(to)
    if (isMotionReduced()) {
      this.jumpTo(to)
      return
    }
    this.flight = new Flight(this.view, to)
    this.requestDraw()
  }

  toggleBicubic() {
    this.bicubic = !this.bicubic
    this.saveView()
    this.requestDraw()
  }

  saveView(view = this.view) {
    if (!this.shown) return
    const { bicubic, split, shown } = this
    storeView(this.node, { ...view, bicubic, split: split.share, shape: shown.shape })
  }

  saveImage() {
    this.draw()
    this.paint(this.bicubic) // without the dividing line
    const factor = places.computeMagnification(this.layers, this.view, this.size)
    const name = `zoom-${isFactorShown(factor) ? formatFactor(factor) : "picture"}.png`
    this.panel.canvas.toBlob((blob) => download(blob, name))
    this.requestDraw()
  }

  toggleFullScreen() {
    const { root } = this.panel
    if (document.fullscreenElement === root) document.exitFullscreen()
    else root.requestFullscreen().then(() => root.focus(), (error) => this.showMessage(error.message))
  }

  async markPrompt(good) {
    const step = this.currentLayer - 1
    try {
      const added = await this.promptMarks.send(this.shown.chain, step, good)
      this.showMessage(translate(added ? (good ? "markedGood" : "markedBad") : "markedBefore", { step }))
    } catch (error) {
      this.showMessage(translate("notMarked", { reason: error.message }), true)
    }
    this.requestDraw()
  }

  close() {
    this.observer.disconnect()
    this.visibilityObserver.disconnect()
    window.removeEventListener("resize", this.resize)
    this.stopListening()
    this.clip.stop()
    clearTimeout(this.messageTimer)
    this.shown?.pictures.close()
    this.loading?.pictures.close()
    this.shown = this.loading = this.flight = null // for observers that are still called
    this.chains = []
    cancelAnimationFrame(this.frame)
    this.frame = null
  }
}
