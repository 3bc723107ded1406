// Tables that turn into cards where there is no room.

import { h } from "./dom.js";

/** @typedef {{ name: string, class?: string }} Column */

/**
 * Roles are named since `display` takes them away. `fixed`: the columns' widths do not depend on what is in them, so that
 * it never is too wide.
 * @param {{ caption: string, columns: readonly Column[], rows: import("./dom.js").Child, testid: string, fixed?: boolean }} it
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

/**
 * A row for `columns`; the first cell heads it.
 * @param {readonly Column[]} columns
 * @param {readonly import("./dom.js").Child[]} cells
 * @param {import("./dom.js").Props} props
 */
export function row(columns, cells, props = {}) {
  return h("tr", { role: "row", ...props }, cells.map((cell, at) =>
    h(
      at === 0 ? "th" : "td",
      { role: at === 0 ? "rowheader" : "cell", scope: at === 0 ? "row" : null, class: columns[at]?.class, "data-label": columns[at]?.name },
      // Wrapped: as a card, a cell is its name beside one thing.
      at === 0 ? cell ?? none() : h("div", {}, cell || cell === 0 ? cell : none()),
    )));
}

/** Nothing, for eyes and ears. */
export function none(text = "none") {
  return h("span", { class: "none" }, h("span", { "aria-hidden": "true" }, "–"), h("span", { class: "unseen" }, text));
}

/**
 * Without a pointer one scrolls with the keys, which needs the focus.
 * @param {HTMLElement} box
 */
function scrolls(box) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
}
