// One secret: its rotation, what it waits for, and what an operator can do.

import { h } from "./dom.js";
import { read } from "./api.js";
import { time } from "./times.js";
import { capitalised, count, direction, overlay, parseLife, words } from "./words.js";
import { link, notice, overlayPill, pill, problem } from "./parts.js";
import { say } from "./shell.js";
import { timeline } from "./timeline.js";
import { guards, services, waits } from "./waits.js";
import { history, versions } from "./records.js";
import { actions } from "./actions.js";

// Details of who is waited for are asked for at most that often.
const DETAILS_MS = 5_000;

export function secret(parameters, changed) {
  const name = parameters.get("secret");
  const page = { status: null, refused: null, lives: new Map(), open: new Set(), changed };
  let asked = 0;
  let told = null;
  const gone = new AbortController();

  /** What the broadcaster knows of those who are waited for: by their names in blockers. */
  async function askForDetails() {
    const { status } = page;
    const waiting = status.blockers.some((it) => parseLife(it.who));
    if (!waiting || status.record_read_at || Date.now() - asked < DETAILS_MS) return;
    asked = Date.now();
    try {
      const target = status.rotation?.phase === "rolling_back" ? status.current : status.rotation?.new ?? status.current;
      const found = await read("/api/instances", { secret: name, not_on: target, limit: 500 }, gone.signal);
      const taken = Date.parse(found.taken_at);
      page.lives = new Map(found.instances.map((it) =>
        [`${it.service}/${it.instance}#${it.incarnation.slice(0, 8)}`, { ...it, taken }]));
      changed();
    } catch {
      // Details are a help; the blockers themselves say what matters.
    }
  }

  function take(status) {
    page.status = status;
    page.refused = null;
    askForDetails();
    tell(status);
    changed();
  }

  /** Screen readers hear of a new phase or overlay, and not of every instance that goes on. */
  function tell(status) {
    const news = [status.rotation?.phase ?? "idle", ...status.overlays].map(words).join(", ");
    if (told !== null && news !== told) {
      const waiting = status.blockers.length > 0 ? `, waits for ${count(status.blockers.length, "thing")}` : "";
      say(`${name}: ${news}${waiting}.`);
    }
    told = news;
  }

  function draw() {
    const { status } = page;
    const head = h("p", { class: "crumb" }, h("a", { href: "#/" }, "← All secrets"));
    if (!status) {
      return [head, h("h1", { class: "name" }, name), page.refused ? problem(page.refused) : h("p", { class: "quiet" }, "Loading …")];
    }
    return [
      head,
      heading(status),
      h("div", { class: "columns" }, [
        h("div", { class: "lead-column" }, [
          status.overlays.map((it) => overlayNotice(status, it)),
          h("section", { class: "panel", "aria-labelledby": "rotation-title" }, [
            h("h2", { id: "rotation-title" }, status.rotation ? `Rotation ${status.rotation.generation}` : "Rotation"),
            sentence(status),
            timeline(status),
          ]),
        ]),
        h("aside", { class: "side", "aria-label": "Actions and more" }, [
          actions(page),
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
      page.status = null;
      page.refused = error;
    },
    close: () => gone.abort(),
  };
}

function heading(status) {
  const current = status.versions.find((it) => it.version === status.current);
  return h("div", { class: "heading" }, [
    h("h1", { class: "name" }, status.secret),
    h("div", { class: "pills", "data-testid": "secret-state" }, [
      status.rotation ? pill("busy", words(status.rotation.phase)) : pill("calm", "idle"),
      status.overlays.map(overlayPill),
    ]),
    h("p", { class: "quiet facts-line" }, [
      h("span", {}, status.current === null ? "no current version" : ["current version ", h("strong", {}, status.current)]),
      current?.seen_at && h("span", {}, time(current.seen_at, "age"), " old"),
      h("span", {}, `provider ${status.provider}`),
      status.next_rotation_at && h("span", {}, "next rotation ", time(status.next_rotation_at, "when")),
    ]),
    status.record_read_at && h("p", { class: "quiet" }, "From the store's record, read ", time(status.record_read_at),
      "; instances and what is waited for are known to the leader only."),
  ]);
}

function overlayNotice(status, name) {
  const [title, text] = overlay(name);
  const condition = { paused: "not_paused", safe_mode: "not_in_safe_mode" }[name];
  const blocker = status.blockers.find((it) => it.condition === condition);
  return h("div", { key: `overlay-${name}`, "data-testid": `overlay-${name}` }, notice(
    name === "stuck" || name === "safe_mode" ? "bad" : "warn",
    `${title}.`,
    h("p", {}, [
      blocker && cause(blocker),
      text,
    ]),
  ));
}

/** The heading says already what it is. */
function cause(blocker) {
  const why = blocker.why.replace(/^(paused|safe mode): /, "").replace(/\.$/, "");
  return blocker.who ? `By ${blocker.who}: ${why}. ` : `${capitalised(why)}. `;
}

/** Where it stands, in a sentence, as `rotacast why` says it. */
function sentence(status) {
  const { rotation } = status;
  if (!rotation) {
    return h("p", { class: "sentence", "data-testid": "sentence" }, status.current === null
      ? "No rotation is in flight, and no version is current."
      : `No rotation is in flight; version ${status.current} is current.`);
  }
  return h("p", { class: "sentence", "data-testid": "sentence" }, [
    `${direction(rotation)}, asked for by ${rotation.trigger}: ${words(rotation.phase)} since `,
    time(rotation.phase_since),
    ".",
    rotation.rollback_reason && ` It goes back because: ${rotation.rollback_reason.replace(/\.$/, "")}.`,
  ]);
}
