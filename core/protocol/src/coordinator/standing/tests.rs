use std::time::Duration;

use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{Elsewhere, GuardStanding, Input, LastSign, Order, gone_after};
use crate::message::Stage;
use crate::policy::{Policy, WhenEmpty, WhenUnreachable};
use crate::time::outlast;

#[test]
fn the_wait_for_a_silent_instance_ends_at_a_wakeup() {
    for when_unreachable in [WhenUnreachable::Fence, WhenUnreachable::PresumeDeadAfter(seconds(7200))] {
        let policy = Policy { when_unreachable, ..managed() };
        let mut bench = Bench::preparing(policy, &["api/a", "api/b"]);
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        // `b` has no lease, is heard once and falls silent. Time passes only from one wake-up to the next.
        bench.report("api/b", 1, Stage::Released, &[1]).unwrap();
        for _ in 0..100 {
            let Some(at) = bench.coordinator.next_wakeup(bench.now) else { break };
            bench.pass(at.since(bench.now.instant));
            let (sequence, report) = bench.report_of("api/a", 2, Stage::Prepared, &[1, 2]);
            bench.input(Input::Sync { key: key("api/a"), sequence, report }).unwrap();
            if bench.phase() == "activating" {
                break;
            }
        }
        assert_eq!(bench.phase(), "activating", "{when_unreachable:?}: no wake-up ended the wait");
    }
}

#[test]
fn an_instance_that_was_heard_for_another_secret_may_run() {
    let mut bench = Bench::running(Policy::default(), &["api/a"]);
    bench.pass(seconds(600));
    let (a, now) = (key("api/a"), bench.now);
    assert_eq!(bench.coordinator.may_be_running_still(&a, Elsewhere::default(), now), None);
    let elsewhere = |ago, interval| {
        let at = now.instant - seconds(ago);
        Elsewhere { this: Some(LastSign { at, may_run_until: at + gone_after(seconds(interval)) }), other: None }
    };
    let heard = elsewhere(5, 60);
    let why = bench.coordinator.may_be_running_still(&a, heard, now).unwrap();
    assert!(why.contains("was heard 5 s ago for another secret") && why.contains("ask again in 3 min"), "{why}");
    assert_eq!(bench.coordinator.may_be_running_still(&a, elsewhere(185, 60), now), None);
    // Of a secret whose instances are heard less often, its next sign is not due yet.
    let why = bench.coordinator.may_be_running_still(&a, elsewhere(185, 600), now).unwrap();
    assert!(why.contains("was heard 3 min ago for another secret") && why.contains("ask again in 28 min"), "{why}");
    // And of one whose instances are heard more often, it has missed many.
    assert_eq!(bench.coordinator.may_be_running_still(&a, elsewhere(20, 5), now), None);
}

#[test]
fn a_leader_that_hears_no_instance_of_any_secret_takes_no_lone_instance_for_gone() {
    let mut bench = Bench::running(Policy::default(), &["api/a"]);
    bench.pass(seconds(600));
    let (a, now) = (key("api/a"), bench.now);
    let unheard = Elsewhere { this: None, other: Some(now.instant - seconds(590)) };
    let why = bench.coordinator.may_be_running_still(&a, unheard, now).unwrap();
    assert!(why.contains("has heard no instance of any secret for 9 min"), "{why}");
    // Instances of other secrets may be heard more rarely: once after this one should have been is enough.
    for ago in [5, 500] {
        let heard = Elsewhere { this: None, other: Some(now.instant - seconds(ago)) };
        assert_eq!(bench.coordinator.may_be_running_still(&a, heard, now), None, "{ago} s ago");
    }
}

/// `api/a` is heard every ten seconds for so long, and no other instance.
fn only_a_is_heard(bench: &mut Bench, for_seconds: u64) {
    for _ in 0..for_seconds / 10 {
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        bench.pass(seconds(10));
    }
}

