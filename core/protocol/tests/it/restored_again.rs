//! A store that was restored more than once, in the middle of a rotation, or to a backup that was itself taken after a
//! restoration: found by directed attacks on what a break in the store's history is answered with.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bench::{Bench, key, managed, seconds, v};
use rotacast_protocol::coordinator::{CommandKind, ConditionName, Coordinator, Input, Order, Overlay, Tenure};
use rotacast_protocol::message::Stage;
use rotacast_protocol::policy::{Deadline, OnDeadline};
use rotacast_protocol::record::{RecordChange, SafeMode, SecretRecord, Unknown};
use rotacast_protocol::{Epoch, Now, Outcome, Phase, Version};

fn restored(backup: &[u8], at: Now, epoch: u64) -> Bench {
    let record = SecretRecord::decode(backup).unwrap();
    let mut next = Bench::over(record.clone(), managed(), epoch);
    next.now = at;
    let valid_until = at.instant + seconds(10_000_000);
    next.coordinator =
        Coordinator::take_over(record, managed(), Tenure { epoch: Epoch(epoch), since: at, valid_until });
    next.input(Input::RosterRead).unwrap();
    next
}

fn went_back(bench: &mut Bench) -> bool {
    bench.input(Input::StoreWentBack { reason: "restored".into() }).is_ok()
}

fn until_retires(next: &mut Bench, version: u64, limit: u64, mut each: impl FnMut(&mut Bench)) -> Option<Duration> {
    let began = next.now.instant;
    for _ in 0..limit {
        if next.retires(version) {
            return Some(next.now.instant.since(began));
        }
        next.serve_guard(version);
        next.pass(seconds(1));
        each(next);
    }
    None
}

#[test]
fn a_second_restore_to_a_backup_taken_in_safe_mode_waits_for_lost_leases() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    assert!(went_back(&mut bench));
    for _ in 0..800 {
        bench.pass(seconds(10));
        bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    }
    assert_eq!(bench.coordinator.record().bounds.lease, seconds(30));
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
    // The store is restored again, and that is noticed. `a` is cut off, on version 1 for an hour.
    let mut next = restored(&backup, bench.now, 9);
    next.register("api/a");
    next.register("api/b");
    let noted = went_back(&mut next);
    let before = next.revision();
    next.order(Order::LeaveSafeMode).unwrap();
    let after = until_retires(&mut next, 1, 5000, |next| {
        next.sync("api/b", 2, Stage::Switched, &[2]);
    });
    let after = after.unwrap();
    assert!(
        after > leases[&v(1)],
        "S1: noted={noted}, revision {before} (published before: {}): version 1 retires {after:?} after an hour's lease of it was granted",
        bench.revision()
    );
}

#[test]
fn restored_twice_to_the_same_backup_the_second_leap_is_above_the_first() {
    let bench = Bench::running(managed(), &["api/a"]);
    let backup = bench.coordinator.record().encode();
    let mut first = restored(&backup, bench.now, 9);
    went_back(&mut first);
    first.order(Order::LeaveSafeMode).unwrap();
    first.seen(2);
    first.verified(2);
    first.pass(seconds(1));
    let mut second = restored(&backup, first.now, 10);
    went_back(&mut second);
    assert!(
        second.revision() > first.revision()
            && second.coordinator.record().generation > first.coordinator.record().generation,
        "second leap: revision {} generation {}; instances are at {} and {}: they refuse every state",
        second.revision(),
        second.coordinator.record().generation.0,
        first.revision(),
        first.coordinator.record().generation.0
    );
}

