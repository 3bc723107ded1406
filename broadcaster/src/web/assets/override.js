// The override: a version is retired although somebody may still use it. Who that is, is asked afresh, and chosen by name.

import { h } from "./dom.js";
import { read } from "./api.js";
import { capitalised, count, digits, lifeName, standing } from "./words.js";
import { span, time } from "./times.js";
import { problem, select, field } from "./parts.js";
import { confirm } from "./confirm.js";
import { overridable } from "./actions.js";

/** Most instances the broadcaster takes in one override. */
const MAX_NAMED = 1024;
const PAGE = 500;

export function overrideDialog(page) {
  const { status } = page;
  const choices = overridable(status);
  let choice = choices[0];
  let holders = null;
  let beyond = 0;
  let error = null;
  let sessions = false;
  const named = new Set();
  const gone = new AbortController();
  let redraw = () => {};

  const live = () => page.status.blockers.filter((it) => it.condition === "usage_evidence" && it.who);

  /** Everybody who may still use the version, as of now. */
  async function load() {
    holders = null;
    error = null;
    redraw();
    if (choice.begun) {
      sessions = true;
      redraw();
      return;
    }
    try {
      const found = [];
      let matching = Infinity;
      for (let offset = 0; offset < Math.min(matching, MAX_NAMED); offset += PAGE) {
        const answer = await read("/api/instances", { secret: status.secret, not_on: status.current, offset, limit: PAGE }, gone.signal);
        const taken = Date.parse(answer.taken_at);
        matching = answer.matching;
        found.push(...answer.instances.map((it) => ({ ...it, taken })));
        if (answer.instances.length === 0) break;
      }
      beyond = Math.max(0, matching - found.length);
      holders = found.filter((it) => mayUse(it, choice.version, page.status)).slice(0, MAX_NAMED);
      // Who surely holds it comes before who may.
      const rank = (it) => (it.held.includes(choice.version) ? 0 : 1);
      holders.sort((a, b) => rank(a) - rank(b));
      for (const name of named) if (!holders.some((it) => keyOf(it) === name)) named.delete(name);
    } catch (failed) {
      if (gone.signal.aborted) return;
      error = failed;
    }
    redraw();
  }

  function order() {
    const chosen = (holders ?? []).filter((it) => named.has(keyOf(it)));
    return {
      version: choice.version,
      instances: chosen.map(({ service, instance, incarnation }) => ({ service, instance, incarnation })),
      sessions,
    };
  }

  function who() {
    if (choice.begun) {
      return [
        h("p", {}, h("strong", {}, `Every session of version ${choice.version} that is still live at the provider. `), "Work that uses it there fails. This cannot be undone."),
        h("p", {}, "If its value is gone from the store, you say that the credential was revoked by hand, and the retire goes on without the provider."),
      ];
    }
    const parts = [];
    if (named.size > 0) parts.push(count(named.size, "instance"));
    if (sessions) parts.push(`every session of version ${choice.version} that is live at the provider`);
    if (parts.length === 0) return h("p", {}, "Nobody yet: choose below who is.");
    const others = (holders?.length ?? 0) - named.size;
    return [
      h("p", {}, h("strong", {}, `${capitalised(parts.join(" and "))}. `), `Work that uses version ${choice.version} fails there. This cannot be undone.`),
      others > 0 && h("p", {}, `The retire still waits for ${count(others, "other instance")}.`),
    ];
  }

  function extra() {
    return [
      choices.length > 1 && field("Version", select({
        "data-testid": "override-version",
        onchange: (event) => {
          choice = choices.find((it) => String(it.version) === event.target.value);
          named.clear();
          load();
        },
      }, choices.map((it) => [String(it.version), `version ${it.version}`]), String(choice.version))),
      choice.begun ? null : instanceChoice(),
      choice.begun ? null : sessionChoice(),
    ];
  }

  function instanceChoice() {
    if (error) return problem(error, h("p", {}, h("button", { type: "button", onclick: load }, "Try again")));
    if (!holders) return h("p", { class: "quiet" }, "Asking who may still use it …");
    if (holders.length === 0) return h("p", {}, `No instance may use version ${choice.version} any more.`);
    return h("fieldset", { class: "holders-box" }, [
      h("legend", {}, `${count(holders.length, "instance")} may still use version ${choice.version}`),
      h("div", { class: "row-buttons" }, [
        h("button", { type: "button", class: "small", onclick: () => { holders.forEach((it) => named.add(keyOf(it))); redraw(); } }, "Choose all"),
        h("button", { type: "button", class: "small", onclick: () => { named.clear(); redraw(); } }, "Choose none"),
        h("button", { type: "button", class: "small", onclick: load }, "Ask again"),
      ]),
      beyond > 0 && h("p", { class: "quiet" }, `${digits(beyond)} more are not listed: one override names at most ${digits(MAX_NAMED)}.`),
      h("ul", { class: "holders", "data-testid": "holders", tabindex: 0, "aria-label": "Instances" }, holders.map((it) =>
        h("li", { key: keyOf(it) }, h("label", {}, [
          h("input", {
            type: "checkbox",
            checked: named.has(keyOf(it)),
            onchange: (event) => {
              if (event.target.checked) named.add(keyOf(it));
              else named.delete(keyOf(it));
              redraw();
            },
          }),
          h("span", {}, holderFacts(it)),
        ])))),
    ]);
  }

  function sessionChoice() {
    const found = live();
    return h("div", {}, [
      h("label", { class: "check" }, [
        h("input", {
          type: "checkbox",
          checked: sessions,
          "data-testid": "override-sessions",
          onchange: (event) => {
            sessions = event.target.checked;
            redraw();
          },
        }),
        h("span", {}, `Every session of version ${choice.version} at the provider`,
          h("span", { class: "quiet" }, found.length > 0 ? ` (${digits(found.length)} seen at the last reading)` : " (none seen at the last reading)")),
      ]),
      found.length > 0 && h("ul", { class: "sessions", "aria-label": "Live sessions" }, found.map((it) => h("li", {}, it.who))),
    ]);
  }

  redraw = confirm(status.secret, "override", {
    title: "Override the retire guard",
    button: () => (choice.begun ? `Cut them off and go on with version ${choice.version}` : `Cut them off and retire version ${choice.version}`),
    danger: true,
    typed: true,
    reason: "needed",
    what: ["A version is retired only when nobody uses it any more. This goes on without those you name. It is on record with your name, the reason and who was cut off."],
    who,
    extra,
    order,
    missing: () => (named.size === 0 && !sessions ? ["who is cut off"] : []),
    done: () => `override on record; version ${choice.version} is retired without waiting for them`,
    closed: () => gone.abort(),
  });
  load();
}

function keyOf(it) {
  return `${it.service}/${it.instance}/${it.incarnation}`;
}

/** Leases of a fenced instance are over, and it holds nothing up; nor does one that has left. */
function mayUse(it, version, status) {
  if (it.standing === "left" || it.standing === "fenced") return false;
  const waited = status.blockers.some((blocker) => blocker.condition === "members_released" && blocker.who === lifeName(it));
  return waited || it.version === null || it.version === version || it.held.includes(version);
}

/** What is known of an instance that is decided about. */
export function holderFacts(it) {
  return [
    h("span", { class: "who-waits" }, lifeName(it)),
    h("span", { class: "quiet" }, [
      it.held.length > 0 ? `holds version ${it.held.join(", ")}` : it.version === null ? "has not said what it holds" : "says it holds nothing",
      ` · ${it.standing}`,
      " · ",
      it.silent_for_ms === null ? "never heard" : ["heard ", time(it.taken - it.silent_for_ms)],
      it.lease_left_ms > 0 ? ` · lease ends in ${span(it.lease_left_ms)}` : " · lease over",
      h("span", { class: "unseen" }, ` (${standing(it.standing)})`),
    ]),
  ];
}
