// Orders that wait for the approval of other operators: what each is, who gave it, and what this one may do about it.

import { h } from "../elements/dom.js";
import { problem } from "../elements/notice.js";
import { time } from "../elements/times.js";
import { count } from "../words/numbers.js";
import { Problem, decide } from "../broadcaster/api.js";
import { changed, session } from "../broadcaster/session.js";
import { toast } from "../frame/announce.js";
import { withSignIn } from "../orders/access.js";

/** The last refusal, by the request that it is about. @type {Map<string, Problem>} */
const refused = new Map();
/** Requests that are being decided about. @type {Set<string>} */
const busy = new Set();

/** @param {Api.RequestsView} view */
export function requestsPanel({ requests }) {
  if (requests.length === 0) return null;
  return h("details", { class: "panel", open: true, "data-testid": "requests" }, [
    h("summary", {}, h("strong", {}, count(requests.length, "order")), " waiting for approvals"),
    h("ul", { class: "plain" }, requests.map(item)),
  ]);
}

/** @param {Api.RequestView} it */
function item(it) {
  const own = session.about?.signed_in?.name === it.operator;
  const approved = it.approved_by.includes(session.about?.signed_in?.name ?? "");
  const error = refused.get(it.id);
  return h("li", { key: it.id, class: "blocker", "data-testid": "request" }, [
    h("p", {}, [h("strong", {}, [it.order, it.secret && ` ${it.secret}`, it.arguments.map((argument) => ` · ${argument}`)]), ` by ${it.operator}`, it.reason && `: ${it.reason}`]),
    h("p", { class: "quiet" }, [
      it.void ? `It does not count at the moment: ${it.void}. ` : `${count(it.missing, "approval")} of ${it.needed} missing. `,
      it.approved_by.length > 0 && `Approved by ${it.approved_by.join(", ")}. `,
      "Given ", time(it.asked_at), ", expires ", time(it.expires_at, "when"), ". Request ", h("code", {}, it.id), ".",
    ]),
    error && problem(error),
    h("div", { class: "buttons" }, [
      !own && !approved && button(it, "approve", "Approve"),
      (own || approved) && button(it, "withdraw", own ? "Withdraw" : "Withdraw the approval"),
    ]),
  ]);
}

/**
 * @param {Api.RequestView} it
 * @param {"approve" | "withdraw"} verb
 * @param {string} label
 */
function button(it, verb, label) {
  return h("button", {
    type: "button",
    disabled: busy.has(it.id),
    "data-testid": `request-${verb}`,
    onclick: () => withSignIn(() => send(it, verb)),
  }, label);
}

/**
 * @param {Api.RequestView} it
 * @param {"approve" | "withdraw"} verb
 */
async function send(it, verb) {
  busy.add(it.id);
  refused.delete(it.id);
  changed();
  try {
    // The digest names exactly what is shown here.
    const made = await decide({ request: it.id, verb, secret: it.secret, digest: it.digest });
    const done = made.request ? `approved, and waiting for ${count(made.request.missing, "approval")}` : "approved by all, and carried out";
    toast(`${it.order} ${it.secret ?? ""}: ${verb === "approve" ? done : "withdrawn"}.`);
  } catch (caught) {
    refused.set(it.id, Problem.of(caught));
  }
  busy.delete(it.id);
  changed();
}