/// An instance that wants version 1 by the other history has not released it.
#[test]
fn a_report_of_a_lost_history_is_no_release() {
    let bench = Bench::draining(managed(), &["api/a"]);
    let backup = bench.coordinator.record().encode();
    let mut first = restored(&backup, bench.now, 9);
    first.register("api/a");
    went_back(&mut first);
    first.order(Order::LeaveSafeMode).unwrap();
    first.order(Order::rollback("looked").unwrap()).unwrap();
    first.pass(seconds(1));
    let lost = first.coordinator.record().clone();
    assert_eq!(first.current(), Some(1));
    // Restored again; b has acted on the newest state of the history before: it wants version 1, and does not hold it yet.
    let mut next = restored(&backup, first.now, 10);
    next.register("api/a");
    next.register("api/b");
    assert!(went_back(&mut next));
    next.order(Order::LeaveSafeMode).unwrap();
    for _ in 0..400 {
        next.pass(seconds(10));
        next.sync("api/a", 2, Stage::Switched, &[2]);
        // b is there and stays on the other history; it holds back the seal, so far rightly.
        let (sequence, mut report) = next.report_of("api/b", 1, Stage::Seen, &[]);
        (report.revision, report.generation) = (lost.revision, lost.generation);
        next.input(Input::Sync { key: key("api/b"), sequence, report }).unwrap();
        let granted = next.coordinator.grant(&key("api/b")).unwrap().sequence;
        next.said.get_mut(&key("api/b")).unwrap().lease = granted;
    }
    let grant = next.coordinator.grant(&key("api/b")).unwrap();
    let lease = *grant.leases.get(&v(1)).expect("it is leased");
    let granted = next.now.instant;
    // A report (of a failed load, or of news of another secret) names that grant. Then b loads version 1, uses it, and
    // nothing more of it arrives.
    let (sequence, mut report) = next.report_of("api/b", 1, Stage::Seen, &[]);
    (report.revision, report.generation) = (lost.revision, lost.generation);
    next.input(Input::Report { key: key("api/b"), sequence, report }).unwrap();
    until_retires(&mut next, 1, 5000, |next| {
        next.sync("api/a", 2, Stage::Switched, &[2]);
    })
    .unwrap();
    let after = next.now.instant.since(granted);
    assert!(after > lease, "S1: version 1 retires {after:?} after a lease of {lease:?} was granted to who wants it");
}

/// A rotation was in flight in the backup.
#[test]
fn leaving_with_a_rotation_in_flight_sends_nobody_back_while_a_version_waits() {
    for preparing in [true, false] {
        let mut bench = match preparing {
            true => Bench::preparing(managed(), &["api/a"]),
            false => Bench::draining(managed(), &["api/a"]),
        };
        went_back(&mut bench);
        bench.sync("api/a", 7, Stage::Released, &[7]);
        bench.seen(8);
        bench.order(Order::LeaveSafeMode).unwrap();
        let state = bench.coordinator.record().state();
        assert!(
            state.stay,
            "preparing={preparing}: version 8 waits, and everybody is sent back to {:?}; leased: {:?}",
            state.current,
            bench.sync("api/a", 7, Stage::Released, &[7])
        );
    }
}

/// The deadline of a phase that safe mode itself holds up passes in safe mode.
#[test]
fn nothing_is_rolled_back_in_safe_mode_by_a_deadline() {
    let mut policy = managed();
    policy.deadlines.insert(Phase::Preparing, Deadline { after: seconds(600), then: OnDeadline::RollBack });
    let mut bench = Bench::preparing(policy, &["api/a"]);
    went_back(&mut bench);
    // In the lost history version 2 is current and version 1 has ended.
    bench.sync("api/a", 2, Stage::Prepared, &[2]);
    bench.pass(seconds(601));
    assert_eq!(bench.phase(), "preparing", "version 2, which is in use, is given up while nobody has looked");
}

#[test]
fn a_number_that_comes_again_after_safe_mode_was_left_may_be_leased_too() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let backup = bench.coordinator.record().encode();
    bench.seen(2);
    bench.verified(2);
    bench.sync("api/a", 1, Stage::Released, &[1]);
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    let leases = bench.sync("api/a", 2, Stage::Released, &[2]);
    let mut next = restored(&backup, bench.now, 9);
    next.register("api/a");
    next.register("api/b");
    assert!(went_back(&mut next));
    next.order(Order::LeaveSafeMode).unwrap();
    next.seen(2);
    next.seen(3);
    let after = until_retires(&mut next, 2, 5000, |next| {
        next.sync("api/b", 1, Stage::Released, &[1]);
    })
    .unwrap();
    assert!(after > leases[&v(2)], "S1: version 2 retires {after:?} after a lease of {:?} was granted", leases[&v(2)]);
}

