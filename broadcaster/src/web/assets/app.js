// The entry: which view is shown, its stream, and when things are drawn.

import { h, render } from "./dom.js";
import { read } from "./api.js";
import { SILENCE_MS, Stream } from "./stream.js";
import { refreshAll, setClock } from "./times.js";
import { drawShell, onRedraw, session, tellLink } from "./shell.js";
import { gate, onAccount } from "./sign-in.js";
import { overview } from "./overview.js";
import { secret } from "./secret.js";
import { whoRunsWhat } from "./instances.js";
import { audit } from "./audit.js";

// Views without a stream ask that often, which is as often as a stream would say it.
const ABOUT_MS = 5_000;
const main = document.getElementById("main");

let view = null;
let stream = null;
let poll = null;
let gated = null;
let pending = false;
let shownPath = null;
let viewNumber = 0;

/** Draws once per frame, however much has changed. */
function changed() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    draw();
  });
}

function draw() {
  const needs = session.about !== null && session.about.sign_in_needed && !session.about.signed_in;
  if (needs && !gated) {
    gated = gate(changed);
    // It answers, though not a stranger.
    session.link = { name: "live", since: Date.now(), error: null };
    connect();
    // Nothing that was shown to whoever signed out stays on the page.
    document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  } else if (!needs && gated) {
    gated = null;
    connect();
  }
  drawShell(view.place);
  document.title = `${gated ? "Sign in" : view.title()} · ${session.about?.cluster ?? "Rotacast"}`;
  // Keyed, so that no view finds fields of another with something typed into them.
  render(main, h("div", { class: "view", key: gated ? "gate" : viewNumber }, gated ? gated() : view.draw()));
}

function takeAbout(about) {
  session.about = about;
  setClock(about.now);
  changed();
}

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
  poll = null;
}

function connect() {
  disconnect();
  if (view.stream && !gated) stream = new Stream(view.stream.path, { about: takeAbout, ...view.stream.events }, takeLink);
  else {
    poll = setInterval(() => {
      if (document.hidden) return;
      if (session.link.name === "live" && Date.now() - session.link.since > SILENCE_MS) {
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
    const about = await read("/api/about");
    takeAbout(about);
    // A stream has taken over meanwhile.
    if (poll !== asked) return;
    takeLink({ name: "live", since: Date.now(), error: null });
  } catch (error) {
    if (poll === asked) takeLink({ name: "unreachable", since: session.link.since, error });
  }
}

function parse() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
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
  view = make(parameters, changed);
  connect();
  draw();
  if (moved) {
    // As a page load would: from the top, and screen readers at its beginning.
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

async function accountChanged() {
  takeAbout(await read("/api/about"));
  draw();
  // A stream speaks to whoever opened it: to a stranger still, or to somebody who has left.
  connect();
  view.signedIn?.();
}

addEventListener("hashchange", go);
// A page brought back by the browser's history has lost its stream.
addEventListener("pageshow", (event) => event.persisted && connect());
document.getElementById("skip").addEventListener("click", (event) => {
  // The hash is the route, so the link cannot do it.
  event.preventDefault();
  main.focus();
});
addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  if (!search || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input, textarea, select") || document.querySelector("dialog[open]");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && event.target === search && search.value !== "") {
    event.preventDefault();
    search.value = "";
    search.dispatchEvent(new Event("input", { bubbles: true }));
  }
});
onRedraw(changed);
onAccount(accountChanged);
setInterval(refreshAll, 1_000);
// What is urgent because it lasts becomes so without anything being told.
setInterval(changed, 10_000);
go();
