// One secret: its rotation, what it waits for, and what an operator can do.

import { h } from "../elements/dom.js";
import { OVERLAY_KINDS, overlayPill, pill } from "../elements/badge.js";
import { findingsList } from "../elements/findings.js";
import { link } from "../elements/link.js";
import { notice, problem } from "../elements/notice.js";
import { time } from "../elements/times.js";
import { instanceName, parseInstance } from "../words/instance.js";
import { count, sentence } from "../words/numbers.js";
import { direction, target } from "../words/rotation.js";
import { OVERLAY, PHASE } from "../words/vocabulary.js";
import { readInstances } from "../broadcaster/api.js";
import { changed } from "../broadcaster/session.js";
import { say } from "../frame/announce.js";
import { orders } from "../orders/panel.js";
import { guards } from "./guard.js";
import { history } from "./history.js";
import { known } from "./page.js";
import { services } from "./services.js";
import { timeline } from "./timeline.js";
import { versions } from "./versions.js";
import { waits } from "./blockers.js";

// Details of the instances that are waited for are asked for at most that often.
const DETAILS_MS = 5_000;

/**
 * @param {URLSearchParams} parameters
 * @returns {import("../app.js").View}
 */
export function secret(parameters) {
  const name = parameters.get("secret") ?? "";
  /** Null: nothing has come yet. @type {import("./page.js").Page | null} */
  let page = null;
  /** @type {import("../broadcaster/api.js").Problem | null} */
  let refused = null;
  let asked = 0;
  /** @type {string | null} */
  let told = null;
  const gone = new AbortController();

  /**
   * What the broadcaster knows of the instances that are waited for.
   * @param {import("./page.js").Page} page
   */
  async function askForDetails(page) {
    const { status } = page;
    const waiting = status.blockers.some((it) => parseInstance(it.who));
    if (!waiting || status.record_read_at || Date.now() - asked < DETAILS_MS) return;
    asked = Date.now();
    try {
      const answer = await readInstances({ secret: name, not_on: target(status), limit: 500 }, gone.signal);
      page.instances = new Map(known(answer).map((it) => [instanceName(it), it]));
      changed();
    } catch {
      // Details are a help; the blockers themselves say what matters.
    }
  }

  /** @param {Api.SecretStatus} status */
  function take(status) {
    if (page) page.status = status;
    else page = { status, instances: new Map(), open: new Set() };
    refused = null;
    askForDetails(page);
    tell(status);
    changed();
  }

  /**
   * Screen readers hear of a new phase or overlay, and not of every instance that goes on.
   * @param {Api.SecretStatus} status
   */
  function tell(status) {
    const phase = status.rotation ? PHASE[status.rotation.phase].words : "idle";
    const news = [phase, ...status.overlays.map((it) => OVERLAY[it].words)].join(", ");
    if (told !== null && news !== told) {
      const waiting = status.blockers.length > 0 ? `, waiting for ${count(status.blockers.length, "thing")}` : "";
      say(`${name}: ${news}${waiting}.`);
    }
    told = news;
  }

  function draw() {
    const head = h("p", { class: "crumb" }, h("a", { href: "#/" }, "← All secrets"));
    if (!page) {
      return [head, h("h1", { class: "name" }, name), refused ? problem(refused) : h("p", { class: "quiet" }, "Loading …")];
    }
    const { status } = page;
    return [
      head,
      heading(status),
      h("div", { class: "columns" }, [
        h("div", { class: "lead-column" }, [
          status.overlays.map((it) => overlayNotice(status, it)),
          status.findings.length > 0 && h("section", { class: "panel", "aria-labelledby": "findings-title", "data-testid": "findings" }, [
            h("h2", { id: "findings-title" }, count(status.findings.length, "finding")),
            findingsList(status.findings),
          ]),
          h("section", { class: "panel", "aria-labelledby": "rotation-title" }, [
            h("h2", { id: "rotation-title" }, status.rotation ? `Rotation ${status.rotation.number}` : "Rotation"),
            standing(status),
            timeline(status),
          ]),
        ]),
        h("aside", { class: "side", "aria-label": "Orders and more" }, [
          orders(page),
          h("ul", { class: "links" }, [
            h("li", {}, h("a", { href: link("instances", { secret: name }) }, "Who runs it")),
            h("li", {}, h("a", { href: link("audit", { secret: name }) }, "Its audit log")),
          ]),
        ]),
        h("div", { class: "main-column" }, [waits(page), services(status), guards(status), versions(status), history(status)]),
      ]),
    ];
  }

  return {
    place: "overview",
    title: () => name,
    stream: {
      path: `/api/secret/events?secret=${encodeURIComponent(name)}`,
      events: { secret: take },
    },
    draw,
    notFound: (error) => {
      page = null;
      refused = error;
    },
    close: () => gone.abort(),
  };
}

/** @param {Api.SecretStatus} status */
function heading(status) {
  const current = status.versions.find((it) => it.version === status.current);
  return h("div", { class: "heading" }, [
    h("h1", { class: "name" }, status.secret),
    h("div", { class: "pills", "data-testid": "secret-state" }, [
      status.rotation ? pill("busy", PHASE[status.rotation.phase].words) : pill("calm", "idle"),
      status.overlays.map(overlayPill),
    ]),
    h("p", { class: "quiet facts-line" }, [
      h("span", {}, status.current === null ? "no current version" : ["current version ", h("strong", {}, status.current)]),
      current?.seen_at && h("span", {}, time(current.seen_at, "age"), " old"),
      h("span", {}, `provider ${status.provider}`),
      status.next_rotation_at && h("span", {}, "next rotation ", time(status.next_rotation_at, "when")),
    ]),
    status.record_read_at && h("p", { class: "quiet" }, "From the store's record, read ", time(status.record_read_at),
      ". Only the leader knows the instances and what the secret waits for."),
  ]);
}

/**
 * @param {Api.SecretStatus} status
 * @param {Api.Overlay} overlay
 */
function overlayNotice(status, overlay) {
  const { words, meaning } = OVERLAY[overlay];
  const condition = overlay === "paused" ? "not_paused" : overlay === "safe_mode" ? "not_in_safe_mode" : null;
  const blocker = status.blockers.find((it) => it.condition === condition);
  return h("div", { key: `overlay-${overlay}`, "data-testid": `overlay-${overlay}` }, notice(
    OVERLAY_KINDS[overlay] === "bad" ? "bad" : "warn",
    sentence(words),
    h("p", {}, [blocker && cause(blocker), meaning]),
  ));
}

/**
 * The heading says already what it is.
 * @param {Api.BlockerStatus} blocker
 */
function cause(blocker) {
  const why = blocker.why.replace(/^(paused|safe mode): /, "");
  return blocker.who ? `By ${blocker.who}: ${why.replace(/\.$/, "")}. ` : `${sentence(why)} `;
}

/**
 * Where it stands, in a sentence, as `rotacast why` says it.
 * @param {Api.SecretStatus} status
 */
function standing(status) {
  const { rotation } = status;
  if (!rotation) {
    return h("p", { class: "sentence", "data-testid": "sentence" }, status.current === null
      ? "No rotation is in flight, and no version is current."
      : `No rotation is in flight; version ${status.current} is current.`);
  }
  return h("p", { class: "sentence", "data-testid": "sentence" }, [
    `${direction(rotation)}, asked for by ${rotation.trigger}: ${PHASE[rotation.phase].words} since `,
    time(rotation.phase_since),
    ".",
    rotation.rollback_reason && ` Rolled back because: ${sentence(rotation.rollback_reason)}`,
  ]);
}