/// Ended versions that the record no longer lists are not of the lost history.
#[test]
fn what_was_retired_long_ago_is_not_leased_again() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    for new in 2..=25 {
        bench.seen(new);
        bench.verified(new);
        bench.sync("api/a", new, Stage::Prepared, &[new - 1, new]);
        bench.sync("api/a", new, Stage::Switched, &[new - 1, new]);
        bench.sync("api/a", new, Stage::Released, &[new]);
        assert!(bench.drains(new - 1, seconds(9000)));
        bench.destroy(new - 1);
        bench.settle();
    }
    assert_eq!(bench.phase(), "none");
    bench.register("api/slept");
    assert!(!bench.sync("api/slept", 1, Stage::Released, &[1]).contains_key(&v(1)));
    went_back(&mut bench);
    let state = bench.coordinator.record().state();
    let leases = bench.sync("api/slept", 1, Stage::Released, &[1]);
    assert!(
        !leases.contains_key(&v(1)),
        "version 1 was retired here, and is leased: {leases:?}; sealed: {:?}",
        state.sealed
    );
}

#[test]
fn grants_of_versions_nobody_knows_are_bounded() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    went_back(&mut bench);
    for round in 0..500_u64 {
        let held: Vec<u64> = (0..16).map(|n| 1_000_000 + round * 16 + n).collect();
        bench.sync("api/a", 1, Stage::Released, &held);
    }
    let grants = bench.coordinator.member_of(&key("api/a")).unwrap().grants();
    assert!(grants <= 64, "B: {grants} grants of one member are remembered");
}

#[test]
fn an_override_of_before_the_break_is_void() {
    let mut bench = Bench::draining(managed(), &["api/a", "api/b"]);
    let instances = BTreeSet::from([key("api/a")]);
    bench.order(Order::cut_off(v(1), instances, false, "it hangs").unwrap()).unwrap();
    let backup = bench.coordinator.record().encode();
    // Lost: the operator thinks again and rolls back, which voids the override; a goes on with version 1.
    bench.order(Order::rollback("looked").unwrap()).unwrap();
    assert!(bench.sync("api/a", 1, Stage::Released, &[1]).contains_key(&v(1)));
    let mut next = restored(&backup, bench.now, 9);
    next.register("api/a");
    next.register("api/b");
    went_back(&mut next);
    next.order(Order::LeaveSafeMode).unwrap();
    let after = until_retires(&mut next, 1, 5000, |next| {
        next.sync("api/b", 2, Stage::Switched, &[2]);
        next.sync("api/a", 1, Stage::Released, &[1]);
    });
    assert_eq!(after, None, "S1: version 1 retires while a, which is heard every second, uses it");
}

/// The version that waited is refused.
#[test]
fn that_instances_still_stay_is_told_and_can_be_ended() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    went_back(&mut bench);
    bench.verified(1);
    bench.sync("api/a", 7, Stage::Released, &[7]);
    bench.seen(8);
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.input(Input::VerifyFailed { version: v(8), reason: "no login".into() }).unwrap();
    assert!(bench.drains(8, seconds(9000)));
    bench.destroy(8);
    bench.settle();
    let (stay, overlays) = (bench.coordinator.record().stay, bench.coordinator.overlays(bench.now));
    let blockers = bench.coordinator.blockers(bench.now);
    assert!(stay && overlays == [Overlay::Staying], "phase {}: {overlays:?}", bench.phase());
    assert!(blockers.iter().any(|blocker| blocker.condition == ConditionName::Staying), "{blockers:?}");
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(!bench.coordinator.record().stay && bench.coordinator.overlays(bench.now).is_empty());
    assert!(bench.order(Order::LeaveSafeMode).is_err());
}

#[test]
fn a_number_in_use_is_taken_although_its_user_was_silent_in_safe_mode() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    went_back(&mut bench);
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.register("api/late");
    bench.sync("api/late", 2, Stage::Released, &[2]);
    let comes_again = bench.input(Input::VersionSeen { version: Version::new(2).unwrap() }).is_ok();
    assert!(!comes_again, "number 2 comes again while it is reported as held");
}

