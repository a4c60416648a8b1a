// @ts-check
// Connects the buttons and keys of a viewer with what they do.
import { setLoopTarget, flyToChain } from "./back.js"
import { listenToGestures } from "./gestures.js"
import { togglePlay } from "./play.js"

const KEY_ZOOM_FACTOR = 1.25
const KEY_MOVE_SHARE = 0.1 // of the view's shorter side
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }

/** Keys that repeat their action while they are held. */
const REPEATING_KEYS = new Set(["+", "=", "-", "_", ...Object.keys(ARROWS)])

/** If B was down for at least this long, releasing it undoes what pressing it did. */
const MIN_HOLD_MS = 350

/**
 * @param {import("./viewer.js").Viewer} viewer
 * @returns {() => void} removes the listeners on the window
 */
export function connectControls(viewer) {
  const { root, canvas, buttons } = viewer.panel

  const zoom = (factor) => {
    viewer.zoom(factor, viewer.size.width / 2, viewer.size.height / 2)
    viewer.saveView()
  }
  const move = ([x, y]) => {
    const length = KEY_MOVE_SHARE * Math.min(viewer.size.width, viewer.size.height)
    viewer.move(x * length, y * length)
    viewer.saveView()
  }
  const actions = {
    play: () => togglePlay(viewer),
    out: () => zoom(1 / KEY_ZOOM_FACTOR),
    in: () => zoom(KEY_ZOOM_FACTOR),
    whole: () => viewer.flyTo(0),
    deepest: () => viewer.flyTo(viewer.layers.length - 1),
    split: () => viewer.split.toggle(),
    bicubic: () => viewer.toggleBicubic(),
    chain: () => viewer.open((viewer.index + 1) % viewer.chains.length),
    target: () => setLoopTarget(viewer),
    save: () => viewer.saveImage(),
    clip: () => viewer.clip.toggle(),
    full: () => viewer.toggleFullScreen(),
    good: () => viewer.markPrompt(true),
    bad: () => viewer.markPrompt(false),
    back: () => flyToChain(viewer),
    here: () => setLoopTarget(viewer),
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
    // After a click on a button, Space must play and not press the button again.
    if (detail && target.closest("button")) root.focus({ preventScroll: true })
  })

  let pressTime = 0 // of B, while it is down
  return listenToGestures(root, canvas, {
    zoom: (factor, x, y) => viewer.zoom(factor, x, y),
    move: (dx, dy) => viewer.move(dx, dy),
    end: () => viewer.saveView(),
    next: () => viewer.shown && viewer.flyTo((viewer.currentLayer + 1) % viewer.layers.length),
    key: ({ key, repeat, timeStamp }) => {
      const name = key.toLowerCase()
      if (!(name in keys) || (!viewer.shown && name !== "f")) return false
      if (repeat && !REPEATING_KEYS.has(key)) return true
      if (name === "b") pressTime = timeStamp
      keys[name]()
      return true
    },
    release: ({ key, timeStamp }) => {
      if (key.toLowerCase() !== "b" || !pressTime) return
      if (viewer.shown && timeStamp - pressTime >= MIN_HOLD_MS) viewer.toggleBicubic()
      pressTime = 0
    },
    leave: () => {
      if (viewer.shown && pressTime) viewer.toggleBicubic() // the release of the key will not be noticed
      pressTime = 0
    },
  })
}
