// @ts-check

/**
 * Pixels kept decoded beside the source, four bytes each. Two frames of 2048 x 2048 with their
 * reductions are 11 M.
 */
const LIMIT = 80e6

const SMALLEST = 64

/** The pictures of a chain, decoded when they are needed, and forgotten when others need the room. */
export class Pictures {
  /**
   * @param {string[]} addresses  Later ones are fetched when a look asks for them.
   * @param {(address: string) => Promise<Response>} get
   * @param {() => void} onChange  A picture came, or ``error`` was set.
   */
  constructor(addresses, get, onChange) {
    this.addresses = addresses
    this.get = get
    this.onChange = onChange
    /** @type {Map<string, ImageBitmap[]>} The least recently used first. */
    this.decoded = new Map()
    this.waiting = new Set()
    this.error = ""
    this.full = false
    this.closed = false
  }

  /** The smallest form that has a pixel for each of the screen; null until it is there. */
  look(address, scale) {
    const sizes = this.decoded.get(address)
    if (!sizes) {
      this.load(address)
      return null
    }
    this.decoded.delete(address)
    this.decoded.set(address, sizes)
    const halvings = Math.max(Math.floor(Math.log2(1 / scale)), 0)
    return sizes[Math.min(halvings, sizes.length - 1)]
  }

  async load(address) {
    if (this.waiting.has(address) || this.decoded.has(address) || this.error || this.closed) return
    this.waiting.add(address)
    try {
      const answer = await this.get(address)
      if (!answer.ok)
        throw new Error(answer.status === 404 ? "gone" : `the server answered ${answer.status}`)
      const sizes = [await createImageBitmap(await answer.blob())]
      while (Math.max(sizes[0].width, sizes[0].height) >> sizes.length >= SMALLEST)
        sizes.push(await half(sizes.at(-1)))
      if (this.closed) sizes.forEach((picture) => picture.close())
      else this.keep(address, sizes)
    } catch (error) {
      this.error ||= error.message
    } finally {
      this.waiting.delete(address)
    }
    if (!this.closed) this.onChange()
  }

  keep(address, sizes) {
    this.decoded.set(address, sizes)
    let pixels = 0
    for (const [name, pictures] of [...this.decoded].reverse()) {
      // A source may be over the limit alone: it and the frames in it would drop each other.
      if (name === this.addresses[0]) continue
      pixels += pictures.reduce((sum, { width, height }) => sum + width * height, 0)
      if (pixels <= LIMIT || name === address) continue
      pictures.forEach((picture) => picture.close())
      this.decoded.delete(name)
      this.full = true
    }
  }

  /** Fetches what a look may need next, as long as nothing has to go for it. */
  prepare() {
    const next = this.addresses.find((address) => !this.decoded.has(address))
    if (next && !this.waiting.size && !this.full) this.load(next)
  }

  close() {
    this.closed = true
    for (const pictures of this.decoded.values()) pictures.forEach((picture) => picture.close())
    this.decoded.clear()
  }
}

function half(picture) {
  return createImageBitmap(picture, {
    resizeWidth: Math.max(picture.width >> 1, 1),
    resizeHeight: Math.max(picture.height >> 1, 1),
    resizeQuality: "medium",
  })
}
