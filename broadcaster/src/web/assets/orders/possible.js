// Which orders make sense for a secret now, and why not the rest.

import { parseInstance } from "../words/instance.js";
import { PHASE } from "../words/vocabulary.js";

/**
 * A version that an override could be about; `begun`: its retire is past the point of no return.
 * @typedef {{ version: number, begun: boolean }} Overridable
 */

/**
 * @param {Api.SecretStatus} status
 * @returns {Overridable[]}
 */
export function overridable(status) {
  const held = status.blockers.some((it) => it.condition === "members_released" || it.condition === "usage_evidence");
  /** @type {Overridable[]} */
  const versions = held ? status.guards.map((guard) => ({ version: guard.version, begun: false })) : [];
  // When a step of the retire itself keeps failing, an operator can only allow that live sessions are cut off, or say that
  // the credential was revoked by hand.
  const failing = status.blockers.some((it) => it.condition === "command");
  for (const it of failing ? status.blockers : []) {
    const version = it.condition === "retired" && /version (\d+) is being/.exec(it.why)?.[1];
    if (version) versions.push({ version: Number(version), begun: true });
  }
  return versions;
}

/**
 * The instances that an excuse could be about, by their names in blockers.
 * @param {Api.SecretStatus} status
 * @returns {string[]}
 */
export function excusable(status) {
  const stages = status.blockers.filter((it) => it.condition === "prepared" || it.condition === "switched");
  return stages.flatMap((it) => (parseInstance(it.who) && it.who ? [it.who] : []));
}

/**
 * The silent instances that something waits for, by their names in blockers: the broadcaster names `gone` as the way out.
 * @param {Api.SecretStatus} status
 * @returns {string[]}
 */
export function silent(status) {
  return status.blockers.flatMap((it) => (it.command?.startsWith("rotacast gone ") && it.who ? [it.who] : []));
}

/**
 * The versions that the provider refuses to end: the broadcaster names `abandon` as the way out.
 * @param {Api.SecretStatus} status
 * @returns {number[]}
 */
export function abandonable(status) {
  const named = status.blockers.map((it) => /^rotacast abandon \S+ (\d+) /.exec(it.command ?? "")?.[1]);
  return [...new Set(named.flatMap((version) => (version ? [Number(version)] : [])))];
}

/**
 * @typedef {object} Possibility
 * @property {Api.Order} order
 * @property {string} label
 * @property {string | null} text what it does
 * @property {string | null} no why it makes no sense now; null: it does
 * @property {boolean} [danger]
 */

/**
 * Every order.
 * @param {Api.SecretStatus} status
 * @returns {Possibility[]}
 */
export function possibilities(status) {
  const { rotation, overlays } = status;
  const pending = status.versions.find((it) => it.label === "pending");
  const flight = rotation && `rotation ${rotation.number} is ${PHASE[rotation.phase].words}`;
  return [
    {
      order: "rotate",
      label: "Rotate",
      text: "The provider makes a new version, and all instances move to it.",
      no: rotation ? `${flight}: wait for it, or roll it back`
        : pending ? `the rotation to version ${pending.version} is about to begin`
          : overlays.includes("safe_mode") ? "the secret is in safe mode" : null,
    },
    {
      order: "approve",
      label: "Approve",
      text: rotation && `Version ${rotation.new} may be activated.`,
      no: overlays.includes("awaiting_approval") ? null : "nothing waits for an approval",
    },
    {
      order: "resume",
      label: "Resume",
      text: "What the pause holds back goes on.",
      no: overlays.includes("paused") ? null : "the secret is not paused",
    },
    {
      order: "pause",
      label: "Pause",
      text: "Nothing irreversible happens until an operator resumes.",
      no: overlays.includes("paused") ? "the secret is paused already" : null,
    },
    {
      order: "rollback",
      label: "Roll back",
      text: rotation && (rotation.old === null ? `Version ${rotation.new} is rejected.` : `All instances go back to version ${rotation.old}.`),
      no: !rotation ? "no rotation is in flight"
        : rotation.phase === "retiring" ? `version ${rotation.old} is being destroyed and cannot come back`
          : rotation.phase === "rolling_back" ? "the rotation is rolling back already" : null,
    },
    {
      order: "excuse",
      label: "Excuse an instance",
      text: "Preparing and switching go on without it.",
      no: excusable(status).length > 0 ? null : "preparing and activating wait for no instance",
    },
    {
      order: "gone",
      label: "Say that an instance is gone",
      text: "Nothing waits for this incarnation any more. If it runs after all, it is cut off.",
      danger: true,
      no: silent(status).length > 0 ? null : "nothing waits for a silent instance",
    },
    {
      order: "abandon",
      label: "Give a version up",
      text: "Its value is erased, and its credential at the provider is left alone.",
      danger: true,
      no: abandonable(status).length > 0 ? null : "the provider refuses to end no version",
    },
    {
      order: "leave_safe_mode",
      label: "Leave safe mode",
      text: overlays.includes("staying") ? "Instances that stay with what they serve go to the current version."
        : "You have checked the store, and it is as it should be.",
      no: overlays.includes("safe_mode") ? null
        : !overlays.includes("staying") ? "the secret is not in safe mode"
          : pending ? `instances go to version ${pending.version}, which waits` : null,
    },
    {
      order: "override",
      label: "Override the guard",
      text: "Retire a version although instances may still use it. They are cut off.",
      danger: true,
      no: overridable(status).length > 0 ? null : "no instance and no session holds a retire up",
    },
  ];
}
