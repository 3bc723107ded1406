import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { session } from "../../broadcaster/src/web/assets/broadcaster/session.js";
import { requestsPanel } from "../../broadcaster/src/web/assets/overview/requests.js";
import { byTestid, text } from "./support/tree.js";

/** @returns {Api.RequestView} */
const request = (changes = {}) => ({
  id: "00000000000000a1", digest: "ab".repeat(32), operator: "ada", order: "abandon", secret: "payments/db",
  arguments: ["version 2"], reason: "it has leaked", role: "dba", asked_at: "2026-11-30T04:00:00Z",
  expires_at: "2026-11-30T05:00:00Z", needed: 2, missing: 1, void: null, approved_by: ["bob"], ...changes,
});

/** @param {string} name */
function signIn(name) {
  session.about = /** @type {Api.AboutView} */ ({ signed_in: { name, may_act: true, may_act_alone: false } });
}

afterEach(() => { session.about = null; });

test("an order that waits is shown with its arguments, its reason, and what is missing", () => {
  const panel = requestsPanel({ requests: [request(), request({ id: "00000000000000a2", void: "ada may not abandon payments/db" })] });
  const [one, other] = byTestid(panel, "request");
  assert.match(text(one), /abandon payments\/db · version 2 by ada: it has leaked/);
  assert.match(text(one), /1 approval of 2 missing\. Approved by bob\./);
  assert.match(text(other), /does not count at the moment: ada may not abandon/);
  assert.equal(requestsPanel({ requests: [] }), null);
});

test("who has given or approved an order may withdraw it, and the others approve it", () => {
  for (const [name, approve, withdraw] of /** @type {const} */ ([["ada", 0, 1], ["bob", 0, 1], ["kim", 1, 0]])) {
    signIn(name);
    const panel = requestsPanel({ requests: [request()] });
    assert.equal(byTestid(panel, "request-approve").length, approve, name);
    assert.equal(byTestid(panel, "request-withdraw").length, withdraw, name);
  }
});
