// Who runs what: the fleet by service and version, and every instance, filtered and paged by the broadcaster.

import { h } from "../elements/dom.js";
import { pill } from "../elements/badge.js";
import { debounced, field, select } from "../elements/form.js";
import { link, secretLink } from "../elements/link.js";
import { problem } from "../elements/notice.js";
import { none, row, table } from "../elements/table.js";
import { span, time } from "../elements/times.js";
import { instanceKey, instanceName } from "../words/instance.js";
import { count, digits } from "../words/numbers.js";
import { STAGE, STANDING } from "../words/vocabulary.js";
import { Problem, readInstances } from "../broadcaster/api.js";
import { changed } from "../broadcaster/session.js";
import { say } from "../frame/announce.js";
import { Fleet } from "./fleet.js";

const PAGE = 100;
const REFRESH_MS = 15_000;
const FILTERS = /** @type {const} */ (["q", "secret", "service", "version", "not_on", "standing"]);
/** @typedef {(typeof FILTERS)[number]} Filter */
/** @type {Record<Api.Standing, import("../elements/badge.js").Kind>} */
const STANDING_KINDS = { registered: "calm", live: "good", silent: "warn", fenced: "warn", left: "calm" };

const COLUMNS = [
  { name: "Instance", class: "wide" },
  { name: "Secret", class: "wide" },
  { name: "Version" },
  { name: "Stage" },
  { name: "Holds" },
  { name: "Standing" },
  { name: "Heard" },
  { name: "Lease ends in" },
  { name: "Last failure", class: "wide" },
];

/**
 * @param {URLSearchParams} parameters
 * @returns {import("../app.js").View}
 */
