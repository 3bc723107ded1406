use std::collections::BTreeMap;
use std::time::Duration;

use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{CommandKind, ConditionName, Evidence, Input, Order};
use crate::message::{FailureKind, Stage};
use crate::policy::Policy;
use crate::time::outlast;

/// `api/a` releases version 1 in the next term. Returns how long that takes to be enough, at most twice the longest lease.
fn time_to_drain_after_takeover(bench: &mut Bench, listed: &[&str]) -> Duration {
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.take_over();
    listed.iter().for_each(|instance| bench.register(instance));
    bench.input(Input::RosterRead).unwrap();
    bench.sync("api/a", 2, Stage::Released, &[2]);
    let began = bench.now.instant;
    while !bench.drains(1, seconds(10)) {
        bench.sync("api/a", 2, Stage::Released, &[2]);
        assert!(bench.now.instant < began + longest_use() * 2, "{:?}", bench.coordinator.blockers(bench.now));
    }
    bench.now.instant.since(began)
}

fn longest_use() -> Duration {
    outlast(managed().lease_idle) + outlast(managed().max_use)
}

#[test]
fn a_new_leader_outlasts_a_predecessors_lease_to_an_instance_that_the_roster_names_and_it_does_not_hear() {
    let mut bench = Bench::draining(managed(), &["api/a", "api/b"]);
    let waited = time_to_drain_after_takeover(&mut bench, &["api/a", "api/b"]);
    assert!(waited >= longest_use(), "{waited:?}");
}

#[test]
fn a_new_leader_waits_for_no_lease_once_every_instance_in_the_roster_has_released() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let waited = time_to_drain_after_takeover(&mut bench, &["api/a"]);
    let self_leases = outlast(managed().self_lease) + outlast(managed().max_use);
    assert!(waited <= self_leases + seconds(20), "{waited:?}");
}

#[test]
fn a_new_leader_outlasts_every_lease_where_history_was_lost_since_a_restored_roster_may_lack_instances() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    [1, 2].into_iter().for_each(|version| bench.verified(version));
    let waited = time_to_drain_after_takeover(&mut bench, &["api/a"]);
    assert!(waited >= longest_use(), "{waited:?}");
}

/// Every condition for the end of version 1 holds, and the leader asks the audit log.
fn may_retire(policy: Policy) -> Bench {
    let mut bench = Bench::draining(policy, &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.until_audit_is_due(1, seconds(4000));
    assert!(bench.coordinator.guard(v(1), bench.now).holds());
    bench
}

fn is_unmet(bench: &Bench, name: ConditionName) -> bool {
    let guard = bench.coordinator.guard(v(1), bench.now);
    let condition = guard.conditions.iter().find(|condition| condition.name == name);
    !condition.unwrap_or_else(|| panic!("no {name} in {guard:?}")).met
}

type Happens = fn(&mut Bench);

/// What happens to a version that may retire, and the condition that holds no longer.
#[test]
fn each_condition_can_hold_the_retire_back() {
    let happens: [(ConditionName, Happens); 8] = [
        (ConditionName::Leads, |bench| bench.now.instant = bench.coordinator.tenure().valid_until),
        (ConditionName::NotPaused, |bench| bench.order(Order::pause("wait").unwrap()).unwrap()),
        (ConditionName::NotInSafeMode, Bench::went_back),
        (ConditionName::InheritedLeasesOver, Bench::take_over),
        (ConditionName::MembersReleased, |bench| drop(bench.sync("api/a", 2, Stage::Switched, &[1, 2]))),
        (ConditionName::LiveInstanceConfirmed, |bench| bench.input(Input::Left { key: key("api/a") }).unwrap()),
        (ConditionName::RequiredServices, |bench| bench.input(Input::Left { key: key("api/a") }).unwrap()),
        (ConditionName::UsageEvidence, |bench| {
            let evidence = Evidence::Sessions(vec!["one session".into()]);
            bench.input(Input::UsageRead { version: v(1), sent: bench.now.instant, evidence }).unwrap();
        }),
    ];
    let required = BTreeMap::from([("api".parse().unwrap(), 1)]);
    for (name, happens) in happens {
        let mut bench = may_retire(Policy { required: required.clone(), ..managed() });
        happens(&mut bench);
        assert!(is_unmet(&bench, name), "{name} holds");
        assert!(!bench.coordinator.guard_holds(v(1), bench.now), "{name}");
    }
}

#[test]
fn a_version_retires_only_once_every_instance_has_switched() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "activating");
    assert!(is_unmet(&bench, ConditionName::Phase));
    bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    assert!(!is_unmet(&bench, ConditionName::Phase));
}

