import assert from "node:assert/strict";
import { test } from "node:test";

import { instanceKey, instanceName, parseInstance } from "../../broadcaster/src/web/assets/words/instance.js";
import { capitalised, count, digits, sentence, share } from "../../broadcaster/src/web/assets/words/numbers.js";
import { direction, ending, target } from "../../broadcaster/src/web/assets/words/rotation.js";
import * as vocabulary from "../../broadcaster/src/web/assets/words/vocabulary.js";
import { clause, meaning, passesByItself, spaced } from "../../broadcaster/src/web/assets/words/words.js";
import { rotation, status } from "./support/status.js";

test("numbers have separators, and nouns their plural", () => {
  assert.equal(digits(10_000), "10,000");
  assert.equal(count(1, "warning"), "1 warning");
  assert.equal(count(0, "warning"), "0 warnings");
  assert.equal(count(2, "entry", "entries"), "2 entries");
});

test("a sentence has one capital and one full stop", () => {
  assert.equal(sentence("it waits"), "It waits.");
  assert.equal(sentence("It waits."), "It waits.");
  assert.equal(capitalised(""), "");
});

test("a sentence becomes a clause, and an acronym keeps its capitals", () => {
  assert.equal(clause("Every instance is there."), "every instance is there");
  assert.equal(clause("TLS is on."), "TLS is on");
});

test("a bar shows a few of very many, and never all before all are there", () => {
  assert.deepEqual([share(0, 10), share(1, 1_000_000), share(999_999, 1_000_000), share(10, 10), share(1, 0)], [0, 2, 98, 100, 0]);
});

test("every condition has a meaning that reads after 'until'", () => {
  for (const name of /** @type {Api.Condition[]} */ (Object.keys(vocabulary.CONDITION))) {
    const text = meaning(name, 3);
    assert.match(text, /^[a-z]/, name);
    assert.doesNotMatch(text, /\.$|\b(this|the old) version\b/, name);
  }
  assert.match(meaning("sealed", 3), /version 3/);
});

test("time alone meets only conditions that exist, and a pause is none of them", () => {
  for (const name of vocabulary.PASSES_BY_ITSELF) assert.ok(name in vocabulary.CONDITION, name);
  assert.ok(passesByItself("overlap_over"));
  assert.ok(!passesByItself("not_paused"));
});

test("every set has one spelling for machines and one for people", () => {
  for (const [set, words] of Object.entries(vocabulary)) {
    if (words instanceof Set) continue;
    for (const [name, it] of Object.entries(words)) {
      assert.match(name, /^[a-z]+(_[a-z]+)*$/, `${set}.${name}`);
      assert.doesNotMatch(it.words, /_/, `${set}.${name}`);
      assert.match(it.meaning, /\.$/, `${set}.${name}`);
    }
  }
});

test("a machine's name is written with spaces for people", () => {
  assert.equal(spaced("read_usage_of"), "read usage of");
});

test("an instance's name is read back in its parts, and other names are none", () => {
  const it = { service: "payments-api", instance: "pod/1", incarnation: "8a7b1aa3".padEnd(32, "f") };
  assert.equal(instanceName(it), "payments-api/pod/1#8a7b1aa3");
  assert.deepEqual(parseInstance(instanceName(it)), { ...it, incarnation: "8a7b1aa3" });
  assert.equal(instanceKey(it), `payments-api/pod/1/${it.incarnation}`);
  for (const other of [null, "", "ada", "session 4711", "payments-api/pod-1"]) assert.equal(parseInstance(other), null);
});

test("a rotation's direction and target", () => {
  assert.equal(direction({ old: 1, new: 2 }), "1 → 2");
  assert.equal(direction({ old: null, new: 1 }), "first version 1");
  assert.equal(target(status({ current: 4 })), 4);
  assert.equal(target(status({ rotation: rotation() })), 2);
  assert.equal(target(status({ rotation: rotation({ phase: "rolling_back" }) })), 1);
});

test("an ending says what became of the versions, and why", () => {
  /** @type {Api.FinishedStatus} */
  const ended = { number: 2, outcome: "retired", old: 1, new: 2, started_at: "2026-11-23T00:00:00Z", ended_at: "2026-11-23T00:00:00Z", took_ms: null, reason: null, phases: [] };
  assert.equal(ending(ended), "done, version 1 is retired");
  assert.equal(ending({ ...ended, old: null }), "version 2 is current");
  assert.equal(ending({ ...ended, outcome: "rolled_back", reason: "it hangs" }), "rolled back, version 2 is rejected: it hangs");
  assert.equal(ending({ ...ended, outcome: "superseded" }), "superseded");
});
