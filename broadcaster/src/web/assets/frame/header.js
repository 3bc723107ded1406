// What surrounds every view: which broadcaster leads, whether what is shown is live, theme and sign-in.

import { h, render } from "../elements/dom.js";
import { time } from "../elements/times.js";
import { notice } from "../elements/notice.js";
import { sentence } from "../words/numbers.js";
import { changed, isLost, session, signInNeeded } from "../broadcaster/session.js";
import { part, say } from "./announce.js";
import { askToSignIn, leave } from "./sign-in.js";
import { leaderAddress } from "./leader.js";

/** @type {readonly (readonly [string, string, string])[]} */
const NAV = [
  ["overview", "#/", "Overview"],
  ["instances", "#/instances", "Who runs what"],
  ["audit", "#/audit", "Audit"],
];

const LINK_KINDS = { connecting: "warn", live: "good", stale: "warn", unreachable: "bad" };

/** @param {string} place which view is shown */
export function drawHeader(place) {
  const { about } = session;
  const gated = signInNeeded();
  render(
    part("top"),
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
  render(part("banner"), banners(gated));
  part("main").classList.toggle("old", isLost());
}

function linkState() {
  const { name } = session.link;
  return h("span", { class: `link-state ${LINK_KINDS[name]}`, "data-testid": "link-state", "data-state": name }, name);
}

/** @param {Api.AboutView} about */
function facts(about) {
  return h("div", { class: "facts", "data-testid": "facts" }, [
    h("span", { "data-testid": "leader" }, about.leader
      ? [h("strong", {}, about.replica ?? "this broadcaster"), ` leads, epoch ${about.epoch ?? "unknown"}`]
      : about.leading
        ? [h("strong", {}, about.leading.replica), " leads, this is ", about.replica ?? "another one"]
        : "no broadcaster leads"),
    h("span", {}, `store ${about.store}`),
    h("span", {}, `bus ${about.bus}`),
    h("span", {}, `version ${about.version}`),
  ]);
}

/** @typedef {"system" | "dark" | "light"} Theme */

function themeButton() {
  const chosen = /** @type {Theme} */ (document.documentElement.dataset.theme ?? "system");
  const next = /** @type {Record<Theme, Theme>} */ ({ system: "dark", dark: "light", light: "system" })[chosen];
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

/** @param {Theme} theme */
function chooseTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("rotacast-theme");
    else localStorage.setItem("rotacast-theme", theme);
  } catch {
    // Storage is switched off: it holds until the page is loaded again.
  }
  changed();
}

/** @param {boolean} gated */
function account(gated) {
  if (gated || !session.about) return null;
  const person = session.about.signed_in;
  if (!person) {
    return h("button", { key: "in", type: "button", "data-testid": "sign-in", onclick: () => askToSignIn() }, "Sign in");
  }
  return [
    h("span", { class: "who", "data-testid": "signed-in" }, person.name, !person.may_act && h("span", { class: "quiet" }, " (may look)")),
    h("button", { key: "out", type: "button", class: "quiet-button", "data-testid": "sign-out", onclick: leave }, "Sign out"),
  ];
}

/** @param {boolean} gated */
function banners(gated) {
  const { about, link } = session;
  return [
    isLost() && lostBanner(link),
    about && !gated && !about.leader && link.name !== "unreachable" && followerBanner(about),
  ];
}

/** @param {import("../broadcaster/session.js").Link} link */
function lostBanner(link) {
  const age = link.since ? ["What is shown is from ", time(link.since, "ago"), ". "] : ["Nothing could be shown yet. "];
  const again = "The page tries again by itself.";
  if (link.name === "stale") {
    return h("div", { key: "lost", "data-testid": "lost" },
      notice("warn", "The broadcaster has sent nothing for more than 15 s.", h("p", {}, age, again)));
  }
  const { error } = link;
  const answered = error !== null && (error.told || error.status !== 0);
  return h("div", { key: "lost", "data-testid": "lost" },
    notice("bad", answered ? "The broadcaster cannot answer." : "The broadcaster cannot be reached.", h("p", {}, [
      error && error.kind !== "unreachable" && `${sentence(error.problem)} `,
      error?.told && error.fix && `${sentence(error.fix)} `,
      age,
      again,
    ])));
}

/** @param {Api.AboutView} about */
function followerBanner(about) {
  const where = leaderAddress(about);
  return h("div", { key: "follower", "data-testid": "not-leader" }, notice(
    "calm",
    about.leading ? [`This broadcaster does not lead: ${about.leading.replica} does`, where && [", at ", where], "."]
      : "This broadcaster does not lead, and it knows of no other that does.",
    h("p", {}, "This page shows what the store's records say. Only the leader knows the instances and what a rotation waits for, and only the leader takes orders."),
  ));
}

/**
 * Tells screen readers when the connection changes; the first connection is nothing to tell.
 * @param {import("../broadcaster/session.js").Link["name"]} before
 */
export function tellLink(before) {
  const { name } = session.link;
  if (name === before || (before === "connecting" && name === "live")) return;
  say({ connecting: "", live: "Live again.", stale: "What is shown is stale.", unreachable: "The broadcaster cannot be reached." }[name]);
}
