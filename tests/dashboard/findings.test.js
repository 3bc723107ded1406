import assert from "node:assert/strict";
import { test } from "node:test";

import { findingsPanel } from "../../broadcaster/src/web/assets/overview/findings.js";
import { byTestid, text } from "./support/tree.js";

/** @returns {Api.FindingStatus} */
const finding = (changes = {}) => ({
  level: "warning", subject: "import /secrets/a b", text: "its value is not imported: it is empty",
  fix: "write a value that can be imported, or delete the key", since: "2026-11-30T04:00:00Z", ...changes,
});

test("what stands is listed with its severity, since when, and what to do", () => {
  const panel = findingsPanel({ total: 2, findings: [finding({ level: "error", subject: "out of service a/b" }), finding()] });
  const rows = byTestid(panel, "finding");
  assert.deepEqual(rows.map((it) => it.props["data-level"]), ["error", "warning"]);
  assert.match(text(rows[1]), /warning import \/secrets\/a b: Its value is not imported: it is empty\./);
  assert.match(text(rows[1]), /Since .*What to do: Write a value that can be imported, or delete the key\./);
  assert.equal(panel?.props.open, true, "an error is open at once");
});

test("without a finding there is no list, and a long one says what it leaves out", () => {
  assert.equal(findingsPanel({ total: 0, findings: [] }), null);
  const panel = findingsPanel({ total: 60, findings: [finding()] });
  assert.equal(panel?.props.open, false);
  assert.match(text(panel), /60 findings .*59 more are not listed here/);
});
