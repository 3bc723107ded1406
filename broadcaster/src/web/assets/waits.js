// What a secret waits for: who, why, since when and what happens next; the guard's conditions; how far each service is.

import { h } from "./dom.js";
import { capitalised, count, digits, meaning, parseLife } from "./words.js";
import { time } from "./times.js";
import { none, row, share, table } from "./parts.js";
import { barred, excuse } from "./actions.js";

// Of each kind, until all are asked for.
const FIRST = 10;

export function waits(page) {
  const { status } = page;
  const groups = new Map();
  for (const blocker of status.blockers) {
    if (!groups.has(blocker.condition)) groups.set(blocker.condition, []);
    groups.get(blocker.condition).push(blocker);
  }
  return h("section", { class: "panel", "aria-labelledby": "waits-title", "data-testid": "waits" }, [
    h("h2", { id: "waits-title" }, title(status)),
    status.blockers.length === 0 && calm(status),
    [...groups].map(([name, blockers]) => group(page, name, blockers)),
  ]);
}

function title({ blockers, record_read_at: fromRecord }) {
  if (blockers.length > 0) return `It waits for ${blockers.length >= 100 ? "100 things and more" : count(blockers.length, "thing")}`;
  return fromRecord ? "What it waits for" : "Nothing waits";
}

function calm(status) {
  const told = (text) => h("p", { class: "quiet" }, text);
  if (status.record_read_at) return told("What is waited for is known to the leader only.");
  return status.rotation && told("Nothing holds it up: it goes on by itself.");
}

function group(page, name, blockers) {
  const all = page.open.has(name);
  const shown = all ? blockers : blockers.slice(0, FIRST);
  const leaving = page.status.guards.length === 1 ? page.status.guards[0].version : null;
  const lives = shown.every((it) => parseLife(it.who));
  return h("div", { class: "wait-group", key: name, "data-condition": name }, [
    h("h3", {}, `Until ${meaning(name, leaving)}`, h("code", { class: "tag", title: "its name in scripts and documents" }, name)),
    lives ? instances(page, name, shown) : h("ul", { class: "plain" }, shown.map(one)),
    blockers.length > shown.length && h("button", {
      type: "button",
      onclick: () => {
        page.open.add(name);
        page.changed();
      },
    }, `Show all ${digits(blockers.length)}`),
    blockers.length >= 100 && h("p", { class: "quiet" }, "The first 100 are listed; the evidence below counts them all."),
  ]);
}

function one(blocker) {
  return h("li", { class: "blocker", "data-testid": "blocker" }, [
    h("p", {}, [blocker.who && h("strong", { class: "who-waits" }, `${blocker.who}: `), blocker.who ? blocker.why : capitalised(blocker.why), "."]),
    h("p", { class: "quiet" }, [blocker.since && ["Since ", time(blocker.since), ". "], "Next: ", blocker.next, "."]),
  ]);
}

const COLUMNS = [
  { name: "Who", class: "wide" },
  { name: "Why", class: "wide" },
  { name: "Last contact" },
  { name: "Holds" },
  { name: "What happens next", class: "wide" },
];

function instances(page, name, blockers) {
  const excusable = name === "prepared" || name === "switched";
  const columns = excusable ? [...COLUMNS, { name: "Action" }] : COLUMNS;
  return table({
    caption: `Who is waited for: ${meaning(name)}`,
    columns,
    testid: `waiting-${name}`,
    rows: blockers.map((blocker) => {
      const life = page.lives.get(blocker.who);
      const cells = [
        h("span", { class: "who-waits" }, blocker.who),
        blocker.why,
        contact(life, blocker),
        life && (life.held.length > 0 ? life.held.join(", ") : none("nothing")),
        blocker.next,
      ];
      if (excusable) {
        cells.push(h("button", { type: "button", class: "small", disabled: barred() !== null, "aria-label": `Excuse ${blocker.who} …`, onclick: () => excuse(page, blocker.who) }, "Excuse …"));
      }
      return row(columns, cells, { key: blocker.who, "data-testid": "blocker" });
    }),
  });
}

