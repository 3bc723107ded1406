// Every secret on a row, the most urgent first.

import { h } from "../elements/dom.js";
import { overlayPill, pill, progress } from "../elements/badge.js";
import { debounced } from "../elements/form.js";
import { link, secretLink } from "../elements/link.js";
import { none, row, table } from "../elements/table.js";
import { span, time } from "../elements/times.js";
import { count, digits } from "../words/numbers.js";
import { direction } from "../words/rotation.js";
import { CONDITION, OUTCOME, PHASE, STAGE } from "../words/vocabulary.js";
import { changed } from "../broadcaster/session.js";
import { say } from "../frame/announce.js";
import { findingsPanel } from "./findings.js";
import { requestsPanel } from "./requests.js";
import { FILTERS, Secrets, isLong } from "./secrets.js";

/**
 * @typedef {import("./secrets.js").Filter} Filter
 * @typedef {import("../elements/table.js").Column} Column
 */

// Rows beyond are drawn when asked for: each costs the browser at every change.
const ROWS = 100;
// Screen readers hear a summary at most that often.
const SAY_MS = 15_000;

/** @type {Record<Filter, string>} */
const FILTER_NAMES = { all: "All", attention: "Need attention", rotating: "Rotating", paused: "Paused", idle: "Idle" };

/** @type {Column[]} */
const COLUMNS = [
  { name: "Secret", class: "wide" },
  { name: "Current" },
  { name: "State" },
  { name: "Progress" },
  { name: "Waits for", class: "wide" },
  { name: "Next rotation" },
];
// Where no secret has a schedule.
const UNSCHEDULED = COLUMNS.slice(0, -1);

// Kept while other views are shown, so that coming back shows something at once.
const secrets = new Secrets();
/** @type {Api.FindingsView} */
const NONE = { total: 0, findings: [] };
let findings = NONE;
/** @type {Api.RequestsView} */
const NO_REQUESTS = { requests: [] };
let requests = NO_REQUESTS;

/**
 * @param {URLSearchParams} parameters
 * @returns {import("../app.js").View}
 */
export function overview(parameters) {
  let filter = FILTERS.find((it) => it === parameters.get("show")) ?? "all";
  let query = parameters.get("q") ?? "";
  let limit = ROWS;
  let saidAt = 0;
  /** @type {number | null} */
  let toldAttention = null;

  const remember = () => {
    history.replaceState(null, "", link("", { show: filter === "all" ? "" : filter, q: query }));
    limit = ROWS;
    changed();
  };
  const tellFound = debounced(() => say(`${count(secrets.select(filter, query, 0).matching, "secret")} found.`), 700);

  /** @param {Record<Filter, number>} counts */
  function tellSummary(counts) {
    // Rotations come and go all the time; a secret that needs attention is news.
    if (!secrets.whole || counts.attention === toldAttention || Date.now() - saidAt < SAY_MS) return;
    toldAttention = counts.attention;
    saidAt = Date.now();
    say(`${count(counts.all, "secret")}: ${digits(counts.attention)} need attention, ${digits(counts.rotating)} rotating.`);
  }

  function draw() {
    const { counts, matching, rows, scheduled } = secrets.select(filter, query, limit);
    const columns = scheduled ? COLUMNS : UNSCHEDULED;
    if (secrets.whole && counts.all === 0) return [h("h1", {}, "Secrets"), findingsPanel(findings), requestsPanel(requests), firstSteps()];
    tellSummary(counts);
    return [
      h("h1", {}, "Secrets"),
      findingsPanel(findings),
      requestsPanel(requests),
      h("div", { class: "controls" }, [
        h("div", { class: "segments", role: "group", "aria-label": "Show" }, FILTERS.map((kind) =>
          h(
            "button",
            {
              type: "button",
              "aria-pressed": kind === filter ? "true" : "false",
              class: kind === "attention" && counts.attention > 0 ? "hot" : null,
              "data-testid": `filter-${kind}`,
              onclick: () => {
                filter = kind;
                remember();
              },
            },
            FILTER_NAMES[kind],
            h("span", { class: "number" }, digits(counts[kind])),
          ))),
        h("input", {
          type: "search",
          id: "search",
          placeholder: "Search secrets",
          "aria-label": "Search secrets by name or provider",
          "aria-keyshortcuts": "/",
          value: query,
          "data-testid": "search",
          oninput: (/** @type {{ target: HTMLInputElement }} */ event) => {
            query = event.target.value;
            remember();
            tellFound();
          },
        }),
      ]),
      rows.length > 0
        ? table({ caption: "Secrets", columns, rows: rows.map((it) => secretRow(it, columns)), testid: "secrets", fixed: true })
        : h("p", { class: "empty", "data-testid": "nothing-found" }, secrets.whole
          ? ["No secret fits. ", h("button", { type: "button", class: "inline", onclick: () => { filter = "all"; query = ""; remember(); } }, "Show all")]
          : "Loading …"),
      rows.length > 0 && h("p", { class: "below", "data-testid": "shown" }, [
        matching > rows.length
          ? `${digits(rows.length)} of ${count(matching, "secret")} shown, the most urgent first. `
          : `${count(matching, "secret")} shown.`,
        matching > rows.length && h("button", { type: "button", onclick: () => { limit += ROWS; changed(); } },
          `Show ${digits(Math.min(ROWS, matching - rows.length))} more`),
      ]),
    ];
  }

  return {
    place: "overview",
    title: () => "Secrets",
    stream: {
      path: "/api/overview/events",
      events: {
        secrets: (/** @type {Api.SecretsView} */ piece) => {
          // A stream that begins anew sends findings only if there are any.
          if (piece.reset) {
            findings = NONE;
            requests = NO_REQUESTS;
          }
          secrets.take(piece);
          changed();
        },
        requests: (/** @type {Api.RequestsView} */ view) => {
          requests = view;
          changed();
        },
        findings: (/** @type {Api.FindingsView} */ view) => {
          findings = view;
          changed();
        },
      },
    },
    draw,
  };
}

