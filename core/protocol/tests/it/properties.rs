//! Laws that hold for any input: merging reports, storing records, and whatever else arrives in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bench::{Bench, key, managed, operator, provider, seconds, v};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::subsequence;
use rotacast_protocol::coordinator::{Change, CommandKind, Evidence, Input, Order};
use rotacast_protocol::message::{Failure, FailureKind, SecretReport, Stage};
use rotacast_protocol::phase::Outcome;
use rotacast_protocol::policy::{Deadline, OnDeadline, WhenUnreachable};
use rotacast_protocol::record::{
    Bounds, Cause, Doubt, Finished, Label, Origin, Override, Pause, PhaseEntered, RecordChange, RetireStep, Retirement,
    Rotation, SafeMode, SecretRecord, Statement, Timing, Unknown, Unproven, VersionRecord,
};
use rotacast_protocol::{
    Epoch, Generation, LeaseSequence, Phase, Policy, ReportSequence, Revision, RotationNumber, SecretName, WallTime,
};

const NAMES: [&str; 4] = ["api/a", "api/b", "worker/c", "api/a#2"];

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![Just(Stage::Seen), Just(Stage::Prepared), Just(Stage::Switched), Just(Stage::Released)]
}

fn report() -> impl Strategy<Value = SecretReport> {
    let failure = (0..3_u8, 1..4_u64).prop_map(|(kind, version)| Failure {
        kind: [FailureKind::Fetch, FailureKind::PrepareRefused, FailureKind::SwitchFailed][usize::from(kind)],
        version: v(version),
        text: "no".into(),
    });
    (
        (0..6_u64, 0..20_u64, proptest::option::of((1..4_u64, stage())), btree_set(1..4_u64, 0..4)),
        (0..40_u64, proptest::option::weighted(0.1, failure), btree_map(1..4_u64, 0..9_u64, 0..2)),
    )
        .prop_map(|((generation, revision, reached, held), (lease, failure, auth))| SecretReport {
            generation: Generation(generation),
            revision: Revision(revision),
            reached: reached.map(|(version, stage)| (v(version), stage)),
            held: held.into_iter().map(v).collect(),
            lease: LeaseSequence((1 << 24) + lease),
            failure,
            auth_failures: auth.into_iter().map(|(version, count)| (v(version), count)).collect(),
        })
}

