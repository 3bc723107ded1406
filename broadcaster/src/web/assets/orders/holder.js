// What is known of an instance that an order is about.

import { h } from "../elements/dom.js";
import { span, time } from "../elements/times.js";
import { instanceName } from "../words/instance.js";
import { STANDING } from "../words/vocabulary.js";

/** @param {import("../secret/page.js").Known} it */
export function holderFacts(it) {
  const { words, meaning } = STANDING[it.standing];
  return [
    h("span", { class: "who-waits" }, instanceName(it)),
    h("span", { class: "quiet" }, [
      it.held.length > 0 ? `holds version ${it.held.join(", ")}` : it.version === null ? "has not reported what it holds" : "reports that it holds nothing",
      ` · ${words}`,
      " · ",
      it.silent_for_ms === null ? "never heard" : ["heard ", time(it.taken - it.silent_for_ms)],
      it.lease_left_ms > 0 ? ` · lease ends in ${span(it.lease_left_ms)}` : " · lease over",
      h("span", { class: "unseen" }, ` (${meaning})`),
    ]),
  ];
}
