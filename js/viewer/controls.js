// @ts-check
// What the buttons and keys of a viewer do.
import { aimLoop, flyBack } from "./back.js"
import { listen } from "./gestures.js"
import { togglePlay } from "./play.js"

const KEY_ZOOM = 1.25
const KEY_MOVE = 0.1 // of the view's shorter side
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }

/** Keys that act again and again while they are held. */
const REPEATING = new Set(["+", "=", "-", "_", ...Object.keys(ARROWS)])

/** Milliseconds from which on a key was held: what it switched is switched back with it. */
const HELD = 350

/**
 * @param {import("./viewer.js").Viewer} viewer
 * @returns {() => void} gives back what is listened to on the window
 */
export function connect(viewer) {
  const { root, canvas, buttons } = viewer.panel

  const zoom = (factor) => {
    viewer.zoom(factor, viewer.size.width / 2, viewer.size.height / 2)
    viewer.remember()
  }
  const move = ([x, y]) => {
    const length = KEY_MOVE * Math.min(viewer.size.width, viewer.size.height)
    viewer.move(x * length, y * length)
    viewer.remember()
  }
  const actions = {
    play: () => togglePlay(viewer),
    out: () => zoom(1 / KEY_ZOOM),
    in: () => zoom(KEY_ZOOM),
    whole: () => viewer.flyTo(0),
    deepest: () => viewer.flyTo(viewer.layers.length - 1),
    split: () => viewer.split.toggle(),
    bicubic: () => viewer.toggle(),
    chain: () => viewer.open((viewer.index + 1) % viewer.chains.length),
    target: () => aimLoop(viewer),
    save: () => viewer.save(),
    clip: () => viewer.clip.toggle(),
    full: () => viewer.fill(),
    good: () => viewer.mark(true),
    bad: () => viewer.mark(false),
    back: () => flyBack(viewer),
    here: () => aimLoop(viewer),
  }
  const keys = {
    " ": actions.play,
    "+": actions.in,
    "=": actions.in,
    "-": actions.out,
    _: actions.out,
    0: actions.whole,
    home: actions.whole,
    end: actions.deepest,
    b: actions.bicubic,
    s: actions.save,
    f: actions.full,
  }
  for (const [name, direction] of Object.entries(ARROWS))
    keys[name.toLowerCase()] = () => move(direction)

  const act = (name) => (viewer.shown || name === "full") && actions[name]()
  for (const [name, button] of Object.entries(buttons))
    button.addEventListener("click", () => act(name))
  root.shadowRoot.addEventListener("click", ({ target, detail }) => {
    // After the pointer pressed a button Space is to play, not to press it again.
    if (detail && target.closest("button")) root.focus({ preventScroll: true })
  })

  let blinkStart = 0
  return listen(root, canvas, {
    zoom: (factor, x, y) => viewer.zoom(factor, x, y),
    move: (dx, dy) => viewer.move(dx, dy),
    end: () => viewer.remember(),
    next: () => viewer.shown && viewer.flyTo((viewer.current + 1) % viewer.layers.length),
    key: ({ key, repeat, timeStamp }) => {
      const name = key.toLowerCase()
      if (!(name in keys) || (!viewer.shown && name !== "f")) return false
      if (repeat && !REPEATING.has(key)) return true
      if (name === "b") blinkStart = timeStamp
      keys[name]()
      return true
    },
    release: ({ key, timeStamp }) => {
      if (key.toLowerCase() !== "b" || !blinkStart) return
      if (viewer.shown && timeStamp - blinkStart >= HELD) viewer.toggle()
      blinkStart = 0
    },
    leave: () => {
      if (viewer.shown && blinkStart) viewer.toggle() // nobody hears the key being released
      blinkStart = 0
    },
  })
}
