use std::collections::BTreeMap;

use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{ConditionName, Input, Order};
use crate::id::ReportSequence;
use crate::message::{FailureKind, Stage};
use crate::phase::Phase;
use crate::policy::{Deadline, OnDeadline, Policy, WhenEmpty};

#[test]
fn what_was_said_before_a_rollback_confirms_nothing_after_it() {
    let policy = Policy { required: BTreeMap::from([("api".parse().unwrap(), 1)]), ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a"]);
    // It reports version 1 before it knows of version 2: true, but it confirms no way back.
    let (sequence, before) = bench.report_of("api/a", 1, Stage::Released, &[1]);
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.order(Order::rollback("no").unwrap()).unwrap();
    let (_, mut replayed) = bench.report_of("api/a", 1, Stage::Released, &[1]);
    replayed.generation = before.generation;
    replayed.revision = before.revision;
    bench
        .input(Input::Report { key: key("api/a"), sequence: ReportSequence(sequence.0 + 100), report: replayed })
        .unwrap();
    let guard = bench.coordinator.guard(v(2), bench.now);
    let required = guard.conditions.iter().find(|condition| condition.name == ConditionName::RequiredServices).unwrap();
    assert!(!required.met, "{required:?}");
}

#[test]
fn s51_a_deadline_that_passes_during_a_pause_is_reported_and_applied_afterwards() {
    let deadline = Deadline { after: seconds(60), then: OnDeadline::RollBack };
    let policy = Policy { deadlines: BTreeMap::from([(Phase::Preparing, deadline)]), ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a"]);
    bench.order(Order::pause("wait").unwrap()).unwrap();
    bench.pass(seconds(61));
    assert_eq!(bench.phase(), "preparing");
    let blockers = bench.coordinator.blockers(bench.now);
    assert!(
        blockers.iter().any(|blocker| blocker.next == "the rotation rolls back once an operator resumes the secret"),
        "{blockers:?}"
    );
    bench.order(Order::Resume).unwrap();
    assert_eq!(bench.phase(), "rolling_back");
}

#[test]
fn a_first_version_that_fails_leaves_nothing_current_and_the_next_one_starts_afresh() {
    let mut bench = Bench::new(managed());
    bench.seen(1);
    bench.input(Input::VerifyFailed { version: v(1), reason: "password refused".into() }).unwrap();
    assert_eq!((bench.phase().as_str(), bench.current()), ("rolling_back", None));
    assert!(bench.drains(1, seconds(60)));
    bench.destroy(1);
    assert_eq!(bench.phase(), "none");
    bench.seen(2);
    bench.verified(2);
    assert_eq!(bench.current(), Some(2));
}

#[test]
fn every_instance_prepares_before_the_activation_and_switches_before_draining() {
    let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
    for (stage, before, after) in
        [(Stage::Prepared, "preparing", "activating"), (Stage::Switched, "activating", "draining")]
    {
        bench.sync("api/a", 2, stage, &[1, 2]);
        assert_eq!(bench.phase(), before, "`b` has not {stage}");
        bench.sync("api/b", 2, stage, &[1, 2]);
        assert_eq!(bench.phase(), after);
    }
}

#[test]
fn an_empty_set_of_instances_activates_only_where_the_policy_says_so() {
    assert_eq!(Bench::preparing(managed(), &[]).phase(), "preparing");
    let mut bench = Bench::running(Policy { when_empty: WhenEmpty::Proceed, ..managed() }, &[]);
    bench.seen(2);
    bench.verified(2);
    assert_eq!(bench.current(), Some(2));
}

#[test]
fn the_activation_waits_for_the_approval_that_the_policy_asks_for() {
    let mut bench = Bench::preparing(Policy { approval: true, ..managed() }, &["api/a"]);
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "preparing");
    bench.order(Order::Approve).unwrap();
    assert_eq!(bench.phase(), "activating");
}

#[test]
fn a_pause_holds_the_activation() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    bench.order(Order::pause("wait").unwrap()).unwrap();
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "preparing");
    bench.order(Order::Resume).unwrap();
    assert_eq!(bench.phase(), "activating");
}

#[test]
fn a_hook_that_is_not_ready_counts_against_no_budget_and_is_named() {
    for (kind, phase) in [(FailureKind::NotReady, "preparing"), (FailureKind::PrepareRefused, "rolling_back")] {
        let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        bench.fail("api/b", kind, 2, &[1]);
        assert_eq!(bench.phase(), phase, "{kind}");
        let blockers = bench.coordinator.blockers(bench.now);
        if kind == FailureKind::NotReady {
            assert!(blockers.iter().any(|it| it.why == "is not ready yet: version 2: no such table"), "{blockers:?}");
        }
    }
}
