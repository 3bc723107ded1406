//! Instances that stay with what they serve, and rotations that are in flight meanwhile.

use super::LONG;
use crate::bench::{Bench, managed, seconds, v};
use crate::coordinator::{ConditionName, Input, Order, Overlay};
use crate::message::Stage;
use crate::phase::Phase;
use crate::policy::{Deadline, OnDeadline};

#[test]
fn instances_stay_with_what_they_serve_until_the_version_that_waits_is_current() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let stays = |bench: &Bench| bench.coordinator.record().state().stay;
    assert!(!stays(&bench));
    bench.went_back();
    assert!(stays(&bench));
    // The record does not know version 7, and instances that serve it keep it.
    assert!(bench.sync("api/a", 7, Stage::Released, &[7]).contains_key(&v(7)));
    bench.seen(8);
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.settle();
    assert!(stays(&bench) && bench.sync("api/a", 7, Stage::Released, &[7]).contains_key(&v(7)));
    bench.verified(8);
    bench.sync("api/a", 8, Stage::Prepared, &[7, 8]);
    bench.settle();
    assert_eq!((bench.current(), stays(&bench)), (Some(8), false));
    assert!(!bench.sync("api/a", 8, Stage::Switched, &[7, 8]).contains_key(&v(7)));

    // No version waits: once the current version is proved to work, instances follow the record again.
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(stays(&bench), "version 1 may have ended in the lost history");
    bench.verified(1);
    assert!(!stays(&bench));
}

/// A rotation was in flight in the backup.
#[test]
fn leaving_safe_mode_with_a_rotation_in_flight_sends_no_instance_back_while_a_version_waits() {
    for preparing in [true, false] {
        let mut bench = match preparing {
            true => Bench::preparing(managed(), &["api/a"]),
            false => Bench::draining(managed(), &["api/a"]),
        };
        bench.went_back();
        bench.sync("api/a", 7, Stage::Released, &[7]);
        bench.seen(8);
        bench.order(Order::LeaveSafeMode).unwrap();
        let state = bench.coordinator.record().state();
        assert!(
            state.stay,
            "preparing={preparing}: version 8 waits, and every instance is sent back to {:?}; leased: {:?}",
            state.current,
            bench.sync("api/a", 7, Stage::Released, &[7])
        );
    }
}

#[test]
fn a_deadline_that_passes_in_safe_mode_rolls_nothing_back() {
    let mut policy = managed();
    policy.deadlines.insert(Phase::Preparing, Deadline { after: seconds(600), then: OnDeadline::RollBack });
    let mut bench = Bench::preparing(policy, &["api/a"]);
    bench.went_back();
    // In the lost history version 2 is current and version 1 has ended.
    bench.sync("api/a", 2, Stage::Prepared, &[2]);
    bench.pass(seconds(601));
    assert_eq!(bench.phase(), "preparing", "version 2, which is in use, is given up before an operator has looked");
}

#[test]
fn instances_that_stay_although_no_version_waits_are_reported_and_follow_on_a_second_order() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    bench.verified(1);
    bench.sync("api/a", 7, Stage::Released, &[7]);
    bench.seen(8);
    bench.order(Order::LeaveSafeMode).unwrap();
    // The version that waited fails, so no version waits any more.
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

/// Every instance serves the version that is rolled back, and stays with it until the version that waits is current. So that
/// version does not wait for the instances to release the other one.
#[test]
fn a_rollback_that_no_instance_follows_makes_way_for_the_version_that_waits() {
    let bench = Bench::draining(managed(), &["api/a"]);
    let backup = bench.coordinator.record().encode();
    // Lost: version 1 was retired. `a` serves version 2.
    let mut next = Bench::restored(&backup, bench.now, 9);
    next.register("api/a");
    next.went_back();
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
    assert!(next.until_retires(1, LONG, holds).is_some(), "no instance uses version 1");
    next.destroy(1);
    next.settle();
    assert_eq!(next.phase(), "none");
    // The rejected version is retired once `a` has released it, and not before.
    assert_eq!(next.until_retires(2, LONG, holds), None, "S1: `a` holds version 2");
    assert!(next.until_retires(2, LONG, |next| drop(next.sync("api/a", 3, Stage::Released, &[3]))).is_some());
}
