// The retire guard: what must hold before a version may be retired, each condition with what it is judged by.

import { h } from "../elements/dom.js";
import { capitalised, count, digits } from "../words/numbers.js";
import { meaning } from "../words/words.js";

// Sessions listed until the guard holds; the evidence counts them all.
const FIRST = 10;

/**
 * `1.550303032s` is exact, and not for people.
 * @param {string} evidence
 */
export function plain(evidence) {
  return evidence.replace(/(\d+)(\.\d+)?(ms|s)\b/g, (_, whole, part, unit) => `${Math.round(Number(whole + (part ?? "")) * 10) / 10} ${unit}`);
}

/** @param {Api.SecretStatus} status */
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
