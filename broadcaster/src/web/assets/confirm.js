// The dialog that stands before every order: what will happen, who is cut off, and what the broadcaster says if it refuses.

import { h, render } from "./dom.js";
import { act } from "./api.js";
import { problem } from "./parts.js";
import { toast } from "./shell.js";
import { askToSignIn } from "./sign-in.js";

/** Longest reason the broadcaster takes, in bytes. */
const MAX_REASON_BYTES = 1024;

/**
 * Asks, and gives the order. A plan has title, button, what (sentences), who (who is cut off), and optionally reason ("needed"),
 * danger, typed (the secret's name is to be typed), extra() (more to fill in), order() (more of the order), missing() (what is
 * still to be filled in, in words) and done(made).
 */
export function confirm(secret, action, plan) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "confirm-title");
  dialog.dataset.testid = "confirm";
  dialog.dataset.action = action;
  document.body.append(dialog);
  const input = { reason: "", typed: "" };
  let error = null;
  let busy = false;

  function missing() {
    const list = plan.missing?.() ?? [];
    if (plan.reason === "needed" && input.reason.trim() === "") list.push("a reason");
    if (plan.typed && input.typed.trim() !== secret) list.push("the secret's name");
    return list;
  }

  async function submit(event) {
    event.preventDefault();
    if (busy || missing().length > 0) return;
    busy = true;
    error = null;
    draw();
    try {
      const order = { secret, action, reason: input.reason.trim(), version: null, instances: [], sessions: false };
      const made = await act({ ...order, ...plan.order?.() });
      toast(`${secret}: ${plan.done(made ?? {})}.`);
      dialog.close();
    } catch (failed) {
      error = failed;
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
        h("h3", {}, "Who is cut off"),
        typeof plan.who === "function" ? plan.who() : h("p", {}, plan.who),
      ]),
      plan.extra?.(),
      plan.reason && h("label", { class: "field" }, h("span", {}, "Reason (goes on record)"), h("input", {
        name: "reason",
        required: true,
        autocomplete: "off",
        maxlength: MAX_REASON_BYTES,
        "data-testid": "confirm-reason",
        oninput: (event) => {
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
        oninput: (event) => {
          input.typed = event.target.value;
          draw();
        },
      })),
      error && refusal(),
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

  function refusal() {
    const again = error.kind === "unauthenticated" && h("p", {}, h("button", { type: "button", onclick: () => askToSignIn(() => {
      error = null;
      draw();
    }) }, "Sign in"));
    return problem(error, again);
  }

  dialog.addEventListener("close", () => {
    dialog.remove();
    plan.closed?.();
  });
  draw();
  dialog.showModal();
  return draw;
}
