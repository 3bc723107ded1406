// Rotations in words.

import { OUTCOME } from "./vocabulary.js";

/**
 * `1 → 2`, or `first version 1`.
 * @param {{ old: number | null, new: number }} rotation
 */
export function direction(rotation) {
  return rotation.old === null ? `first version ${rotation.new}` : `${rotation.old} → ${rotation.new}`;
}

/**
 * How a rotation ended, as a sentence without its full stop.
 * @param {Api.FinishedStatus} ended
 */
export function ending(ended) {
  const reason = ended.reason ? `: ${ended.reason}` : "";
  if (ended.outcome === "retired") {
    return ended.old === null ? `version ${ended.new} is current` : `done, version ${ended.old} is retired${reason}`;
  }
  if (ended.outcome === "rolled_back") return `rolled back, version ${ended.new} is rejected${reason}`;
  return `${OUTCOME[ended.outcome].words}${reason}`;
}

/**
 * The version that instances move to, or are on.
 * @param {Api.SecretStatus} status
 */
export function target({ rotation, current }) {
  if (!rotation) return current;
  return rotation.phase === "rolling_back" ? current : rotation.new;
}
