// The dialog before every order: what will happen, which instances are cut off, and what the broadcaster says if it refuses.

import { h, render } from "../elements/dom.js";
import { problem } from "../elements/notice.js";
import { count } from "../words/numbers.js";
import { Problem, act } from "../broadcaster/api.js";
import { session } from "../broadcaster/session.js";
import { toast } from "../frame/announce.js";
import { askToSignIn } from "../frame/sign-in.js";

/** Longest reason the broadcaster takes, in bytes. */
const MAX_REASON_BYTES = 1024;

/**
 * @typedef {import("../elements/dom.js").Child} Child
 *
 * @typedef {object} Plan
 * @property {string} title
 * @property {string | (() => string)} button
 * @property {readonly (string | false | null)[]} what sentences
 * @property {string | (() => Child)} cut which instances are cut off
 * @property {boolean} [reason] whether a reason is needed
 * @property {boolean} [danger]
 * @property {boolean} [typed] whether the secret's name is to be typed
 * @property {() => Child} [extra] more to fill in
 * @property {() => Partial<import("../broadcaster/api.js").OrderBody>} [body] more of the order
 * @property {() => string[]} [missing] what is still to be filled in, in words
 * @property {(made: Api.DoneView) => string} done what to say of an order that was taken
 * @property {() => void} [closed]
 */

/**
 * Asks, and gives the order. Returns a function that draws the dialog again.
 * @param {string} secret
 * @param {Api.Order} order
 * @param {Plan} plan
 */
export function confirm(secret, order, plan) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "confirm-title");
  dialog.dataset.testid = "confirm";
  dialog.dataset.action = order;
  document.body.append(dialog);
  const input = { reason: "", typed: "", emergency: false };
  /** @type {Problem | null} */
  let error = null;
  let busy = false;

  function missing() {
    const list = plan.missing?.() ?? [];
    if ((plan.reason || input.emergency) && input.reason.trim() === "") list.push("a reason");
    if (plan.typed && input.typed.trim() !== secret) list.push("the secret's name");
    return list;
  }

  /** @param {SubmitEvent} event */
  async function submit(event) {
    event.preventDefault();
    if (busy || missing().length > 0) return;
    busy = true;
    error = null;
    draw();
    try {
      const made = await act({ secret, action: order, reason: input.reason.trim(), version: null, instances: [], sessions: false, emergency: input.emergency, ...plan.body?.() });
      toast(`${secret}: ${made.request ? `waiting for ${count(made.request.missing, "approval")} of other operators` : plan.done(made)}.`);
      dialog.close();
    } catch (caught) {
      error = Problem.of(caught);
    }
    busy = false;
    draw();
  }

  function draw() {
    if (!dialog.isConnected) return;
    const lacking = missing();
    render(dialog, h("form", { class: "stack", onsubmit: submit }, [
      h("h2", { id: "confirm-title" }, plan.title),
      h("p", { class: "name dialog-secret" }, secret),
      h("div", { "data-testid": "what" }, plan.what.filter(Boolean).map((text) => h("p", {}, text))),
      h("div", { class: plan.typed ? "cut bad" : "cut", "data-testid": "cut-off" }, [
        h("h3", {}, "Cut off"),
        typeof plan.cut === "function" ? plan.cut() : h("p", {}, plan.cut),
      ]),
      plan.extra?.(),
      session.about?.signed_in?.may_act_alone && h("label", { class: "check" }, h("input", {
        type: "checkbox",
        name: "emergency",
        "data-testid": "confirm-emergency",
        onchange: (/** @type {{ target: HTMLInputElement }} */ event) => {
          input.emergency = event.target.checked;
          draw();
        },
      }), " Emergency: act alone, without approvals. It is on record, and shown to everyone."),
      (plan.reason || input.emergency) && h("label", { class: "field" }, h("span", {}, "Reason (goes on record)"), h("input", {
        name: "reason",
        required: true,
        autocomplete: "off",
        maxlength: MAX_REASON_BYTES,
        "data-testid": "confirm-reason",
        oninput: (/** @type {{ target: HTMLInputElement }} */ event) => {
          input.reason = event.target.value;
          draw();
        },
      })),
      plan.typed && h("label", { class: "field" }, h("span", {}, "Type the secret's name to go on: ", h("code", {}, secret)), h("input", {
        name: "typed",
        autocomplete: "off",
        autocapitalize: "off",
        spellcheck: "false",
        "data-testid": "confirm-name",
        oninput: (/** @type {{ target: HTMLInputElement }} */ event) => {
          input.typed = event.target.value;
          draw();
        },
      })),
      error && refusal(error),
      h("div", { class: "buttons" }, [
        h("p", { class: "quiet missing", id: "confirm-missing" }, lacking.length > 0 && `Still missing: ${lacking.join(", ")}.`),
        h("button", { type: "button", onclick: () => dialog.close(), "data-testid": "confirm-cancel" }, "Cancel"),
        h("button", {
          class: plan.danger ? "danger primary" : "primary",
          disabled: busy || lacking.length > 0,
          "aria-describedby": "confirm-missing",
          "data-testid": "confirm-go",
        }, busy ? "One moment …" : typeof plan.button === "function" ? plan.button() : plan.button),
      ]),
    ]));
  }

  /** @param {Problem} error */
  function refusal(error) {
    const again = error.kind === "unauthenticated" && h("p", {}, h("button", { type: "button", onclick: () => askToSignIn(forgive) }, "Sign in"));
    return problem(error, again);
  }

  function forgive() {
    error = null;
    draw();
  }

  dialog.addEventListener("close", () => {
    dialog.remove();
    plan.closed?.();
  });
  draw();
  dialog.showModal();
  return draw;
}
