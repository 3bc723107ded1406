// Fields of forms.

import { h } from "./dom.js";

/**
 * A labelled field.
 * @param {string} label
 * @param {import("./dom.js").Child} control
 */
export function field(label, control, className = "") {
  return h("label", { class: `field ${className}` }, h("span", {}, label), control);
}

/**
 * @param {import("./dom.js").Props} props
 * @param {readonly (readonly [string, string])[]} options value and text of each
 * @param {string} chosen
 */
export function select(props, options, chosen) {
  return h("select", { ...props, value: chosen }, options.map(([value, text]) =>
    h("option", { value, selected: value === chosen ? true : null }, text)));
}

/**
 * Calls once per pause in typing.
 * @param {() => unknown} call
 */
export function debounced(call, pause = 250) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, pause);
  };
}
