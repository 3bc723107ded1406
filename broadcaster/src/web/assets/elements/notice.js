// What is to be read before the rest.

import { h } from "./dom.js";
import { sentence } from "../words/numbers.js";

/**
 * @param {"calm" | "warn" | "bad"} kind
 * @param {import("./dom.js").Child} title
 * @param {...import("./dom.js").Child} rest
 */
export function notice(kind, title, ...rest) {
  return h("div", { class: `notice ${kind}` }, h("p", { class: "notice-title" }, title), ...rest);
}

/**
 * What went wrong, and what to do about it.
 * @param {{ problem: string, fix?: string | null }} error
 * @param {...import("./dom.js").Child} rest
 */
export function problem(error, ...rest) {
  return h("div", { class: "notice bad", role: "alert", "data-testid": "problem" }, [
    h("p", { class: "notice-title" }, sentence(error.problem)),
    error.fix && h("p", {}, h("strong", {}, "What to do: "), sentence(error.fix)),
    ...rest,
  ]);
}
