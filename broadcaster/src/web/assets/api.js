// Requests to the broadcaster, and what went wrong with them in its own words.

/** A refusal or failure: kind, problem and fix. */
export class Problem extends Error {
  constructor({ kind, problem, fix }, status = 0) {
    super(problem);
    this.kind = kind;
    this.problem = problem;
    this.fix = fix ?? null;
    this.status = status;
  }
}

// Longer than the broadcaster takes for its slowest read; without a bound a request on a dead connection never ends.
const PATIENCE_MS = 30_000;

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
      fix: options.method === "POST" ? "it may have taken effect: look before you send it again" : "it is tried again",
    });
  }
  if (response.ok) return response;
  let told;
  try {
    told = (await response.json()).error;
  } catch {
    told = undefined;
  }
  const unknown = { kind: "broken", problem: `the broadcaster answered ${response.status} without saying why`, fix: null };
  throw new Problem(typeof told?.problem === "string" ? told : unknown, response.status);
}

/** Reads `path` with those parameters; empty ones are left out. */
export async function read(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const asked = query.size > 0 ? `${path}?${query}` : path;
  return (await request(asked, { headers: { accept: "application/json" } }, signal)).json();
}

/** Asks for `path` only to hear whether it would be answered, and if not, why. */
export async function probe(path) {
  const enough = new AbortController();
  await request(path, {}, enough.signal);
  enough.abort();
}

async function post(path, body, headers = {}) {
  const options = { method: "POST", headers: { "content-type": "application/json", ...headers } };
  return request(path, { ...options, body: body === undefined ? undefined : JSON.stringify(body) });
}

/** Gives an order; answers with what it made. */
export async function act(order) {
  const response = await post("/api/action", order, { "x-rotacast-action": "1" });
  return response.json().catch(() => ({}));
}

export const signIn = (token) => post("/api/sign-in", { token });
export const signOut = () => post("/api/sign-out");
