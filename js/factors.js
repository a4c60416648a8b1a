// @ts-check
// How far a region is enlarged, across and down, in words: coz/strip.py says the same.

/** From here on both factors are named. */
export const MAX_AXES_RATIO = 1.05

/** Its square is the number of pixels that stand for one. @param {number[]} factors */
export const meanOf = ([across, down]) => Math.sqrt(across * down)

/**
 * 16x, or 4x3.2x (across, down) where the two differ much.
 *
 * @param {number[]} factors
 * @param {(factor: number) => string} textOf
 */
export function factorsText(factors, textOf) {
  const differ = Math.max(...factors) / Math.min(...factors) >= MAX_AXES_RATIO
  return differ ? factors.map(textOf).join("") : textOf(meanOf(factors))
}
