// The parts of the page about one secret, as trees.

import assert from "node:assert/strict";
import { test } from "node:test";

import { guards, plain } from "../../broadcaster/src/web/assets/secret/guard.js";
import { history } from "../../broadcaster/src/web/assets/secret/history.js";
import { durations, inFlight, over, timeline } from "../../broadcaster/src/web/assets/secret/timeline.js";
import { services } from "../../broadcaster/src/web/assets/secret/services.js";
import { versions } from "../../broadcaster/src/web/assets/secret/versions.js";
import { waits } from "../../broadcaster/src/web/assets/secret/blockers.js";
import { blocker, instance, rotation, status } from "./support/status.js";
import { all, byTestid, text } from "./support/tree.js";

/** @param {Api.SecretStatus} it */
const page = (it) => ({ status: it, instances: new Map(), open: new Set() });

/** @type {Api.FinishedStatus} */
const ENDED = {
  number: 2, outcome: "rolled_back", old: 1, new: 2, reason: "it hangs", took_ms: 130_000,
  started_at: "2026-11-30T04:00:00Z", ended_at: "2026-11-30T04:02:10Z",
  phases: [{ phase: "preparing", since: "2026-11-30T04:00:00Z" }, { phase: "rolling_back", since: "2026-11-30T04:02:00Z" }],
};

test("a rotation's way: what is behind it, where it is, what is to come", () => {
  const told = inFlight(rotation()).map((it) => `${it.state} ${it.phase ?? it.end}`);
  assert.deepEqual(told, ["done verifying", "now preparing", "ahead activating", "ahead draining", "ahead retiring", "ahead version 1 is retired"]);
});

test("a first version has a short way", () => {
  const first = rotation({ old: null, new: 1, phase: "verifying", phases: [] });
  assert.deepEqual(inFlight(first).map((it) => it.phase ?? it.end), ["verifying", "activating", "version 1 is current"]);
});

test("a rollback has no phases to come", () => {
  const back = rotation({ phase: "rolling_back", phases: [...rotation().phases, { phase: "rolling_back", since: "2026-11-30T04:01:00Z" }] });
  assert.deepEqual(inFlight(back).map((it) => it.phase ?? it.end), ["verifying", "preparing", "rolling_back", "version 2 is rejected"]);
  assert.match(text(timeline(status({ rotation: back }))), /Rolling back/);
});

test("an ended rotation shows how long each phase took", () => {
  assert.deepEqual(over(ENDED).map((it) => it.phase ?? it.end), ["preparing", "rolling_back", "rolled back"]);
  assert.equal(durations(ENDED.phases, ENDED.ended_at), "preparing 2 min · rolling back 10 s");
});

test("blockers stand under what they wait for, with why, and what happens next", () => {
  const it = status({
    rotation: rotation(),
    blockers: [blocker("not_paused", { who: "ada", why: "a look", next: "an operator resumes" })],
  });
  const shown = text(waits(page(it)));
  assert.match(shown, /Waiting for 1 thing/);
  assert.match(shown, /Until .*not_paused/);
  assert.match(shown, /ada: A look\./);
  assert.match(shown, /Next: An operator resumes\./);
});

test("of many instances the first ten are shown, the rest when asked for", () => {
  const blockers = Array.from({ length: 12 }, (_, at) => blocker("prepared", { who: `api/pod-${at}#8a7b1aa3` }));
  const it = page(status({ rotation: rotation(), blockers }));
  assert.equal(byTestid(waits(it), "blocker").length, 10);
  it.open.add("prepared");
  assert.equal(byTestid(waits(it), "blocker").length, 12);
  // Each can be excused.
  assert.equal(all(waits(it), (node) => node.tag === "button").length, 12);
});

test("what is known of an instance stands beside why it is waited for", () => {
  const it = page(status({ blockers: [blocker("members_released", { who: "api/pod-1#8a7b1aa3" })] }));
  it.instances.set("api/pod-1#8a7b1aa3", { ...instance("pod-1", { held: [1, 2], silent_for_ms: null }), taken: 0 });
  const shown = text(waits(it));
  assert.match(shown, /1, 2/);
  assert.match(shown, /not yet/);
});

test("a page from the record does not claim that nothing is waited for", () => {
  const shown = text(waits(page(status({ record_read_at: "2026-11-30T04:00:00Z" }))));
  assert.match(shown, /Only the leader knows/);
  assert.equal(services(status({ record_read_at: "2026-11-30T04:00:00Z" })), null);
});

test("services are summed up", () => {
  const one = { service: "api", members: 3, seen: 3, prepared: 2, switched: 0, released: 0, fenced: 1 };
  const shown = services(status({ rotation: rotation(), services: [one, { ...one, service: "ledger", members: 1 }] }));
  assert.match(text(shown), /with version 2/);
  const head = all(shown, (node) => node.tag === "th" && node.props.scope === "col").map(text);
  assert.deepEqual(head, ["Service", "Members", "Seen", "Prepared", "Switched", "Released", "Out of reach"]);
  const total = all(shown, (node) => node.props.class === "total").map(text);
  assert.match(String(total), /^All4/);
});

test("the guard counts what is met, and evidence is rounded for people", () => {
  const it = status({ guards: [{ version: 1, conditions: [
    { name: "sealed", met: true, evidence: "sealed 1.550303032s ago" },
    { name: "usage_evidence", met: false, evidence: "" },
  ] }], blockers: [blocker("usage_evidence", { who: "session 4711" })] });
  const shown = text(guards(it));
  assert.match(shown, /Before version 1 may be retired/);
  assert.match(shown, /1 of 2 conditions met/);
  assert.match(shown, /Sealed 1\.6 s ago/);
  assert.match(shown, /session 4711/);
  assert.equal(plain("after 900ms of 2m"), "after 900 ms of 2m");
});

test("versions are listed from the newest, history says why", () => {
  const list = [1, 2].map((version) => ({ version, label: /** @type {const} */ ("previous"), sealed: version === 1, seen_at: null }));
  const rows = all(versions(status({ versions: list })), (node) => node.tag === "tr").slice(1).map(text);
  assert.match(String(rows[0]), /^2/);
  assert.match(String(rows[1]), /^1.*sealed/);
  assert.match(text(history(status({ history: [ENDED] }))), /Rolled back, version 2 is rejected: it hangs\./);
});

test("what holds a retire up can be overridden where it is named", () => {
  const released = [1, 2].map((at) => blocker("members_released", { who: `api/pod-${at}#8a7b1aa3`, why: "still holds version 1" }));
  const it = status({ guards: [{ version: 1, conditions: [] }], blockers: [...released, blocker("usage_evidence", { why: "2 sessions use version 1" })] });
  const buttons = all(waits(page(it)), (element) => element.tag === "button").map((button) => button.props["aria-label"]);
  assert.deepEqual(buttons, ["Override for api/pod-1#8a7b1aa3 …", "Override for api/pod-2#8a7b1aa3 …", "Override for the provider's sessions …"]);
  const without = all(waits(page({ ...it, guards: [] })), (element) => element.tag === "button");
  assert.deepEqual(without, [], "no version is on its way out");
});
