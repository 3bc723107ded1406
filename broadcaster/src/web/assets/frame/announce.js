// What the page says besides what it shows.

/**
 * An element that the page itself holds.
 * @param {string} id
 */
export function part(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * Says something to screen readers, without showing it, and only if it is news.
 * @param {string} text
 */
export function say(text) {
  const said = part("said");
  if (said.textContent !== text) said.textContent = text;
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let toastTimer;

/**
 * Says what was done, on the page and to screen readers.
 * @param {string} text
 */
export function toast(text) {
  const place = part("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    place.classList.remove("shown");
    place.textContent = "";
  }, 8_000);
}
