// Every secret's summary. Thousands arrive and change; the view takes from here what it shows.

import { now } from "../elements/times.js";
import { passesByItself } from "../words/words.js";

// From here on a wait that does not pass by itself deserves a look.
const LONG_MS = 10 * 60_000;

// In the order in which they are listed.
const RANKS = /** @type {const} */ (["safe_mode", "stuck", "awaiting_approval", "staying", "long", "rotating", "pending", "paused", "idle"]);
const FIRST_CALM = RANKS.indexOf("rotating");

export const FILTERS = /** @type {const} */ (["all", "attention", "rotating", "paused", "idle"]);
/** @typedef {(typeof FILTERS)[number]} Filter */

/**
 * Where a secret stands in the list: an index into RANKS.
 * @param {Api.SummaryView} it
 * @param {number} at
 */
function rank(it, at) {
  /** @type {Api.Overlay[]} */
  const urgent = ["safe_mode", "stuck", "awaiting_approval", "staying"];
  const first = urgent.findIndex((overlay) => it.overlays.includes(overlay));
  if (first >= 0) return first;
  if (isLong(it, at)) return RANKS.indexOf("long");
  if (it.rotation) return RANKS.indexOf("rotating");
  if (it.waiting_version !== null) return RANKS.indexOf("pending");
  return RANKS.indexOf(it.overlays.includes("paused") ? "paused" : "idle");
}

/**
 * Whether it has waited long for something that time alone does not bring.
 * @param {Api.SummaryView} it
 */
export function isLong(it, at = now()) {
  if (!it.blocker || passesByItself(it.blocker.condition)) return false;
  // An instance's `since` is when it was last heard, so a rotation's wait is counted from its phase.
  const since = Date.parse((it.rotation ? it.rotation.phase_since : it.blocker.since) ?? "");
  return at - since > LONG_MS;
}

/**
 * @param {Filter} filter
 * @param {Api.SummaryView} it
 * @param {number} its its rank
 */
function fits(filter, it, its) {
  switch (filter) {
    case "attention": return its < FIRST_CALM;
    case "rotating": return it.rotation !== null;
    case "paused": return it.overlays.includes("paused");
    case "idle": return it.rotation === null && its >= FIRST_CALM;
    case "all": return true;
  }
}

export class Secrets {
  /** @typedef {{ it: Api.SummaryView, text: string }} Known */
  /** @type {Map<string, Known>} */
  all = new Map();
  /** A snapshot of which pieces are still to come. @type {Map<string, Known> | null} */
  incoming = null;
  /** Whether a whole snapshot has come. */
  whole = false;
  /** @type {string[]} */
  names = [];
  sorted = false;

  /**
   * Takes a piece of a snapshot, or changes.
   * @param {Api.SecretsView} piece
   */
  take({ reset, more, secrets }) {
    if (reset) {
      this.incoming = new Map();
      // With nothing to show yet, what has come is better than waiting for the rest.
      if (this.all.size === 0) this.all = this.incoming;
    }
    const into = this.incoming ?? this.all;
    for (const it of secrets) {
      if (!into.has(it.secret)) this.sorted = false;
      into.set(it.secret, { it, text: `${it.secret} ${it.provider}`.toLowerCase() });
    }
    if (!more && this.incoming) {
      this.all = this.incoming;
      this.incoming = null;
      this.sorted = false;
    }
    if (!more) this.whole = true;
  }

  /**
   * How many there are of each kind, and the first `limit` of those wanted, with the most urgent first.
   * @param {Filter} filter
   * @param {string} query
   * @param {number} limit
   */
  select(filter, query, limit) {
    if (!this.sorted) {
      this.names = [...this.all.keys()].sort();
      this.sorted = true;
    }
    const at = now();
    const wanted = query.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const counts = { all: 0, attention: 0, rotating: 0, paused: 0, idle: 0 };
    /** @type {Api.SummaryView[][]} */
    const ranked = RANKS.map(() => []);
    let matching = 0;
    let scheduled = false;
    for (const name of this.names) {
      const known = this.all.get(name);
      if (!known) continue;
      const { it, text } = known;
      const its = rank(it, at);
      scheduled ||= it.next_rotation_at !== null;
      for (const kind of FILTERS) counts[kind] += fits(kind, it, its) ? 1 : 0;
      if (!fits(filter, it, its) || !wanted.every((word) => text.includes(word))) continue;
      matching += 1;
      ranked[its]?.push(it);
    }
    const rows = [];
    for (const some of ranked) {
      if (rows.length >= limit) break;
      rows.push(...some.slice(0, limit - rows.length));
    }
    return { counts, matching, rows, scheduled };
  }
}
