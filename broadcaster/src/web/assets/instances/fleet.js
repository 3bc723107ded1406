// The fleet: for each secret and service, how many instances are on which version.

import { h } from "../elements/dom.js";
import { debounced } from "../elements/form.js";
import { secretLink } from "../elements/link.js";
import { notice, problem } from "../elements/notice.js";
import { none, row, table } from "../elements/table.js";
import { time } from "../elements/times.js";
import { count, digits, share } from "../words/numbers.js";
import { STANDING } from "../words/vocabulary.js";
import { Problem, readFleet } from "../broadcaster/api.js";
import { changed } from "../broadcaster/session.js";

/**
 * One secret and service.
 * @typedef {object} Line
 * @property {string} secret
 * @property {string} service
 * @property {number} instances
 * @property {Api.GroupView[]} versions
 * @property {Partial<Record<Api.Standing, number>>} standings
 */

// The instances stand below: they are not to be pushed out of sight.
const ROWS = 6;

const COLUMNS = [
  { name: "Secret", class: "wide" },
  { name: "Service" },
  { name: "Instances" },
  { name: "On version", class: "wide" },
  { name: "Standing" },
];

export class Fleet {
  #choose;
  #secret = "";
  #limit = ROWS;
  /** @type {{ answer: Api.FleetView, lines: Line[] } | null} */
  #found = null;
  /** @type {Problem | null} */
  #error = null;
  /** @type {AbortController | null} */
  #asking = null;
  #soon = debounced(() => this.load());

  /** @param {(service: string, secret: string, version: number | null) => void} choose shows the instances behind a figure */
  constructor(choose) {
    this.#choose = choose;
  }

