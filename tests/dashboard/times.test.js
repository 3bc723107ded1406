import assert from "node:assert/strict";
import { test } from "node:test";

import { moment, now, relative, roughly, setClock, span, time } from "../../broadcaster/src/web/assets/elements/times.js";

test("spans are told in two units at most", () => {
  const told = [-5, 0, 850, 1_000, 59_999, 60_000, 185_000, 7_800_000, 86_400_000, 356_400_000].map(span);
  assert.deepEqual(told, ["0 ms", "0 ms", "850 ms", "1 s", "59 s", "1 min", "3 min 5 s", "2 h 10 min", "1 d", "4 d 3 h"]);
  assert.equal(roughly(185_000), "3 min");
});

test("moments are in UTC", () => {
  assert.equal(moment(Date.parse("2026-11-23T04:20:11.900Z")), "2026-11-23 04:20:11 UTC");
});

test("ages count from the broadcaster's clock", () => {
  const theirs = Date.now() + 3_600_000;
  setClock(new Date(theirs).toISOString());
  assert.ok(Math.abs(now() - theirs) < 1_000);
  assert.equal(relative(theirs - 61_000, "ago"), "1 min ago");
  assert.equal(relative(theirs, "ago"), "just now");
  assert.equal(relative(theirs + 61_500, "age"), "0 ms");
  assert.equal(relative(theirs + 125_000, "when"), "in 2 min");
  assert.equal(relative(theirs - 125_000, "when"), "2 min ago");
  setClock("not a moment");
  assert.ok(Math.abs(now() - theirs) < 1_000, "a clock that cannot be read moved ours");
  setClock(new Date().toISOString());
});

test("no moment, no element", () => {
  assert.equal(time(null), null);
  assert.equal(time("soon"), null);
  assert.equal(time("2026-11-23T04:20:11Z")?.props.title, "2026-11-23 04:20:11 UTC");
});
