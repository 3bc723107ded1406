// The audit log: what was done, by whom, newest first.

import { h } from "../elements/dom.js";
import { debounced, field } from "../elements/form.js";
import { link, secretLink } from "../elements/link.js";
import { problem } from "../elements/notice.js";
import { none, row, table } from "../elements/table.js";
import { moment, time } from "../elements/times.js";
import { capitalised, count } from "../words/numbers.js";
import { CONDITION } from "../words/vocabulary.js";
import { meaning, spaced } from "../words/words.js";
import { Problem, readAudit } from "../broadcaster/api.js";
import { changed } from "../broadcaster/session.js";
import { say } from "../frame/announce.js";

const PAGE = 100;

const COLUMNS = [
  { name: "When" },
  { name: "Who" },
  { name: "Did" },
  { name: "Secret", class: "wide" },
  { name: "Rotation" },
  { name: "Details", class: "wide" },
];

/**
 * @param {URLSearchParams} parameters
 * @returns {import("../app.js").View}
 */
export function audit(parameters) {
  const filter = { secret: parameters.get("secret") ?? "", q: parameters.get("q") ?? "" };
  /** @type {Api.Recorded[] | null} */
  let entries = null;
  /** Where older entries begin; null: there are none. @type {number | null} */
  let next = null;
  /** @type {Problem | null} */
  let error = null;
  /** @type {AbortController | null} */
  let asking = null;

  /** @param {number | null} before */
  async function load(before = null) {
    asking?.abort();
    const mine = new AbortController();
    asking = mine;
    changed();
    try {
      const found = await readAudit({ ...filter, before, limit: PAGE }, mine.signal);
      if (asking !== mine) return;
      entries = before === null || !entries ? found.entries : [...entries, ...found.entries];
      next = found.next_before;
      error = null;
      say(`${count(found.entries.length, "entry", "entries")} ${before === null ? "shown" : "added"}.`);
    } catch (caught) {
      if (asking !== mine) return;
      error = Problem.of(caught);
    }
    asking = null;
    changed();
  }

  const soon = debounced(() => load());

  /** @type {(name: "q" | "secret", label: string, props: import("../elements/dom.js").Props) => import("../elements/dom.js").Element} */
  const text = (name, label, props) => field(label, h("input", {
    type: "search",
    name,
    value: filter[name],
    autocomplete: "off",
    spellcheck: "false",
    "data-testid": `audit-${name}`,
    oninput: (/** @type {{ target: HTMLInputElement }} */ event) => {
      filter[name] = event.target.value.trim();
      history.replaceState(null, "", link("audit", filter));
      soon();
    },
    ...props,
  }));

  function draw() {
    return [
      h("h1", {}, "Audit log"),
      h("p", { class: "quiet" }, "What this broadcaster did, and who ordered it. ", h("code", {}, "rotacast audit verify"), " checks that the log is whole."),
      h("form", { class: "filters", role: "search", "aria-label": "Filter the audit log", onsubmit: (/** @type {SubmitEvent} */ event) => { event.preventDefault(); load(); } }, [
        text("q", "Search", { id: "search", placeholder: "who, what, why", "aria-keyshortcuts": "/" }),
        text("secret", "Secret", {}),
        h("button", { type: "submit", "data-testid": "audit-refresh" }, "Refresh"),
      ]),
      error && problem(error),
      entries === null && !error && h("p", { class: "quiet" }, "Loading …"),
      entries && (entries.length > 0 ? list(entries) : h("p", { class: "empty", "data-testid": "nothing-found" }, nothing())),
      entries && h("div", { class: "below" }, [
        next !== null
          ? h("button", { type: "button", disabled: asking !== null, "data-testid": "audit-older", onclick: () => load(next) },
            entries.length === 0 ? "Search further back" : "Older entries")
          : entries.length > 0 && h("span", { class: "quiet" }, "That is all."),
      ]),
    ];
  }

  function nothing() {
    if (filter.q || filter.secret) return next === null ? "No entry fits." : "No entry fits so far.";
    return "The log is empty: nothing has been done yet.";
  }

  /** @param {Api.Recorded[]} entries */
  function list(entries) {
    return h("div", { class: asking ? "asking" : null, "aria-busy": asking ? "true" : "false" },
      table({ caption: "Audit log, newest first", columns: COLUMNS, testid: "audit", rows: entries.map(entryRow) }));
  }

  load();

  return {
    place: "audit",
    title: () => "Audit log",
    draw,
    signedIn: () => load(),
    close: () => {
      asking?.abort();
      asking = null;
    },
  };
}

/** @param {Api.Recorded} entry */
function entryRow(entry) {
  const details = Object.entries(entry.details);
  // The term is in every entry: what is particular comes first.
  details.sort(([a], [b]) => Number(a === "epoch") - Number(b === "epoch"));
  const long = (/** @type {[string, unknown]} */ [, value]) => value !== null && typeof value === "object";
  const short = details.filter((it) => !long(it));
  return row(COLUMNS, [
    h("div", { title: `entry ${entry.sequence}` }, time(entry.time_ms), h("div", { class: "quiet nowrap" }, moment(entry.time_ms))),
    entry.actor,
    h("strong", { class: entry.action === "override" ? "bad-text" : null }, spaced(entry.action)),
    entry.secret && h("a", { class: "name", href: secretLink(entry.secret) }, entry.secret),
    entry.rotation,
    details.length === 0 ? none("none") : [
      short.length > 0 && h("span", { class: "inline-details" }, short.map(([name, value], at) =>
        h("span", {}, [at > 0 && " · ", `${spaced(name)} `, h("span", { class: "value" }, plain(value))]))),
      details.some(long) && h("details", {}, h("summary", {}, "All details"), all([["entry", entry.sequence], ...details])),
    ],
  ], { key: entry.sequence, "data-action": entry.action });
}

/** @param {unknown} value */
function plain(value) {
  if (value === null) return "none";
  if (value === true) return "yes";
  if (value === false) return "no";
  return String(value);
}

/**
 * Facts by name, whatever their shape.
 * @param {[string, unknown][]} entries
 */
function all(entries) {
  return h("dl", { class: "details" }, entries.map(([name, value]) =>
    h("div", {}, h("dt", {}, capitalised(spaced(name))), h("dd", {}, fact(name, value)))));
}

// Deeper than the log's own entries go: what is nested further is shown as it stands.
const DEPTH = 4;

/**
 * @param {string} name
 * @param {unknown} value
 * @returns {import("../elements/dom.js").Child}
 */
function fact(name, value, depth = 0) {
  if (value === null || typeof value !== "object") return plain(value);
  if (depth >= DEPTH) return JSON.stringify(value);
  if (Array.isArray(value)) {
    if (value.length === 0) return "none";
    return h("ul", {}, value.map((it) => h("li", {}, it !== null && typeof it === "object" && !Array.isArray(it)
      ? Object.entries(it).map(([key, inner]) => `${spaced(key)} ${typeof inner === "object" ? JSON.stringify(inner) : plain(inner)}`).join(" · ")
      : fact(name, it, depth + 1))));
  }
  return h("dl", { class: "details" }, Object.entries(value).map(([key, inner]) =>
    h("div", {}, h("dt", {}, capitalised(name === "guard" && isCondition(key) ? meaning(key) : spaced(key))), h("dd", {}, fact(key, inner, depth + 1)))));
}

/**
 * @param {string} name
 * @returns {name is Api.Condition}
 */
function isCondition(name) {
  return name in CONDITION;
}
