// Small pieces that every view is made of.

import { h } from "./dom.js";
import { capitalised, digits, overlay, words } from "./words.js";
import { time } from "./times.js";

export const secretLink = (secret) => `#/secret/${secret.split("/").map(encodeURIComponent).join("/")}`;

/** `#/audit?secret=…`; empty parameters are left out. */
export function link(route, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  return query.size > 0 ? `#/${route}?${query}` : `#/${route}`;
}

/** A word that marks something. `kind`: calm, busy, good, warn, bad. */
export function pill(kind, text, title) {
  return h("span", { class: `pill ${kind}`, title }, text);
}

const OVERLAY_KINDS = { stuck: "bad", safe_mode: "bad", awaiting_approval: "warn", staying: "warn", paused: "warn" };

export function overlayPill(name) {
  return pill(OVERLAY_KINDS[name] ?? "warn", words(name), overlay(name).join(". "));
}

/** How many of how many, drawn and said. */
export function progress(done, of, stage, about) {
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
      h("span", { style: { width: `${share(done, of)}%` }, class: done >= of ? "full" : null }),
    ),
    h("span", { class: "progress-text" }, text),
  ]);
}

/** In percent. A few of very many still show; all but a few are not shown as all. */
export function share(part, whole) {
  if (whole <= 0 || part <= 0) return 0;
  if (part >= whole) return 100;
  return Math.min(98, Math.max(2, Math.round((100 * part) / whole)));
}

/** Something that is to be read before the rest. `kind`: calm, warn, bad. */
export function notice(kind, title, ...rest) {
  return h("div", { class: `notice ${kind}` }, h("p", { class: "notice-title" }, title), ...rest);
}

/** What went wrong, and what to do about it. */
export function problem(error, ...rest) {
  return h("div", { class: "notice bad", role: "alert", "data-testid": "problem" }, [
    h("p", { class: "notice-title" }, `${capitalised(`${error.problem ?? error.message}`).replace(/\.$/, "")}.`),
    error.fix && h("p", {}, h("strong", {}, "What to do: "), error.fix),
    ...rest,
  ]);
}

/** Who cannot use a pointer scrolls with the keys, which needs the focus. */
function scrolls(box) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
}

/**
 * A table that turns into cards where there is no room; roles are named since `display` takes them away. `fixed`: its
 * columns' widths do not depend on what is in them, so that it never is too wide.
 */
export function table({ caption, columns, rows, testid, fixed = false }) {
  const head = columns.map((column) =>
    h("th", { scope: "col", role: "columnheader", class: column.class }, column.name));
  return h("div", { class: "table-box", hook: fixed ? undefined : scrolls }, [
    h("table", { role: "table", class: fixed ? "cards fixed" : "cards", "data-testid": testid }, [
      h("caption", { class: "unseen" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      h("tbody", { role: "rowgroup" }, rows),
    ]),
  ]);
}

/** A row for `columns`; the first cell heads it. */
export function row(columns, cells, props = {}) {
  return h("tr", { role: "row", ...props }, cells.map((cell, at) =>
    h(
      at === 0 ? "th" : "td",
      { role: at === 0 ? "rowheader" : "cell", scope: at === 0 ? "row" : null, class: columns[at].class, "data-label": columns[at].name },
      // Wrapped: as a card, a cell is its name beside one thing.
      at === 0 ? cell ?? none() : h("div", {}, cell || cell === 0 ? cell : none()),
    )));
}

/** Nothing, for eyes and ears. */
export function none(text = "none") {
  return h("span", { class: "none" }, h("span", { "aria-hidden": "true" }, "–"), h("span", { class: "unseen" }, text));
}

export function since(value, lead = "since") {
  const at = time(value);
  return at && h("span", {}, `${lead} `, at);
}

/** A labelled field of a filter form. */
export function field(label, control, className = "") {
  return h("label", { class: `field ${className}` }, h("span", {}, label), control);
}

export function select(props, options, chosen) {
  return h("select", { ...props, value: chosen }, options.map(([value, text]) =>
    h("option", { value, selected: value === chosen ? true : null }, text)));
}

/** Calls at most once per pause in typing. */
export function debounced(call, pause = 250) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), pause);
  };
}
