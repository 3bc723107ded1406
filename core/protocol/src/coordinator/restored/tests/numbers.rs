//! Numbers after a break: none that the lost history used is used again.

use crate::bench::{Bench, managed, seconds, v};
use crate::coordinator::{Input, Order};
use crate::message::Stage;

#[test]
fn a_second_restore_to_the_same_backup_leaps_above_the_first() {
    let bench = Bench::running(managed(), &["api/a"]);
    let backup = bench.coordinator.record().encode();
    let mut first = Bench::restored(&backup, bench.now, 9);
    first.went_back();
    first.order(Order::LeaveSafeMode).unwrap();
    first.seen(2);
    first.verified(2);
    first.pass(seconds(1));
    let mut second = Bench::restored(&backup, first.now, 10);
    second.went_back();
    assert!(
        second.revision() > first.revision()
            && second.coordinator.record().generation > first.coordinator.record().generation,
        "the second leap is to revision {} and generation {}, below {} and {} of the first: instances refuse every state",
        second.revision(),
        second.coordinator.record().generation.0,
        first.revision(),
        first.coordinator.record().generation.0
    );
}

/// Generations leap over what was lost. The number that people use for a rotation does not.
#[test]
fn a_rotation_after_a_break_has_the_next_small_number() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let first = bench.coordinator.record().rotations;
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.seen(2);
    let rotation = bench.coordinator.record().rotation.clone().unwrap();
    assert_eq!((first.0, rotation.number.0), (1, 2));
    assert!(rotation.generation.0 > 1 << 32, "{:?}", rotation.generation);
    // A later leader goes on counting.
    bench.take_over();
    bench.input(Input::RosterRead).unwrap();
    [1, 2].into_iter().for_each(|version| bench.verified(version));
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.order(Order::rollback("no").unwrap()).unwrap();
    bench.sync("api/a", 1, Stage::Released, &[1]);
    assert!(bench.drains(2, seconds(9000)));
    bench.destroy(2);
    bench.settle();
    assert_eq!(bench.coordinator.record().history.last().map(|ended| ended.number.0), Some(2));
    bench.seen(3);
    assert_eq!(bench.coordinator.record().rotation.as_ref().map(|rotation| rotation.number.0), Some(3));
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
    bench.went_back();
    let state = bench.coordinator.record().state();
    let leases = bench.sync("api/slept", 1, Stage::Released, &[1]);
    assert!(
        !leases.contains_key(&v(1)),
        "version 1 was retired here, and is leased: {leases:?}; sealed: {:?}",
        state.sealed
    );
}

#[test]
fn a_number_in_use_is_taken_although_its_user_was_silent_in_safe_mode() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.register("api/late");
    bench.sync("api/late", 2, Stage::Released, &[2]);
    let comes_again = bench.input(Input::VersionSeen { version: v(2) }).is_ok();
    assert!(!comes_again, "number 2 comes again while it is reported as held");
}