#[test]
fn old_and_new_stay_valid_together_for_the_policys_minimum() {
    let overlap = seconds(7200);
    let mut bench = Bench::draining(Policy { min_overlap: overlap, ..managed() }, &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.pass(overlap);
    assert!(is_unmet(&bench, ConditionName::OverlapOver), "on a fast clock");
    bench.pass(outlast(overlap) - overlap);
    assert!(!is_unmet(&bench, ConditionName::OverlapOver));
}

#[test]
fn the_uses_that_a_store_read_before_the_seal_allows_are_waited_for() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    assert!(is_unmet(&bench, ConditionName::Sealed));
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(!is_unmet(&bench, ConditionName::Sealed));
    bench.pass(outlast(managed().self_lease) + outlast(managed().max_use) - seconds(1));
    assert!(is_unmet(&bench, ConditionName::SelfLeasesOver));
    bench.pass(seconds(1));
    assert!(!is_unmet(&bench, ConditionName::SelfLeasesOver));
}

#[test]
fn only_a_usage_reading_after_the_seal_that_the_provider_answered_is_evidence() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let read = |bench: &mut Bench, evidence| {
        bench.input(Input::UsageRead { version: v(1), sent: bench.now.instant, evidence }).unwrap();
    };
    read(&mut bench, Evidence::Sessions(Vec::new()));
    bench.pass(seconds(1));
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(is_unmet(&bench, ConditionName::UsageEvidence), "read before the seal");
    bench.pass(seconds(1));
    read(&mut bench, Evidence::Unavailable("connection refused".into()));
    assert!(is_unmet(&bench, ConditionName::UsageEvidence), "the provider did not answer");
    bench.pass(seconds(1));
    read(&mut bench, Evidence::Sessions(Vec::new()));
    assert!(!is_unmet(&bench, ConditionName::UsageEvidence));
}

#[test]
fn sessions_that_were_read_before_reading_failed_are_not_called_live() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    let told = |bench: &Bench| {
        let conditions = bench.coordinator.guard(v(1), bench.now).conditions;
        let usage = conditions.into_iter().find(|condition| condition.name == ConditionName::UsageEvidence).unwrap();
        usage.blockers.into_iter().map(|blocker| (blocker.who, blocker.why, blocker.since)).collect::<Vec<_>>()
    };
    let evidence = Evidence::Sessions(vec!["pid 4711".into()]);
    bench.input(Input::UsageRead { version: v(1), sent: bench.now.instant, evidence }).unwrap();
    let [(who, why, _)] = &told(&bench)[..] else { panic!("{:?}", told(&bench)) };
    assert_eq!((&who[..], &why[..]), ("pid 4711", "a session of version 1 is live at the provider"));

    let read = bench.now.wall;
    bench.pass(seconds(7));
    let command = CommandKind::ReadUsage { version: v(1) };
    let failed = "its role was renamed".into();
    bench.input(Input::Troubled { command, failed }).unwrap();
    let since = Some(bench.now.wall);
    bench.pass(seconds(60));
    let why = format!("whether version 1 is still used is unknown: 1 live session when it was last read, at {read}");
    assert_eq!(told(&bench), [(String::new(), why, since)]);

    bench
        .input(Input::UsageRead { version: v(1), sent: bench.now.instant, evidence: Evidence::Sessions(Vec::new()) })
        .unwrap();
    assert_eq!(told(&bench), []);
}

#[test]
fn what_fails_at_the_provider_does_not_point_at_the_doctor_who_points_back() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let command = CommandKind::ReadUsage { version: v(1) };
    bench.input(Input::Troubled { command, failed: "its role was renamed".into() }).unwrap();
    bench.input(Input::Troubled { command: CommandKind::Publish, failed: "no answer".into() }).unwrap();
    let blockers = bench.coordinator.blockers(bench.now).into_iter();
    let failing = blockers.filter(|blocker| blocker.condition == ConditionName::Command);
    let told: Vec<_> = failing.map(|blocker| (blocker.next, blocker.command)).collect();
    let at_provider = ("the leader tries again; put right what the message says".to_owned(), None);
    let elsewhere = ("the leader tries again".to_owned(), Some("rotacast doctor".to_owned()));
    assert_eq!(told, [elsewhere, at_provider]);
}

#[test]
fn a_release_hook_that_fails_or_hangs_is_named_where_the_retire_waits_for_it() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.fail("api/a", FailureKind::ReleaseFailed, 1, &[1, 2]);
    let blockers = bench.coordinator.blockers(bench.now);
    assert!(blockers.iter().any(|it| it.why == "has not released version 1: no such table"), "{blockers:?}");
}
