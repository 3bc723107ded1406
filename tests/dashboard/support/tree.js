// What a tree of elements shows.

/**
 * Its text, as it reads.
 * @param {any} node
 * @returns {string}
 */
export function text(node) {
  if (Array.isArray(node)) return node.map(text).join("");
  if (node === null || node === undefined || node === false) return "";
  if (typeof node !== "object") return String(node);
  return node.tag === undefined ? node.text : node.children.map(text).join("");
}

/**
 * Every element that fits.
 * @param {any} node
 * @param {(element: import("../../../broadcaster/src/web/assets/elements/dom.js").Element) => boolean} fits
 * @returns {import("../../../broadcaster/src/web/assets/elements/dom.js").Element[]}
 */
export function all(node, fits) {
  if (Array.isArray(node)) return node.flatMap((it) => all(it, fits));
  if (!node || typeof node !== "object" || node.tag === undefined) return [];
  return [...(fits(node) ? [node] : []), ...all(node.children, fits)];
}

/**
 * @param {any} node
 * @param {string} testid
 */
export const byTestid = (node, testid) => all(node, (it) => it.props["data-testid"] === testid);
