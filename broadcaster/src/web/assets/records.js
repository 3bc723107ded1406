// What a secret's record says of the past: versions and ended rotations.

import { h } from "./dom.js";
import { capitalised, direction, ending, words } from "./words.js";
import { span, time } from "./times.js";
import { none, pill, row, table } from "./parts.js";
import { durations } from "./timeline.js";

const LABEL_KINDS = { current: "good", pending: "busy", previous: "warn", rejected: "bad" };

const VERSION_COLUMNS = [{ name: "Version" }, { name: "Label" }, { name: "Sealed" }, { name: "First seen" }];

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
        pill(LABEL_KINDS[it.label] ?? "calm", it.label),
        it.sealed ? "sealed" : none("not sealed"),
        time(it.seen_at),
      ], { key: it.version })),
    }),
  ]);
}

const HISTORY_COLUMNS = [
  { name: "Rotation" },
  { name: "Versions" },
  { name: "Outcome", class: "wide" },
  { name: "Took" },
  { name: "Ended" },
];

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
          it.generation,
          direction(it),
          [
            pill(it.outcome === "retired" ? "good" : it.outcome === "rolled_back" ? "bad" : "calm", words(it.outcome)),
            h("div", { class: "quiet" }, capitalised(ending(it)), "."),
            it.phases.length > 0 && h("div", { class: "quiet" }, durations(it.phases, it.ended_at)),
          ],
          it.took_ms === null ? none("not known") : span(it.took_ms),
          time(it.ended_at),
        ], { key: it.generation })),
      }),
  ]);
}
