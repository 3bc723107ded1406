// The standing findings: faults that last until they are repaired.

import { h } from "../elements/dom.js";
import { pill } from "../elements/badge.js";
import { time } from "../elements/times.js";
import { count, digits, sentence } from "../words/numbers.js";

/** @param {Api.FindingsView} view */
export function findingsPanel({ total, findings }) {
  if (total === 0) return null;
  const errors = findings.filter((it) => it.level === "error").length;
  return h("details", { class: "panel", open: errors > 0, "data-testid": "findings" }, [
    h("summary", {}, h("strong", {}, count(total, "finding")), " last until they are repaired"),
    h("ul", { class: "plain" }, findings.map(finding)),
    total > findings.length && h("p", { class: "quiet" }, `${digits(total - findings.length)} more are not listed here; `, h("code", {}, "rotacast doctor"), " has more of them."),
  ]);
}

/** @param {Api.FindingView} it */
function finding(it) {
  return h("li", { key: it.subject, class: "blocker", "data-testid": "finding", "data-level": it.level }, [
    h("p", {}, [pill(it.level === "error" ? "bad" : "warn", it.level), " ", h("strong", {}, it.subject, ": "), sentence(it.text)]),
    h("p", { class: "quiet" }, ["Since ", time(it.since), ". ", it.fix && ["What to do: ", sentence(it.fix)]]),
  ]);
}