#[test]
fn a_credential_that_was_to_be_made_when_the_history_broke_is_given_up() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.order(Order::Rotate).unwrap();
    let create = CommandKind::Create { version: v(2) };
    assert!(bench.owes(&create));
    assert!(went_back(&mut bench));
    let record = bench.coordinator.record();
    let finished = record.history.last().unwrap();
    assert_eq!((finished.new, finished.outcome, &record.rotation), (v(2), Outcome::RolledBack, &None));
    assert!(finished.reason.contains("the store's history broke"), "{}", finished.reason);
    // The lost history had made version 2, and after it version 3: the instance uses both.
    let leases = bench.sync("api/a", 3, Stage::Switched, &[2, 3]);
    assert!(leases.contains_key(&v(2)) && leases.contains_key(&v(3)), "{leases:?}");
    bench.seen(4);
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.settle();
    assert!(!bench.owes(&create), "a credential of this number is in use");
    bench.verified(4);
    bench.sync("api/a", 4, Stage::Prepared, &[2, 3, 4]);
    assert_eq!(bench.current(), Some(4));
    // Version 2 ends like every rejected one: not while it is held.
    let holds = |bench: &mut Bench| drop(bench.sync("api/a", 4, Stage::Switched, &[2, 4]));
    holds(&mut bench);
    assert!(until_retires(&mut bench, 1, 5000, holds).is_some(), "no instance uses version 1");
    bench.destroy(1);
    bench.settle();
    assert_eq!(until_retires(&mut bench, 2, 5000, holds), None, "S1: a holds version 2");
    assert!(until_retires(&mut bench, 2, 5000, |bench| drop(bench.sync("api/a", 4, Stage::Released, &[4]))).is_some());
}

#[test]
fn a_credential_is_made_only_once_the_bus_has_taken_a_state_of_the_term() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.order(Order::Rotate).unwrap();
    let create = CommandKind::Create { version: v(2) };
    bench.take_over();
    assert!(!bench.owes(&create), "the store may have been restored, and the bus may know of it");
    bench.published();
    assert!(bench.owes(&create));
}

#[test]
fn a_barrier_that_was_under_way_at_the_break_does_not_count() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.pass(seconds(2 * 3600));
    let revision = bench.coordinator.record().revision;
    assert!(bench.coordinator.record().state().sealed.contains(&v(1)));
    assert!(went_back(&mut bench));
    assert!(bench.input(Input::BarrierPassed { version: v(1), revision }).is_err());
}

/// Everybody serves the version that came back as the new one, and stays with it until the one that waits is current: that one
/// does not wait until they have let go of it.
#[test]
fn a_rollback_that_nobody_follows_makes_way_for_the_version_that_waits() {
    let bench = Bench::draining(managed(), &["api/a"]);
    let backup = bench.coordinator.record().encode();
    // Lost: version 1 was retired. `a` serves version 2.
    let mut next = restored(&backup, bench.now, 9);
    next.register("api/a");
    assert!(went_back(&mut next));
    next.seen(3);
    next.order(Order::LeaveSafeMode).unwrap();
    next.order(Order::rollback("in the way").unwrap()).unwrap();
    for _ in 0..600 {
        if next.phase() != "rolling_back" {
            break;
        }
        next.pass(seconds(1));
        next.sync("api/a", 1, Stage::Seen, &[2]);
    }
    assert_eq!(next.coordinator.record().rotation.as_ref().map(|rotation| rotation.new), Some(v(3)));
    next.verified(3);
    let leases = next.sync("api/a", 3, Stage::Prepared, &[2, 3]);
    assert!(leases.contains_key(&v(2)), "it serves version 2 all the time: {leases:?}");
    assert_eq!(next.current(), Some(3));
    let holds = |next: &mut Bench| drop(next.sync("api/a", 3, Stage::Switched, &[2, 3]));
    holds(&mut next);
    // Longer than the longest lease of the lost history.
    let long = 5000;
    assert!(until_retires(&mut next, 1, long, holds).is_some(), "nobody uses version 1");
    next.destroy(1);
    next.settle();
    assert_eq!(next.phase(), "none");
    // The rejected version is not forgotten: it goes once it is let go of, and not before.
    assert_eq!(until_retires(&mut next, 2, long, holds), None, "S1: a holds version 2");
    assert!(until_retires(&mut next, 2, long, |next| drop(next.sync("api/a", 3, Stage::Released, &[3]))).is_some());
}

/// As an earlier release left it: in safe mode with a credential still to be made.
#[test]
fn no_credential_is_made_in_safe_mode() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.order(Order::Rotate).unwrap();
    let mut record = bench.coordinator.record().clone();
    let safe_mode = SafeMode { reason: "restored".into(), at: bench.now.wall, unknown: Unknown::new() };
    record.apply(&RecordChange::SafeModeEntered(safe_mode));
    let mut next = restored(&record.encode(), bench.now, 2);
    next.published();
    let create = CommandKind::Create { version: v(2) };
    assert!(!next.owes(&create), "in the lost history, a credential of this number may be in use");
    next.order(Order::LeaveSafeMode).unwrap();
    next.published();
    assert!(next.owes(&create));
}
