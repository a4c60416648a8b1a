// @ts-check
// Writes how far a region is enlarged, across and down. coz/render/strip.py has the same rules.

/** Ratio of the two factors from which on both are written. */
const MAX_AXES_RATIO = 1.05

/** Compute the geometric mean; its square is the ratio of the areas. @param {number[]} factors */
export const computeGeometricMean = ([across, down]) => Math.sqrt(across * down)

/** Round to three digits, or to a whole number; a half is rounded up. @param {number} value */
export const roundToThreeDigits = (value) =>
  Number(value.toPrecision(Math.max(3, String(Math.floor(value)).length)))

/** Write a factor as 16x, 65536x or 4.3e9x. @param {number} factor */
export function formatFactor(factor) {
  const text = factor < 1e6 ? roundToThreeDigits(factor) : factor.toPrecision(2).replace("+", "")
  return `${text}x`
}

/** Write factors as 16x, or as 4x3.2x (across, down) where they differ. @param {number[]} factors */
export function formatFactors(factors) {
  const differ = Math.max(...factors) / Math.min(...factors) >= MAX_AXES_RATIO
  return differ ? factors.map(formatFactor).join("") : formatFactor(computeGeometricMean(factors))
}
