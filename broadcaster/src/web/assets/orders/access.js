// Whether orders can be given on this page at all.

import { session, isLost } from "../broadcaster/session.js";
import { leaderAddress } from "../frame/leader.js";
import { askToSignIn } from "../frame/sign-in.js";

/**
 * Why no order can be given, as something to show; null: orders can be given.
 * @returns {import("../elements/dom.js").Child[] | null}
 */
export function barred() {
  const { about } = session;
  if (isLost()) return ["The connection is lost: what is shown may be out of date."];
  if (about && !about.leader) {
    const where = leaderAddress(about);
    return about.leading ? ["The leader takes the orders: ", about.leading.replica, where && [", ", where], "."] : ["No broadcaster leads: orders cannot be given."];
  }
  if (about?.signed_in && !about.signed_in.may_act) return [`${about.signed_in.name} may look, and not give orders.`];
  return null;
}

/** Whether an order would first ask for a sign-in. */
export function signedOut() {
  return !session.about?.signed_in;
}

/** @param {() => void} then */
export function withSignIn(then) {
  if (!signedOut()) then();
  else askToSignIn(() => { if (session.about?.signed_in?.may_act) then(); });
}
