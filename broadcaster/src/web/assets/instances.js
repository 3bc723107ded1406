// Who runs what: the fleet by service and version, and every instance, filtered and paged by the broadcaster.

import { h } from "./dom.js";
import { read } from "./api.js";
import { count, digits, lifeName, standing } from "./words.js";
import { span, time } from "./times.js";
import { debounced, field, link, none, pill, problem, row, secretLink, select, table } from "./parts.js";
import { say } from "./shell.js";
import { Fleet } from "./fleet.js";

const PAGE = 100;
const REFRESH_MS = 15_000;
const FILTERS = ["q", "secret", "service", "version", "not_on", "standing"];
const STANDINGS = ["registered", "live", "silent", "fenced", "left"];
const STANDING_KINDS = { live: "good", silent: "warn", fenced: "warn" };

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

export function whoRunsWhat(parameters, changed) {
  const filter = Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) ?? ""]));
  let offset = Math.max(0, Math.floor(Number(parameters.get("offset")) || 0));
  let answer = null;
  let error = null;
  let asking = null;
  let told = true;

  const fleet = new Fleet(changed, (service, secret, version) => {
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
      const found = await read("/api/instances", { ...filter, offset, limit: PAGE }, mine.signal);
      if (asking !== mine) return;
      answer = found;
      error = null;
      if (!told) say(`${count(found.matching, "instance")} found.`);
      told = true;
    } catch (failed) {
      if (asking !== mine) return;
      error = failed;
    }
    asking = null;
    // Who is on the last page when it empties is taken to what is the last one now.
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

  const text = (name, label, props = {}) => field(label, h("input", {
    type: "search",
    name,
    value: filter[name],
    autocomplete: "off",
    spellcheck: "false",
    "data-testid": `filter-${name}`,
    oninput: (event) => {
      const typed = event.target.value.trim();
      filter[name] = props.inputmode ? typed.replace(/\D/g, "") : typed;
      filtered(true);
    },
    ...props,
  }), props.inputmode ? "short" : "");

  function form() {
    return h("form", { class: "filters", role: "search", "aria-label": "Filter instances", onsubmit: (event) => { event.preventDefault(); load(); } }, [
      text("q", "Search", { id: "search", placeholder: "service, instance or incarnation", "aria-keyshortcuts": "/" }),
      text("secret", "Secret"),
      text("service", "Service"),
      text("version", "On version", { inputmode: "numeric" }),
      text("not_on", "Not on version", { inputmode: "numeric" }),
      field("Standing", select({
        name: "standing",
        "data-testid": "filter-standing",
        onchange: (event) => {
          filter.standing = event.target.value;
          filtered();
        },
      }, [["", "any"], ...STANDINGS.map((it) => [it, it])], filter.standing), "short"),
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
      fleet.draw(filter.secret),
      h("section", { "aria-labelledby": "instances-title" }, [
        h("h2", { id: "instances-title" }, "Instances"),
        form(),
        error && problem(error, error.kind === "not_leader" && h("p", {}, "Instances are known to the leader only.")),
        answer && results(),
        !answer && !error && h("p", { class: "quiet" }, "Loading …"),
      ]),
    ];
  }

  function results() {
    const { total, matching, instances, taken_at: taken } = answer;
    if (matching === 0) {
      return h("p", { class: "empty", "data-testid": "nothing-found" }, nobody(total));
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

  /** Nobody at all is not everybody. */
  function nobody(total) {
    if (total === 0) return "No instance has registered yet. A service joins by using a secret through the SDK or the sidecar.";
    const others = FILTERS.filter((name) => !["not_on", "secret"].includes(name)).every((name) => filter[name] === "");
    if (filter.not_on && others) {
      return `Nobody${filter.secret ? ` that uses ${filter.secret}` : ""} is on another version than ${filter.not_on}, or nobody uses it.`;
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

function instanceRow(it, taken) {
  return row(COLUMNS, [
    h("span", { class: "who-waits", title: `incarnation ${it.incarnation}` }, lifeName(it)),
    h("a", { class: "name", href: secretLink(it.secret) }, it.secret),
    it.version,
    it.stage,
    it.held.length > 0 ? it.held.join(", ") : none("nothing"),
    pill(STANDING_KINDS[it.standing] ?? "calm", it.standing, standing(it.standing)),
    it.silent_for_ms === null ? "not yet" : time(taken - it.silent_for_ms),
    it.lease_left_ms === 0 ? "over" : span(it.lease_left_ms),
    it.last_failure && h("span", { class: "failure" }, it.last_failure),
  ], { key: `${lifeName(it)} ${it.incarnation} ${it.secret}` });
}
