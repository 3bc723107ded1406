// The rotations that have ended, newest first.

import { h } from "../elements/dom.js";
import { pill } from "../elements/badge.js";
import { none, row, table } from "../elements/table.js";
import { span, time } from "../elements/times.js";
import { sentence } from "../words/numbers.js";
import { direction, ending } from "../words/rotation.js";
import { OUTCOME } from "../words/vocabulary.js";
import { durations } from "./timeline.js";

/** @type {Record<Api.Outcome, import("../elements/badge.js").Kind>} */
const OUTCOME_KINDS = { retired: "good", rolled_back: "bad", superseded: "calm" };

const HISTORY_COLUMNS = [
  { name: "Rotation" },
  { name: "Versions" },
  { name: "Outcome", class: "wide" },
  { name: "Took" },
  { name: "Ended" },
];

/** @param {Api.SecretStatus} status */
export function history(status) {
  return h("section", { class: "panel", "aria-labelledby": "history-title" }, [
    h("h2", { id: "history-title" }, "History"),
    status.history.length === 0
      ? h("p", { class: "quiet" }, "No rotation has ended yet.")
      : table({
        caption: "Ended rotations, newest first",
        columns: HISTORY_COLUMNS,
        testid: "history",
        rows: status.history.map((it) => row(HISTORY_COLUMNS, [
          it.number,
          direction(it),
          [
            pill(OUTCOME_KINDS[it.outcome], OUTCOME[it.outcome].words, OUTCOME[it.outcome].meaning),
            h("div", { class: "quiet" }, sentence(ending(it))),
            it.phases.length > 0 && h("div", { class: "quiet" }, durations(it.phases, it.ended_at)),
          ],
          it.took_ms === null ? none("not known") : span(it.took_ms),
          time(it.ended_at),
        ], { key: it.number })),
      }),
  ]);
}
