// @ts-check
import { api } from "../../../scripts/api.js"
import { factorText } from "../factors.js"
import { fileAddress } from "../host/outputs.js"
import { describe, isFactor } from "./caption.js"
import { Clip } from "./clip.js"
import { connect } from "./controls.js"
import { drawView, layersIn } from "./draw.js"
import { Flight } from "./flight.js"
import { download, fillBar, makePanel, scalesOf, write } from "./panel.js"
import { Pictures } from "./pictures.js"
import * as places from "./places.js"
import { canPlay, isMotionReduced, Play, playOnce } from "./play.js"
import { chainsOf, keepView, keptView } from "./record.js"
import { Split } from "./split.js"
import { text } from "./texts.js"
import { Verdicts } from "./verdicts.js"

/** Milliseconds that a message stays. */
const MESSAGE = 6000

export class Viewer {
  constructor(node) {
    this.node = node
    this.panel = makePanel()
    this.context = this.panel.canvas.getContext("2d", { alpha: false })
    this.sheet = new OffscreenCanvas(1, 1).getContext("2d")
    this.chains = []
    this.index = 0
    this.shown = null
    this.coming = null
    this.view = null
    this.flight = null
    this.bicubic = false
    this.verdicts = new Verdicts()
    this.bar = null
    this.observer = new ResizeObserver(this.resize)
    this.isOnScreen = true
    this.seen = new IntersectionObserver((entries) => {
      this.isOnScreen = entries.at(-1).isIntersecting
      if (this.isOnScreen) this.request()
    })
    this.split = new Split(this)
    this.clip = new Clip(this)
    this.letGo = connect(this)
    this.say(text("run"), true)
  }

  /** The node is in a graph now; until ``close``. */
  begin() {
    this.observer.observe(this.panel.stage)
    this.seen.observe(this.panel.stage)
    window.addEventListener("resize", this.resize) // the browser's zoom leaves the stage its size
  }

  get size() {
    const { width, height } = this.panel.canvas
    return { width, height }
  }

  get layers() {
    return this.shown.layers
  }

  get current() {
    return places.currentLayer(this.layers, this.view, this.size)
  }

  /** A run of the node ended; what it sent follows. */
  announce() {
    this.hasRun = true
  }

  /** Shows a run's output; the old view stays until the new one's pictures are there. */
  receive(output) {
    const { hasRun } = this
    this.hasRun = false
    const chains = chainsOf(output)
    if (!chains.length || chains[0].layers[0].filename === this.chains[0]?.layers[0].filename) return
    this.chains = chains
    this.open(Math.min(this.index, chains.length - 1), hasRun)
  }

  /** Nothing is left of the run that was looked at. */
  recall() {
    if (!this.chains.length && keptView(this.node)) this.say(text("again"), true)
  }

  open(index, hasRun = false) {
    this.index = index
    const chain = this.chains[index]
    const { frames, windows } = chain.record
    const shape = JSON.stringify([frames, windows])
    const saved = keptView(this.node)
    const view = saved?.shape === shape ? { x: saved.x, y: saved.y, span: saved.span } : null
    if (view) {
      this.bicubic = saved.bicubic
      this.split.place = saved.split ?? 0
      this.split.show()
    }
    const layers = places.layersOf(chain.record)
    const addresses = [...chain.layers, ...chain.bicubic].map(fileAddress)
    const get = (address) => api.fetchApi(address)
    this.coming?.pictures.close()
    const first = view && this.size.width ? layersIn(layers, view, this.size) : [0]
    const coming = { chain, layers, shape, view, addresses, hasRun, pictures: null }
    coming.first = first.map((layer) => addresses[layer])
    coming.pictures = new Pictures(addresses, get, () => this.arrived(coming))
    this.coming = coming
    coming.first.forEach((address) => coming.pictures.load(address))
  }

  arrived(source) {
    const { error, decoded } = source.pictures
    if (error) {
      const reason = error === "gone" ? text("again") : text("failed", { reason: error })
      this.say(reason, true)
    } else if (source === this.coming && source.first.every((address) => decoded.has(address))) {
      this.shown?.pictures.close()
      const isSame = this.shown?.shape === source.shape
      this.shown = source
      this.coming = null
      if (!isSame) {
        const isPlaying = this.flight instanceof Play && canPlay(this)
        this.view = source.view
        this.flight = isPlaying ? new Play(this, this.flight) : null
      }
      this.say("")
      this.measure()
      if (source.hasRun && !isSame) playOnce(this)
    }
    source.pictures.prepare()
    this.request()
  }