/// Everything of a coordinator that can be seen, but for when somebody was last heard.
fn observable(bench: &Bench) -> String {
    let members: Vec<_> = bench
        .coordinator
        .members()
        .map(|member| {
            let said = (member.report().cloned(), member.acknowledged());
            (member.key.clone(), member.sequence, said, member.left, member.registered)
        })
        .collect();
    format!("{members:?} {:?} {:?}", bench.coordinator.record(), bench.coordinator.stage_counts(bench.now))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The newest report of each instance wins, however they arrive and however often.
    #[test]
    fn folding_reports_is_commutative_associative_and_idempotent(
        reports in vec((0..NAMES.len(), 1..6_u64, report()), 1..12),
        (order, again) in (vec(any::<prop::sample::Index>(), 30), vec(any::<prop::sample::Index>(), 0..10)),
    ) {
        // One report per sequence number: that is what the number means. Nothing in them moves the rotation.
        let policy = Policy { approval: true, failure_budget: 1000, auth_failure_budget: 1000, ..managed() };
        let mut unique: BTreeMap<(usize, u64), SecretReport> = BTreeMap::new();
        for (who, sequence, report) in reports {
            unique.entry((who, sequence)).or_insert(report);
        }
        let reports: Vec<_> = unique.into_iter().collect();
        let fold = |reports: &[((usize, u64), SecretReport)]| {
            let mut bench = Bench::preparing(policy.clone(), &[]);
            for ((who, sequence), report) in reports {
                let input = Input::Report {
                    key: key(NAMES[*who]), sequence: ReportSequence(*sequence), report: report.clone(),
                };
                let _ = bench.input(input);
            }
            observable(&bench)
        };
        let mut shuffled = reports.clone();
        for (position, index) in order.iter().enumerate() {
            let length = shuffled.len();
            shuffled.swap(position % length, index.index(length));
        }
        let mut doubled = shuffled.clone();
        for index in again {
            doubled.push(shuffled[index.index(shuffled.len())].clone());
        }
        let straight = fold(&reports);
        prop_assert_eq!(&straight, &fold(&shuffled));
        prop_assert_eq!(&straight, &fold(&doubled));
    }

    /// Whatever a record holds, it reads back; what a later build added survives, at every level.
    #[test]
    fn a_record_reads_back(record in record()) {
        let bytes = record.encode();
        prop_assert_eq!(SecretRecord::decode(&bytes), Ok(record));
    }

    #[test]
    fn decoding_never_panics(bytes in vec(any::<u8>(), 0..200), record in record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let _ = SecretRecord::decode(&bytes);
        let mut spoilt = record.encode();
        let at = at.index(spoilt.len());
        spoilt[at] = byte;
        let _ = SecretRecord::decode(&spoilt);
        let _ = SecretRecord::decode(&spoilt[..at]);
    }

    /// Whatever arrives in whatever order: no panic, and the promises that show in a record.
    #[test]
    fn no_order_of_inputs_breaks_a_promise(steps in vec(step(), 1..120), policy in policy()) {
        let mut bench = Bench::running(policy, &["api/a"]);
        for step in steps {
            bench.step(step)?;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    TakeOver,
    /// Answer the owed commands truthfully.
    Serve,
    Arrives(Input),
    /// A Sync of somebody who knows the newest state.
    Sync(usize, u64, Stage, BTreeSet<u64>),
}

fn inputs() -> impl Strategy<Value = Input> {
    let who = || (0..NAMES.len()).prop_map(|who| key(NAMES[who]));
    let version = || (1..7_u64).prop_map(v);
    let order = prop_oneof![
        Just(Order::Rotate),
        Just(Order::pause("p").unwrap()),
        Just(Order::Resume),
        Just(Order::Approve),
        Just(Order::rollback("r").unwrap()),
        Just(Order::LeaveSafeMode),
        who().prop_map(|instance| Order::Excuse { instance }),
        who().prop_map(|instance| Order::gone(instance, "r").unwrap()),
        version().prop_map(|version| Order::abandon(version, "r").unwrap()),
        (version(), btree_set(who(), 0..3), any::<bool>()).prop_map(|(version, instances, sessions)| {
            let sessions = sessions || instances.is_empty();
            Order::cut_off(version, instances, sessions, "o").unwrap()
        }),
    ];
    prop_oneof![
        version().prop_map(|version| Input::VersionSeen { version }),
        (version(), any::<bool>()).prop_map(|(version, ours)| Input::Created {
            version,
            origin: if ours { Origin::Managed } else { Origin::Watched },
        }),
        version().prop_map(|version| Input::Verified { version }),
        version().prop_map(|version| Input::VerifyFailed { version, reason: "x".into() }),
        (who(), any::<bool>(), any::<bool>()).prop_map(|(key, exclusive, live)| Input::Registered {
            key,
            exclusive,
            live
        }),
        who().prop_map(|key| Input::Left { key }),
        (who(), 0..40_u64, report()).prop_map(|(key, sequence, report)| Input::Report {
            key,
            sequence: ReportSequence(sequence),
            report
        }),
        (who(), 0..40_u64, report()).prop_map(|(key, sequence, report)| Input::Sync {
            key,
            sequence: ReportSequence(sequence),
            report
        }),
        (version(), 0..60_u64)
            .prop_map(|(version, revision)| Input::BarrierPassed { version, revision: Revision(revision) }),
        version().prop_map(|version| Input::UsageRead {
            version,
            sent: rotacast_protocol::Instant::ZERO + seconds(1_000_100),
            evidence: Evidence::None
        }),
        version().prop_map(|version| Input::LeftAlone { version, step: RetireStep::Disable, why: Unproven::LeftAlone }),
        (version(), 0_u64..200)
            .prop_map(|(version, revision)| Input::Audited { version, revision: Revision(revision) }),
        (version(), 0..3_usize).prop_map(|(version, step)| Input::StepDone {
            version,
            step: [RetireStep::Disable, RetireStep::Destroy, RetireStep::Erase][step],
        }),
        (0..60_u64).prop_map(|revision| Input::Published { revision: Revision(revision) }),
        version().prop_map(|version| Input::Troubled { command: CommandKind::Test { version }, failed: "t".into() }),
        Just(Input::StoreWentBack { reason: "s".into() }),
        order.prop_map(|order| Input::Operator { by: operator(), order }),
        policy().prop_map(|policy| Input::PolicyChanged(Box::new(policy))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..200_u64).prop_map(Step::Pass),
        1 => Just(Step::TakeOver),
        4 => Just(Step::Serve),
        6 => inputs().prop_map(Step::Arrives),
        6 => (0..NAMES.len(), 1..7_u64, stage(), btree_set(1..7_u64, 0..3))
            .prop_map(|(who, version, stage, held)| Step::Sync(who, version, stage, held)),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (0..3_usize, any::<bool>(), 0..3_u32, 2..5_usize, 0..4_usize, 20..200_u64, prop::bool::weighted(0.9)).prop_map(
        |(unreachable, approval, failure_budget, max_live_versions, deadline, lease, has_provider)| Policy {
            provider: has_provider.then(provider),
            when_unreachable: [
                WhenUnreachable::Fence,
                WhenUnreachable::Hold,
                WhenUnreachable::PresumeDeadAfter(seconds(60)),
            ][unreachable],
            approval,
            failure_budget,
            max_live_versions,
            lease_rotating: seconds(lease),
            lease_idle: seconds(lease * 2),
            sync_idle: seconds(20),
            deadlines: [OnDeadline::Extend, OnDeadline::Hold, OnDeadline::RollBack]
                .get(deadline)
                .map(|then| (Phase::Preparing, Deadline { after: seconds(90), then: *then }))
                .into_iter()
                .collect(),
            ..managed()
        },
    )
}

impl Bench {
    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let began = self.log.len();
        let ended = self.coordinator.record().last_version.map_or(0, |version| version.get());
        // What held just before decides what may begin.
        match step {
            Step::Pass(count) => self.pass(seconds(count)),
            Step::TakeOver => self.take_over(),
            Step::Serve => {
                for version in 1..=ended {
                    self.serve_guard(version);
                }
                for command in self.coordinator.commands(self.now) {
                    let input = match command.kind {
                        CommandKind::Create { version } => Input::Created { version, origin: Origin::Managed },
                        CommandKind::Test { version } => Input::Verified { version },
                        CommandKind::Retire { version, step } => Input::StepDone { version, step },
                        CommandKind::Publish => Input::Published { revision: command.revision },
                        _ => continue,
                    };
                    let _ = self.input(input);
                }
            }
            Step::Arrives(input) => {
                let held = match &input {
                    Input::Audited { version, .. } => {
                        Some((*version, self.coordinator.guard(*version, self.now).holds()))
                    }
                    _ => None,
                };
                let policy = match &input {
                    Input::PolicyChanged(policy) => Some((**policy).clone()),
                    _ => None,
                };
                if self.input(input).is_ok()
                    && let Some(policy) = policy
                {
                    self.policy = policy;
                }
                for change in &self.log[began..] {
                    if let Change::Record(RecordChange::RetireBegan { version, .. }) = change {
                        prop_assert_eq!(held, Some((*version, true)), "a retire began without its guard");
                    }
                }
            }
            Step::Sync(who, version, stage, versions) => {
                let versions: Vec<u64> = versions.into_iter().collect();
                let (sequence, report) = self.report_of(NAMES[who], version, stage, &versions);
                let _ = self.input(Input::Sync { key: key(NAMES[who]), sequence, report });
            }
        }
        // Nothing below may fail for any input: asking is harmless.
        let _ = self.coordinator.blockers(self.now);
        let _ = self.coordinator.overlays(self.now);
        let _ = self.coordinator.next_wakeup(self.now);
        let _ = self.coordinator.stage_counts(self.now);
        labels_agree(self.coordinator.record())
    }
}

fn labels_agree(record: &SecretRecord) -> Result<(), TestCaseError> {
    for (version, listed) in &record.versions {
        let current = record.current == Some(*version);
        prop_assert_eq!(current, listed.label == Label::Current, "{:?} {:?}", version, record);
        let leaving = record.retirements.contains_key(version);
        match listed.label {
            Label::Current | Label::Pending => prop_assert!(!leaving),
            Label::Previous => prop_assert!(leaving, "{:?} is on nobody's way out: {:?}", version, record),
            Label::Retired => prop_assert!(!leaving && listed.unproven.is_none(), "{:?}", listed),
            Label::Unproven => prop_assert!(!leaving && listed.unproven.is_some(), "{:?}", listed),
            Label::Rejected => {}
        }
        if listed.sealed {
            prop_assert!(leaving || matches!(listed.label, Label::Retired | Label::Unproven | Label::Rejected));
        }
    }
    Ok(())
}

fn unknown() -> impl Strategy<Value = Unknown> {
    let value = prop_oneof![
        Just(serde_json::Value::Null),
        any::<u32>().prop_map(serde_json::Value::from),
        "[a-z\"\\\\é]{0,6}".prop_map(serde_json::Value::from),
        vec(any::<u8>(), 0..3).prop_map(serde_json::Value::from),
    ];
    btree_map("x_[a-z]{1,4}".prop_map(String::from), value, 0..3)
}

fn millis() -> impl Strategy<Value = Duration> {
    (0..u64::MAX).prop_map(Duration::from_millis)
}

fn wall() -> impl Strategy<Value = WallTime> {
    any::<u64>().prop_map(WallTime)
}

prop_compose! {
    fn timing()(times in vec(millis(), 6), unknown in unknown()) -> Timing {
        Timing {
            lease_idle: times[0], lease_rotating: times[1], self_lease: times[2], max_use: times[3],
            sync_idle: times[4], sync_rotating: times[5], unknown,
        }
    }
}

prop_compose! {
    fn version_record()(
        (label, managed, announced, doubt) in (0..6_usize, any::<bool>(), any::<bool>(), 0..3_usize),
        seen in wall(), note in "[ -~é]{0,20}", unknown in unknown(),
    ) -> VersionRecord {
        VersionRecord {
            label: [Label::Pending, Label::Current, Label::Previous, Label::Retired, Label::Rejected, Label::Unproven][label],
            origin: if managed { Origin::Managed } else { Origin::Watched },
            provider: managed.then(provider),
            unproven: (label == 5).then_some(Unproven::NoProvider),
            sealed: false, announced, doubt: Doubt::ALL.get(doubt).copied(), seen, note, unknown,
        }
    }
}

prop_compose! {
    fn override_word()(at in wall(), reason in ".{0,20}", sessions in any::<bool>(), unknown in unknown(),
        instances in btree_set("[a-z/]{1,9}", 0..3)) -> Override {
        Override { by: operator(), reason, at, instances, sessions, unknown }
    }
}

prop_compose! {
    fn statement()(at in wall(), reason in ".{0,20}", unknown in unknown()) -> Statement {
        Statement { by: operator(), reason, at, unknown }
    }
}

prop_compose! {
    fn retirement()(
        (cause, step) in (0..3_usize, 0..4_usize), unwanted in any::<u64>(), since in wall(),
        overrides in vec(override_word(), 0..3), given_up in prop::option::of(statement()), unmade in any::<bool>(),
        unknown in unknown(),
    ) -> Retirement {
        Retirement {
            cause: [Cause::Rotated, Cause::RolledBack, Cause::Superseded][cause],
            unwanted_since: Revision(unwanted), since, overrides,
            step: [RetireStep::Disable, RetireStep::Destroy, RetireStep::Erase].get(step).copied(),
            given_up, unmade, unknown,
        }
    }
}

prop_compose! {
    fn finished()(generation in any::<u64>(), outcome in 0..3_usize, new in 1..9_u64, times in (wall(), wall()),
        reason in ".{0,20}", unknown in unknown()) -> Finished {
        Finished {
            generation: Generation(generation),
            number: RotationNumber(generation),
            outcome: [Outcome::Retired, Outcome::RolledBack, Outcome::Superseded][outcome],
            old: None, new: v(new), started: times.0, ended: times.1,
            phases: vec![PhaseEntered { phase: Phase::Verifying, at: times.0 }], reason, unknown,
        }
    }
}

prop_compose! {
    /// Any record whose parts agree.
    fn record()(
        versions in vec(version_record(), 0..6),
        timing in timing(),
        (current, phase, rotates) in (any::<prop::sample::Index>(), 0..6_usize, any::<bool>()),
        retirements in vec(retirement(), 6), leaving in subsequence((0..6_usize).collect::<Vec<_>>(), 0..6),
        sealed in vec(any::<bool>(), 6),
        numbers in vec(any::<u64>(), 4), wall in wall(), excused in btree_set("[a-z/]{1,9}", 0..3),
        (paused, safe, history) in (any::<bool>(), any::<bool>(), vec(finished(), 0..3)),
        unknowns in vec(unknown(), 5),
    ) -> SecretRecord {
        let mut record = SecretRecord::new(SecretName::new("payments/db").unwrap(), Epoch(numbers[0]), timing.clone());
        record.bounds = Bounds {
            lease: timing.lease_rotating, self_lease: timing.self_lease, max_use: timing.max_use,
            sync: record.timing.sync_idle,
            unknown: unknowns[0].clone(),
        };
        record.revision = Revision(numbers[1]);
        record.generation = Generation(numbers[2]);
        let count = versions.len();
        record.versions = versions.into_iter().enumerate().map(|(at, version)| (v(at as u64 + 1), version)).collect();
        record.last_version = (count > 0).then(|| v(count as u64));
        record.current = (count > 0).then(|| v(current.index(count) as u64 + 1));
        let phase = [Phase::Verifying, Phase::Preparing, Phase::Activating, Phase::Draining, Phase::Retiring,
            Phase::RollingBack][phase];
        if let Some(current) = record.current.filter(|_| rotates) {
            let forward = matches!(phase, Phase::Activating | Phase::Draining | Phase::Retiring);
            record.rotation = Some(Rotation {
                generation: Generation(numbers[3]),
                number: RotationNumber(numbers[3]),
                old: if forward { None } else { Some(current) },
                new: current, trigger: "store".into(), phase, started: wall, phase_since: wall,
                phases: vec![PhaseEntered { phase, at: wall }],
                created: numbers[1] % 2 == 0, activated: Some(Revision(numbers[3])), approved: Some(operator()),
                excused, rollback: Some("no".into()), unknown: unknowns[1].clone(),
            });
        }
        for at in leaving {
            let version = v(at as u64 + 1);
            if at < count && record.current != Some(version) {
                record.retirements.insert(version, retirements[at].clone());
                record.versions.get_mut(&version).unwrap().sealed = sealed[at];
            }
        }
        record.paused = paused.then(|| Pause {
            by: operator(), reason: "é\"".into(), at: wall, more: Vec::new(), unknown: unknowns[2].clone(),
        });
        record.safe_mode = safe.then(|| SafeMode { reason: "s".into(), at: wall, unknown: unknowns[3].clone() });
        record.history = history;
        record.unknown = unknowns[4].clone();
        record
    }
}

#[test]
fn a_record_of_a_later_format_is_refused_by_name() {
    let bench = Bench::running(managed(), &[]);
    let text = String::from_utf8(bench.coordinator.record().encode()).unwrap();
    let later = text.replacen("\"format\":1", "\"format\":2", 1);
    let refusal = SecretRecord::decode(later.as_bytes()).unwrap_err().to_string();
    assert_eq!(refusal, "record format 2, but this build reads up to 1: upgrade this broadcaster");
}
