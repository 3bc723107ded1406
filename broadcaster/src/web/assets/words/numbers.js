// Numbers and sentences for people.

/**
 * `1 warning`, `2 warnings`, `10,000 warnings`.
 * @param {number} number
 * @param {string} noun
 */
export function count(number, noun, plural = `${noun}s`) {
  return `${digits(number)} ${number === 1 ? noun : plural}`;
}

/**
 * `10,000`.
 * @param {number} number
 */
export function digits(number) {
  return number.toLocaleString("en-GB");
}

/** @param {string} text */
export function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * With a capital and one full stop, whatever it ends with.
 * @param {string} text
 */
export function sentence(text) {
  return `${capitalised(text).replace(/\.$/, "")}.`;
}

/**
 * In percent, for a bar. A few of very many still show; all but a few are not shown as all.
 * @param {number} part
 * @param {number} whole
 */
export function share(part, whole) {
  if (whole <= 0 || part <= 0) return 0;
  if (part >= whole) return 100;
  return Math.min(98, Math.max(2, Math.round((100 * part) / whole)));
}