export function whoRunsWhat(parameters) {
  /** @type {Record<Filter, string>} */
  const filter = { q: "", secret: "", service: "", version: "", not_on: "", standing: "" };
  for (const name of FILTERS) filter[name] = parameters.get(name) ?? "";
  let offset = Math.max(0, Math.floor(Number(parameters.get("offset")) || 0));
  /** @type {Api.PageView | null} */
  let answer = null;
  /** @type {Problem | null} */
  let error = null;
  /** @type {AbortController | null} */
  let asking = null;
  let told = true;

  const fleet = new Fleet((service, secret, version) => {
    Object.assign(filter, { service, secret, version: version === null ? "" : String(version), not_on: "", q: "", standing: "" });
    filtered();
    document.getElementById("instances-title")?.scrollIntoView({ block: "start" });
  });

  async function load() {
    asking?.abort();
    const mine = new AbortController();
    asking = mine;
    changed();
    try {
      const found = await readInstances({ ...filter, offset, limit: PAGE }, mine.signal);
      if (asking !== mine) return;
      answer = found;
      error = null;
      if (!told) say(`${count(found.matching, "instance")} found.`);
      told = true;
    } catch (caught) {
      if (asking !== mine) return;
      error = Problem.of(caught);
    }
    asking = null;
    // When the last page has become empty, the one that is last now is shown.
    if (answer && !error && answer.instances.length === 0 && offset > 0 && answer.matching > 0) {
      turn(Math.floor((answer.matching - 1) / PAGE) * PAGE);
      return;
    }
    changed();
  }

  const remember = () => history.replaceState(null, "", link("instances", { ...filter, offset: offset || "" }));
  const soon = debounced(load);

  function filtered(wait = false) {
    offset = 0;
    told = false;
    remember();
    fleet.show(filter.secret);
    if (wait) soon();
    else load();
    changed();
  }

  /** @param {number} to */
  function turn(to) {
    offset = to;
    remember();
    load();
  }

  const timer = setInterval(() => {
    if (document.hidden || asking || document.querySelector("dialog[open]")) return;
    load();
    fleet.load();
  }, REFRESH_MS);

  /** @type {(name: Filter, label: string, props?: import("../elements/dom.js").Props) => import("../elements/dom.js").Element} */
  const text = (name, label, props = {}) => field(label, h("input", {
    type: "search",
    name,
    value: filter[name],
    autocomplete: "off",
    spellcheck: "false",
    "data-testid": `filter-${name}`,
    oninput: (/** @type {{ target: HTMLInputElement }} */ event) => {
      const typed = event.target.value.trim();
      filter[name] = props.inputmode ? typed.replace(/\D/g, "") : typed;
      filtered(true);
    },
    ...props,
  }), props.inputmode ? "short" : "");

  function form() {
    return h("form", { class: "filters", role: "search", "aria-label": "Filter instances", onsubmit: (/** @type {SubmitEvent} */ event) => { event.preventDefault(); load(); } }, [
      text("q", "Search", { id: "search", placeholder: "service, instance or incarnation", "aria-keyshortcuts": "/" }),
      text("secret", "Secret"),
      text("service", "Service"),
      text("version", "On version", { inputmode: "numeric" }),
      text("not_on", "Not on version", { inputmode: "numeric" }),
      field("Standing", select({
        name: "standing",
        "data-testid": "filter-standing",
        onchange: (/** @type {{ target: HTMLSelectElement }} */ event) => {
          filter.standing = event.target.value;
          filtered();
        },
      }, [["", "any"], ...Object.entries(STANDING).map(([name, it]) => /** @type {const} */ ([name, it.words]))], filter.standing), "short"),
      FILTERS.some((name) => filter[name] !== "") && h("button", {
        type: "button",
        class: "quiet-button",
        onclick: () => {
          FILTERS.forEach((name) => { filter[name] = ""; });
          filtered();
        },
      }, "Clear"),
    ]);
  }

  function draw() {
    return [
      h("h1", {}, "Who runs what"),
      fleet.draw(),
      h("section", { "aria-labelledby": "instances-title" }, [
        h("h2", { id: "instances-title" }, "Instances"),
        form(),
        error && problem(error, error.kind === "not_leader" && h("p", {}, "Only the leader knows the instances.")),
        answer && results(answer),
        !answer && !error && h("p", { class: "quiet" }, "Loading …"),
      ]),
    ];
  }

  /** @param {Api.PageView} answer */
  function results({ total, matching, instances, taken_at: taken, unanswered_total: unknown }) {
    if (matching === 0) {
      return h("p", { class: "empty", "data-testid": "nothing-found" }, unknown > 0 ? "No instance that is known fits." : nothingFound(total));
    }
    const last = Math.min(matching, offset + instances.length);
    const pages = () => matching > PAGE && h("div", { class: "pager", "data-testid": "pager" }, [
      h("button", { type: "button", disabled: offset === 0, onclick: () => turn(Math.max(0, offset - PAGE)) }, "← Previous"),
      h("button", { type: "button", disabled: last >= matching, onclick: () => turn(offset + PAGE) }, "Next →"),
    ]);
    return h("div", { class: asking ? "asking" : null, "aria-busy": asking ? "true" : "false" }, [
      h("div", { class: "result-line" }, [
        h("p", { "data-testid": "shown" }, [
          `${digits(offset + 1)}–${digits(last)} of ${count(matching, "instance")}`,
          matching < total && `, ${digits(total)} in all`,
          ", as of ",
          time(taken),
          ".",
        ]),
        pages(),
      ]),
      table({
        caption: "Instances",
        columns: COLUMNS,
        testid: "instances",
        rows: instances.map((it) => instanceRow(it, Date.parse(taken))),
      }),
      h("div", { class: "below" }, pages()),
    ]);
  }

  /**
   * That no instance is left on an old version, and that there are no instances, are two things.
   * @param {number} total
   */
  function nothingFound(total) {
    if (total === 0) return "No instance has registered yet. A service joins by using a secret through the SDK.";
    const others = FILTERS.every((name) => name === "not_on" || name === "secret" || filter[name] === "");
    if (filter.not_on && others) {
      return `No instance${filter.secret ? ` of ${filter.secret}` : ""} is on another version than ${filter.not_on}, or no instance uses it.`;
    }
    return "No instance fits.";
  }

  load();
  fleet.show(filter.secret);
  fleet.load();

  return {
    place: "instances",
    title: () => "Who runs what",
    draw,
    signedIn: () => { load(); fleet.load(); },
    close: () => {
      clearInterval(timer);
      asking?.abort();
      asking = null;
      fleet.close();
    },
  };
}

/**
 * @param {Api.InstanceStatus} it
 * @param {number} taken
 */
function instanceRow(it, taken) {
  return row(COLUMNS, [
    h("span", { class: "who-waits", title: `incarnation ${it.incarnation}` }, instanceName(it)),
    h("a", { class: "name", href: secretLink(it.secret) }, it.secret),
    it.version,
    it.stage && (it.stage === "released" ? "uses only it" : STAGE[it.stage].words),
    it.held.length > 0 ? it.held.join(", ") : none("nothing"),
    pill(STANDING_KINDS[it.standing], STANDING[it.standing].words, STANDING[it.standing].meaning),
    it.silent_for_ms === null ? "not yet" : time(taken - it.silent_for_ms),
    it.lease_left_ms === 0 ? "over" : span(it.lease_left_ms),
    it.last_failure && h("span", { class: "failure" }, it.last_failure),
  ], { key: `${instanceKey(it)} ${it.secret}` });
}
