// What the broadcaster's HTTP API answers, for the type check of the dashboard's scripts. Words come from the vocabulary, which
// Rust writes; fields are written by hand. A test of the broadcaster compares them with what the routes answer.

declare namespace Api {
  type Words = typeof import("./assets/words/vocabulary.js");
  type Phase = keyof Words["PHASE"];
  type Outcome = keyof Words["OUTCOME"];
  type Overlay = keyof Words["OVERLAY"];
  type Condition = keyof Words["CONDITION"];
  type Label = keyof Words["LABEL"];
  type Stage = keyof Words["STAGE"];
  type Standing = keyof Words["STANDING"];
  type Order = keyof Words["ORDER"];
  type Severity = keyof Words["SEVERITY"];
  /** RFC 3339. */
  type Moment = string;

  interface AboutView {
    cluster: string;
    replica: string | null;
    leader: boolean;
    epoch: number | null;
    leading: LeadingView | null;
    store: string;
    bus: string;
    version: string;
    now: Moment;
    signed_in: PersonView | null;
    sign_in_needed: boolean;
  }

  interface LeadingView {
    replica: string;
    address: string | null;
  }

  interface PersonView {
    name: string;
    may_act: boolean;
    may_act_alone: boolean;
  }

  interface SecretStatus {
    secret: string;
    provider: string;
    revision: number;
    generation: number;
    current: number | null;
    versions: VersionStatus[];
    rotation: RotationStatus | null;
    services: ServiceStatus[];
    overlays: Overlay[];
    blockers: BlockerStatus[];
    guards: GuardStatus[];
    history: FinishedStatus[];
    record_read_at: Moment | null;
    next_rotation_at: Moment | null;
    findings: FindingStatus[];
  }

  interface VersionStatus {
    version: number;
    label: Label;
    sealed: boolean;
    seen_at: Moment;
  }

  interface RotationStatus {
    number: number;
    phase: Phase;
    old: number | null;
    new: number;
    started_at: Moment;
    phase_since: Moment;
    trigger: string;
    rollback_reason: string | null;
    phases: PhaseStatus[];
  }

  interface PhaseStatus {
    phase: Phase;
    since: Moment;
  }

  interface ServiceStatus {
    service: string;
    members: number;
    seen: number;
    prepared: number;
    switched: number;
    released: number;
    fenced: number;
  }

  interface BlockerStatus {
    condition: Condition;
    who: string | null;
    why: string;
    since: Moment | null;
    next: string;
    command: string | null;
  }

  interface GuardStatus {
    version: number;
    conditions: ConditionStatus[];
  }

  interface ConditionStatus {
    name: Condition;
    met: boolean;
    evidence: string;
  }

  interface FinishedStatus {
    number: number;
    outcome: Outcome;
    old: number | null;
    new: number;
    started_at: Moment;
    ended_at: Moment;
    took_ms: number | null;
    reason: string | null;
    phases: PhaseStatus[];
  }

  /** One secret on a line of the overview. */
  interface SummaryView {
    secret: string;
    provider: string;
    current: number | null;
    current_seen_at: Moment | null;
    revision: number;
    generation: number;
    overlays: Overlay[];
    waiting_version: number | null;
    rotation: RotationStatus | null;
    progress: ProgressView | null;
    members: number;
    blockers: number;
    blocker: BlockerStatus | null;
    last: FinishedStatus | null;
    next_rotation_at: Moment | null;
    record_read_at: Moment | null;
  }

  interface ProgressView {
    stage: Stage;
    done: number;
    of: number;
  }

  interface FindingsView {
    total: number;
    findings: FindingStatus[];
  }

  interface FindingStatus {
    level: Severity;
    subject: string;
    text: string;
    fix: string;
    since: Moment;
  }

  interface SecretsView {
    reset: boolean;
    more: boolean;
    secrets: SummaryView[];
  }

  interface InstanceStatus {
    service: string;
    instance: string;
    /** 32 hexadecimal digits. */
    incarnation: string;
    secret: string;
    version: number | null;
    stage: Stage | null;
    held: number[];
    standing: Standing;
    silent_for_ms: number | null;
    lease_left_ms: number;
    last_failure: string | null;
  }

  interface PageView {
    taken_at: Moment;
    total: number;
    matching: number;
    instances: InstanceStatus[];
    unanswered: string[];
    unanswered_total: number;
  }

  interface FleetView {
    taken_at: Moment;
    total: number;
    groups: GroupView[];
    truncated: boolean;
    unanswered: string[];
    unanswered_total: number;
  }

  interface GroupView {
    service: string;
    secret: string;
    version: number | null;
    instances: number;
    standings: Partial<Record<Standing, number>>;
  }

  interface EntriesView {
    entries: Recorded[];
    next_before: number | null;
  }

  /** An entry of the audit log. */
  interface Recorded {
    format: number;
    chain: string;
    sequence: number;
    time: Moment;
    time_ms: number;
    actor: string;
    secret: string | null;
    rotation: number | null;
    action: string;
    details: Record<string, unknown>;
    prev: string;
    hash: string;
  }

  interface DoneView {
    version: number | null;
    number: number | null;
    request: RequestView | null;
  }

  interface RequestsView {
    requests: RequestView[];
  }

  /** An order that waits for approvals. */
  interface RequestView {
    id: string;
    digest: string;
    operator: string;
    order: string;
    secret: string | null;
    arguments: string[];
    reason: string | null;
    role: string;
    asked_at: Moment;
    expires_at: Moment;
    needed: number;
    missing: number;
    void: string | null;
    approved_by: string[];
  }

  interface ProblemBody {
    kind: string;
    problem: string;
    fix: string | null;
  }
}
