// The audit log: what was done, by whom, newest first.

import { h } from "./dom.js";
import { read } from "./api.js";
import { capitalised, count, digits, meaning, words } from "./words.js";
import { moment, time } from "./times.js";
import { debounced, field, link, none, problem, row, secretLink, table } from "./parts.js";
import { say } from "./shell.js";

const PAGE = 100;

const COLUMNS = [
  { name: "When" },
  { name: "Who" },
  { name: "Did" },
  { name: "Secret", class: "wide" },
  { name: "Rotation" },
  { name: "Details", class: "wide" },
];

export function audit(parameters, changed) {
  const filter = { secret: parameters.get("secret") ?? "", q: parameters.get("q") ?? "" };
  let entries = null;
  let next = null;
  let searched = null;
  let error = null;
  let asking = null;

  async function load(before = null) {
    asking?.abort();
    const mine = new AbortController();
    asking = mine;
    changed();
    try {
      const found = await read("/api/audit", { ...filter, before, limit: PAGE }, mine.signal);
      if (asking !== mine) return;
      entries = before === null ? found.entries : [...entries, ...found.entries];
      next = found.next_before ?? null;
      searched = found.searched_to ?? null;
      error = null;
      say(`${count(found.entries.length, "entry", "entries")} ${before === null ? "shown" : "added"}.`);
    } catch (failed) {
      if (asking !== mine) return;
      error = failed;
    }
    asking = null;
    changed();
  }

  const soon = debounced(() => load());

  const text = (name, label, props) => field(label, h("input", {
    type: "search",
    name,
    value: filter[name],
    autocomplete: "off",
    spellcheck: "false",
    "data-testid": `audit-${name}`,
    oninput: (event) => {
      filter[name] = event.target.value.trim();
      history.replaceState(null, "", link("audit", filter));
      soon();
    },
    ...props,
  }));

  function draw() {
    return [
      h("h1", {}, "Audit log"),
      h("p", { class: "quiet" }, "What this broadcaster did, and on whose word. ", h("code", {}, "rotacast audit verify"), " checks that the log is whole."),
      h("form", { class: "filters", role: "search", "aria-label": "Filter the audit log", onsubmit: (event) => { event.preventDefault(); load(); } }, [
        text("q", "Search", { id: "search", placeholder: "who, what, why", "aria-keyshortcuts": "/" }),
        text("secret", "Secret", {}),
        h("button", { type: "submit", "data-testid": "audit-refresh" }, "Refresh"),
      ]),
      error && problem(error),
      entries === null && !error && h("p", { class: "quiet" }, "Loading …"),
      entries && (entries.length > 0 ? list() : h("p", { class: "empty", "data-testid": "nothing-found" }, nothing())),
      entries && h("div", { class: "below" }, [
        searched !== null && next !== null && h("span", {}, `Searched back to entry ${digits(searched)}. `),
        next !== null
          ? h("button", { type: "button", disabled: asking !== null, "data-testid": "audit-older", onclick: () => load(next) },
            searched !== null && entries.length === 0 ? "Search further back" : "Older entries")
          : entries.length > 0 && h("span", { class: "quiet" }, "That is all."),
      ]),
    ];
  }

  function nothing() {
    if (filter.q || filter.secret) return next === null ? "No entry fits." : "No entry fits so far.";
    return "The log is empty: nothing has been done yet.";
  }

  function list() {
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

function entryRow(entry) {
  const details = Object.entries(entry.details ?? {});
  // The term is in every entry: what is particular comes first.
  details.sort(([a], [b]) => Number(a === "epoch") - Number(b === "epoch"));
  const long = ([, value]) => value !== null && typeof value === "object";
  const short = details.filter((it) => !long(it));
  return row(COLUMNS, [
    h("div", { title: `entry ${entry.sequence}` }, time(entry.time_ms), h("div", { class: "quiet nowrap" }, moment(entry.time_ms))),
    entry.actor,
    h("strong", { class: entry.action === "override" ? "bad-text" : null }, words(entry.action)),
    entry.secret && h("a", { class: "name", href: secretLink(entry.secret) }, entry.secret),
    entry.rotation,
    details.length === 0 ? none("none") : [
      short.length > 0 && h("span", { class: "inline-details" }, short.map(([name, value], at) =>
        h("span", {}, [at > 0 && " · ", `${words(name)} `, h("span", { class: "value" }, plain(value))]))),
      details.some(long) && h("details", {}, h("summary", {}, "All details"), all([["entry", entry.sequence], ...details])),
    ],
  ], { key: entry.sequence, "data-action": entry.action });
}

function plain(value) {
  if (value === null) return "none";
  if (value === true) return "yes";
  if (value === false) return "no";
  return String(value);
}

/** Facts by name, whatever their shape. */
function all(entries) {
  return h("dl", { class: "details" }, entries.map(([name, value]) =>
    h("div", {}, h("dt", {}, capitalised(words(name))), h("dd", {}, fact(name, value)))));
}

// Deeper than the log's own entries go: what is nested further is shown as it stands.
const DEPTH = 4;

function fact(name, value, depth = 0) {
  if (value === null || typeof value !== "object") return plain(value);
  if (depth >= DEPTH) return JSON.stringify(value);
  if (Array.isArray(value)) {
    if (value.length === 0) return "none";
    return h("ul", {}, value.map((it) => h("li", {}, it !== null && typeof it === "object" && !Array.isArray(it)
      ? Object.entries(it).map(([key, inner]) => `${words(key)} ${typeof inner === "object" ? JSON.stringify(inner) : plain(inner)}`).join(" · ")
      : fact(name, it, depth + 1))));
  }
  return h("dl", { class: "details" }, Object.entries(value).map(([key, inner]) =>
    h("div", {}, h("dt", {}, capitalised(name === "guard" ? meaning(key) : words(key))), h("dd", {}, fact(key, inner, depth + 1)))));
}
