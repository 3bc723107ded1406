// How far each service is: services × stages.

import { h } from "../elements/dom.js";
import { bar } from "../elements/badge.js";
import { none, row, table } from "../elements/table.js";
import { capitalised, digits } from "../words/numbers.js";
import { target } from "../words/rotation.js";
import { STAGE } from "../words/vocabulary.js";

const STAGES = /** @type {Api.Stage[]} */ (Object.keys(STAGE));

/** @param {Api.SecretStatus} status */
export function services(status) {
  if (status.record_read_at) return null;
  if (status.services.length === 0) {
    return h("section", { class: "panel", "aria-labelledby": "services-title" }, h("h2", { id: "services-title" }, "Services"),
      h("p", { class: "quiet" }, "No instance uses this secret."));
  }
  const columns = [
    { name: "Service", class: "wide" },
    { name: "Members" },
    ...STAGES.map((stage) => ({ name: capitalised(STAGE[stage].words) })),
    { name: "Out of reach" },
  ];
  const total = status.services.reduce(plus, { service: "All", members: 0, seen: 0, prepared: 0, switched: 0, released: 0, fenced: 0 });
  /** @type {(it: Api.ServiceStatus, props: import("../elements/dom.js").Props) => import("../elements/dom.js").Element} */
  const line = (it, props) => row(columns, [
    it.service,
    digits(it.members),
    ...STAGES.map((stage) => stageCell(it[stage], it.members)),
    it.fenced > 0 ? h("strong", {}, digits(it.fenced)) : none("none"),
  ], props);
  const version = target(status);
  return h("section", { class: "panel", "aria-labelledby": "services-title" }, [
    h("h2", { id: "services-title" }, "Services"),
    version !== null && h("p", { class: "quiet" }, `How many instances of each service have reached each stage with version ${version}.`),
    table({
      caption: "Services and stages",
      columns,
      testid: "services",
      rows: [
        ...status.services.map((it) => line(it, { key: `service ${it.service}` })),
        status.services.length > 1 && line(total, { key: "all", class: "total" }),
      ].filter(Boolean),
    }),
  ]);
}

/**
 * @param {Api.ServiceStatus} sum
 * @param {Api.ServiceStatus} it
 */
function plus(sum, it) {
  for (const name of /** @type {const} */ (["members", ...STAGES, "fenced"])) sum[name] += it[name];
  return sum;
}

/**
 * @param {number} done
 * @param {number} of
 */
function stageCell(done, of) {
  return h("div", { class: "stage-cell" }, [
    h("span", {}, digits(done), h("span", { class: "unseen" }, ` of ${digits(of)}`)),
    h("span", { class: "bar thin", "aria-hidden": "true" }, bar(done, of)),
  ]);
}
