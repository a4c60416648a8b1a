// @ts-check

/**
 * Number of decoded pixels to keep, not counting those of the source; each takes four bytes. Two frames of
 * 2048 x 2048 and their smaller versions have 11 million.
 */
const MAX_PIXELS = 80e6

/** Minimum of the longer side of a smaller version. */
const MIN_SIDE_PX = 64

/** The images of a chain. They are decoded when needed and dropped when others need the memory. */
export class Pictures {
  /**
   * @param {string[]} addresses  The first one is that of the source.
   * @param {(address: string) => Promise<Response>} get
   * @param {() => void} onChange  Called when an image was decoded or ``error`` was set.
   */
  constructor(addresses, get, onChange) {
    this.addresses = addresses
    this.get = get
    this.onChange = onChange
    /** @type {Map<string, ImageBitmap[]>} The least recently used first. */
    this.decoded = new Map()
    this.waiting = new Set()
    this.error = ""
    /** Whether an image was dropped because the others need the memory. */
    this.full = false
    this.closed = false
  }

  /** Return the smallest version with a pixel for each pixel of the screen, or null until it is loaded. */
  pick(address, scale) {
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
      while (Math.max(sizes[0].width, sizes[0].height) >> sizes.length >= MIN_SIDE_PX)
        sizes.push(await halve(sizes.at(-1)))
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
      // The source is not counted: a large one exceeds the limit alone, and it and the frames would
      // drop each other again and again.
      if (name === this.addresses[0]) continue
      pixels += pictures.reduce((sum, { width, height }) => sum + width * height, 0)
      if (pixels <= MAX_PIXELS || name === address) continue
      pictures.forEach((picture) => picture.close())
      this.decoded.delete(name)
      this.full = true
    }
  }

  /** Fetch the next image ahead, as long as no other has to be dropped for it. */
  prefetchNext() {
    const next = this.addresses.find((address) => !this.decoded.has(address))
    if (next && !this.waiting.size && !this.full) this.load(next)
  }

  close() {
    this.closed = true
    for (const pictures of this.decoded.values()) pictures.forEach((picture) => picture.close())
    this.decoded.clear()
  }
}

function halve(picture) {
  return createImageBitmap(picture, {
    resizeWidth: Math.max(picture.width >> 1, 1),
    resizeHeight: Math.max(picture.height >> 1, 1),
    resizeQuality: "medium",
  })
}
