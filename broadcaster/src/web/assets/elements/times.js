// Spans and moments for people, worded as on the command line. Ages count from the broadcaster's clock, not this machine's.

import { h } from "./dom.js";

let ahead = 0;

/**
 * Takes the broadcaster's clock.
 * @param {Api.Moment} now
 */
export function setClock(now) {
  const at = Date.parse(now);
  if (Number.isFinite(at)) ahead = at - Date.now();
}

/** Milliseconds of the broadcaster's clock. */
export function now() {
  return Date.now() + ahead;
}

/**
 * `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
 * @param {number} millis
 */
export function span(millis) {
  const seconds = Math.floor(millis / 1000);
  /** @type {(large: number, unit: string, small: number, smallUnit: string) => string} */
  const two = (large, unit, small, smallUnit) => `${large} ${unit}${small === 0 ? "" : ` ${small} ${smallUnit}`}`;
  if (seconds < 1) return `${Math.max(0, Math.round(millis))} ms`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return two(Math.floor(seconds / 60), "min", seconds % 60, "s");
  if (seconds < 86_400) return two(Math.floor(seconds / 3600), "h", Math.floor(seconds / 60) % 60, "min");
  return two(Math.floor(seconds / 86_400), "d", Math.floor(seconds / 3600) % 24, "h");
}

/**
 * The larger unit alone: for columns that are skimmed.
 * @param {number} millis
 */
export function roughly(millis) {
  return span(millis).split(" ").slice(0, 2).join(" ");
}

/**
 * `2026-11-23 04:20:11 UTC`.
 * @param {number} at
 */
export function moment(at) {
  return `${new Date(at).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** @typedef {"ago" | "age" | "when"} Form */

/** @type {Record<Form, (at: number) => string>} */
const FORMS = {
  ago: (at) => (now() - at < 1000 ? "just now" : `${roughly(now() - at)} ago`),
  age: (at) => roughly(Math.max(0, now() - at)),
  // Of something that ended or will end: a moment ahead is told as such.
  when: (at) => (at > now() ? `in ${roughly(at - now())}` : FORMS.ago(at)),
};

/**
 * A moment, relative to now.
 * @param {number} at
 * @param {Form} form
 */
export function relative(at, form) {
  return FORMS[form](at);
}

/**
 * A moment as `<time>`, relative, with the absolute one as its title. Null: nothing.
 * @param {Api.Moment | number | null | undefined} value
 * @param {Form} form
 */
export function time(value, form = "ago") {
  const at = typeof value === "number" ? value : Date.parse(value ?? "");
  if (!Number.isFinite(at)) return null;
  return h("time", {
    datetime: new Date(at).toISOString(),
    title: moment(at),
    "data-at": at,
    "data-form": form,
    hook: refresh,
  });
}

/** @param {HTMLElement} element */
function refresh(element) {
  const text = relative(Number(element.dataset.at), /** @type {Form} */ (element.dataset.form));
  if (element.textContent !== text) element.textContent = text;
}

/** Brings every relative time on the page up to date. */
export function refreshAll() {
  document.querySelectorAll("time[data-at]").forEach((element) => refresh(/** @type {HTMLElement} */ (element)));
}
