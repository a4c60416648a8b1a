import assert from "node:assert/strict"
import test from "node:test"

import { Pictures } from "../../js/viewer/pictures.js"

test("a source of 60 megapixels is kept, and the others still make room", async () => {
  const [fetched, closed] = [[], new Set()]
  const picture = (name, width, height) => ({ name, width, height, close: () => closed.add(name) })
  globalThis.createImageBitmap = async (from, options) => {
    if (options) return picture(from.name, options.resizeWidth, options.resizeHeight)
    const name = await from.text()
    return name === "source" ? picture(name, 9504, 6336) : picture(name, 2048, 2048)
  }
  const names = ["source", ...Array(16).keys()].map(String)
  const get = async (name) => {
    fetched.push(name)
    return new Response(name)
  }
  const pictures = new Pictures(names, get, () => {})
  const show = async (...shown) => {
    for (const name of shown) pictures.pick(name, 1)
    while (pictures.waiting.size) await new Promise(setImmediate)
  }
  for (let i = 0; i < 4; i++) await show("source", "0", "1")
  for (const name of names.slice(3)) await show(name)
  assert.deepEqual(fetched, names)
  assert.deepEqual([...closed], ["0", "1"]) // 14 pictures of 2048 x 2048 are kept
  assert.equal(pictures.pick("source", 1).width, 9504)
  pictures.close()
  assert.equal(closed.size, names.length)
})
