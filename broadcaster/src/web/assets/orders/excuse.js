// Orders about one instance: preparing and switching go on without it, or nothing waits for it any more.

import { h } from "../elements/dom.js";
import { field, select } from "../elements/form.js";
import { problem } from "../elements/notice.js";
import { parseInstance } from "../words/instance.js";
import { Problem, readInstances } from "../broadcaster/api.js";
import { known } from "../secret/page.js";
import { confirm } from "./confirm.js";
import { holderFacts } from "./holder.js";
import { excusable, silent } from "./possible.js";

/**
 * @param {import("../secret/page.js").Page} page
 * @param {string | null} who as blockers name it; null: the operator chooses
 */
export function excuseDialog(page, who) {
  dialog(page, "excuse", excusable(page.status), who, {
    title: "Excuse an instance",
    button: "Excuse it",
    what: ["Preparing and switching do not wait for this incarnation any more. The retire still waits for it: its old version is not taken from it."],
    cut: "No instance is cut off.",
  }, (chosen) => `${chosen} is excused from preparing and switching; the retire still waits for it`);
}

/** @param {import("../secret/page.js").Page} page */
export function goneDialog(page) {
  dialog(page, "gone", silent(page.status), null, {
    title: "Say that an instance is gone",
    button: "It is gone",
    danger: true,
    what: ["Nothing waits for this incarnation any more, for good, and the retire of a version that it held goes on. Its replacement is waited for as before.",
      "`rotacast gone` says the same for every secret that it uses."],
    cut: "This incarnation, if its process runs after all: its work with this secret fails.",
    reason: true,
  }, (chosen) => `${chosen} is gone; nothing waits for it`);
}

/**
 * @param {import("../secret/page.js").Page} page
 * @param {Api.Order} order
 * @param {string[]} names those to choose from
 * @param {string | null} who
 * @param {Pick<import("./confirm.js").Plan, "title" | "button" | "what" | "cut" | "danger" | "reason">} plan
 * @param {(chosen: string) => string} done
 */
function dialog(page, order, names, who, plan, done) {
  const { status } = page;
  let chosen = who ?? (names.length === 1 ? String(names[0]) : "");
  /** @type {import("../secret/page.js").Known | null} */
  let found = null;
  /** @type {{ problem: string } | null} */
  let error = null;
  let redraw = () => {};

  /** The name holds the beginning of the incarnation only; the order needs all of it. */
  async function look() {
    found = null;
    error = null;
    redraw();
    const name = parseInstance(chosen);
    if (!name) return;
    const asked = chosen;
    try {
      const answer = await readInstances({ secret: status.secret, service: name.service, q: name.instance, limit: 500 });
      if (asked !== chosen) return;
      found = known(answer).find((it) => it.instance === name.instance && it.incarnation.startsWith(name.incarnation)) ?? null;
      if (!found) error = { problem: `${chosen} is not there any more` };
    } catch (caught) {
      if (asked === chosen) error = Problem.of(caught);
    }
    redraw();
  }

  redraw = confirm(status.secret, order, {
    ...plan,
    extra: () => [
      field("Instance", select({
        "data-testid": `${order}-who`,
        onchange: (/** @type {{ target: HTMLSelectElement }} */ event) => {
          chosen = event.target.value;
          look();
        },
      }, [["", "Choose …"], ...[...new Set(who ? [...names, who] : names)].map((it) => /** @type {const} */ ([it, it]))], chosen)),
      found && h("ul", { class: "holders" }, h("li", {}, holderFacts(found))),
      error && problem(error),
    ],
    missing: () => (found ? [] : ["the instance"]),
    body: () => ({ instances: found ? [{ service: found.service, instance: found.instance, incarnation: found.incarnation }] : [] }),
    done: () => done(chosen),
  });
  if (chosen) look();
}
