// The versions of a secret that its record knows.

import { h } from "../elements/dom.js";
import { pill } from "../elements/badge.js";
import { none, row, table } from "../elements/table.js";
import { time } from "../elements/times.js";
import { LABEL } from "../words/vocabulary.js";

/** @type {Record<Api.Label, import("../elements/badge.js").Kind>} */
const LABEL_KINDS = { current: "good", pending: "busy", previous: "warn", retired: "calm", unproven: "warn", rejected: "bad" };

const VERSION_COLUMNS = [{ name: "Version" }, { name: "Label" }, { name: "Sealed" }, { name: "First seen" }];

/** @param {Api.SecretStatus} status */
export function versions(status) {
  if (status.versions.length === 0) return null;
  return h("section", { class: "panel", "aria-labelledby": "versions-title" }, [
    h("h2", { id: "versions-title" }, "Versions"),
    table({
      caption: "Versions",
      columns: VERSION_COLUMNS,
      testid: "versions",
      rows: [...status.versions].sort((a, b) => b.version - a.version).map((it) => row(VERSION_COLUMNS, [
        it.version,
        pill(LABEL_KINDS[it.label], LABEL[it.label].words, LABEL[it.label].meaning),
        it.sealed ? "sealed" : none("not sealed"),
        time(it.seen_at),
      ], { key: it.version })),
    }),
  ]);
}
