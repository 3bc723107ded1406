// Where the broadcaster that leads is reached.

import { h } from "../elements/dom.js";

/**
 * A link only if the address is one a browser can go to: other addresses are text.
 * @param {Api.AboutView} about
 */
export function leaderAddress(about) {
  const address = about.leading?.address;
  if (!address) return null;
  let url;
  try {
    url = new URL(address);
  } catch {
    return address;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return address;
  return h("a", { href: `${url.origin}/${location.hash}`, rel: "noreferrer" }, address);
}
