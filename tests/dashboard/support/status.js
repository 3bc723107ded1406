// Statuses as the broadcaster sends them.

/** @returns {Api.SecretStatus} */
export function status(changes = {}) {
  return {
    secret: "payments/db",
    provider: "postgres",
    revision: 7,
    generation: 2,
    current: 1,
    versions: [{ version: 1, label: "current", sealed: false, seen_at: "2026-11-30T04:00:00Z" }],
    rotation: null,
    services: [],
    overlays: [],
    blockers: [],
    guards: [],
    history: [],
    record_read_at: null,
    next_rotation_at: null,
    findings: [],
    ...changes,
  };
}

/**
 * @param {Partial<Api.RotationStatus>} changes
 * @returns {Api.RotationStatus}
 */
export function rotation(changes = {}) {
  return {
    number: 2,
    phase: "preparing",
    old: 1,
    new: 2,
    started_at: "2026-11-30T04:00:00Z",
    phase_since: "2026-11-30T04:00:10Z",
    trigger: "ada",
    rollback_reason: null,
    phases: [{ phase: "verifying", since: "2026-11-30T04:00:00Z" }, { phase: "preparing", since: "2026-11-30T04:00:10Z" }],
    ...changes,
  };
}

/**
 * @param {Api.Condition} condition
 * @param {Partial<Api.BlockerStatus>} changes
 * @returns {Api.BlockerStatus}
 */
export function blocker(condition, changes = {}) {
  return { condition, who: null, why: "it takes time", since: null, next: "the leader tries again", command: null, ...changes };
}

/**
 * @param {string} secret
 * @param {Partial<Api.SummaryView>} changes
 * @returns {Api.SummaryView}
 */
export function summary(secret, changes = {}) {
  return {
    secret,
    provider: "postgres",
    current: 1,
    current_seen_at: null,
    revision: 1,
    generation: 1,
    overlays: [],
    waiting_version: null,
    rotation: null,
    progress: null,
    members: 0,
    blockers: 0,
    blocker: null,
    last: null,
    next_rotation_at: null,
    record_read_at: null,
    ...changes,
  };
}

/**
 * @param {string} instance
 * @param {Partial<Api.InstanceStatus>} changes
 * @returns {Api.InstanceStatus}
 */
export function instance(instance, changes = {}) {
  return {
    service: "api",
    instance,
    incarnation: "8a7b1aa3".padEnd(32, "0"),
    secret: "payments/db",
    version: 1,
    stage: "released",
    held: [1],
    standing: "live",
    silent_for_ms: 1_000,
    lease_left_ms: 60_000,
    last_failure: null,
    ...changes,
  };
}
