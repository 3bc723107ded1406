import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { barred } from "../../broadcaster/src/web/assets/orders/access.js";
import { plans } from "../../broadcaster/src/web/assets/orders/plans.js";
import { excusable, overridable, possibilities, silent } from "../../broadcaster/src/web/assets/orders/possible.js";
import { session } from "../../broadcaster/src/web/assets/broadcaster/session.js";
import { ORDER } from "../../broadcaster/src/web/assets/words/vocabulary.js";
import { blocker, rotation, status } from "./support/status.js";
import { text } from "./support/tree.js";

/** @param {Api.SecretStatus} it */
const possible = (it) => possibilities(it).filter(({ no }) => no === null).map(({ order }) => order).sort();

test("every order of the protocol is offered or explained", () => {
  const offered = possibilities(status()).map((it) => it.order).sort();
  assert.deepEqual(offered, Object.keys(ORDER).sort());
});

test("an idle secret can be rotated and paused, a paused one resumed", () => {
  assert.deepEqual(possible(status()), ["pause", "rotate"]);
  assert.deepEqual(possible(status({ overlays: ["paused"] })), ["resume", "rotate"]);
});

test("a rotation in flight can be rolled back, until the old version is being destroyed", () => {
  assert.deepEqual(possible(status({ rotation: rotation() })), ["pause", "rollback"]);
  assert.deepEqual(possible(status({ rotation: rotation(), overlays: ["awaiting_approval"] })), ["approve", "pause", "rollback"]);
  for (const phase of /** @type {const} */ (["retiring", "rolling_back"])) {
    assert.deepEqual(possible(status({ rotation: rotation({ phase }) })), ["pause"], phase);
  }
  const why = possibilities(status({ rotation: rotation({ phase: "rolling_back" }) })).find((it) => it.order === "rotate")?.no;
  assert.match(String(why), /rotation 2 is rolling back/);
});

test("a silent instance can be said to be gone, and a version that is refused given up, as the commands say", () => {
  const command = "rotacast gone 'api/pod-1#0a0a0a0a' --reason 'WHY'";
  const quiet = status({ blockers: [blocker("members_released", { who: "api/pod-1#0a0a0a0a", command })] });
  assert.ok(possible(quiet).includes("gone"));
  assert.deepEqual(silent(quiet), ["api/pod-1#0a0a0a0a"]);
  const refused = status({ blockers: [blocker("command", { command: "rotacast abandon payments/db 2 --reason 'why'" })] });
  assert.ok(possible(refused).includes("abandon"));
  const plan = plans.abandon(refused);
  assert.deepEqual([plan?.reason, plan?.body?.()], [true, { version: 2 }]);
  assert.equal(plans.abandon(status()), null);
});

test("safe mode bars a rotation, and can be left, once more if instances stay", () => {
  assert.deepEqual(possible(status({ overlays: ["safe_mode"] })), ["leave_safe_mode", "pause"]);
  assert.deepEqual(possible(status({ overlays: ["staying"] })), ["leave_safe_mode", "pause", "rotate"]);
  const waiting = status({ overlays: ["staying"], versions: [{ version: 2, label: "pending", sealed: false, seen_at: null }] });
  assert.deepEqual(possible(waiting), ["pause"]);
});

test("only instances that preparing or switching waits for can be excused", () => {
  const who = "api/pod-1#8a7b1aa3";
  const it = status({ blockers: [
    blocker("prepared", { who }), blocker("required_services", { who: "api" }), blocker("members_released", { who }), blocker("switched"),
  ] });
  assert.deepEqual(excusable(it), [who]);
});

test("an override is about a version that instances or sessions hold up", () => {
  const guards = [{ version: 1, conditions: [] }];
  assert.deepEqual(overridable(status({ guards })), []);
  assert.deepEqual(overridable(status({ guards, blockers: [blocker("usage_evidence")] })), [{ version: 1, begun: false }]);
});

test("a retire whose own step fails can be helped", () => {
  const blockers = [blocker("retired", { why: "version 1 is being disabled at the provider" }), blocker("command")];
  assert.deepEqual(overridable(status({ blockers })), [{ version: 1, begun: true }]);
  assert.deepEqual(overridable(status({ blockers: blockers.slice(0, 1) })), [], "a step that goes on by itself");
});

test("a plan says what is cut off", () => {
  assert.equal(plans.rotate(status())?.cut, "No instance is cut off.");
  assert.match(String(plans.rollback(status({ rotation: rotation({ old: null, new: 1 }) }))?.cut), /^All instances/);
  assert.match(String(plans.leave_safe_mode(status({ overlays: ["safe_mode"] }))?.cut), /if the store is right/);
  assert.equal(plans.rollback(status()), null, "a rollback without a rotation");
  assert.equal(plans.approve(status()), null);
});

test("a plan needs a reason where the broadcaster does", () => {
  const it = status({ rotation: rotation() });
  assert.deepEqual([plans.pause(it)?.reason, plans.rollback(it)?.reason, plans.rotate(it)?.reason], [true, true, undefined]);
});

/** @returns {Api.AboutView} */
const about = (changes = {}) => ({
  cluster: "test", replica: "one", leader: true, epoch: 1, leading: null, store: "etcd", bus: "nats", version: "0.1.0",
  now: "2026-11-30T04:00:00Z", signed_in: null, sign_in_needed: false, ...changes,
});

afterEach(() => {
  session.about = null;
  session.link = { name: "live", since: 0, error: null };
});

test("no order is given over a lost connection, to a follower, or by an operator who may only look", () => {
  session.link = { name: "live", since: 0, error: null };
  session.about = about();
  assert.equal(barred(), null);
  session.about = about({ signed_in: { name: "ada", may_act: false, may_act_alone: false } });
  assert.match(text(barred()), /ada may look/);
  session.about = about({ leader: false, leading: { replica: "two", address: "not an address" } });
  assert.match(text(barred()), /two, not an address/);
  session.about = about({ leader: false });
  assert.match(text(barred()), /No broadcaster leads/);
  session.about = about();
  session.link = { name: "stale", since: 0, error: null };
  assert.match(text(barred()), /connection is lost/);
});
