//! An instance may still use what the lost history granted: it is waited for.

use std::collections::BTreeSet;

use super::LONG;
use crate::bench::{Bench, key, managed, seconds, secret, v};
use crate::coordinator::{Input, Order};
use crate::id::Epoch;
use crate::message::Stage;
use crate::record::{SecretRecord, Timing};

/// The long leases of a rotation that goes on run out, so the record's bound is lowered to the short tier's.
fn until_only_short_leases_run(bench: &mut Bench) {
    for _ in 0..800 {
        bench.pass(seconds(10));
        bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    }
    assert_eq!(bench.coordinator.record().bounds.lease, seconds(30));
}

#[test]
fn leases_of_a_lost_history_are_waited_for() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    until_only_short_leases_run(&mut bench);
    let backup = bench.coordinator.record().encode();
    // Lost: the rotation ends, and `a` gets a long lease again.
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(600)));
    bench.destroy(1);
    bench.settle();
    assert_eq!(bench.phase(), "none");
    let leases = bench.sync("api/a", 2, Stage::Released, &[2]);
    let granted = bench.now;
    // `a` runs, but is cut off from the bus.
    let mut next = Bench::restored(&backup, granted, 9);
    next.register("api/a");
    next.went_back();
    next.order(Order::LeaveSafeMode).unwrap();
    next.register("api/b");
    let ended = next.until_retires(1, LONG, |next| drop(next.sync("api/b", 2, Stage::Switched, &[2])));
    assert!(ended.is_some(), "version 1 is never retired");
    next.destroy(1);
    next.settle();
    next.seen(3);
    next.verified(3);
    next.sync("api/b", 3, Stage::Prepared, &[2, 3]);
    let ended = next.until_retires(2, LONG, |next| drop(next.sync("api/b", 3, Stage::Switched, &[3])));
    assert!(ended.is_some(), "version 2 is never retired");
    let after = next.now.instant.since(granted.instant);
    assert!(after > leases[&v(2)], "version 2 retires {after:?} after a lease of {:?} was granted", leases[&v(2)]);
}

/// The restored store has version 1 but no record.
#[test]
fn leases_of_a_record_that_was_lost_whole_are_waited_for() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let leases = bench.sync("api/a", 1, Stage::Released, &[1]);
    let policy = managed();
    let mut next = Bench::over(SecretRecord::new(secret(), Epoch(9), Timing::of(&policy)), policy, 9);
    next.register("api/a");
    next.register("api/b");
    next.input(Input::StoreWentBack { reason: "wiped".into() }).unwrap();
    next.order(Order::LeaveSafeMode).unwrap();
    next.seen(1);
    next.verified(1);
    assert_eq!(next.current(), Some(1));
    next.sync("api/b", 1, Stage::Released, &[1]);
    next.seen(2);
    next.verified(2);
    next.sync("api/b", 2, Stage::Prepared, &[1, 2]);
    let uses_two = |next: &mut Bench| drop(next.sync("api/b", 2, Stage::Switched, &[2]));
    let after = next.until_retires(1, LONG, uses_two);
    let after = after.expect("version 1 is never retired");
    assert!(after > leases[&v(1)], "version 1 retires {after:?} after a lease of {:?} was granted", leases[&v(1)]);
}

/// When the record takes in the version's number: in what the backup has, or once it comes again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    BeforeTheBreak,
    InSafeMode,
    AfterSafeMode,
}

#[test]
fn a_version_that_the_record_never_announced_may_have_been_in_the_lost_history() {
    for seen in [Seen::BeforeTheBreak, Seen::InSafeMode, Seen::AfterSafeMode] {
        let mut bench = Bench::running(managed(), &["api/a"]);
        if seen == Seen::BeforeTheBreak {
            bench.seen(2);
        }
        let backup = bench.coordinator.record().encode();
        // Lost: version 2 becomes current, and `a`, which is silent from now on, has a lease of an hour.
        if seen != Seen::BeforeTheBreak {
            bench.seen(2);
        }
        bench.verified(2);
        bench.sync("api/a", 1, Stage::Released, &[1]);
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        let leases = bench.sync("api/a", 2, Stage::Released, &[2]);
        let mut next = Bench::restored(&backup, bench.now, 9);
        next.register("api/a");
        next.register("api/b");
        next.went_back();
        let written = |next: &mut Bench| {
            if seen != Seen::BeforeTheBreak {
                next.seen(2);
            }
            next.seen(3);
        };
        if seen != Seen::AfterSafeMode {
            written(&mut next);
        }
        next.order(Order::LeaveSafeMode).unwrap();
        if seen == Seen::AfterSafeMode {
            // No instance stays any more, but leases of the lost history may be running.
            next.verified(1);
            assert!(!next.coordinator.record().stay);
            written(&mut next);
        }
        let after = next.until_retires(2, LONG, |next| drop(next.sync("api/b", 1, Stage::Released, &[1])));
        let after = after.unwrap_or_else(|| panic!("{seen:?}: version 2 is never retired"));
        assert!(
            after > leases[&v(2)],
            "{seen:?}: version 2 retires {after:?} after a lease of {:?} was granted",
            leases[&v(2)]
        );
    }
}

