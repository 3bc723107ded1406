// What an operator can do with a secret now, and why not the rest.

import { h } from "./dom.js";
import { capitalised, parseLife, words } from "./words.js";
import { leaderAddress, session } from "./shell.js";
import { askToSignIn } from "./sign-in.js";
import { confirm } from "./confirm.js";
import { overrideDialog } from "./override.js";
import { excuseDialog } from "./excuse.js";

/** The versions an override could be about now; with `begun`, those whose retire is past the point of no return. */
export function overridable(status) {
  const held = status.blockers.some((it) => it.condition === "members_released" || it.condition === "usage_evidence");
  const versions = held ? status.guards.map((guard) => ({ version: guard.version, begun: false })) : [];
  // A retire whose own step keeps failing can only be helped by word that live sessions are cut off, or that the credential was revoked by hand.
  const failing = status.blockers.some((it) => it.condition === "command");
  for (const it of failing ? status.blockers : []) {
    const version = it.condition === "retired" && /version (\d+) is being/.exec(it.why)?.[1];
    if (version) versions.push({ version: Number(version), begun: true });
  }
  return versions;
}

/** Every action: `no` says why it makes no sense now, or is null. */
function all(status) {
  const { rotation, overlays } = status;
  const pending = status.versions.find((it) => it.label === "pending");
  const excusable = status.blockers.some((it) => ["prepared", "switched"].includes(it.condition) && parseLife(it.who));
  const flight = rotation && `rotation ${rotation.generation} is ${words(rotation.phase)}`;
  return [
    {
      id: "rotate",
      label: "Rotate",
      text: "The provider makes a new version, and all move to it.",
      no: rotation ? `${flight}: wait for it, or roll it back`
        : pending ? `version ${pending.version} is about to be rotated to`
          : overlays.includes("safe_mode") ? "it is in safe mode" : null,
    },
    {
      id: "approve",
      label: "Approve",
      text: rotation && `Version ${rotation.new} may be activated.`,
      no: overlays.includes("awaiting_approval") ? null : "nothing waits for an approval",
    },
    {
      id: "resume",
      label: "Resume",
      text: "What the pause holds back goes on.",
      no: overlays.includes("paused") ? null : "it is not paused",
    },
    {
      id: "pause",
      label: "Pause",
      text: "Nothing irreversible happens until somebody resumes.",
      no: overlays.includes("paused") ? "it is paused already" : null,
    },
    {
      id: "rollback",
      label: "Roll back",
      text: rotation && (rotation.old === null ? `Version ${rotation.new} is rejected.` : `All go back to version ${rotation.old}.`),
      no: !rotation ? "no rotation is in flight"
        : rotation.phase === "retiring" ? `version ${rotation.old} is being destroyed and cannot come back`
          : rotation.phase === "rolling_back" ? "it is rolling back already" : null,
    },
    {
      id: "excuse",
      label: "Excuse an instance",
      text: "Preparing and switching go on without it.",
      no: excusable ? null : "no instance is waited for in preparing or activating",
    },
    {
      id: "leave_safe_mode",
      label: "Leave safe mode",
      text: overlays.includes("staying") ? "Instances that stay with what they serve go to the current version."
        : "You have looked at the store, and it is as it should be.",
      no: overlays.includes("safe_mode") ? null
        : !overlays.includes("staying") ? "it is not in safe mode"
          : status.versions.some((it) => it.label === "pending") ? "a version waits, and instances go to it" : null,
    },
    {
      id: "override",
      label: "Override the guard",
      text: "Retire a version although somebody may still use it. They are cut off.",
      danger: true,
      no: overridable(status).length > 0 ? null : "nobody holds a retire up",
    },
  ];
}

/** Why nothing can be ordered here at all: as something to show; null: it can. */
export function barred() {
  const { about, link } = session;
  if (link.name === "unreachable" || link.name === "stale") return ["The connection is lost: what is shown may be out of date."];
  if (about && !about.leader) {
    const where = leaderAddress(about);
    return about.leading ? ["Orders go to the leader: ", about.leading.replica, where && [", ", where], "."] : ["Nobody leads: orders cannot be taken."];
  }
  if (about?.signed_in && !about.signed_in.may_act) return [`${about.signed_in.name} may look, and not act.`];
  return null;
}

export function actions(page) {
  const stop = barred();
  const stranger = !stop && !session.about?.signed_in;
  const list = all(page.status);
  const possible = list.filter((it) => it.no === null);
  const rest = list.filter((it) => it.no !== null);
  return h("section", { class: "panel actions", "aria-labelledby": "actions-title", "data-testid": "actions" }, [
    h("h2", { id: "actions-title" }, "Actions"),
    stop && h("p", { class: "barred", "data-testid": "barred" }, stop),
    stranger && h("p", { class: "quiet", id: "needs-sign-in", "data-testid": "needs-sign-in" }, "These need a sign-in; it is asked for when you choose one."),
    h("ul", { class: "plain" }, possible.map((it) => item(page, it, stop !== null, stranger))),
    h("details", { "data-testid": "impossible" }, h("summary", {}, `Not possible now (${rest.length})`),
      h("ul", { class: "plain" }, rest.map((it) => item(page, it, true, false)))),
  ]);
}

