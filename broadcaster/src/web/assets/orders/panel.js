// The orders that an operator can give about a secret.

import { h } from "../elements/dom.js";
import { sentence } from "../words/numbers.js";
import { barred, signedOut, withSignIn } from "./access.js";
import { confirm } from "./confirm.js";
import { excuseDialog, goneDialog } from "./excuse.js";
import { overrideDialog } from "./override.js";
import { plans } from "./plans.js";
import { possibilities } from "./possible.js";

/** @param {import("../secret/page.js").Page} page */
export function orders(page) {
  const stop = barred();
  const list = possibilities(page.status);
  const possible = list.filter((it) => it.no === null);
  const rest = list.filter((it) => it.no !== null);
  return h("section", { class: "panel actions", "aria-labelledby": "actions-title", "data-testid": "actions" }, [
    h("h2", { id: "actions-title" }, "Orders"),
    stop && h("p", { class: "barred", "data-testid": "barred" }, stop),
    !stop && signedOut() && h("p", { class: "quiet", id: "needs-sign-in", "data-testid": "needs-sign-in" }, "Orders need a sign-in; the page asks for it when you choose one."),
    h("ul", { class: "plain" }, possible.map((it) => item(page, it, stop !== null))),
    h("details", { "data-testid": "impossible" }, h("summary", {}, `Not possible now (${rest.length})`),
      h("ul", { class: "plain" }, rest.map((it) => item(page, it, true)))),
  ]);
}

/**
 * @param {import("../secret/page.js").Page} page
 * @param {import("./possible.js").Possibility} it
 * @param {boolean} disabled
 */
function item(page, it, disabled) {
  const id = `about-${it.order}`;
  return h("li", { key: it.order }, [
    h("button", {
      type: "button",
      class: it.danger ? "danger" : null,
      disabled,
      "data-testid": `action-${it.order}`,
      "aria-describedby": !disabled && signedOut() ? `${id} needs-sign-in` : id,
      onclick: () => withSignIn(() => begin(page, it.order)),
    }, it.label, " …"),
    h("p", { class: "quiet", id }, it.no ? sentence(it.no) : it.text),
  ]);
}

/**
 * @param {import("../secret/page.js").Page} page
 * @param {Api.Order} order
 */
function begin(page, order) {
  if (order === "override") overrideDialog(page, null);
  else if (order === "excuse") excuseDialog(page, null);
  else if (order === "gone") goneDialog(page);
  else {
    const plan = plans[order](page.status);
    if (plan) confirm(page.status.secret, order, plan);
  }
}
