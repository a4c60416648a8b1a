// @ts-check
import { api } from "../../../scripts/api.js"
import { factorText } from "../factors.js"
import { feederOf, setTarget, targetInput } from "../graph.js"
import { fileAddress } from "../outputs.js"
import { describe, isFactor } from "./caption.js"
import { drawView, layersIn } from "./draw.js"
import { Flight } from "./flight.js"
import { listen } from "./gestures.js"
import { download, fillBar, makePanel, scalesOf, write } from "./panel.js"
import { Pictures } from "./pictures.js"
import * as places from "./places.js"
import { chainsOf, keepView, keptView } from "./record.js"
import { text } from "./texts.js"
import { Verdicts } from "./verdicts.js"

const KEY_ZOOM = 1.25
const KEY_MOVE = 0.1 // of the view's shorter side
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }

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
    this.listen()
    this.say(text("run"), true)
  }

  /** The node is in a graph now; until ``close``. */
  begin() {
    this.observer.observe(this.panel.stage)
    window.addEventListener("resize", this.resize) // the browser's zoom leaves the stage its size
  }

  get size() {
    const { width, height } = this.panel.canvas
    return { width, height }
  }

  listen() {
    const { root, canvas, buttons } = this.panel
    this.letGo = listen(root, canvas, {
      zoom: (factor, x, y) => this.zoom(factor, x, y),
      move: (dx, dy) => this.move(dx, dy),
      end: () => this.remember(),
      next: () => this.shown && this.flyTo((this.current + 1) % this.layers.length),
      key: (key) => this.key(key),
    })
    const actions = {
      out: () => this.key("-"),
      in: () => this.key("+"),
      whole: () => this.flyTo(0),
      deepest: () => this.flyTo(this.layers.length - 1),
      bicubic: () => this.toggle(),
      chain: () => this.open((this.index + 1) % this.chains.length),
      target: () => this.aimLoop(),
      save: () => this.save(),
      full: () => this.fill(),
      good: () => this.mark(true),
      bad: () => this.mark(false),
    }
    for (const [name, act] of Object.entries(actions))
      buttons[name].addEventListener("click", () => (this.shown || name === "full") && act())
  }

  get layers() {
    return this.shown.layers
  }

  get current() {
    return places.currentLayer(this.layers, this.view, this.size)
  }

  /** Shows a run's output; the old view stays until the new one's pictures are there. */
  receive(output) {
    const chains = chainsOf(output)
    if (!chains.length || chains[0].layers[0].filename === this.chains[0]?.layers[0].filename) return
    this.chains = chains
    this.open(Math.min(this.index, chains.length - 1))
  }

  /** Nothing is left of the run that was looked at. */
  recall() {
    if (!this.chains.length && keptView(this.node)) this.say(text("again"), true)
  }

  open(index) {
    this.index = index
    const chain = this.chains[index]
    const { frames, windows } = chain.record
    const shape = JSON.stringify([frames, windows])
    const saved = keptView(this.node)
    const view = saved?.shape === shape ? { x: saved.x, y: saved.y, span: saved.span } : null
    if (view) this.bicubic = saved.bicubic
    const layers = places.layersOf(chain.record)
    const addresses = [...chain.layers, ...chain.bicubic].map(fileAddress)
    const get = (address) => api.fetchApi(address)
    this.coming?.pictures.close()
    const first = view && this.size.width ? layersIn(layers, view, this.size) : [0]
    const coming = { chain, layers, shape, view, addresses, pictures: null }
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
      if (this.shown?.shape !== source.shape) {
        this.view = source.view
        this.flight = null
      }
      this.shown = source
      this.coming = null
      this.say("")
      this.measure()
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
      this.view = this.flight.view
      if (this.view === this.flight.to) this.flight = null
      else this.request()
    }
    this.view = places.limited(layers, this.view ?? places.wholeOf(layers[0], size), size)
    const { pictures, chain, addresses } = this.shown
    drawView(this.context, this.sheet, layers, this.view, (layer, scale) => {
      const plain = this.bicubic && layer > 1 ? chain.layers.length - 2 : 0
      return pictures.look(addresses[layer + plain], scale)
    })
    describe(this)
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
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.go(to)
      return
    }
    this.flight = new Flight(this.view, to)
    this.request()
  }

  key(key) {
    if (key === "f" || key === "F") this.fill()
    else if (!this.shown) return false
    else if (key === "+" || key === "=") this.zoomMiddle(KEY_ZOOM)
    else if (key === "-" || key === "_") this.zoomMiddle(1 / KEY_ZOOM)
    else if (key === "0" || key === "Home") this.flyTo(0)
    else if (key === "End") this.flyTo(this.layers.length - 1)
    else if (key === "b" || key === "B") this.toggle()
    else if (key === "s" || key === "S") this.save()
    else if (key in ARROWS) {
      const length = KEY_MOVE * Math.min(this.size.width, this.size.height)
      this.move(ARROWS[key][0] * length, ARROWS[key][1] * length)
      this.remember()
    } else return false
    return true
  }

  zoomMiddle(factor) {
    this.zoom(factor, this.size.width / 2, this.size.height / 2)
    this.remember()
  }

  toggle() {
    this.bicubic = !this.bicubic
    this.remember()
    this.request()
  }

  remember(view = this.view) {
    if (!this.shown) return
    keepView(this.node, { ...view, bicubic: this.bicubic, shape: this.shown.shape })
  }

  /** Sets the target of the loop that feeds this node to the middle of the view. */
  aimLoop() {
    const loop = feederOf(this.node, "chain")
    if (loop?.type !== "CoZChainLoop") return this.say(text("noLoop"))
    const input = targetInput(loop)
    if (input) return this.say(text("taken", { input }))
    const [x, y] = places.targetOf(this.layers, this.view)
    setTarget(loop, { x, y })
    this.say(text("aimed", { x: x.toFixed(4), y: y.toFixed(4) }))
  }

  save() {
    this.draw()
    const factor = places.magnification(this.layers, this.view, this.size)
    download(this.panel.canvas, `zoom-${isFactor(factor) ? factorText(factor) : "picture"}.png`)
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
    window.removeEventListener("resize", this.resize)
    this.letGo()
    clearTimeout(this.saying)
    this.shown?.pictures.close()
    this.coming?.pictures.close()
    cancelAnimationFrame(this.frame)
  }
}
