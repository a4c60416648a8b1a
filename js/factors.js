// @ts-check
// How far a region is enlarged, across and down, in words: coz/render/strip.py says the same.

/** From here on both factors are named. */
export const MAX_AXES_RATIO = 1.05

/** Its square is the number of pixels that stand for one. @param {number[]} factors */
export const meanOf = ([across, down]) => Math.sqrt(across * down)

/** To three digits, or to a whole number; a half goes up. @param {number} value */
export const roundToThreeDigits = (value) =>
  Number(value.toPrecision(Math.max(3, String(Math.floor(value)).length)))

/** 16x, 65536x, 4.3e9x. @param {number} factor */
export function factorText(factor) {
  const text = factor < 1e6 ? roundToThreeDigits(factor) : factor.toPrecision(2).replace("+", "")
  return `${text}x`
}

/** 16x, or 4x3.2x (across, down) where the two differ much. @param {number[]} factors */
export function factorsText(factors) {
  const differ = Math.max(...factors) / Math.min(...factors) >= MAX_AXES_RATIO
  return differ ? factors.map(factorText).join("") : factorText(meanOf(factors))
}
