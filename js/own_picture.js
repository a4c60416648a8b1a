// @ts-check
// Widgets of CoZ Sample Picture. The node shows its image, names each sample by its subject, and uploads
// a file that the user drops onto the node or chooses from the disk.
import { api } from "../../scripts/api.js"
import { hasFiles, forwardToGraph, forwardFiles } from "./host/canvas.js"
import { chooseValue, findWidget } from "./host/graph.js"
import { callAfter } from "./host/hook.js"
import { makeTranslator } from "./host/language.js"
import { warn } from "./host/toast.js"
import { checkFiles, NO_OWN_PICTURE, getLoaderImage } from "./picker/picture.js"
import { callOnGraphChanges, stopCalling } from "./picker/watch.js"
import { showOnNode } from "./host/widget.js"

const TYPE = "CoZSamplePicture"
/** Height of the image on the node. */
const HEIGHT_PX = 130
const MARGIN_PX = 10

const SUBJECTS = {
  "astronaut.png": "astronaut",
  "chelsea.png": "cat",
  "coffee.png": "coffee",
  "hubble_deep_field.jpg": "galaxies",
  "rocket.jpg": "rocket",
}
const translate = makeTranslator(
  {
    astronaut: "Astronaut",
    cat: "Cat",
    coffee: "Coffee",
    galaxies: "Galaxies",
    rocket: "Rocket",
    none: "none: use the sample",
    choose: "choose or drop your own picture",
    refused: "{name} is not an image. Choose a PNG, JPEG or WebP file.",
    failed: "{name} could not be sent to ComfyUI: {reason}",
    loading: "loading the image",
    gone: "the image file is gone: choose another",
    large: "too large to show here",
    unreadable: "this file cannot be read as an image: choose another",
    run: "",
  },
  {
    astronaut: "宇航员",
    cat: "猫",
    coffee: "咖啡",
    galaxies: "星系",
    rocket: "火箭",
    none: "无：使用示例图片",
    choose: "选择或拖入自己的图片",
    refused: "{name} 不是图片。请选择 PNG、JPEG 或 WebP 文件。",
    failed: "无法将 {name} 发送到 ComfyUI：{reason}",
    loading: "正在加载图片",
    gone: "图片文件已不存在：请另选一张",
    large: "图片过大，无法在此显示",
    unreadable: "此文件无法作为图片读取：请另选一张",
    run: "",
  },
)

/** @param {any} node @param {File} file */
async function uploadFile(node, file) {
  if (!file.type.startsWith("image/")) return warn(translate("refused", { name: file.name }))
  const body = new FormData()
  body.append("image", file)
  try {
    const answer = await api.fetchApi("/upload/image", { method: "POST", body })
    if (!answer.ok) throw new Error(answer.statusText)
    const { name, subfolder } = await answer.json()
    chooseValue(node, "own_picture", subfolder ? `${subfolder}/${name}` : name)
    checkFiles() // the upload may have replaced a file of the same name
  } catch (error) {
    warn(translate("failed", { name: file.name, reason: error instanceof Error ? error.message : "" }))
  }
}

/** @param {any} node */
function askForFile(node) {
  const input = document.createElement("input")
  input.type = "file"
  input.accept = "image/*"
  input.addEventListener("change", () => input.files?.[0] && uploadFile(node, input.files[0]))
  input.click()
}

/** @param {any} node */
export function attachOwnPicture(node) {
  if (node.comfyClass !== TYPE) return
  const [sample, own] = ["picture", "own_picture"].map((name) => findWidget(node, name))
  sample.options.getOptionLabel = (/** @type {keyof SUBJECTS} */ name) =>
    SUBJECTS[name] ? translate(/** @type {any} */ (SUBJECTS[name])) : String(name)
  own.options.getOptionLabel = (/** @type {string} */ name) =>
    name === NO_OWN_PICTURE ? translate("none") : String(name)

  // Choosing a sample deselects the user's own file.
  callAfter(sample, "callback", () => {
    if (own.value !== NO_OWN_PICTURE) chooseValue(node, "own_picture", NO_OWN_PICTURE)
  })

  // The value "none" is not sent, so that a workflow saved before this input existed gives the same prompt.
  own.serializeValue = () => (own.value === NO_OWN_PICTURE ? undefined : own.value)

  const button = node.addWidget("button", "choose", null, () => askForFile(node), { serialize: false })
  button.label = translate("choose")
  button.serialize = false

  const root = document.createElement("div")
  root.className = "coz-sample"
  root.style.cssText =
    `position: relative; display: flex; align-items: center; justify-content: center; ` +
    `min-height: ${HEIGHT_PX - 2 * MARGIN_PX}px`
  const image = document.createElement("img")
  image.style.cssText = "position: absolute; width: 100%; height: 100%; object-fit: contain"
  const note = document.createElement("span")
  note.style.cssText = "font-size: 12px; opacity: 0.7; text-align: center"
  root.append(image, note)
  const options = { hideOnZoom: false, margin: MARGIN_PX, getMinHeight: () => HEIGHT_PX }
  showOnNode(node, "sample", "COZ_SAMPLE", root, options)
  forwardToGraph(root)

  let shown = ""
  function refresh() {
    if (!node.graph || !root.isConnected) return
    const found = getLoaderImage(node)
    const isPicture = typeof found === "object"
    const state = isPicture ? found.key : found
    if (state === shown) return
    shown = state
    image.hidden = !isPicture
    if (isPicture) image.src = found.url
    image.alt = isPicture ? `${found.width} x ${found.height}` : ""
    note.textContent = isPicture ? "" : translate(found)
  }

  const drop = (/** @type {DragEvent} */ event) => {
    const file = event.dataTransfer?.files[0]
    if (file) uploadFile(node, file)
    return Boolean(file)
  }
  node.onDragOver = hasFiles
  node.onDragDrop = drop
  forwardFiles(root, () => node)
  const visibilityObserver = new IntersectionObserver((entries) => {
    if (entries.at(-1)?.isIntersecting) callOnGraphChanges(refresh)
    else stopCalling(refresh)
  })
  const observe = () => visibilityObserver.observe(root)
  callAfter(node, "onAdded", observe)
  callAfter(node, "onRemoved", () => {
    visibilityObserver.disconnect()
    stopCalling(refresh)
  })
  if (node.graph) observe()
}
