// Excusing one instance: preparing and switching go on without it.

import { h } from "./dom.js";
import { read } from "./api.js";
import { parseLife } from "./words.js";
import { field, problem, select } from "./parts.js";
import { confirm } from "./confirm.js";
import { holderFacts } from "./override.js";

/** `who` as blockers name it; null: it is chosen from those who are waited for. */
export function excuseDialog(page, who) {
  const { status } = page;
  const names = status.blockers
    .filter((it) => ["prepared", "switched"].includes(it.condition) && parseLife(it.who))
    .map((it) => it.who);
  let chosen = who ?? (names.length === 1 ? names[0] : "");
  let found = null;
  let error = null;
  let redraw = () => {};

  /** The name holds the beginning of the incarnation only; the order needs all of it. */
  async function look() {
    found = null;
    error = null;
    redraw();
    const { service, instance, life } = parseLife(chosen) ?? {};
    if (!service) return;
    const asked = chosen;
    try {
      const answer = await read("/api/instances", { secret: status.secret, service, q: instance, limit: 500 });
      if (asked !== chosen) return;
      const taken = Date.parse(answer.taken_at);
      const match = answer.instances.find((it) => it.instance === instance && it.incarnation.startsWith(life));
      if (match) found = { ...match, taken };
      else error = { problem: `${chosen} is not there any more` };
    } catch (failed) {
      if (asked === chosen) error = failed;
    }
    redraw();
  }

  redraw = confirm(status.secret, "excuse", {
    title: "Excuse an instance",
    button: "Excuse it",
    what: ["Preparing and switching do not wait for this process life any more. It still counts for the retire: its old version is not taken from it."],
    who: "Nobody is cut off.",
    extra: () => [
      field("Instance", select({
        "data-testid": "excuse-who",
        onchange: (event) => {
          chosen = event.target.value;
          look();
        },
      }, [["", "Choose …"], ...new Set([...names, ...(who ? [who] : [])])].map((it) => (Array.isArray(it) ? it : [it, it])), chosen)),
      found && h("ul", { class: "holders" }, h("li", {}, holderFacts(found))),
      error && problem(error),
    ],
    missing: () => (found ? [] : ["the instance"]),
    order: () => ({ instances: [{ service: found.service, instance: found.instance, incarnation: found.incarnation }] }),
    done: () => `${chosen} is excused from preparing and switching; it still counts for the retire`,
  });
  if (chosen) look();
}