/** An instance's `since` is when it was last heard, or first seen. */
function contact(life, blocker) {
  if (life?.silent_for_ms === null) return "not yet";
  return life ? time(life.taken - life.silent_for_ms) : time(blocker.since);
}

const STAGES = ["seen", "prepared", "switched", "released"];

/** Services × stages. */
export function services(status) {
  if (status.record_read_at) return null;
  if (status.services.length === 0) {
    return h("section", { class: "panel", "aria-labelledby": "services-title" }, h("h2", { id: "services-title" }, "Services"),
      h("p", { class: "quiet" }, "No instance uses this secret."));
  }
  const columns = [
    { name: "Service", class: "wide" },
    { name: "Members" },
    ...STAGES.map((stage) => ({ name: capitalised(stage) })),
    { name: "Out of reach" },
  ];
  const sum = (name) => status.services.reduce((total, it) => total + it[name], 0);
  const total = Object.fromEntries(["members", ...STAGES, "fenced"].map((name) => [name, sum(name)]));
  const line = (it, props) => row(columns, [
    it.service,
    digits(it.members),
    ...STAGES.map((stage) => stageCell(it[stage], it.members)),
    it.fenced > 0 ? h("strong", {}, digits(it.fenced)) : none("none"),
  ], props);
  const target = status.rotation?.phase === "rolling_back" ? status.current : status.rotation?.new ?? status.current;
  return h("section", { class: "panel", "aria-labelledby": "services-title" }, [
    h("h2", { id: "services-title" }, "Services"),
    target !== null && h("p", { class: "quiet" }, `How many instances of each service have got how far with version ${target}.`),
    table({
      caption: "Services and stages",
      columns,
      testid: "services",
      rows: [
        ...status.services.map((it) => line(it, { key: `service ${it.service}` })),
        status.services.length > 1 && line({ ...total, service: "All" }, { key: "all", class: "total" }),
      ].filter(Boolean),
    }),
  ]);
}

function stageCell(done, of) {
  return h("div", { class: "stage-cell" }, [
    h("span", {}, digits(done), h("span", { class: "unseen" }, ` of ${digits(of)}`)),
    h("span", { class: "bar thin", "aria-hidden": "true" }, h("span", { class: done >= of ? "full" : null, style: { width: `${share(done, of)}%` } })),
  ]);
}

/** `1.550303032s` is exact, and no word for people. */
function plain(evidence) {
  return evidence.replace(/(\d+)(\.\d+)?(ms|s)\b/g, (_, whole, part, unit) => `${Math.round(Number(whole + (part ?? "")) * 10) / 10} ${unit}`);
}

/** What must hold before a version may be retired, each with what it is judged by. */
export function guards(status) {
  return status.guards.map((guard) => {
    const met = guard.conditions.filter((it) => it.met).length;
    const id = `guard-${guard.version}`;
    const sessions = status.blockers.filter((it) => it.condition === "usage_evidence" && it.who);
    return h("section", { class: "panel", key: id, "aria-labelledby": id, "data-testid": "guard" }, [
      h("h2", { id }, `Before version ${guard.version} may be retired`),
      h("p", { class: "quiet" }, `${met} of ${count(guard.conditions.length, "condition")} met. All must be.`),
      h("ul", { class: "checks" }, guard.conditions.map((it) =>
        h("li", { class: it.met ? "met" : "unmet", "data-condition": it.name, "data-met": it.met ? "true" : "false" }, [
          h("span", { class: "mark", "aria-hidden": "true" }, it.met ? "✓" : "○"),
          h("div", {}, [
            h("span", {}, h("span", { class: "unseen" }, it.met ? "met: " : "not met: "), capitalised(meaning(it.name, guard.version))),
            it.evidence && h("div", { class: "quiet" }, capitalised(plain(it.evidence))),
            it.name === "usage_evidence" && sessions.length > 0 && h("ul", { class: "sessions", "aria-label": "Live sessions" },
              sessions.slice(0, FIRST).map((session) => h("li", {}, session.who)),
              sessions.length > FIRST && h("li", { class: "quiet" }, `and ${digits(sessions.length - FIRST)} more`)),
          ]),
        ]))),
    ]);
  });
}