#[test]
fn a_second_restore_to_a_backup_taken_in_safe_mode_waits_for_lost_leases() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.went_back();
    until_only_short_leases_run(&mut bench);
    let backup = bench.coordinator.record().encode();
    // Lost: rolled back to 1, long leases again.
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.order(Order::rollback("looked").unwrap()).unwrap();
    bench.sync("api/a", 1, Stage::Released, &[1]);
    assert!(bench.drains(2, seconds(600)));
    bench.destroy(2);
    bench.settle();
    assert_eq!((bench.phase(), bench.current()), ("none".into(), Some(1)));
    let leases = bench.sync("api/a", 1, Stage::Released, &[1]);
    assert_eq!(leases[&v(1)], seconds(3600));
    // `a` is cut off, with version 1 for an hour.
    let mut next = Bench::restored(&backup, bench.now, 9);
    next.register("api/a");
    next.register("api/b");
    next.went_back();
    next.order(Order::LeaveSafeMode).unwrap();
    let after = next.until_retires(1, LONG, |next| drop(next.sync("api/b", 2, Stage::Switched, &[2])));
    let after = after.expect("version 1 is never retired");
    assert!(after > leases[&v(1)], "S1: version 1 retires {after:?} after a lease of {:?} was granted", leases[&v(1)]);
}

/// An instance that wants version 1 by the other history has not released it.
#[test]
fn a_report_of_a_lost_history_is_no_release() {
    let bench = Bench::draining(managed(), &["api/a"]);
    let backup = bench.coordinator.record().encode();
    let mut first = Bench::restored(&backup, bench.now, 9);
    first.register("api/a");
    first.went_back();
    first.order(Order::LeaveSafeMode).unwrap();
    first.order(Order::rollback("looked").unwrap()).unwrap();
    first.pass(seconds(1));
    let lost = first.coordinator.record().clone();
    assert_eq!(first.current(), Some(1));
    // Restored again. `b` has acted on the newest state of the history before: it wants version 1, and does not hold it yet.
    let mut next = Bench::restored(&backup, first.now, 10);
    next.register("api/a");
    next.register("api/b");
    next.went_back();
    next.order(Order::LeaveSafeMode).unwrap();
    for _ in 0..400 {
        next.pass(seconds(10));
        next.sync("api/a", 2, Stage::Switched, &[2]);
        // `b` stays with the other history, and holds the seal back.
        let (sequence, mut report) = next.report_of("api/b", 1, Stage::Seen, &[]);
        (report.revision, report.generation) = (lost.revision, lost.generation);
        next.input(Input::Sync { key: key("api/b"), sequence, report }).unwrap();
        let granted = next.coordinator.grant(&key("api/b")).unwrap().sequence;
        next.said.get_mut(&key("api/b")).unwrap().lease = granted;
    }
    let grant = next.coordinator.grant(&key("api/b")).unwrap();
    let lease = *grant.leases.get(&v(1)).expect("it is leased");
    let granted = next.now.instant;
    // A report (of a failed load, or of a change to another secret) names that grant. Then `b` loads version 1, uses it, and
    // is not heard any more.
    let (sequence, mut report) = next.report_of("api/b", 1, Stage::Seen, &[]);
    (report.revision, report.generation) = (lost.revision, lost.generation);
    next.input(Input::Report { key: key("api/b"), sequence, report }).unwrap();
    next.until_retires(1, LONG, |next| drop(next.sync("api/a", 2, Stage::Switched, &[2]))).unwrap();
    let after = next.now.instant.since(granted);
    assert!(
        after > lease,
        "S1: version 1 retires {after:?} after a lease of {lease:?} was granted to `b`, which wants it"
    );
}

#[test]
fn an_override_of_before_the_break_is_void() {
    let mut bench = Bench::draining(managed(), &["api/a", "api/b"]);
    let instances = BTreeSet::from([key("api/a")]);
    bench.order(Order::cut_off(v(1), instances, false, "it hangs").unwrap()).unwrap();
    let backup = bench.coordinator.record().encode();
    // Lost: the operator rolls back after all, which voids the override, and `a` goes on with version 1.
    bench.order(Order::rollback("looked").unwrap()).unwrap();
    assert!(bench.sync("api/a", 1, Stage::Released, &[1]).contains_key(&v(1)));
    let mut next = Bench::restored(&backup, bench.now, 9);
    next.register("api/a");
    next.register("api/b");
    next.went_back();
    next.order(Order::LeaveSafeMode).unwrap();
    let after = next.until_retires(1, LONG, |next| {
        next.sync("api/b", 2, Stage::Switched, &[2]);
        next.sync("api/a", 1, Stage::Released, &[1]);
    });
    assert_eq!(after, None, "S1: version 1 retires while `a`, which is heard every second, uses it");
}
