// What a secret waits for: who, why, since when and what happens next.

import { h } from "../elements/dom.js";
import { none, row, table } from "../elements/table.js";
import { time } from "../elements/times.js";
import { parseInstance } from "../words/instance.js";
import { count, digits, sentence } from "../words/numbers.js";
import { meaning } from "../words/words.js";
import { changed } from "../broadcaster/session.js";
import { barred, withSignIn } from "../orders/access.js";
import { excuseDialog } from "../orders/excuse.js";
import { overrideDialog, waitsFor } from "../orders/override.js";
import { overridable } from "../orders/possible.js";

// Of each condition, until all are asked for.
const FIRST = 10;
// The broadcaster lists no more.
const MOST = 100;

/** @param {import("./page.js").Page} page */
export function waits(page) {
  const { status } = page;
  /** @type {Map<Api.Condition, Api.BlockerStatus[]>} */
  const groups = new Map();
  for (const blocker of status.blockers) groups.set(blocker.condition, [...(groups.get(blocker.condition) ?? []), blocker]);
  return h("section", { class: "panel", "aria-labelledby": "waits-title", "data-testid": "waits" }, [
    h("h2", { id: "waits-title" }, title(status)),
    status.blockers.length === 0 && calm(status),
    [...groups].map(([name, blockers]) => group(page, name, blockers)),
  ]);
}

/** @param {Api.SecretStatus} status */
function title({ blockers, record_read_at: fromRecord }) {
  if (blockers.length > 0) return `Waiting for ${blockers.length >= MOST ? `${MOST} things or more` : count(blockers.length, "thing")}`;
  return fromRecord ? "What it waits for" : "Waiting for nothing";
}

/** @param {Api.SecretStatus} status */
function calm(status) {
  const told = (/** @type {string} */ text) => h("p", { class: "quiet" }, text);
  if (status.record_read_at) return told("Only the leader knows what the secret waits for.");
  return status.rotation && told("Nothing holds the rotation up: it goes on by itself.");
}

/**
 * @param {import("./page.js").Page} page
 * @param {Api.Condition} name
 * @param {Api.BlockerStatus[]} blockers
 */
function group(page, name, blockers) {
  const all = page.open.has(name);
  const shown = all ? blockers : blockers.slice(0, FIRST);
  const leaving = page.status.guards.length === 1 ? page.status.guards[0]?.version ?? null : null;
  const named = shown.every((it) => parseInstance(it.who));
  return h("div", { class: "wait-group", key: name, "data-condition": name }, [
    h("h3", {}, `Until ${meaning(name, leaving)}`, h("code", { class: "tag", title: "its name in scripts and in the documentation" }, name)),
    named ? instances(page, name, shown) : h("ul", { class: "plain" }, shown.map((it) => one(page, it))),
    blockers.length > shown.length && h("button", {
      type: "button",
      onclick: () => {
        page.open.add(name);
        changed();
      },
    }, `Show all ${digits(blockers.length)}`),
    blockers.length >= MOST && h("p", { class: "quiet" }, `The first ${MOST} are listed; the evidence below counts them all.`),
  ]);
}

/**
 * The button that opens an order's dialog for one blocker.
 * @param {string} label
 * @param {string} who
 * @param {() => void} open
 */
function action(label, who, open) {
  return h("button", { type: "button", class: "small", disabled: barred() !== null, "aria-label": `${label} ${who} …`, onclick: () => withSignIn(open) }, `${label} …`);
}

/**
 * Whether an override could end the wait for it.
 * @param {import("./page.js").Page} page
 * @param {Api.Condition} name
 */
function overrides(page, name) {
  return (name === "members_released" || name === "usage_evidence") && overridable(page.status).length > 0;
}

/**
 * @param {import("./page.js").Page} page
 * @param {Api.BlockerStatus} blocker
 */
function one(page, blocker) {
  return h("li", { class: "blocker", "data-testid": "blocker" }, [
    h("p", {}, [blocker.who && h("strong", { class: "who-waits" }, `${blocker.who}: `), sentence(blocker.why)]),
    h("p", { class: "quiet" }, [blocker.since && ["Since ", time(blocker.since), ". "], "Next: ", sentence(blocker.next)]),
    command(blocker),
    overrides(page, blocker.condition) && action("Override for", waitsFor(blocker), () => overrideDialog(page, blocker)),
  ]);
}

/**
 * What an operator can do about it, to paste.
 * @param {Api.BlockerStatus} blocker
 */
function command(blocker) {
  return blocker.command && h("p", {}, h("code", { class: "command" }, blocker.command));
}

const COLUMNS = [
  { name: "Who", class: "wide" },
  { name: "Why", class: "wide" },
  { name: "Since" },
  { name: "Last contact" },
  { name: "Holds" },
  { name: "What happens next", class: "wide" },
];

/**
 * @param {import("./page.js").Page} page
 * @param {Api.Condition} name
 * @param {Api.BlockerStatus[]} blockers
 */
function instances(page, name, blockers) {
  const excusable = name === "prepared" || name === "switched";
  const overriding = overrides(page, name);
  const columns = excusable || overriding ? [...COLUMNS, { name: "Action" }] : COLUMNS;
  return table({
    caption: `Waiting until ${meaning(name)}`,
    columns,
    testid: `waiting-${name}`,
    rows: blockers.map((blocker) => {
      const who = blocker.who ?? "";
      const known = page.instances.get(who);
      const cells = [
        h("span", { class: "who-waits" }, who),
        blocker.why,
        time(blocker.since),
        contact(known),
        known && (known.held.length > 0 ? known.held.join(", ") : none("nothing")),
        [blocker.next, command(blocker)],
      ];
      if (excusable) {
        cells.push(action("Excuse", who, () => excuseDialog(page, who)));
      } else if (overriding) {
        cells.push(action("Override for", who, () => overrideDialog(page, blocker)));
      }
      return row(columns, cells, { key: who, "data-testid": "blocker" });
    }),
  });
}

/** @param {import("./page.js").Known | undefined} known */
function contact(known) {
  if (!known) return none("not known");
  return known.silent_for_ms === null ? "not yet" : time(known.taken - known.silent_for_ms);
}
