// What all views know: what the broadcaster says about itself, and how the connection to it is.

/**
 * @typedef {object} Link
 * @property {"connecting" | "live" | "stale" | "unreachable"} name
 * @property {number | null} since when the broadcaster was last heard; null: never
 * @property {import("./api.js").Problem | null} error
 */

/** @type {{ about: Api.AboutView | null, link: Link }} */
export const session = { about: null, link: { name: "connecting", since: null, error: null } };

/** Whether the broadcaster shows nothing before a sign-in. */
export function signInNeeded() {
  return session.about !== null && session.about.sign_in_needed && !session.about.signed_in;
}

/** Whether what is shown may be out of date. */
export function isLost() {
  return session.link.name === "stale" || session.link.name === "unreachable";
}

/** Set by the entry: draws the page again. */
let redraw = () => {};

/** @param {() => void} draw */
export function onRedraw(draw) {
  redraw = draw;
}

/** Draws the page again, soon. */
export function changed() {
  redraw();
}
