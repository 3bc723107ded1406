// The phases of a rotation: those behind it with their times, the one it is in, and those to come.

import { h } from "../elements/dom.js";
import { moment, now, span, time } from "../elements/times.js";
import { capitalised } from "../words/numbers.js";
import { OUTCOME, PHASE } from "../words/vocabulary.js";

/**
 * @typedef {object} Step a phase, or the end of the rotation
 * @property {"done" | "now" | "ahead"} state
 * @property {Api.Phase} [phase]
 * @property {string} [end]
 * @property {Api.Moment | null} [since]
 * @property {Api.Moment | null} [until]
 */

/** @type {Api.Phase[]} */
const WAY = ["verifying", "preparing", "activating", "draining", "retiring"];
/** A first version replaces nothing: no instance prepares, and nothing is retired. @type {Api.Phase[]} */
const FIRST_WAY = ["verifying", "activating"];

/**
 * Of the rotation in flight, or of the last one.
 * @param {Api.SecretStatus} status
 */
export function timeline(status) {
  if (status.rotation) return list(inFlight(status.rotation), "Phases of the rotation");
  const last = status.history[0];
  if (!last || last.phases.length === 0) return null;
  return [h("h3", {}, `The last one: rotation ${last.number}`), list(over(last), "Phases of the last rotation")];
}

/**
 * @param {Api.RotationStatus} rotation
 * @returns {Step[]}
 */
export function inFlight(rotation) {
  const entered = rotation.phases.length > 0 ? rotation.phases : [{ phase: rotation.phase, since: rotation.phase_since }];
  /** @type {Step[]} */
  const steps = entered.map((it, at) => ({
    phase: it.phase,
    since: it.since,
    until: entered[at + 1]?.since ?? null,
    state: at === entered.length - 1 ? "now" : "done",
  }));
  const way = rotation.old === null ? FIRST_WAY : WAY;
  const at = way.indexOf(rotation.phase);
  const ahead = rotation.phase === "rolling_back" || at < 0 ? [] : way.slice(at + 1);
  /** @type {Step[]} */
  const coming = [...ahead.map((phase) => ({ phase })), { end: goal(rotation) }].map((step) => ({ ...step, state: "ahead" }));
  return [...steps, ...coming];
}

/** @param {Api.RotationStatus} rotation */
function goal(rotation) {
  if (rotation.phase === "rolling_back") return `version ${rotation.new} is rejected`;
  return rotation.old === null ? `version ${rotation.new} is current` : `version ${rotation.old} is retired`;
}

/**
 * @param {Api.FinishedStatus} last
 * @returns {Step[]}
 */
export function over(last) {
  /** @type {Step[]} */
  const steps = last.phases.map((it, at) => ({
    phase: it.phase,
    since: it.since,
    until: last.phases[at + 1]?.since ?? last.ended_at,
    state: "done",
  }));
  steps.push({ end: OUTCOME[last.outcome].words, since: last.ended_at, state: "done" });
  return steps;
}

const MARKS = { done: "✓", now: "●", ahead: "○" };
const SAID = { done: "done: ", now: "now: ", ahead: "to come: " };

/**
 * @param {Step[]} steps
 * @param {string} label
 */
function list(steps, label) {
  return h("ol", { class: "timeline", "aria-label": label, "data-testid": "timeline" }, steps.map((step) =>
    h("li", {
      class: step.state,
      "aria-current": step.state === "now" ? "step" : null,
      "data-phase": step.phase ?? "end",
      "data-state": step.state,
    }, [
      h("span", { class: "mark", "aria-hidden": "true" }, MARKS[step.state]),
      h("div", { class: "step" }, [
        h("span", { class: "step-name" }, h("span", { class: "unseen" }, SAID[step.state]), capitalised(step.end ?? (step.phase ? PHASE[step.phase].words : ""))),
        h("span", { class: "step-time" }, duration(step)),
        step.state !== "done" && step.phase && h("span", { class: "quiet step-text" }, PHASE[step.phase].meaning),
      ]),
    ])));
}

/** @param {Step} step */
function duration(step) {
  if (!step.since) return null;
  if (step.state === "now") return ["for ", time(step.since, "age")];
  if (!step.until) return time(step.since);
  return h("time", { datetime: step.since, title: `from ${moment(Date.parse(step.since))}` }, took(step.since, Date.parse(step.until)));
}

/**
 * The record's moments are whole seconds.
 * @param {Api.Moment | null} since
 * @param {number} until
 */
function took(since, until) {
  const millis = until - Date.parse(since ?? "");
  if (Number.isNaN(millis)) return "not known";
  return millis < 1000 ? "under 1 s" : span(millis);
}

/**
 * How long each phase took, in one line.
 * @param {Api.PhaseStatus[]} phases
 * @param {Api.Moment | null} ended
 */
export function durations(phases, ended) {
  return phases.map((it, at) => {
    const until = Date.parse(phases[at + 1]?.since ?? ended ?? "") || now();
    return `${PHASE[it.phase].words} ${took(it.since, until)}`;
  }).join(" · ");
}