  /** Asks anew for what did not come while the server was away. */
  retry() {
    for (const source of [this.shown, this.coming]) {
      if (!source?.pictures.error) continue
      source.pictures.error = ""
      this.say("")
      source.first.forEach((address) => source.pictures.load(address))
    }
    this.request()
  }

  resize = () => {
    const { stage, canvas } = this.panel
    canvas.width = Math.round(stage.clientWidth * devicePixelRatio)
    canvas.height = Math.round(stage.clientHeight * devicePixelRatio)
    this.sheet.canvas.width = canvas.width
    this.sheet.canvas.height = canvas.height
    this.measure()
    this.draw() // a resized canvas is empty, and stays so until the next frame otherwise
  }

  /** The scale bar for this chain in a view of this size. */
  measure() {
    if (!this.shown || !this.size.width) return
    const { layers, size } = this
    const whole = places.magnification(layers, places.wholeOf(layers[0], size), size)
    this.bar = fillBar(this.panel.bar, scalesOf(layers, whole), (layer) => this.flyTo(layer))
  }

  request() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null
      this.draw()
    })
  }

  draw() {
    if (!this.shown || !this.size.width) return
    if (!this.bar) this.measure()
    const { layers, size } = this
    if (this.flight) {
      const { view, isOver } = this.flight.now()
      this.view = view
      if (isOver) this.flight = null
      else if (this.isOnScreen) this.request()
    }
    this.view = places.limited(layers, this.view ?? places.wholeOf(layers[0], size), size)
    this.paint(this.bicubic)
    if (this.split.place && !this.bicubic) {
      this.context.save()
      this.context.beginPath()
      this.context.rect(0, 0, Math.round(this.split.place * size.width), size.height)
      this.context.clip()
      this.paint(true)
      this.context.restore()
    }
    describe(this)
  }

  /** Draws the view with the chain's frames, or with plain enlargement in their place. */
  paint(isPlain) {
    const { pictures, chain, addresses } = this.shown
    drawView(this.context, this.sheet, this.layers, this.view, (layer, scale) => {
      const plain = isPlain && layer > 1 ? chain.layers.length - 2 : 0
      return pictures.look(addresses[layer + plain], scale)
    })
  }

  say(words, stays = false) {
    const { message, root } = this.panel
    clearTimeout(this.saying)
    write(message, words)
    root.classList.toggle("empty", !this.shown)
    if (words && !stays) this.saying = setTimeout(() => write(message, ""), MESSAGE)
  }

  go(view) {
    this.flight = null
    this.view = view
    this.request()
  }

  zoom(factor, x, y) {
    if (this.shown) this.go(places.zoomedAt(this.layers, this.view, this.size, factor, x, y))
  }

  move(dx, dy) {
    if (this.shown) this.go(places.movedBy(this.layers, this.view, this.size, dx, dy))
  }

  flyTo(layer) {
    this.retry()
    const to = places.wholeOf(this.layers[layer], this.size)
    this.remember(to)
    if (isMotionReduced()) {
      this.go(to)
      return
    }
    this.flight = new Flight(this.view, to)
    this.request()
  }

  toggle() {
    this.bicubic = !this.bicubic
    this.remember()
    this.request()
  }

  remember(view = this.view) {
    if (!this.shown) return
    const { bicubic, split, shown } = this
    keepView(this.node, { ...view, bicubic, split: split.place, shape: shown.shape })
  }

  save() {
    this.draw()
    this.paint(this.bicubic) // all of the view, whatever is compared in it
    const factor = places.magnification(this.layers, this.view, this.size)
    const name = `zoom-${isFactor(factor) ? factorText(factor) : "picture"}.png`
    this.panel.canvas.toBlob((blob) => download(blob, name))
    this.request()
  }

  fill() {
    const { root } = this.panel
    if (document.fullscreenElement === root) document.exitFullscreen()
    else root.requestFullscreen().then(() => root.focus(), (error) => this.say(error.message))
  }

  async mark(good) {
    const step = this.current - 1
    try {
      const added = await this.verdicts.give(this.shown.chain, step, good)
      this.say(text(added ? (good ? "markedGood" : "markedBad") : "markedBefore", { step }))
    } catch (error) {
      this.say(text("notMarked", { reason: error.message }), true)
    }
    this.request()
  }

  close() {
    this.observer.disconnect()
    this.seen.disconnect()
    window.removeEventListener("resize", this.resize)
    this.letGo()
    this.clip.stop()
    clearTimeout(this.saying)
    this.shown?.pictures.close()
    this.coming?.pictures.close()
    this.shown = this.coming = this.flight = null // for what still comes, as an observer's call
    this.chains = []
    cancelAnimationFrame(this.frame)
    this.frame = null
  }
}