// A secret's row is made again only when the secret has changed: most of a live page has not.
/** @type {WeakMap<Api.SummaryView, { long: boolean, columns: Column[], tree: import("../elements/dom.js").Element }>} */
const made = new WeakMap();

/**
 * @param {Api.SummaryView} it
 * @param {Column[]} columns
 */
function secretRow(it, columns) {
  const long = isLong(it);
  const known = made.get(it);
  if (known?.long === long && known.columns === columns) return known.tree;
  const tree = freshRow(it, columns, long);
  made.set(it, { long, columns, tree });
  return tree;
}

/**
 * @param {Api.SummaryView} it
 * @param {Column[]} columns
 * @param {boolean} long
 */
function freshRow(it, columns, long) {
  const urgent = it.overlays.includes("stuck") || it.overlays.includes("safe_mode");
  return row(columns, [
    [h("a", { class: "name", href: secretLink(it.secret) }, it.secret), h("div", { class: "quiet" }, it.provider)],
    current(it),
    state(it, long),
    howFar(it),
    waitsFor(it),
    it.next_rotation_at && time(it.next_rotation_at, "when"),
  ].slice(0, columns.length), { key: it.secret, class: urgent ? "urgent linked" : "linked", "data-secret": it.secret });
}

/** @param {Api.SummaryView} it */
function current(it) {
  if (it.current === null) return none("no current version");
  const age = time(it.current_seen_at, "age");
  return [h("span", { class: "version" }, it.current), age && h("div", { class: "quiet" }, age, " old")];
}

/**
 * @param {Api.SummaryView} it
 * @param {boolean} long
 */
function state(it, long) {
  const pills = it.rotation ? [pill("busy", PHASE[it.rotation.phase].words)] : it.overlays.length === 0 ? [pill("calm", "idle")] : [];
  if (long && !it.overlays.includes("stuck")) pills.push(pill("warn", "waits long"));
  const rotation = it.rotation;
  const detail = rotation
    ? [direction(rotation), " · ", time(rotation.phase_since, "age")]
    : it.waiting_version !== null && `version ${it.waiting_version} pending`;
  return [h("div", { class: "pills" }, pills, it.overlays.map(overlayPill)), detail && h("div", { class: "quiet" }, detail)];
}

/** @param {Api.SummaryView} it */
function howFar(it) {
  if (it.rotation && it.progress) {
    const back = it.rotation.phase === "rolling_back" && it.progress.stage === "switched" ? "switched back" : STAGE[it.progress.stage].words;
    return progress(it.progress.done, it.progress.of, back, `Progress of ${it.secret}`, it.overlays.includes("stuck"));
  }
  if (it.rotation) {
    if (it.record_read_at) return none("known to the leader only");
    return it.rotation.phase !== "verifying" && it.members === 0 ? h("span", { class: "quiet" }, "no instances") : none("waits for no instance");
  }
  if (!it.last) return none("never rotated");
  const took = it.last.took_ms === null ? "" : ` in ${span(it.last.took_ms)}`;
  return h("span", { class: "quiet" }, [
    it.last.outcome === "retired" ? `${direction(it.last)}${took}, ` : [h("strong", {}, OUTCOME[it.last.outcome].words), ", "],
    time(it.last.ended_at),
  ]);
}

/** @param {Api.SummaryView} it */
function waitsFor(it) {
  if (!it.blocker) {
    return none(it.record_read_at ? "known to the leader only" : "nothing");
  }
  const { who, why } = it.blocker;
  const what = CONDITION[it.blocker.condition].words;
  const more = it.blockers > 1 ? ` and ${digits(it.blockers - 1)} more` : "";
  return h("div", { title: why }, [
    h("div", { class: "clamp" }, who ? h("span", { class: "who-waits" }, who) : what),
    (who || more) && h("div", { class: "quiet" }, [who && what, more]),
  ]);
}

function firstSteps() {
  return h("section", { class: "first", "data-testid": "empty" }, [
    h("h2", {}, "No secret yet"),
    h("p", {}, "A secret begins with its first version. Write it on the command line:"),
    h("pre", { tabindex: 0 }, h("code", {}, "printf 'first value' | rotacast put payments/db --wait")),
    h("p", {}, "The secret appears here at once. Services then use it through the SDK, and a rotation to a new version begins with ",
      h("code", {}, "rotacast rotate payments/db"), ", or with a button on the secret's page."),
  ]);
}
