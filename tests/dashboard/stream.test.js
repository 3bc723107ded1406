import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Problem, act, readInstances } from "../../broadcaster/src/web/assets/broadcaster/api.js";
import { SILENCE_MS, Stream } from "../../broadcaster/src/web/assets/broadcaster/stream.js";

/** @type {Source[]} */
let sources = [];

class Source extends EventTarget {
  closed = false;
  /** @type {(() => void) | null} */
  onerror = null;

  /** @param {string} url */
  constructor(url) {
    super();
    this.url = url;
    sources.push(this);
  }

  close() { this.closed = true; }

  /**
   * @param {string} name
   * @param {unknown} data
   */
  send(name, data) {
    this.dispatchEvent(new MessageEvent(name, { data: typeof data === "string" ? data : JSON.stringify(data) }));
  }
}

/** @param {Response | Error} answer */
const answer = (answer) => Object.assign(globalThis, { fetch: async () => {
  if (answer instanceof Error) throw answer;
  return answer.clone();
} });

const problem = (/** @type {number} */ status, /** @type {unknown} */ body) => new Response(JSON.stringify(body), { status });

beforeEach(() => {
  sources = [];
  mock.timers.reset();
  Object.assign(globalThis, { document: Object.assign(new EventTarget(), { hidden: false }), EventSource: Source });
});

/** @returns {Promise<void>} */
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a refusal carries what happened and what to do", async () => {
  answer(problem(409, { error: { kind: "conflict", problem: "it is paused", fix: "resume it" } }));
  const order = { secret: "a", action: /** @type {const} */ ("rotate"), reason: "", version: null, instances: [], sessions: false, emergency: false };
  const { kind, problem: text, fix, status } = await act(order).then(() => assert.fail("taken"), Problem.of);
  assert.deepEqual({ kind, text, fix, status }, { kind: "conflict", text: "it is paused", fix: "resume it", status: 409 });
});

test("an answer without a reason, and none at all, are told apart", async () => {
  answer(new Response("<html>", { status: 502 }));
  assert.match((await readInstances({}).then(() => assert.fail("answered"), Problem.of)).problem, /answered 502/);
  answer(new TypeError("refused"));
  assert.equal((await readInstances({}).then(() => assert.fail("answered"), Problem.of)).kind, "unreachable");
});

test("a failure of the page itself is a problem too", () => {
  assert.match(Problem.of(new TypeError("x is undefined")).problem, /the page failed: x is undefined/);
});

test("a stream tells that it is live, hands on events, and says why it was lost", async () => {
  /** @type {string[]} */
  const told = [];
  /** @type {unknown[]} */
  const taken = [];
  const stream = new Stream("/api/x", { about: () => {}, secrets: (it) => taken.push(it) }, (link) => told.push(link.error?.problem ?? link.name));
  sources[0]?.send("secrets", { reset: true });
  assert.deepEqual([told, taken], [["live"], [{ reset: true }]]);
  sources[0]?.send("problem", { error: { kind: "unavailable", problem: "this broadcaster is stopping" } });
  assert.equal(told.at(-1), "this broadcaster is stopping");
  assert.ok(sources[0]?.closed);
  stream.close();
});

test("what is no JSON is told, not passed over", () => {
  /** @type {string[]} */
  const told = [];
  const stream = new Stream("/api/x", { about: () => {} }, (link) => told.push(link.error?.problem ?? link.name));
  sources[0]?.send("about", "{");
  assert.match(String(told), /no JSON/);
  stream.close();
});

test("a silent stream is stale, and opened again", () => {
  mock.timers.enable({ apis: ["setInterval", "setTimeout", "Date"] });
  /** @type {string[]} */
  const told = [];
  const stream = new Stream("/api/x", { about: () => {} }, (link) => told.push(link.name));
  mock.timers.tick(SILENCE_MS + 1_000);
  assert.deepEqual(told, ["stale"]);
  assert.equal(sources.length, 2);
  stream.close();
});

test("a lost stream is opened again after a while, and not once closed", async () => {
  mock.timers.enable({ apis: ["setInterval", "setTimeout", "Date"] });
  answer(problem(503, { error: { kind: "unavailable", problem: "no leader" } }));
  /** @type {string[]} */
  const told = [];
  const stream = new Stream("/api/x", { about: () => {} }, (link) => told.push(link.error?.problem ?? link.name));
  sources[0]?.onerror?.();
  await settled();
  assert.deepEqual(told, ["no leader"]);
  mock.timers.tick(1_500);
  assert.equal(sources.length, 2);
  stream.close();
  mock.timers.tick(60_000);
  assert.equal(sources.length, 2);
});

test("a sign-in that has ended shows at once", async () => {
  /** @type {unknown[]} */
  const abouts = [];
  answer(problem(401, { error: { kind: "unauthenticated", problem: "looking needs a sign-in here" } }));
  const stream = new Stream("/api/x", { about: (it) => abouts.push(it) }, () => {});
  const refuse = globalThis.fetch;
  Object.assign(globalThis, { fetch: async (/** @type {string} */ path) => (path === "/api/about" ? new Response("{}") : refuse(path)) });
  sources[0]?.onerror?.();
  await settled();
  await settled();
  assert.deepEqual(abouts, [{}]);
  stream.close();
});
