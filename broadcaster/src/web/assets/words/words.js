// The vocabulary's words, as sentences of this page need them.

import { CONDITION, PASSES_BY_ITSELF } from "./vocabulary.js";

/**
 * A machine's name as people write it, for names that no set of the vocabulary holds: `read_usage`, `max_use`.
 * @param {string} name
 */
export function spaced(name) {
  return name.replaceAll("_", " ");
}

/**
 * A sentence as a part of another: without its capital and its full stop.
 * @param {string} sentence
 */
export function clause(sentence) {
  const text = sentence.replace(/\.$/, "");
  // An acronym keeps its capitals.
  return /^[A-Z]([a-z]| )/.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;
}

/**
 * What a condition means, as a clause; with the version that is to be retired, where it is known.
 * @param {Api.Condition} condition
 * @param {number | null} version
 */
export function meaning(condition, version = null) {
  const text = clause(CONDITION[condition].meaning);
  if (version === null) return text;
  return text.replace(/\b(the old|the|this) version\b/, `version ${version}`);
}

/**
 * Whether time alone meets a condition, so that nothing is to be done about it.
 * @param {Api.Condition} condition
 */
export function passesByItself(condition) {
  return PASSES_BY_ITSELF.has(condition);
}
