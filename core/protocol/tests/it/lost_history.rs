//! A store that was restored from a backup, or wiped: leases of the history it lost are waited for.

use crate::bench::{Bench, managed, seconds, secret, v};
use rotacast_protocol::coordinator::{Input, Order};
use rotacast_protocol::message::Stage;
use rotacast_protocol::record::SecretRecord;

#[test]
fn leases_of_a_lost_history_are_waited_for() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    // Long leases run out; a keeps version 1 busy so the rotation stays; the bound is lowered.
    for _ in 0..800 {
        bench.pass(seconds(10));
        bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    }
    let backup = bench.coordinator.record().encode();
    // Lost history: the rotation ends, long leases again.
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(600)));
    bench.destroy(1);
    bench.settle();
    assert_eq!(bench.phase(), "none");
    let leases = bench.sync("api/a", 2, Stage::Released, &[2]);
    let granted = bench.now;
    // Restored; next term; instance a is alive but cut off from the bus.
    let record = SecretRecord::decode(&backup).unwrap();
    let policy = managed();
    let mut next = Bench::over(record, policy, 9);
    next.now = granted;
    let tenure = rotacast_protocol::coordinator::Tenure {
        epoch: rotacast_protocol::Epoch(9),
        since: granted,
        valid_until: granted.instant + seconds(10_000_000),
    };
    next.coordinator = rotacast_protocol::coordinator::Coordinator::take_over(
        SecretRecord::decode(&backup).unwrap(),
        managed(),
        tenure,
    );
    next.input(Input::RosterRead).unwrap();
    next.register("api/a");
    next.input(Input::StoreWentBack { reason: "restored".into() }).unwrap();
    next.order(Order::LeaveSafeMode).unwrap();
    next.register("api/b");
    let run = |next: &mut Bench, version: u64, reached: u64, held: &[u64], limit: u64| {
        for n in 0..limit {
            if next.retires(version) {
                return Some(n);
            }
            next.serve_guard(version);
            next.pass(seconds(1));
            next.sync("api/b", reached, Stage::Switched, held);
        }
        None
    };
    assert!(run(&mut next, 1, 2, &[2], 5000).is_some(), "version 1 is never retired");
    next.destroy(1);
    next.settle();
    next.seen(3);
    next.verified(3);
    next.sync("api/b", 3, Stage::Prepared, &[2, 3]);
    assert!(run(&mut next, 2, 3, &[3], 5000).is_some(), "version 2 is never retired");
    let after = next.now.instant.since(granted.instant);
    assert!(after > leases[&v(2)], "version 2 retires {after:?} after a lease of {:?} was granted", leases[&v(2)]);
}

#[test]
fn leases_of_a_record_that_was_lost_whole_are_waited_for() {
    // Lost history: version 1 current, a has an hour. The restored store has version 1 (or only older state) but no record.
    let mut bench = Bench::running(managed(), &["api/a"]);
    let leases = bench.sync("api/a", 1, Stage::Released, &[1]);
    let policy = managed();
    let record =
        SecretRecord::new(secret(), rotacast_protocol::Epoch(9), rotacast_protocol::record::Timing::of(&policy));
    let mut next = Bench::over(record, policy, 9);
    let began = next.now;
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
    for _ in 0..900 {
        if next.retires(1) {
            break;
        }
        next.serve_guard(1);
        next.pass(seconds(1));
        next.sync("api/b", 2, Stage::Switched, &[2]);
    }
    let after = next.now.instant.since(began.instant);
    assert!(!next.retires(1), "version 1 retires {after:?} after a lease of {:?} was granted", leases[&v(1)]);
}

#[test]
fn a_version_that_the_record_never_announced_may_have_been_in_the_lost_history() {
    for written_again in [false, true] {
        let mut bench = Bench::running(managed(), &["api/a"]);
        if !written_again {
            bench.seen(2);
        }
        let backup = bench.coordinator.record().encode();
        // Lost history: version 2 becomes current, and instance a, which is silent from now on, has it for an hour.
        if written_again {
            bench.seen(2);
        }
        bench.verified(2);
        bench.sync("api/a", 1, Stage::Released, &[1]);
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        let leases = bench.sync("api/a", 2, Stage::Released, &[2]);
        let mut next = Bench::over(SecretRecord::decode(&backup).unwrap(), managed(), 9);
        next.now = bench.now;
        let granted = bench.now;
        next.register("api/a");
        next.register("api/b");
        next.input(Input::StoreWentBack { reason: "restored".into() }).unwrap();
        if written_again {
            next.seen(2);
        }
        next.seen(3);
        next.order(Order::LeaveSafeMode).unwrap();
        next.settle();
        for _ in 0..5000 {
            if next.retires(2) {
                break;
            }
            next.serve_guard(2);
            next.pass(seconds(1));
            next.sync("api/b", 1, Stage::Released, &[1]);
        }
        let after = next.now.instant.since(granted.instant);
        assert!(next.retires(2), "version 2 is never retired");
        assert!(after > leases[&v(2)], "version 2 retires {after:?} after a lease of {:?} was granted", leases[&v(2)]);
    }
}

#[test]
fn whoever_serves_stays_until_what_waits_is_current() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let stays = |bench: &Bench| bench.coordinator.record().state().stay;
    assert!(!stays(&bench));
    bench.input(Input::StoreWentBack { reason: "restored".into() }).unwrap();
    assert!(stays(&bench));
    // Nobody knows version 7 any more, and whoever serves it goes on.
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

    // Nothing waits: from then on the record is believed.
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.input(Input::StoreWentBack { reason: "restored".into() }).unwrap();
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(stays(&bench), "version 1 may have ended in the lost history");
    bench.verified(1);
    assert!(!stays(&bench));
}

/// Generations leap over what was lost; what people call a rotation does not.
#[test]
fn a_rotation_after_a_break_has_the_next_small_number() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let first = bench.coordinator.record().rotations;
    bench.input(Input::StoreWentBack { reason: "restored".into() }).unwrap();
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.seen(2);
    let rotation = bench.coordinator.record().rotation.clone().unwrap();
    assert_eq!((first.0, rotation.number.0), (1, 2));
    assert!(rotation.generation.0 > 1 << 32, "{:?}", rotation.generation);
    // A later leader goes on counting.
    bench.take_over();
    bench.verified(2);
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.order(Order::rollback("no").unwrap()).unwrap();
    bench.sync("api/a", 1, Stage::Released, &[1]);
    let ended = bench.coordinator.record().history.last().map(|ended| ended.number.0);
    assert!(ended == Some(1) || ended == Some(2), "{ended:?}");
}