  /** @param {string} secret empty: all of them */
  show(secret) {
    if (secret === this.#secret) return;
    this.#secret = secret;
    this.#limit = ROWS;
    this.#soon();
  }

  async load() {
    this.#asking?.abort();
    const mine = new AbortController();
    this.#asking = mine;
    try {
      const answer = await readFleet({ secret: this.#secret }, mine.signal);
      if (this.#asking !== mine) return;
      this.#found = { answer, lines: fold(answer.groups) };
      this.#error = null;
    } catch (caught) {
      if (this.#asking !== mine) return;
      this.#error = Problem.of(caught);
    }
    changed();
  }

  close() {
    this.#asking?.abort();
    this.#asking = null;
  }

  draw() {
    return h("section", { "aria-labelledby": "fleet-title" }, [
      h("h2", { id: "fleet-title" }, "Services and versions"),
      this.#error && problem(this.#error),
      !this.#found && !this.#error && h("p", { class: "quiet" }, "Loading …"),
      this.#found && unanswered(this.#found.answer),
      this.#found && this.#table(this.#found),
    ]);
  }

  /** @param {{ answer: Api.FleetView, lines: Line[] }} found */
  #table({ answer: { total, taken_at: taken, truncated, unanswered_total: unknown }, lines }) {
    if (lines.length === 0) {
      if (unknown > 0) return null;
      return h("p", { class: "empty" }, this.#secret ? `No instance uses ${this.#secret}.` : "No instance has registered yet.");
    }
    const shown = lines.slice(0, this.#limit);
    const mixed = lines.filter((it) => it.versions.length > 1).length;
    return [
      h("p", { class: "quiet", "data-testid": "fleet-summary" }, [
        `${count(total, "instance")}, as of `, time(taken), ". ",
        mixed > 0 ? `Services on more than one version come first: ${digits(mixed)}.` : "Every service is on one version of each secret.",
      ]),
      truncated && h("p", { class: "quiet" }, "There are more than can be listed: name a secret below to see all of its services."),
      table({ caption: "Services and versions", columns: COLUMNS, testid: "fleet", rows: shown.map((it) => this.#line(it)) }),
      lines.length > shown.length && h("p", { class: "below" }, [
        `${digits(shown.length)} of ${digits(lines.length)} shown. `,
        h("button", { type: "button", onclick: () => { this.#limit += 50; changed(); } }, "Show more"),
      ]),
    ];
  }

  /** @param {Line} it */
  #line(it) {
    return row(COLUMNS, [
      h("a", { class: "name", href: secretLink(it.secret) }, it.secret),
      it.service,
      digits(it.instances),
      h("div", { class: "split" }, [
        h("span", { class: "bar thin stacked", "aria-hidden": "true" }, it.versions.map((group, at) =>
          h("span", { class: `part ${colour(group, at)}`, style: { width: `${share(group.instances, it.instances)}%` } }))),
        h("div", { class: "chips" }, it.versions.map((group, at) =>
          h("button", {
            type: "button",
            class: `chip ${colour(group, at)}`,
            title: "Show these instances",
            onclick: () => this.#choose(it.service, it.secret, group.version),
          }, [
            h("span", { class: "chip-mark", "aria-hidden": "true" }),
            group.version === null ? "none yet" : ["version ", h("strong", {}, group.version)],
            `: ${digits(group.instances)}`,
          ]))),
      ]),
      standings(it.standings),
    ], { key: `${it.secret} ${it.service}` });
  }
}

/**
 * That a list has no instance of a secret, and that the secret was not asked with success, are two things.
 * @param {Pick<Api.FleetView, "unanswered" | "unanswered_total">} answer
 */
export function unanswered({ unanswered: secrets, unanswered_total: total }) {
  if (total === 0) return null;
  const names = secrets.flatMap((secret, at) => [at > 0 && ", ", h("a", { class: "name", href: secretLink(secret) }, secret)]);
  return h("div", { "data-testid": "unanswered" }, notice(
    "warn",
    `The instances of ${count(total, "secret")} are not shown`,
    h("p", {}, ["They do not answer, or are out of service: ", names, total > secrets.length && `, and ${digits(total - secrets.length)} more`, "."]),
    h("p", {}, ["The findings of the overview say why, and how to repair it; so does ", h("code", {}, "rotacast doctor"), "."]),
  ));
}

/**
 * Only tells neighbours apart: each is named beside its colour.
 * @param {Api.GroupView} group
 * @param {number} at
 */
function colour(group, at) {
  return `part-${group.version === null ? 3 : Math.min(at, 2)}`;
}

/** @param {Partial<Record<Api.Standing, number>>} counts */
function standings(counts) {
  const entries = /** @type {[Api.Standing, number][]} */ (Object.entries(counts)).filter(([, number]) => number > 0);
  if (entries.length === 0) return none();
  return h("span", { class: "quiet" }, entries.map(([name, number]) => `${digits(number)} ${STANDING[name].words}`).join(", "));
}

/**
 * Groups of one secret and service become one line, newest version first; lines with several versions come first.
 * @param {Api.GroupView[]} groups
 */
export function fold(groups) {
  /** @type {Map<string, Line>} */
  const lines = new Map();
  for (const group of groups) {
    const key = `${group.secret} ${group.service}`;
    let line = lines.get(key);
    if (!line) {
      line = { secret: group.secret, service: group.service, instances: 0, versions: [], standings: {} };
      lines.set(key, line);
    }
    line.instances += group.instances;
    line.versions.push(group);
    for (const [name, number] of /** @type {[Api.Standing, number][]} */ (Object.entries(group.standings))) line.standings[name] = (line.standings[name] ?? 0) + number;
  }
  const list = [...lines.values()];
  for (const line of list) line.versions.sort((a, b) => (b.version ?? -1) - (a.version ?? -1));
  const order = (/** @type {string} */ a, /** @type {string} */ b) => (a < b ? -1 : a > b ? 1 : 0);
  return list.sort((a, b) =>
    Number(b.versions.length > 1) - Number(a.versions.length > 1) || order(a.secret, b.secret) || order(a.service, b.service));
}
