use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::coordinator::{Evidence, Input, Order, Tenure};
use crate::id::{Epoch, Generation, Incarnation, LeaseSequence, ReportSequence, Revision};
use crate::message::{Failure, FailureKind, SecretReport};
use crate::policy::{Policy, WhenUnreachable};
use crate::record::{ProviderId, SecretRecord, Timing};
use crate::time::WallTime;

/// What can happen, with the choices left open.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Registered { who: u8, exclusive: bool },
    Left { who: u8 },
    Sync { who: u8, version: u64, stage: u8, held: BTreeSet<u64>, fails: u8, logins: u64, old: bool },
    Seen,
    Verified,
    Sealed,
    Order(u8, u8),
    PolicyChanged(u8),
    WentBack,
}

fn step() -> impl Strategy<Value = Step> {
    let sync =
        (0..6_u8, 1..4_u64, 0..4_u8, prop::collection::btree_set(1..4_u64, 0..3), 0..4_u8, 0..3_u64, any::<bool>());
    prop_oneof![
        4 => (1..40_u64).prop_map(Step::Pass),
        3 => (0..6_u8, any::<bool>()).prop_map(|(who, exclusive)| Step::Registered { who, exclusive }),
        1 => (0..6_u8).prop_map(|who| Step::Left { who }),
        12 => sync.prop_map(|(who, version, stage, held, fails, logins, old)| {
            Step::Sync { who, version, stage, held, fails, logins, old: old && fails > 0 }
        }),
        2 => Just(Step::Seen),
        3 => Just(Step::Verified),
        2 => Just(Step::Sealed),
        2 => (0..6_u8, 0..6_u8).prop_map(|(order, who)| Step::Order(order, who)),
        1 => (0..4_u8).prop_map(Step::PolicyChanged),
        1 => Just(Step::WentBack),
    ]
}

fn key(who: u8) -> InstanceKey {
    // Two lives of each of three names.
    InstanceKey::new(
        if who.is_multiple_of(2) { "api" } else { "jobs" }.parse().unwrap(),
        format!("pod-{}", who % 3).parse().unwrap(),
        Incarnation(u128::from(who)),
    )
}

fn policy(choice: u8) -> Policy {
    let seconds = Duration::from_secs;
    Policy {
        lease_idle: seconds(60),
        sync_idle: seconds(20),
        when_unreachable: match choice % 3 {
            0 => WhenUnreachable::Fence,
            1 => WhenUnreachable::Hold,
            _ => WhenUnreachable::PresumeDeadAfter(seconds(50)),
        },
        required: if choice == 3 { BTreeMap::from([("api".parse().unwrap(), 2)]) } else { BTreeMap::new() },
        min_overlap: seconds(u64::from(choice) * 20),
        failure_budget: 2,
        provider: Some(ProviderId { kind: "generate".into(), name: "random".into(), system: String::new() }),
        ..Policy::default()
    }
}

fn inputs(coordinator: &Coordinator, number: u64, now: Now, step: Step) -> Vec<Input> {
    let record = coordinator.record();
    let version = |number: u64| Version::new(number).unwrap();
    vec![match step {
        Step::Pass(_) => Input::Tick,
        Step::Registered { who, exclusive } => Input::Registered { key: key(who), exclusive, live: true },
        Step::Left { who } => Input::Left { key: key(who) },
        Step::Sync { who, version: reached, stage, held, fails, logins, old } => {
            let kind = if fails == 1 { FailureKind::Fetch } else { FailureKind::PrepareRefused };
            let heard = coordinator.member_of(&key(who)).map_or(LeaseSequence(0), |member| member.granted_sequence);
            let report = SecretReport {
                generation: if old { Generation(0) } else { record.generation },
                revision: if old { Revision(0) } else { record.revision },
                reached: Some((version(reached), Stage::ALL[usize::from(stage)])),
                held: held.into_iter().map(version).collect(),
                lease: heard,
                failure: (fails == 1 || fails == 2).then(|| Failure {
                    kind,
                    version: version(reached),
                    text: "no".into(),
                }),
                auth_failures: (1..=reached).map(|number| (version(number), logins)).collect(),
            };
            Input::Sync { key: key(who), sequence: ReportSequence(number), report }
        }
        Step::Seen => Input::VersionSeen { version: record.last_version.map_or(Version::FIRST, Version::next) },
        Step::Verified => Input::Verified { version: record.rotation.as_ref().map_or(Version::FIRST, |it| it.new) },
        Step::Sealed => {
            let Some(version) = record.retirements.keys().next().copied() else { return Vec::new() };
            return vec![
                Input::UsageRead { version, sent: now.instant, evidence: Evidence::None },
                Input::Audited { version, revision: record.revision },
            ];
        }
        Step::Order(order, who) => {
            let order = match order {
                0 => Order::pause("p").unwrap(),
                1 => Order::Resume,
                2 => Order::rollback("r").unwrap(),
                3 => Order::Excuse { instance: key(who) },
                4 => {
                    let Some(version) = record.retirements.keys().next() else { return Vec::new() };
                    Order::cut_off(*version, BTreeSet::from([key(who)]), false, "o").unwrap()
                }
                _ => Order::LeaveSafeMode,
            };
            Input::Operator { by: "ada".parse().unwrap(), order }
        }
        Step::PolicyChanged(choice) => Input::PolicyChanged(Box::new(policy(choice))),
        Step::WentBack => Input::StoreWentBack { reason: "restored".into() },
    }]
}

