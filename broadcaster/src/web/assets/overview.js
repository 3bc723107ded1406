// Every secret on a row, the most urgent first.

import { h } from "./dom.js";
import { Secrets, FILTERS, isLong } from "./model.js";
import { condition, count, digits, direction, words } from "./words.js";
import { span, time } from "./times.js";
import { debounced, link, none, overlayPill, pill, progress, row, secretLink, table } from "./parts.js";
import { say } from "./shell.js";

// Rows beyond are drawn when asked for: nobody reads them all, and each costs the browser at every change.
const ROWS = 100;
// Screen readers hear a summary at most that often.
const SAY_MS = 15_000;

const FILTER_NAMES = { all: "All", attention: "Need attention", rotating: "Rotating", paused: "Paused", idle: "Idle" };

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

export function overview(parameters, changed) {
  let filter = FILTERS.includes(parameters.get("show")) ? parameters.get("show") : "all";
  let query = parameters.get("q") ?? "";
  let limit = ROWS;
  let saidAt = 0;
  let toldAttention = null;

  const remember = () => {
    history.replaceState(null, "", link("", { show: filter === "all" ? "" : filter, q: query }));
    limit = ROWS;
    changed();
  };
  const tellFound = debounced(() => say(`${count(secrets.select(filter, query, 0).matching, "secret")} found.`), 700);

  function tellSummary(counts) {
    // Rotations come and go all the time; who needs attention is news.
    if (!secrets.whole || counts.attention === toldAttention || Date.now() - saidAt < SAY_MS) return;
    toldAttention = counts.attention;
    saidAt = Date.now();
    say(`${count(counts.all, "secret")}: ${digits(counts.attention)} need attention, ${digits(counts.rotating)} rotating.`);
  }

  function draw() {
    const { counts, matching, rows, scheduled } = secrets.select(filter, query, limit);
    const columns = scheduled ? COLUMNS : UNSCHEDULED;
    if (secrets.whole && counts.all === 0) return [h("h1", {}, "Secrets"), firstSteps()];
    tellSummary(counts);
    return [
      h("h1", {}, "Secrets"),
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
          oninput: (event) => {
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
      events: { secrets: (piece) => { secrets.take(piece); changed(); } },
    },
    draw,
  };
}

// A secret's row is made again only when the secret has changed: most of a live page has not.
const made = new WeakMap();

function secretRow(it, columns) {
  const long = isLong(it);
  const known = made.get(it);
  if (known?.long === long && known.columns === columns) return known.tree;
  const tree = freshRow(it, columns, long);
  made.set(it, { long, columns, tree });
  return tree;
}

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

function current(it) {
  if (it.current === null) return none("no current version");
  const age = time(it.current_seen_at, "age");
  return [h("span", { class: "version" }, it.current), age && h("div", { class: "quiet" }, age, " old")];
}

function state(it, long) {
  const pills = it.rotation ? [pill("busy", words(it.rotation.phase))] : it.overlays.length === 0 ? [pill("calm", "idle")] : [];
  if (long && !it.overlays.includes("stuck")) pills.push(pill("warn", "waits long"));
  const rotation = it.rotation;
  const detail = rotation
    ? [direction(rotation), " · ", time(rotation.phase_since, "age")]
    : it.waiting_version !== null && `version ${it.waiting_version} pending`;
  return [h("div", { class: "pills" }, pills, it.overlays.map(overlayPill)), detail && h("div", { class: "quiet" }, detail)];
}

function howFar(it) {
  if (it.rotation && it.progress) {
    const back = it.rotation.phase === "rolling_back" && it.progress.stage === "switched" ? "switched back" : it.progress.stage;
    return progress(it.progress.done, it.progress.of, back, `Progress of ${it.secret}`);
  }
  if (it.rotation) {
    if (it.record_read_at) return none("known to the leader only");
    return it.rotation.phase !== "verifying" && it.members === 0 ? h("span", { class: "quiet" }, "no instances") : none("nobody is waited for");
  }
  if (!it.last) return none("never rotated");
  const took = it.last.took_ms === null ? "" : ` in ${span(it.last.took_ms)}`;
  return h("span", { class: "quiet" }, [
    it.last.outcome === "retired" ? `${direction(it.last)}${took}, ` : [h("strong", {}, words(it.last.outcome)), ", "],
    time(it.last.ended_at),
  ]);
}

function waitsFor(it) {
  if (!it.blocker) {
    return none(it.record_read_at ? "known to the leader only" : "nothing");
  }
  const { who, why } = it.blocker;
  const more = it.blockers > 1 ? ` and ${digits(it.blockers - 1)} more` : "";
  return h("div", { title: why }, [
    h("div", { class: "clamp" }, who ? h("span", { class: "who-waits" }, who) : condition(it.blocker.condition)),
    (who || more) && h("div", { class: "quiet" }, [who && condition(it.blocker.condition), more]),
  ]);
}

function firstSteps() {
  return h("section", { class: "first", "data-testid": "empty" }, [
    h("h2", {}, "No secret yet"),
    h("p", {}, "A secret begins with its first version. Write it on the command line:"),
    h("pre", { tabindex: 0 }, h("code", {}, "printf 'first value' | rotacast put payments/db --wait")),
    h("p", {}, "It appears here at once. Services then use it through the SDK, and a rotation to a new version begins with ",
      h("code", {}, "rotacast rotate payments/db"), ", or with a button on the secret's page."),
  ]);
}
