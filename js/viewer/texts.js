// @ts-check
// The viewer's words. {name} is filled in.
import { app } from "../../../scripts/app.js"

const EN = {
  viewer: "Zoom viewer",
  hint: "click, then zoom with the wheel",
  out: "Zoom out (-)",
  in: "Zoom in (+)",
  whole: "Whole picture (0)",
  deepest: "Deepest frame (End)",
  bicubic: "Plain bicubic enlargement instead: what the picture itself holds (B)",
  bicubicWord: "bicubic",
  chain: "Next chain of this run",
  target: "New chain here: aim the Chain Loop at the middle of this view",
  targetWord: "new chain here",
  save: "Save this view as a PNG file (S)",
  full: "Full screen (F)",
  good: "The prompt of this step is good",
  bad: "The prompt of this step is bad",
  fly: "Fly to {scale}",
  all: "whole",
  allLabel: "whole picture",
  step: "step {step} of {steps}",
  first: "first frame",
  shownWhole: "The picture that was zoomed into.",
  shownFirst: "The first frame. What lies deeper is invented.",
  shownBicubic: "Plain bicubic enlargement: nothing is invented.",
  noPrompt: "This step had no prompt.",
  run: "Run the workflow to see the zoom.",
  again: "These pictures are no longer on the server. Run again.",
  failed: "The pictures could not be shown: {reason}.",
  noLoop: "No Chain Loop feeds this viewer: connect one's chain output to it.",
  taken: "{input} of the Chain Loop is connected and decides the target.",
  aimed: "Target set to {x}, {y}. Run to zoom in there.",
  markedGood: "Prompt of step {step} marked as good.",
  markedBad: "Prompt of step {step} marked as bad.",
  markedBefore: "This verdict was already there.",
  notMarked: "Not marked: {reason}",
}

const ZH = {
  viewer: "缩放查看器",
  hint: "单击后可用滚轮缩放",
  out: "缩小 (-)",
  in: "放大 (+)",
  whole: "整张图片 (0)",
  deepest: "最深的画面 (End)",
  bicubic: "改为显示普通双三次放大：图片本身包含的内容 (B)",
  bicubicWord: "双三次",
  chain: "本次运行的下一条链",
  target: "从此处开始新链：把链式放大循环的目标设为此视图的中心",
  targetWord: "从此处开始新链",
  save: "将此视图保存为 PNG 文件 (S)",
  full: "全屏 (F)",
  good: "该步骤的提示词好",
  bad: "该步骤的提示词不好",
  fly: "飞到 {scale}",
  all: "整图",
  allLabel: "整张图片",
  step: "第 {step} 步，共 {steps} 步",
  first: "首帧",
  shownWhole: "被放大的图片。",
  shownFirst: "首帧。更深处的细节是生成的。",
  shownBicubic: "普通双三次放大：没有任何生成的内容。",
  noPrompt: "该步骤没有提示词。",
  run: "运行工作流后可查看缩放。",
  again: "服务器上已没有这些图片，请重新运行。",
  failed: "无法显示图片：{reason}。",
  noLoop: "没有链式放大循环连接到此查看器：请连接它的“放大链”输出。",
  taken: "链式放大循环的 {input} 已连接，目标由它决定。",
  aimed: "目标已设为 {x}, {y}。运行即可放大该处。",
  markedGood: "第 {step} 步的提示词已标记为好。",
  markedBad: "第 {step} 步的提示词已标记为不好。",
  markedBefore: "已有相同的标记。",
  notMarked: "未能标记：{reason}",
}

/** @param {keyof typeof EN} key */
export function text(key, values = {}) {
  const language = app.extensionManager.setting.get("Comfy.Locale")
  const words = (language?.startsWith("zh") ? ZH : EN)[key]
  return words.replace(/\{(\w+)\}/g, (_, name) => values[name])
}
