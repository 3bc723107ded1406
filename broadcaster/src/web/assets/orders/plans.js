// What the dialog before an order says: what will happen, and which instances are cut off.

import { abandonable } from "./possible.js";

/** @typedef {import("./confirm.js").Plan} Plan */

const NO_CUT = "No instance is cut off.";

/**
 * The plan of each order for a secret as it is now; null: the order makes no sense now.
 * @type {Record<Exclude<Api.Order, "override" | "excuse" | "gone">, (status: Api.SecretStatus) => Plan | null>}
 */
export const plans = {
  rotate: (status) => ({
    title: "Rotate",
    button: "Rotate",
    what: [
      `The provider (${status.provider}) makes a new version and tests it. Instances load it and switch to it${status.current === null ? "" : `, and release version ${status.current}`}.`,
      status.current !== null && `Version ${status.current} is retired as soon as no instance uses it any more.`,
    ],
    cut: NO_CUT,
    done: (made) => `rotation ${made.number ?? ""} to version ${made.version ?? ""} started`,
  }),
  pause: (status) => ({
    title: "Pause",
    button: "Pause",
    what: [
      status.rotation?.phase === "retiring"
        ? "The retire's remaining steps wait until an operator resumes. A credential that is disabled stays disabled."
        : "Nothing irreversible happens until an operator resumes: no activation, no retire. Instances keep what they have.",
    ],
    cut: NO_CUT,
    reason: true,
    done: () => "paused; nothing irreversible happens until an operator resumes",
  }),
  resume: (status) => ({
    title: "Resume",
    button: "Resume",
    what: ["What the pause holds back goes on, as far as its conditions are met.",
      status.guards.length > 0 && `Version ${status.guards.map((it) => it.version).join(", ")} may be retired as soon as its guard holds, which cannot be undone.`],
    cut: "No instance is cut off: the guard still waits for every instance that no override names.",
    done: () => "resumed",
  }),
  approve: ({ rotation }) => rotation && {
    title: `Approve version ${rotation.new}`,
    button: "Approve",
    what: [`Version ${rotation.new} becomes current as soon as all instances have prepared it: they use it for new work.`,
      rotation.old !== null && `Version ${rotation.old} stays valid until all instances have released it. Until then you can roll back.`],
    cut: NO_CUT,
    done: () => "activation approved",
  },
  rollback: ({ rotation }) => rotation && {
    title: `Roll back to ${rotation.old === null ? "no version" : `version ${rotation.old}`}`,
    button: "Roll back",
    danger: true,
    what: [rotation.old === null ? "There is no earlier version to go back to: the secret has no current version afterwards."
      : `Instances go back to version ${rotation.old}.`,
    `Version ${rotation.new} is rejected for good. Its credential is revoked as soon as no instance uses it any more.`],
    cut: rotation.old === null ? `All instances that use the secret: they lose version ${rotation.new} and get no other.`
      : "No instance is cut off: the guard waits for every instance that uses the new version.",
    reason: true,
    done: () => "rolling back",
  },
  abandon: (status) => {
    const [version] = abandonable(status);
    return version === undefined ? null : {
      title: `Give version ${version} up`,
      button: "Give it up",
      danger: true,
      what: [`The value of version ${version} is erased as soon as no instance may use it.`,
        "Its credential at the provider, if it has one, is left alone: end it there."],
      cut: "No instance is cut off: the guard still waits for every instance.",
      reason: true,
      body: () => ({ version }),
      done: () => `version ${version} is given up`,
    };
  },
  leave_safe_mode: (status) => ({
    title: "Leave safe mode",
    button: "Leave safe mode",
    danger: true,
    what: status.overlays.includes("staying") ? [
      status.current === null ? "No version is current: instances stay where they are." : `Instances that still serve another version go to version ${status.current}.`,
      "Go on only when that version works. Otherwise write a new one: instances go to it by themselves.",
    ] : [
      `The secret is in safe mode because ${status.blockers.find((it) => it.condition === "not_in_safe_mode")?.why.replace(/^safe mode: /, "").replace(/\.$/, "") ?? "the store's history broke"}.`,
      "Go on only when you have checked the store and it holds what it should. Irreversible steps go on from what it holds now.",
    ],
    cut: "No instance, if the store is right. If the store lacks versions that are in use, the instances that use them may be cut off.",
    reason: true,
    done: () => "safe mode left",
  }),
};
