// What the protocol's words are called for people: the same words as on the command line.

/** `rolling_back` as people write it. */
export function words(word) {
  return String(word).replaceAll("_", " ");
}

/** `1 warning`, `2 warnings`, `10,000 warnings`. */
export function count(number, noun, plural = `${noun}s`) {
  return `${digits(number)} ${number === 1 ? noun : plural}`;
}

/** `10,000`. */
export function digits(number) {
  return number.toLocaleString("en-GB");
}

/** `1 → 2`, or `first version 1`. */
export function direction(rotation) {
  return rotation.old === null ? `first version ${rotation.new}` : `${rotation.old} → ${rotation.new}`;
}

export function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const SHORT = {
  created: "the new credential",
  verified: "the test login",
  somebody: "a live instance",
  not_paused: "the pause to end",
  not_in_safe_mode: "safe mode to end",
  retired: "the retire's own steps",
  start: "its rotation to start",
  staying: "a version to go to",
  usage_evidence: "the provider's sessions to end",
  audited: "the audit entry",
};

/** A condition in a few words, after "waits for". */
export function condition(name) {
  return SHORT[name] ?? words(name);
}

const MEANING = {
  created: "the new credential is made",
  roster_read: "the new leader has read who exists",
  verified: "the new credential passes its test login",
  prepared: "every instance has loaded the new version",
  switched: "every instance uses the new version for new work",
  approval: "an operator approves the activation",
  not_paused: "nobody has paused it",
  not_in_safe_mode: "the store is known to be what it was",
  staying: "a version is current that instances may go to",
  somebody: "at least one live instance takes part",
  required_services: "every required service has its minimum of live instances on the version",
  leads: "this broadcaster surely leads",
  phase: "the rotation is at the point where the old version may go",
  overlap_over: "old and new have been valid together for the minimum overlap",
  inherited_leases_over: "leases that an earlier leader granted are over",
  members_released: "every instance has let go of the old version",
  somebody_confirmed: "at least one live instance has confirmed the new version",
  sealed: "nobody may begin to use the old version",
  self_leases_over: "uses allowed by a store read before the seal are over",
  barrier: "the roster has been read to its end after the seal",
  usage_evidence: "the provider shows no session of the old credential",
  audited: "the intent to retire is in the audit log",
  command: "a command to the outside succeeds",
  deadline: "the phase ends within its deadline",
  retired: "the old credential is disabled, destroyed and erased",
  start: "the rotation to a waiting version starts",
};

/** A condition as a sentence without its full stop; with the version that is to go, where it is known. */
export function meaning(name, version = null) {
  const text = MEANING[name] ?? words(name);
  if (version === null) return text;
  return text.replace("the old version", `version ${version}`).replace("the old credential", `the credential of version ${version}`);
}

/** What passes with time alone: nobody has to do anything about it. */
const BY_ITSELF = new Set(["overlap_over", "inherited_leases_over", "self_leases_over", "barrier", "roster_read"]);

export function passesByItself(name) {
  return BY_ITSELF.has(name);
}

export const PHASES = {
  verifying: "the new credential is made and tested",
  preparing: "instances load the new version and go on with the old one",
  activating: "instances use the new version for new work",
  draining: "instances let go of the old version",
  retiring: "the old credential is disabled, destroyed and erased",
  rolling_back: "instances go back, and let go of the new version",
};

const OVERLAYS = {
  paused: ["It is paused", "Nothing irreversible happens until an operator resumes."],
  awaiting_approval: ["It awaits an operator's approval", "The new version is not activated before."],
  stuck: ["It is stuck", "A deadline has passed, or a command keeps failing."],
  safe_mode: ["It is in safe mode", "The store is not what it was. Look at the store, then leave safe mode."],
  staying: [
    "Instances stay with what they serve",
    "Safe mode is over, and nobody is sent back to an older version: they wait for the version that comes next.",
  ],
};

/** Heading and explanation of an overlay. */
export function overlay(name) {
  return OVERLAYS[name] ?? [`It is marked ${words(name)}`, ""];
}

const STANDINGS = {
  registered: "not heard since this leader took over",
  live: "heard lately",
  silent: "not heard for longer than it should",
  fenced: "out of reach: its leases are over",
  left: "has left for good",
};

export function standing(name) {
  return STANDINGS[name] ?? words(name);
}

/** How a rotation ended, as a sentence without its full stop. */
export function ending(ended) {
  const reason = ended.reason ? `: ${ended.reason}` : "";
  if (ended.outcome === "retired") {
    return ended.old === null ? `version ${ended.new} is current` : `done, version ${ended.old} is retired${reason}`;
  }
  if (ended.outcome === "rolled_back") return `rolled back, version ${ended.new} is rejected${reason}`;
  return `${words(ended.outcome)}${reason}`;
}

/** `payments-api/pod-1#8a7b1aa3` in its parts; null: somebody else. */
export function parseLife(who) {
  const match = /^([^/]+)\/(.+)#([0-9a-f]{8})$/.exec(who ?? "");
  return match && { service: match[1], instance: match[2], life: match[3] };
}

/** An instance as blockers name it: with enough of its incarnation to tell lives apart. */
export function lifeName(instance) {
  return `${instance.service}/${instance.instance}#${instance.incarnation.slice(0, 8)}`;
}
