// The fleet: for each secret and service, how many instances are on which version.

import { h } from "./dom.js";
import { read } from "./api.js";
import { count, digits } from "./words.js";
import { time } from "./times.js";
import { debounced, none, problem, row, secretLink, share, table } from "./parts.js";

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
  /** `choose(service, secret, version)` is called when somebody wants to see those instances. */
  constructor(changed, choose) {
    this.changed = changed;
    this.choose = choose;
    this.secret = "";
    this.limit = ROWS;
    this.lines = null;
    this.error = null;
    this.soon = debounced(() => this.load());
  }

  show(secret) {
    if (secret === this.secret) return;
    this.secret = secret;
    this.limit = ROWS;
    this.soon();
  }

  async load() {
    this.asking?.abort();
    const mine = new AbortController();
    this.asking = mine;
    try {
      const answer = await read("/api/fleet", { secret: this.secret }, mine.signal);
      if (this.asking !== mine) return;
      this.answer = answer;
      this.lines = fold(answer.groups);
      this.error = null;
    } catch (error) {
      if (this.asking !== mine) return;
      this.error = error;
    }
    this.changed();
  }

  close() {
    this.asking?.abort();
    this.asking = null;
  }

  draw() {
    return h("section", { "aria-labelledby": "fleet-title" }, [
      h("h2", { id: "fleet-title" }, "Services and versions"),
      this.error && problem(this.error),
      !this.lines && !this.error && h("p", { class: "quiet" }, "Loading …"),
      this.lines && this.found(),
    ]);
  }

  found() {
    const { total, taken_at: taken, truncated } = this.answer;
    if (this.lines.length === 0) {
      return h("p", { class: "empty" }, this.secret ? `No instance uses ${this.secret}.` : "No instance has registered yet.");
    }
    const shown = this.lines.slice(0, this.limit);
    const mixed = this.lines.filter((it) => it.versions.length > 1).length;
    return [
      h("p", { class: "quiet", "data-testid": "fleet-summary" }, [
        `${count(total, "instance")}, as of `, time(taken), ". ",
        mixed > 0 ? `Services on more than one version come first: ${digits(mixed)}.` : "Every service is on one version of each secret.",
      ]),
      truncated && h("p", { class: "quiet" }, "There are more than can be listed: name a secret below to see all of its services."),
      table({ caption: "Services and versions", columns: COLUMNS, testid: "fleet", rows: shown.map((it) => this.line(it)) }),
      this.lines.length > shown.length && h("p", { class: "below" }, [
        `${digits(shown.length)} of ${digits(this.lines.length)} shown. `,
        h("button", { type: "button", onclick: () => { this.limit += 50; this.changed(); } }, "Show more"),
      ]),
    ];
  }

  line(it) {
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
            onclick: () => this.choose(it.service, it.secret, group.version),
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

/** Only tells neighbours apart: each is named beside its colour. */
function colour(group, at) {
  return `part-${group.version === null ? 3 : Math.min(at, 2)}`;
}

function standings(counts) {
  const entries = Object.entries(counts).filter(([, number]) => number > 0);
  if (entries.length === 0) return none();
  return h("span", { class: "quiet" }, entries.map(([name, number]) => `${digits(number)} ${name}`).join(", "));
}

/** Groups of one secret and service become one line, newest version first; lines with several versions come first. */
function fold(groups) {
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
    for (const [name, number] of Object.entries(group.standings)) line.standings[name] = (line.standings[name] ?? 0) + number;
  }
  const list = [...lines.values()];
  for (const line of list) line.versions.sort((a, b) => (b.version ?? -1) - (a.version ?? -1));
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return list.sort((a, b) =>
    Number(b.versions.length > 1) - Number(a.versions.length > 1) || order(a.secret, b.secret) || order(a.service, b.service));
}
