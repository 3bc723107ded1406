import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Secrets, isLong } from "../../broadcaster/src/web/assets/overview/secrets.js";
import { blocker, rotation, summary } from "./support/status.js";

/** @type {Secrets} */
let secrets;
beforeEach(() => { secrets = new Secrets(); });

/**
 * @param {Api.SummaryView[]} list
 * @param {Partial<Api.SecretsView>} how
 */
const take = (list, how = {}) => secrets.take({ reset: false, more: false, secrets: list, ...how });
const ago = (/** @type {number} */ minutes) => new Date(Date.now() - minutes * 60_000).toISOString();
/** @param {import("../../broadcaster/src/web/assets/overview/secrets.js").Filter} filter */
const names = (filter = "all", query = "") => secrets.select(filter, query, 100).rows.map((it) => it.secret);

test("the most urgent comes first, and names decide among equals", () => {
  take([
    summary("idle-b"), summary("idle-a"),
    summary("paused", { overlays: ["paused"] }),
    summary("waits", { waiting_version: 2 }),
    summary("rotating", { rotation: rotation() }),
    summary("long", { rotation: rotation({ phase_since: ago(11) }), blocker: blocker("prepared") }),
    summary("stays", { overlays: ["staying"] }),
    summary("approve", { overlays: ["paused", "awaiting_approval"] }),
    summary("stuck", { overlays: ["stuck"] }),
    summary("safe", { overlays: ["paused", "safe_mode"] }),
  ], { reset: true });
  assert.deepEqual(names(), ["safe", "stuck", "approve", "stays", "long", "rotating", "waits", "paused", "idle-a", "idle-b"]);
  const { counts, matching } = secrets.select("attention", "", 2);
  assert.deepEqual(counts, { all: 10, attention: 5, rotating: 2, paused: 3, idle: 4 });
  assert.equal(matching, 5);
  assert.equal(secrets.select("attention", "", 2).rows.length, 2);
});

test("a wait is long after ten minutes, unless time alone ends it", () => {
  const waits = (/** @type {Api.Condition} */ condition, /** @type {number} */ minutes) =>
    isLong(summary("it", { rotation: rotation({ phase_since: ago(minutes) }), blocker: blocker(condition, { since: ago(0) }) }));
  assert.deepEqual([waits("prepared", 9), waits("prepared", 11), waits("overlap_over", 600)], [false, true, false]);
  // Without a rotation the wait counts from the blocker; one without a moment is not known to be long.
  assert.ok(isLong(summary("it", { blocker: blocker("start", { since: ago(11) }) })));
  assert.ok(!isLong(summary("it", { blocker: blocker("start") })));
  assert.ok(!isLong(summary("it")));
});

test("a search is for every word, in name or provider, whatever the case", () => {
  take([summary("payments/db"), summary("payments/cache", { provider: "redis" }), summary("ledger/db")], { reset: true });
  assert.deepEqual(names("all", " DB pay "), ["payments/db"]);
  assert.deepEqual(names("all", "redis"), ["payments/cache"]);
  assert.deepEqual(names("all", "nothing"), []);
});

test("a snapshot replaces what was there when its last piece has come, and not before", () => {
  take([summary("a"), summary("gone")], { reset: true });
  assert.ok(secrets.whole);
  take([summary("a")], { reset: true, more: true });
  assert.deepEqual(names(), ["a", "gone"]);
  take([summary("b")], { more: true });
  take([summary("c")]);
  assert.deepEqual(names(), ["a", "b", "c"]);
  // A change after it.
  take([summary("b", { overlays: ["stuck"] })]);
  assert.deepEqual(names(), ["b", "a", "c"]);
});

test("the first snapshot shows as it comes", () => {
  take([summary("a")], { reset: true, more: true });
  assert.deepEqual(names(), ["a"]);
  assert.ok(!secrets.whole);
});

test("whether any secret has a schedule", () => {
  take([summary("a")], { reset: true });
  assert.equal(secrets.select("all", "", 1).scheduled, false);
  take([summary("b", { next_rotation_at: ago(-60) })]);
  assert.equal(secrets.select("all", "", 1).scheduled, true);
});
