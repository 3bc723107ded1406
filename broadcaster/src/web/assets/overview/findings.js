// The standing findings: faults that last until they are repaired.

import { h } from "../elements/dom.js";
import { findingsList } from "../elements/findings.js";
import { count, digits } from "../words/numbers.js";

/** @param {Api.FindingsView} view */
export function findingsPanel({ total, findings }) {
  if (total === 0) return null;
  const errors = findings.filter((it) => it.level === "error").length;
  return h("details", { class: "panel", open: errors > 0, "data-testid": "findings" }, [
    h("summary", {}, h("strong", {}, count(total, "finding")), " last until they are repaired"),
    findingsList(findings),
    total > findings.length && h("p", { class: "quiet" }, `${digits(total - findings.length)} more are not listed here; `, h("code", {}, "rotacast doctor"), " has more of them."),
  ]);
}