/// From when on the retire of version 1 no longer waits for `api/b`, which has held it under a lease of an hour and is silent.
fn released_after(when_unreachable: WhenUnreachable) -> Option<Duration> {
    let mut bench = Bench::draining(Policy { when_unreachable, ..managed() }, &["api/a", "api/b"]);
    let began = bench.now.instant;
    for _ in 0..3 * 360 {
        let member = bench.coordinator.member_of(&key("api/b")).unwrap();
        let retirement = &bench.coordinator.record().retirements[&v(1)];
        let standing = bench.coordinator.guard_standing(member, v(1), retirement, bench.now).0;
        if standing != GuardStanding::Holding {
            return Some(bench.now.instant.since(began));
        }
        bench.pass(seconds(10));
        bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    }
    None
}

#[test]
fn the_retire_waits_for_a_silent_instance_as_the_policy_says() {
    let lease = outlast(managed().lease_rotating);
    let fenced = released_after(WhenUnreachable::Fence).unwrap();
    assert!(fenced >= lease && fenced < lease * 2, "{fenced:?}");
    let silence = seconds(7200);
    let presumed = released_after(WhenUnreachable::PresumeDeadAfter(silence)).unwrap();
    assert!(presumed >= silence && presumed < silence * 2, "{presumed:?}");
    assert_eq!(released_after(WhenUnreachable::Hold), None);
}

#[test]
fn an_idle_instance_that_has_missed_no_sync_is_waited_for() {
    let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
    only_a_is_heard(&mut bench, 120);
    assert_eq!(bench.phase(), "preparing", "`b` may still be at the interval of an idle instance");
    only_a_is_heard(&mut bench, 120);
    assert_eq!(bench.phase(), "activating", "`b` has missed its Syncs, and its lease of an hour is not waited for");
}

#[test]
fn under_hold_preparing_waits_for_a_silent_instance() {
    let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a", "api/b"]);
    only_a_is_heard(&mut bench, 7200);
    assert_eq!(bench.phase(), "preparing");
}

#[test]
fn a_leader_that_hears_no_instance_passes_none_over() {
    let policy = Policy { when_empty: WhenEmpty::Proceed, ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a", "api/b"]);
    bench.pass(seconds(300));
    assert_eq!(bench.phase(), "preparing", "the leader's bus may be away");
}

#[test]
fn an_override_cuts_off_only_the_instances_that_it_names_and_an_excuse_none() {
    let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a", "api/b", "api/c"]);
    bench.order(Order::Excuse { instance: key("api/c") }).unwrap();
    for stage in [Stage::Prepared, Stage::Switched] {
        bench.sync("api/a", 2, stage, &[1, 2]);
        bench.sync("api/b", 2, stage, &[1, 2]);
    }
    assert_eq!(bench.phase(), "draining");
    bench.order(Order::cut_off(v(1), [key("api/a")].into(), false, "it hangs").unwrap()).unwrap();
    let retirement = &bench.coordinator.record().retirements[&v(1)];
    let standing = |name| {
        let member = bench.coordinator.member_of(&key(name)).unwrap();
        bench.coordinator.guard_standing(member, v(1), retirement, bench.now).0
    };
    let standings = ["api/a", "api/b", "api/c"].map(standing);
    assert_eq!(standings, [GuardStanding::Overridden, GuardStanding::Holding, GuardStanding::Holding]);
}

#[test]
fn an_instance_may_be_said_to_be_gone_only_after_it_missed_syncs_that_the_leader_would_have_heard() {
    let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..managed() };
    let gone = |bench: &mut Bench| bench.order(Order::gone(key("api/b"), "its node is lost").unwrap());

    let mut bench = Bench::draining(policy.clone(), &["api/a", "api/b"]);
    only_a_is_heard(&mut bench, 60);
    assert!(gone(&mut bench).is_err(), "`b` has missed no Sync");
    only_a_is_heard(&mut bench, 190);
    gone(&mut bench).unwrap();

    let mut bench = Bench::draining(policy, &["api/a", "api/b"]);
    bench.pass(seconds(300));
    assert!(gone(&mut bench).is_err(), "the leader hears no instance");
    only_a_is_heard(&mut bench, 10);
    assert!(gone(&mut bench).is_err(), "the leader did not hear `b` while it heard no instance");
    only_a_is_heard(&mut bench, 250);
    gone(&mut bench).unwrap();
}
