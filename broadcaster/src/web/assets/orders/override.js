// The override: a version is retired although instances may still use it. The page asks afresh which, and the operator chooses.

import { h } from "../elements/dom.js";
import { field, select } from "../elements/form.js";
import { problem } from "../elements/notice.js";
import { instanceKey, instanceName } from "../words/instance.js";
import { capitalised, count, digits } from "../words/numbers.js";
import { Problem, readInstances } from "../broadcaster/api.js";
import { known } from "../secret/page.js";
import { confirm } from "./confirm.js";
import { holderFacts } from "./holder.js";
import { overridable } from "./possible.js";

/** @typedef {import("../secret/page.js").Known} Known */

/** Most instances the broadcaster takes in one override. */
const MAX_NAMED = 1024;
const PAGE = 500;

/**
 * @param {import("../secret/page.js").Page} page
 * @param {Api.BlockerStatus | null} blocker what it is opened for; null: the operator chooses
 */
export function overrideDialog(page, blocker) {
  const { status } = page;
  const choices = overridable(status);
  const [first] = choices;
  // The order stopped making sense between the page's last picture and the click.
  if (!first) return;
  let choice = first;
  /** Null: not asked yet. @type {Known[] | null} */
  let holders = null;
  let beyond = 0;
  /** @type {Problem | null} */
  let error = null;
  let sessions = blocker?.condition === "usage_evidence";
  /** @type {Set<string>} */
  const named = new Set();
  /** Whether the instance that it is opened for is chosen already: once, the rest is the operator's. */
  let preset = blocker?.condition !== "members_released";
  const gone = new AbortController();
  let redraw = () => {};

  const live = () => page.status.blockers.filter((it) => it.condition === "usage_evidence" && it.who);

  /** Every instance that may still use the version, as of now. */
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
      /** @type {Known[]} */
      const found = [];
      let matching = Infinity;
      for (let offset = 0; offset < Math.min(matching, MAX_NAMED); offset += PAGE) {
        const answer = await readInstances({ secret: status.secret, not_on: status.current, offset, limit: PAGE }, gone.signal);
        matching = answer.matching;
        found.push(...known(answer));
        if (answer.instances.length === 0) break;
      }
      beyond = Math.max(0, matching - found.length);
      const may = found.filter((it) => mayUse(it, choice.version, page.status)).slice(0, MAX_NAMED);
      // Instances that hold it come before those that may.
      const rank = (/** @type {Known} */ it) => (it.held.includes(choice.version) ? 0 : 1);
      may.sort((a, b) => rank(a) - rank(b));
      for (const name of named) if (!may.some((it) => instanceKey(it) === name)) named.delete(name);
      const meant = preset ? undefined : may.find((it) => instanceName(it) === blocker?.who);
      if (meant) named.add(instanceKey(meant));
      preset = true;
      holders = may;
    } catch (caught) {
      if (gone.signal.aborted) return;
      error = Problem.of(caught);
    }
    redraw();
  }

  function body() {
    const chosen = (holders ?? []).filter((it) => named.has(instanceKey(it)));
    return {
      version: choice.version,
      instances: chosen.map(({ service, instance, incarnation }) => ({ service, instance, incarnation })),
      sessions,
    };
  }

  function cut() {
    if (choice.begun) {
      return [
        h("p", {}, h("strong", {}, `Every session of version ${choice.version} that is still live at the provider. `), "Work that uses it there fails. This cannot be undone."),
        h("p", {}, "If its value is gone from the store, you confirm that the credential was revoked by hand, and the retire goes on without the provider."),
      ];
    }
    const parts = [];
    if (named.size > 0) parts.push(count(named.size, "instance"));
    if (sessions) parts.push(`every session of version ${choice.version} that is live at the provider`);
    if (parts.length === 0) return h("p", {}, "No instance yet: choose below.");
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
        onchange: (/** @type {{ target: HTMLSelectElement }} */ event) => {
          choice = choices.find((it) => String(it.version) === event.target.value) ?? choice;
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
    const list = holders;
    if (!list) return h("p", { class: "quiet" }, "Asking which instances may still use it …");
    if (list.length === 0) return h("p", {}, `No instance may use version ${choice.version} any more.`);
    return h("fieldset", { class: "holders-box" }, [
      h("legend", {}, `${count(list.length, "instance")} may still use version ${choice.version}`),
      h("div", { class: "row-buttons" }, [
        h("button", { type: "button", class: "small", onclick: () => { list.forEach((it) => named.add(instanceKey(it))); redraw(); } }, "Choose all"),
        h("button", { type: "button", class: "small", onclick: () => { named.clear(); redraw(); } }, "Choose none"),
        h("button", { type: "button", class: "small", onclick: load }, "Ask again"),
      ]),
      beyond > 0 && h("p", { class: "quiet" }, `${digits(beyond)} more are not listed: one override names at most ${digits(MAX_NAMED)}.`),
      h("ul", { class: "holders", "data-testid": "holders", tabindex: 0, "aria-label": "Instances" }, list.map((it) =>
        h("li", { key: instanceKey(it) }, h("label", {}, [
          h("input", {
            type: "checkbox",
            checked: named.has(instanceKey(it)),
            onchange: (/** @type {{ target: HTMLInputElement }} */ event) => {
              if (event.target.checked) named.add(instanceKey(it));
              else named.delete(instanceKey(it));
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
          onchange: (/** @type {{ target: HTMLInputElement }} */ event) => {
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
    title: blocker ? `Override the retire guard for ${waitsFor(blocker)}` : "Override the retire guard",
    button: () => (choice.begun ? `Cut them off and go on with version ${choice.version}` : `Cut them off and retire version ${choice.version}`),
    danger: true,
    typed: true,
    reason: true,
    what: [
      ...(blocker ? [`The retire waits for ${waitsFor(blocker)}: ${blocker.why}.`] : []),
      "A version is retired only when no instance uses it any more. The override does not wait for those that you choose. The audit log keeps your name, the reason and what was cut off.",
    ],
    cut,
    extra,
    body,
    missing: () => (named.size === 0 && !sessions ? ["what is cut off"] : []),
    done: () => `override on record; version ${choice.version} is retired without waiting for them`,
    closed: () => gone.abort(),
  });
  load();
}

/**
 * The name of what an override is opened for.
 * @param {Api.BlockerStatus} blocker
 */
export function waitsFor(blocker) {
  return blocker.who ?? (blocker.condition === "usage_evidence" ? "the provider's sessions" : "an instance");
}

/**
 * The leases of a fenced instance are over, and it holds nothing up; nor does one that has left.
 * @param {Known} it
 * @param {number} version
 * @param {Api.SecretStatus} status
 */
function mayUse(it, version, status) {
  if (it.standing === "left" || it.standing === "fenced") return false;
  const waited = status.blockers.some((blocker) => blocker.condition === "members_released" && blocker.who === instanceName(it));
  return waited || it.version === null || it.version === version || it.held.includes(version);
}
