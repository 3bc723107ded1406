//! What holds for every input: merging reports, and whatever else arrives in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use crate::bench::{Bench, key, managed, operator, provider, seconds, v};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use rotacast_protocol::coordinator::{Change, CommandKind, Evidence, Input, Order};
use rotacast_protocol::message::{Failure, FailureKind, SecretReport, Stage};
use rotacast_protocol::policy::{Deadline, OnDeadline, WhenUnreachable};
use rotacast_protocol::record::{Label, Origin, RecordChange, RetireStep, SecretRecord, Unproven};
use rotacast_protocol::{Generation, LeaseSequence, Phase, Policy, ReportSequence, Revision};

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

/// Everything that a coordinator shows, except for when each member was last heard.
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

    /// The newest report of each instance wins, in whatever order and however often reports arrive.
    #[test]
    fn folding_reports_is_commutative_associative_and_idempotent(
        reports in vec((0..NAMES.len(), 1..6_u64, report()), 1..12),
        (order, again) in (vec(any::<prop::sample::Index>(), 30), vec(any::<prop::sample::Index>(), 0..10)),
    ) {
        // A sequence number names one report. The policy keeps the reports from moving the rotation.
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

    /// In whatever order inputs arrive: no panic, and the promises that a record shows are kept.
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
    /// Answers the outstanding commands truthfully.
    Serve,
    Arrives(Input),
    /// A Sync of an instance that knows the newest state.
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
        // Compared with what held just before: that decides what may begin.
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
        // These questions must not fail for any input.
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
            Label::Previous => prop_assert!(leaving, "{:?} is not being retired: {:?}", version, record),
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