function item(page, it, disabled, stranger) {
  const id = `about-${it.id}`;
  return h("li", { key: it.id }, [
    h("button", {
      type: "button",
      class: it.danger ? "danger" : null,
      disabled,
      "data-testid": `action-${it.id}`,
      "aria-describedby": stranger ? `${id} needs-sign-in` : id,
      onclick: () => withSignIn(() => start(page, it.id)),
    }, it.label, " …"),
    h("p", { class: "quiet", id }, it.no ? `${capitalised(it.no)}.` : it.text),
  ]);
}

function withSignIn(then) {
  if (session.about?.signed_in) then();
  else askToSignIn(() => session.about?.signed_in?.may_act && then());
}

/** Excuses an instance by its name in blockers. */
export function excuse(page, who) {
  withSignIn(() => excuseDialog(page, who));
}

function start(page, id) {
  if (id === "override") overrideDialog(page);
  else if (id === "excuse") excuseDialog(page, null);
  else confirm(page.status.secret, id, plans[id](page.status));
}

const NOBODY = "Nobody is cut off.";

/** What each order does, and to whom. */
const plans = {
  rotate: (status) => ({
    title: "Rotate",
    button: "Rotate",
    what: [
      `The provider (${status.provider}) makes a new version and tests it. Instances load it, switch to it and let go of ${status.current === null ? "nothing, since no version is current" : `version ${status.current}`}.`,
      status.current !== null && `Version ${status.current} is retired once nobody uses it any more.`,
    ],
    who: NOBODY,
    done: (made) => `rotation ${made.generation ?? ""} to version ${made.version ?? ""} started`,
  }),
  pause: (status) => ({
    title: "Pause",
    button: "Pause",
    what: [
      status.rotation?.phase === "retiring"
        ? "The retire's remaining steps wait until somebody resumes. What has been disabled already stays disabled."
        : "Nothing irreversible happens until somebody resumes: no activation, no retire. Instances keep what they have.",
    ],
    who: NOBODY,
    reason: "needed",
    done: () => "paused; nothing irreversible happens until somebody resumes",
  }),
  resume: (status) => ({
    title: "Resume",
    button: "Resume",
    what: ["What the pause holds back goes on, as far as its conditions are met.",
      status.guards.length > 0 && `Version ${status.guards.map((it) => it.version).join(", ")} may be retired as soon as its guard holds, which cannot be undone.`],
    who: "Nobody is cut off: the guard still waits for everybody whom no override names.",
    done: () => "resumed",
  }),
  approve: ({ rotation }) => ({
    title: `Approve version ${rotation.new}`,
    button: "Approve",
    what: [`Version ${rotation.new} becomes current as soon as all are prepared: instances use it for new work.`,
      rotation.old !== null && `Version ${rotation.old} stays valid until all have let go of it. Until then it can be rolled back.`],
    who: NOBODY,
    done: () => "activation approved",
  }),
  rollback: ({ rotation }) => ({
    title: `Roll back to ${rotation.old === null ? "no version" : `version ${rotation.old}`}`,
    button: "Roll back",
    danger: true,
    what: [rotation.old === null ? "There is no earlier version to go back to: the secret has no current version afterwards."
      : `Instances go back to version ${rotation.old}.`,
    `Version ${rotation.new} is rejected for good, and its credential revoked once nobody uses it any more.`],
    who: rotation.old === null ? `Whoever uses the secret: they lose version ${rotation.new} and get no other.` : "Nobody is cut off: the guard waits for everybody who uses the new version.",
    reason: "needed",
    done: () => "rolling back",
  }),
  leave_safe_mode: (status) => ({
    title: "Leave safe mode",
    button: "Leave safe mode",
    danger: true,
    what: status.overlays.includes("staying") ? [
      status.current === null ? "No version is current: nobody is sent anywhere." : `Whoever still serves another version goes to version ${status.current}.`,
      "Go on only when that version works. Otherwise write a new one: instances go to it by themselves.",
    ] : [
      `It is in safe mode because ${status.blockers.find((it) => it.condition === "not_in_safe_mode")?.why.replace(/^safe mode: /, "") ?? "the store is not what it was"}.`,
      "Go on only when you have looked at the store and it is what it should be. Irreversible steps go on from what it holds now.",
    ],
    who: "Nobody, if the store is right. If it lacks versions that are in use, whoever uses them may be cut off.",
    done: () => "safe mode left",
  }),
};
