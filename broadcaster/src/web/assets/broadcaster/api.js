// Requests to the broadcaster. Every failure is a Problem: what happened and what to do about it.

import { search } from "../elements/link.js";

/** A refusal or failure. */
export class Problem extends Error {
  /**
   * @param {{ kind: string, problem: string, fix?: string | null }} it
   * @param {{ status?: number, told?: boolean }} how `status` of the answer, 0 without one; `told`: a stream carried it
   */
  constructor({ kind, problem, fix }, { status = 0, told = false } = {}) {
    super(problem);
    this.kind = kind;
    this.problem = problem;
    this.fix = fix ?? null;
    this.status = status;
    this.told = told;
  }

  /**
   * What was caught, as a Problem. A failure of the page itself is one too: it is shown, not lost.
   * @param {unknown} caught
   */
  static of(caught) {
    if (caught instanceof Problem) return caught;
    return new Problem({ kind: "page", problem: `the page failed: ${caught instanceof Error ? caught.message : caught}`, fix: "load the page again" });
  }
}

// Longer than the broadcaster takes for its slowest read; without a bound a request on a dead connection never ends.
const PATIENCE_MS = 30_000;

/**
 * @param {string} path
 * @param {RequestInit} options
 * @param {AbortSignal} [signal]
 */
async function request(path, options, signal) {
  const signals = [AbortSignal.timeout(PATIENCE_MS), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options, signal: AbortSignal.any(signals) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({
      kind: "unreachable",
      problem: "the broadcaster cannot be reached",
      fix: options.method === "POST" ? "the order may have taken effect: look at the secret before you send it again" : "the page tries again by itself",
    });
  }
  if (response.ok) return response;
  /** @type {{ error?: Partial<Api.ProblemBody> } | undefined} */
  const body = await response.json().catch(() => undefined);
  const { kind, problem, fix } = body?.error ?? {};
  throw typeof problem === "string"
    ? new Problem({ kind: kind ?? "broken", problem, fix }, { status: response.status })
    : new Problem({ kind: "broken", problem: `the broadcaster answered ${response.status} without saying why` }, { status: response.status });
}

/**
 * Reads `path` with those parameters; empty ones are left out.
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} parameters
 * @param {AbortSignal} [signal]
 */
async function read(path, parameters = {}, signal) {
  const query = search(parameters);
  return (await request(query ? `${path}?${query}` : path, { headers: { accept: "application/json" } }, signal)).json();
}

/** @returns {Promise<Api.AboutView>} */
export const readAbout = () => read("/api/about");

/**
 * @param {Record<string, string | number | null | undefined>} query
 * @param {AbortSignal} [signal]
 * @returns {Promise<Api.PageView>}
 */
export const readInstances = (query, signal) => read("/api/instances", query, signal);

/**
 * @param {{ secret: string }} query
 * @param {AbortSignal} [signal]
 * @returns {Promise<Api.FleetView>}
 */
export const readFleet = (query, signal) => read("/api/fleet", query, signal);

/**
 * @param {Record<string, string | number | null | undefined>} query
 * @param {AbortSignal} [signal]
 * @returns {Promise<Api.EntriesView>}
 */
export const readAudit = (query, signal) => read("/api/audit", query, signal);

/**
 * Asks for `path` only to hear whether it would be answered, and if not, why.
 * @param {string} path
 */
export async function probe(path) {
  const enough = new AbortController();
  await request(path, {}, enough.signal);
  enough.abort();
}

/**
 * @param {string} path
 * @param {unknown} [body]
 * @param {Record<string, string>} headers
 */
async function post(path, body, headers = {}) {
  const options = { method: "POST", headers: { "content-type": "application/json", ...headers } };
  return request(path, { ...options, body: body === undefined ? undefined : JSON.stringify(body) });
}

/**
 * @typedef {object} OrderBody
 * @property {string} secret
 * @property {Api.Order} action
 * @property {string} reason
 * @property {number | null} version
 * @property {{ service: string, instance: string, incarnation: string }[]} instances
 * @property {boolean} sessions
 * @property {boolean} emergency alone, by a role for emergencies
 */

/**
 * Gives an order; answers with what it made.
 * @param {OrderBody} order
 * @returns {Promise<Api.DoneView>}
 */
export async function act(order) {
  return (await post("/api/action", order, { "x-rotacast-action": "1" })).json();
}

/** @param {string} token */
export const signIn = (token) => post("/api/sign-in", { token });
export const signOut = () => post("/api/sign-out");

/**
 * Approves an order that waits, exactly the one of that digest, or takes an order or an approval back.
 * @param {{ request: string, verb: "approve" | "withdraw", secret: string | null, digest: string }} body
 * @returns {Promise<Api.DoneView>}
 */
export async function decide(body) {
  return (await post("/api/requests", body, { "x-rotacast-action": "1" })).json();
}
