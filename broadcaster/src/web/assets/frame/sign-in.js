// Signing in with a token, in a dialog or, where reading needs it too, in place of everything else.

import { h, render } from "../elements/dom.js";
import { problem } from "../elements/notice.js";
import { Problem, signIn, signOut } from "../broadcaster/api.js";
import { part } from "./announce.js";

/** @type {() => Promise<void>} */
let accountChanged = async () => {};

/**
 * Set by the entry: what is to be done after signing in or out.
 * @param {() => Promise<void>} call
 */
export function onAccount(call) {
  accountChanged = call;
}

class Form {
  /** @type {{ problem: string, fix?: string | null } | null} */
  #error = null;
  #busy = false;
  #redraw;
  #done;

  /**
   * @param {() => void} redraw
   * @param {() => void} done called after a successful sign-in
   */
  constructor(redraw, done) {
    this.#redraw = redraw;
    this.#done = done;
  }

  /** @param {SubmitEvent} event */
  async #submit(event) {
    event.preventDefault();
    if (this.#busy) return;
    const form = /** @type {HTMLFormElement} */ (event.target);
    const input = /** @type {HTMLInputElement} */ (form.elements.namedItem("token"));
    const token = input.value.trim();
    if (token === "") {
      this.#error = { problem: "the token is empty" };
      this.#redraw();
      input.focus();
      return;
    }
    this.#busy = true;
    this.#redraw();
    try {
      await signIn(token);
      input.value = "";
      this.#error = null;
      await accountChanged();
      this.#done();
    } catch (caught) {
      this.#error = Problem.of(caught);
      input.select();
    } finally {
      this.#busy = false;
      this.#redraw();
    }
  }

  /** @param {(() => void) | null} cancel */
  draw(cancel) {
    return h("form", { class: "stack", onsubmit: (/** @type {SubmitEvent} */ event) => this.#submit(event), "data-testid": "sign-in-form" }, [
      h("label", { class: "field" }, [
        h("span", {}, "Token"),
        h("input", {
          name: "token",
          type: "password",
          autocomplete: "off",
          spellcheck: "false",
          maxlength: 4096,
          "aria-describedby": "token-help",
          autofocus: true,
        }),
      ]),
      h("p", { class: "quiet", id: "token-help" }, "An operator's token for the dashboard, from the broadcaster's configuration. It is kept in a cookie that scripts cannot read."),
      this.#error && problem(this.#error),
      h("div", { class: "buttons" }, [
        cancel && h("button", { type: "button", onclick: cancel }, "Cancel"),
        h("button", { class: "primary", disabled: this.#busy }, this.#busy ? "Signing in …" : "Sign in"),
      ]),
    ]);
  }
}

/** Opens the dialog; `then` goes on with what needed the sign-in. */
export function askToSignIn(then = () => {}) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "sign-in-title");
  dialog.dataset.testid = "sign-in-dialog";
  document.body.append(dialog);
  const close = () => dialog.close();
  const form = new Form(draw, () => {
    close();
    // The button that opened it is gone, and the focus with it.
    part("main").focus({ preventScroll: true });
    then();
  });
  function draw() {
    if (dialog.isConnected) render(dialog, h("h2", { id: "sign-in-title" }, "Sign in"), form.draw(close));
  }
  dialog.addEventListener("close", () => dialog.remove());
  draw();
  dialog.showModal();
}

/**
 * The page of a broadcaster that shows nothing before a sign-in.
 * @param {() => void} redraw
 */
export function gate(redraw) {
  const form = new Form(redraw, () => {});
  return () => h("section", { class: "gate", "aria-labelledby": "gate-title", "data-testid": "gate" }, [
    h("h1", { id: "gate-title" }, "Sign in"),
    h("p", {}, "This broadcaster shows the status of its secrets to operators only."),
    form.draw(null),
  ]);
}

export async function leave() {
  try {
    await signOut();
  } finally {
    await accountChanged();
  }
}