/// What the sets say is what looking at every member says.
fn agrees(coordinator: &Coordinator, now: Now) {
    let mut anew = coordinator.clone();
    anew.recount();
    assert_eq!(format!("{:?}", anew.tally), format!("{:?}", coordinator.tally));
    let phase = coordinator.phase_conditions(now);
    assert_eq!(coordinator.phase_met(now), phase.iter().all(|it| it.met), "{phase:#?}");
    let mut times: Vec<Instant> = phase.iter().filter_map(|condition| condition.until).collect();
    let open = coordinator.record().retirements.iter().filter(|(_, retirement)| retirement.step.is_none());
    for version in open.map(|(version, _)| version) {
        let guard = coordinator.guard(*version, now);
        assert_eq!(coordinator.guard_holds(*version, now), guard.holds(), "{guard:#?}");
        let sealable = guard.conditions.iter().all(|it| it.met || it.name.judged_after_seal());
        assert_eq!(coordinator.may_seal(*version, now), sealable, "{guard:#?}");
        if coordinator.may_drain(*version) {
            times.extend(guard.conditions.iter().filter_map(|condition| condition.until));
        }
    }
    // A wake-up too many costs little; one that is missing is a rotation that hangs.
    if let Some(first) = times.into_iter().filter(|time| *time > now.instant).min() {
        assert!(coordinator.next_wakeup(now).is_some_and(|wakeup| wakeup <= first), "{first:?}");
    }
    if let Some(rotation) = &coordinator.record().rotation {
        let members = || coordinator.members();
        let refusals = members().filter(|member| coordinator.refuses(member, rotation.new)).count();
        let failures: u64 =
            members().filter_map(|member| member.report()?.auth_failures.get(&rotation.new).copied()).sum();
        assert_eq!((coordinator.tally.refusals, coordinator.tally.auth_failures()), (refusals, failures));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn what_is_counted_is_what_counting_anew_says(
        steps in prop::collection::vec(step(), 1..80),
        choice in 0..4_u8,
    ) {
        let policy = policy(choice);
        let mut now = Now { instant: Instant::from_nanos(1), wall: WallTime(0) };
        let tenure = Tenure { epoch: Epoch(1), since: now, valid_until: NEVER };
        let record = SecretRecord::new("payments/db".parse().unwrap(), Epoch(1), Timing::of(&policy));
        let mut coordinator = Coordinator::take_over(record, policy, tenure);
        for (number, step) in steps.into_iter().enumerate() {
            if let Step::Pass(seconds) = step {
                now.instant = now.instant + Duration::from_secs(seconds);
                now.wall.0 += seconds * 1000;
            }
            for input in inputs(&coordinator, number as u64, now, step) {
                for change in coordinator.decide(now, input).unwrap_or_default() {
                    coordinator.apply(now, &change);
                }
            }
            for _ in 0..5 {
                for change in coordinator.decide(now, Input::Tick).unwrap_or_default() {
                    coordinator.apply(now, &change);
                }
            }
            agrees(&coordinator, now);
        }
    }
}
