// @ts-check
// The texts of the picker.
import { makeTranslator } from "../host/language.js"

export const translate = makeTranslator(
  {
    connect: "connect an image to pick the target on it",
    run: "run once to see the image",
    pick: "click where to zoom",
    loading: "loading the image",
    gone: "the image file is gone: choose another",
    large: "too large to show before a run: run once to see it",
    unreadable: "cannot be shown before a run: run once to see it",
    center_x: "a link sets the target",
    center_y: "a link sets the target",
    mask: "the mask sets the target, unless it is empty",
    chain: "the chain sets the target",
    help: "Click or drag: set the target. Arrow keys: move it by one pixel of the image, with Shift by ten.",
  },
  {
    connect: "连接图像后即可在其上选取目标",
    run: "运行一次后显示图片",
    pick: "点击要放大的位置",
    loading: "正在加载图片",
    gone: "图片文件已不存在：请另选一张",
    large: "图片过大，运行前无法显示：运行一次后显示",
    unreadable: "运行前无法显示此图片：运行一次后显示",
    center_x: "目标由连线决定",
    center_y: "目标由连线决定",
    mask: "目标由遮罩决定，空遮罩除外",
    chain: "目标由放大链决定",
    help: "单击或拖动：设置目标。方向键：移动一个原图像素；按住 Shift：移动十个。",
  },
)
