// What surrounds every view: who leads, whether what is shown is live, theme, and what is said to screen readers.

import { h, render } from "./dom.js";
import { time } from "./times.js";
import { capitalised } from "./words.js";
import { notice } from "./parts.js";
import { askToSignIn, leave } from "./sign-in.js";

/** What all views know: the broadcaster's word about itself, and how the connection is. */
export const session = { about: null, link: { name: "connecting", since: null, error: null } };

const NAV = [
  ["overview", "#/", "Overview"],
  ["instances", "#/instances", "Who runs what"],
  ["audit", "#/audit", "Audit"],
];

const LINKS = {
  connecting: ["warn", "connecting"],
  live: ["good", "live"],
  stale: ["warn", "stale"],
  unreachable: ["bad", "unreachable"],
};

export function drawShell(place) {
  const { about } = session;
  const gated = about !== null && about.sign_in_needed && !about.signed_in;
  render(
    document.getElementById("top"),
    h("div", { class: "bar-top" }, [
      h("a", { class: "brand", href: "#/" }, [
        h("img", { src: "/assets/icon.svg", alt: "", width: 26, height: 26 }),
        h("span", {}, "Rotacast"),
        about?.cluster && h("span", { class: "cluster", "data-testid": "cluster", title: "cluster" }, about.cluster),
      ]),
      gated ? h("span", { class: "grow" }) : h("nav", { "aria-label": "Views" }, NAV.map(([name, href, text]) =>
        h("a", { href, "aria-current": name === place ? "page" : null }, text))),
      h("div", { class: "tools" }, [linkState(), themeButton(), account(gated)]),
    ]),
    about && !gated && facts(about),
  );
  render(document.getElementById("banner"), banners(gated));
  document.getElementById("main").classList.toggle("old", ["stale", "unreachable"].includes(session.link.name));
}

function linkState() {
  const [kind, text] = LINKS[session.link.name];
  return h("span", { class: `link-state ${kind}`, "data-testid": "link-state", "data-state": session.link.name }, text);
}

function facts(about) {
  return h("div", { class: "facts", "data-testid": "facts" }, [
    h("span", { "data-testid": "leader" }, about.leader
      ? [h("strong", {}, about.replica ?? "this broadcaster"), ` leads, epoch ${about.epoch ?? "unknown"}`]
      : about.leading
        ? [h("strong", {}, about.leading.replica), " leads, this is ", about.replica ?? "another one"]
        : "nobody leads"),
    h("span", {}, `store ${about.store}`),
    h("span", {}, `bus ${about.bus}`),
    h("span", {}, `version ${about.version}`),
  ]);
}

function themeButton() {
  const chosen = document.documentElement.dataset.theme ?? "system";
  const next = { system: "dark", dark: "light", light: "system" }[chosen];
  return h(
    "button",
    {
      type: "button",
      class: "quiet-button",
      "data-testid": "theme",
      title: `Theme: ${chosen}. Switch to ${next}.`,
      onclick: () => chooseTheme(next),
    },
    h("span", { class: `theme-mark ${chosen}`, "aria-hidden": "true" }),
    h("span", { class: "unseen" }, `Theme: ${chosen}. Switch to ${next}`),
  );
}

function chooseTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("rotacast-theme");
    else localStorage.setItem("rotacast-theme", theme);
  } catch {
    // Storage is switched off: it holds until the page is loaded again.
  }
  redraw();
}

function account(gated) {
  if (gated || !session.about) return null;
  const who = session.about.signed_in;
  if (!who) {
    return h("button", { key: "in", type: "button", "data-testid": "sign-in", onclick: () => askToSignIn() }, "Sign in");
  }
  return [
    h("span", { class: "who", "data-testid": "signed-in" }, who.name, !who.may_act && h("span", { class: "quiet" }, " (may look)")),
    h("button", { key: "out", type: "button", class: "quiet-button", "data-testid": "sign-out", onclick: leave }, "Sign out"),
  ];
}

function banners(gated) {
  const { about, link } = session;
  const shown = [];
  if (link.name === "unreachable" || link.name === "stale") shown.push(lostBanner(link));
  if (about && !gated && !about.leader && link.name !== "unreachable") shown.push(followerBanner(about));
  return shown;
}

function lostBanner(link) {
  const age = link.since ? ["What is shown is from ", time(link.since, "ago"), ". "] : ["Nothing could be shown yet. "];
  if (link.name === "stale") {
    return h("div", { key: "lost", "data-testid": "lost" },
      notice("warn", "No word from the broadcaster for more than 15 s.", h("p", {}, age, "It is tried again by itself.")));
  }
  const sentence = (text) => `${capitalised(text).replace(/\.$/, "")}. `;
  const { problem, fix, kind } = link.error ?? {};
  return h("div", { key: "lost", "data-testid": "lost" },
    notice("bad", link.error?.told || link.error?.status ? "The broadcaster cannot answer." : "The broadcaster cannot be reached.", h("p", {}, [
      problem && kind !== "unreachable" && sentence(problem),
      link.error?.told && fix && sentence(fix),
      age,
      "It is tried again by itself.",
    ])));
}

function followerBanner(about) {
  const text = "What is shown is what the store's records say. Instances and what is waited for are known to the leader only, and orders go to it.";
  const where = leaderAddress(about);
  return h("div", { key: "follower", "data-testid": "not-leader" }, notice(
    "calm",
    about.leading ? [`This broadcaster does not lead: ${about.leading.replica} does`, where && [", at ", where], "."]
      : "This broadcaster does not lead, and nobody is known to.",
    h("p", {}, text),
  ));
}

/** A link only if the address is one a browser can go to: other addresses are text. */
export function leaderAddress(about) {
  const address = about?.leading?.address;
  if (!address) return null;
  let url;
  try {
    url = new URL(address);
  } catch {
    return address;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return address;
  return h("a", { href: `${url.origin}/${location.hash}`, rel: "noreferrer" }, address);
}

/** Set by the entry: draws everything again. */
let redraw = () => {};

export function onRedraw(draw) {
  redraw = draw;
}

/** Says something to screen readers, without showing it, and only if it is news. */
export function say(text) {
  const said = document.getElementById("said");
  if (said.textContent !== text) said.textContent = text;
}

let toastTimer;

/** Says what was done, on the page and to screen readers. */
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    place.classList.remove("shown");
    place.textContent = "";
  }, 8_000);
}

/** Tells screen readers when the connection changes; the first connection is nothing to tell. */
export function tellLink(before) {
  const { name } = session.link;
  if (name === before || (before === "connecting" && name === "live")) return;
  say({ live: "Live again.", stale: "What is shown is stale.", unreachable: "The broadcaster cannot be reached." }[name] ?? "");
}

