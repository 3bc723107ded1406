// Findings: faults that last until they are repaired, each with how to repair it.

import { pill } from "./badge.js";
import { h } from "./dom.js";
import { time } from "./times.js";
import { sentence } from "../words/numbers.js";

/** @param {Api.FindingStatus[]} findings */
export function findingsList(findings) {
  return h("ul", { class: "plain" }, findings.map(finding));
}

/** @param {Api.FindingStatus} it */
function finding(it) {
  return h("li", { key: it.subject, class: "blocker", "data-testid": "finding", "data-level": it.level }, [
    h("p", {}, [pill(it.level === "error" ? "bad" : "warn", it.level), " ", h("strong", {}, it.subject, ": "), sentence(it.text)]),
    h("p", { class: "quiet" }, ["Since ", time(it.since), ". ", it.fix && ["What to do: ", sentence(it.fix)]]),
  ]);
}
