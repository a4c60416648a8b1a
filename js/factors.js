// @ts-check
// Writes how far a region is enlarged, across and down. coz/render/strip.py has the same rules.

/** If the two factors differ by this ratio or more, both are written. */
const MIN_RATIO_TO_WRITE_BOTH = 1.05

/** Compute the geometric mean; its square is the ratio of the areas. @param {number[]} factors */
export const computeGeometricMean = ([across, down]) => Math.sqrt(across * down)

/** Round to three digits, or to a whole number from 1000 on; a half is rounded up. @param {number} value */
export const roundToThreeDigits = (value) =>
  Number(value.toPrecision(Math.max(3, String(Math.floor(value)).length)))

/** Write a factor as 16x, 65536x or 4.3e9x. @param {number} factor */
export function formatFactor(factor) {
  const text = factor < 1e6 ? roundToThreeDigits(factor) : factor.toPrecision(2).replace("+", "")
  return `${text}x`
}

/** Write factors as 16x, or as 4x3.2x (across, down) where they differ. @param {number[]} factors */
export function formatFactors(factors) {
  const differ = Math.max(...factors) / Math.min(...factors) >= MIN_RATIO_TO_WRITE_BOTH
  return differ ? factors.map(formatFactor).join("") : formatFactor(computeGeometricMean(factors))
}
