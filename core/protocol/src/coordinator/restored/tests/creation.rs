//! Making a credential when the lost history may have made another one under the same number.

use super::LONG;
use crate::bench::{Bench, managed, v};
use crate::coordinator::{CommandKind, Order};
use crate::message::Stage;
use crate::phase::Outcome;
use crate::record::{RecordChange, SafeMode, Unknown};

#[test]
fn a_credential_that_was_to_be_made_when_the_history_broke_is_given_up() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.order(Order::Rotate).unwrap();
    let create = CommandKind::Create { version: v(2) };
    assert!(bench.owes(&create));
    bench.went_back();
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
    assert!(bench.until_retires(1, LONG, holds).is_some(), "no instance uses version 1");
    bench.destroy(1);
    bench.settle();
    assert_eq!(bench.until_retires(2, LONG, holds), None, "S1: `a` holds version 2");
    assert!(bench.until_retires(2, LONG, |bench| drop(bench.sync("api/a", 4, Stage::Released, &[4]))).is_some());
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

/// As an earlier release left it: in safe mode with a credential still to be made.
#[test]
fn no_credential_is_made_in_safe_mode() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.order(Order::Rotate).unwrap();
    let mut record = bench.coordinator.record().clone();
    let safe_mode = SafeMode { reason: "restored".into(), at: bench.now.wall, unknown: Unknown::new() };
    record.apply(&RecordChange::SafeModeEntered(safe_mode));
    let mut next = Bench::restored(&record.encode(), bench.now, 2);
    next.published();
    let create = CommandKind::Create { version: v(2) };
    assert!(!next.owes(&create), "in the lost history, a credential of this number may be in use");
    next.order(Order::LeaveSafeMode).unwrap();
    next.published();
    assert!(next.owes(&create));
}
