// Words that mark something, and bars.

import { h } from "./dom.js";
import { digits, share } from "../words/numbers.js";
import { OVERLAY } from "../words/vocabulary.js";

/** @typedef {"calm" | "busy" | "good" | "warn" | "bad"} Kind */

/**
 * A word that marks something.
 * @param {Kind} kind
 * @param {string} text
 * @param {string} [title]
 */
export function pill(kind, text, title) {
  return h("span", { class: `pill ${kind}`, title }, text);
}

/** @type {Record<Api.Overlay, Kind>} */
export const OVERLAY_KINDS = { stuck: "bad", safe_mode: "bad", awaiting_approval: "warn", staying: "warn", paused: "warn" };

/** @param {Api.Overlay} overlay */
export function overlayPill(overlay) {
  return pill(OVERLAY_KINDS[overlay], OVERLAY[overlay].words, OVERLAY[overlay].meaning);
}

/**
 * How many of how many, drawn and said.
 * @param {number} done
 * @param {number} of
 * @param {string} stage
 * @param {string} about
 * @param {boolean} [stuck] nothing is as it should be, however many are there
 */
export function progress(done, of, stage, about, stuck) {
  const text = `${digits(done)} of ${digits(of)} ${stage}`;
  return h("div", { class: "progress" }, [
    h(
      "div",
      {
        role: "progressbar",
        "aria-label": about,
        "aria-valuemin": 0,
        "aria-valuemax": of,
        "aria-valuenow": done,
        "aria-valuetext": text,
        class: "bar",
      },
      bar(done, of, stuck),
    ),
    h("span", { class: "progress-text" }, text),
  ]);
}

/**
 * The filled part of a bar.
 * @param {number} done
 * @param {number} of
 * @param {boolean} [stuck]
 */
export function bar(done, of, stuck) {
  return h("span", { style: { width: `${share(done, of)}%` }, class: stuck ? "held" : done >= of ? "full" : null });
}
