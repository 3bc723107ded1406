// The entry: which view is shown, its stream, and when things are drawn.

import { h, render } from "./elements/dom.js";
import { refreshAll, setClock } from "./elements/times.js";
import { Problem, readAbout } from "./broadcaster/api.js";
import { changed, onRedraw, session, signInNeeded } from "./broadcaster/session.js";
import { SILENCE_MS, Stream } from "./broadcaster/stream.js";
import { part } from "./frame/announce.js";
import { drawHeader, tellLink } from "./frame/header.js";
import { gate, onAccount } from "./frame/sign-in.js";
import { overview } from "./overview/overview.js";
import { secret } from "./secret/secret.js";
import { whoRunsWhat } from "./instances/instances.js";
import { audit } from "./audit/audit.js";

/**
 * What fills the page.
 * @typedef {object} View
 * @property {string} place its name in the navigation
 * @property {() => string} title
 * @property {() => import("./elements/dom.js").Child} draw
 * @property {{ path: string, events: Record<string, (data: any) => void> }} [stream]
 * @property {(error: Problem) => void} [notFound]
 * @property {() => void} [signedIn]
 * @property {() => void} [close]
 */

// Views without a stream ask that often, which is as often as a stream would say it.
const ABOUT_MS = 5_000;
const main = part("main");

/** @type {View} */
let view = nowhere();
/** @type {Stream | null} */
let stream = null;
/** @type {ReturnType<typeof setInterval> | undefined} */
let poll;
/** The page before a sign-in; null: not needed. @type {ReturnType<typeof gate> | null} */
let gated = null;
let pending = false;
/** @type {string | null} */
let shownPath = null;
let viewNumber = 0;

/** Draws once per frame, however much has changed. */
function soon() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    draw();
  });
}

function draw() {
  const needs = signInNeeded();
  if (needs && !gated) {
    gated = gate(changed);
    // The broadcaster answers, though not without a sign-in.
    session.link = { name: "live", since: Date.now(), error: null };
    connect();
    // Nothing that was shown before the sign-out stays on the page.
    document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  } else if (!needs && gated) {
    gated = null;
    connect();
  }
  drawHeader(view.place);
  document.title = `${gated ? "Sign in" : view.title()} · ${session.about?.cluster ?? "Rotacast"}`;
  // Keyed, so that no view finds fields of another with something typed into them.
  render(main, h("div", { class: "view", key: gated ? "gate" : viewNumber }, gated ? gated() : view.draw()));
}

/** @param {Api.AboutView} about */
function takeAbout(about) {
  session.about = about;
  setClock(about.now);
  changed();
}

/** @param {import("./broadcaster/session.js").Link} link */
function takeLink(link) {
  if (link.error?.kind === "not_found") {
    // The broadcaster is well: what is shown does not exist, and the view says so.
    view.notFound?.(link.error);
    link = { name: "live", since: Date.now(), error: null };
  }
  const before = session.link.name;
  session.link = link;
  tellLink(before);
  changed();
}

function disconnect() {
  stream?.close();
  stream = null;
  clearInterval(poll);
  poll = undefined;
}

function connect() {
  disconnect();
  if (view.stream && !gated) stream = new Stream(view.stream.path, { about: takeAbout, ...view.stream.events }, takeLink);
  else {
    poll = setInterval(() => {
      if (document.hidden) return;
      if (session.link.name === "live" && Date.now() - (session.link.since ?? 0) > SILENCE_MS) {
        takeLink({ ...session.link, name: "stale" });
      }
      askAbout();
    }, ABOUT_MS);
    askAbout();
  }
}

async function askAbout() {
  const asked = poll;
  try {
    const about = await readAbout();
    takeAbout(about);
    // A stream has taken over meanwhile.
    if (poll !== asked) return;
    takeLink({ name: "live", since: Date.now(), error: null });
  } catch (caught) {
    if (poll === asked) takeLink({ name: "unreachable", since: session.link.since, error: Problem.of(caught) });
  }
}

/** @returns {[string, (parameters: URLSearchParams) => View, URLSearchParams]} */
function parse() {
  const [path = "", query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const parameters = new URLSearchParams(query ?? "");
  const [first, ...rest] = path.split("/");
  if (first === "") return [path, overview, parameters];
  if (first === "secret" && rest.length > 0) {
    try {
      parameters.set("secret", rest.map(decodeURIComponent).join("/"));
      return [path, secret, parameters];
    } catch {
      // A hand-made address that is not encoded as it should be.
    }
  }
  if (first === "instances") return [path, whoRunsWhat, parameters];
  if (first === "audit") return [path, audit, parameters];
  return [path, nowhere, parameters];
}

/** @returns {View} */
function nowhere() {
  return {
    place: "",
    title: () => "Not found",
    draw: () => [h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "To all secrets"))],
  };
}

function go() {
  const [path, make, parameters] = parse();
  const moved = shownPath !== null && path !== shownPath;
  shownPath = path;
  view?.close?.();
  viewNumber += 1;
  view = make(parameters);
  connect();
  draw();
  if (moved) {
    // As a page load would: from the top, and screen readers at its beginning.
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

async function accountChanged() {
  takeAbout(await readAbout());
  draw();
  // A stream keeps the rights that it was opened with: it is opened again with those of now.
  connect();
  view.signedIn?.();
}

addEventListener("hashchange", go);
// A page brought back by the browser's history has lost its stream.
addEventListener("pageshow", (event) => event.persisted && connect());
part("skip").addEventListener("click", (event) => {
  // The hash is the route, so the link cannot do it.
  event.preventDefault();
  main.focus();
});
addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  const target = event.target;
  if (!(search instanceof HTMLInputElement) || !(target instanceof Element) || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = target.matches("input, textarea, select") || document.querySelector("dialog[open]");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && target === search && search.value !== "") {
    event.preventDefault();
    search.value = "";
    search.dispatchEvent(new Event("input", { bubbles: true }));
  }
});
onRedraw(soon);
onAccount(accountChanged);
setInterval(refreshAll, 1_000);
// A wait becomes urgent with time alone.
setInterval(changed, 10_000);
go();
