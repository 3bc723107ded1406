//! Versions from before the store lost history may have ended in it: a test login shows whether they still work.

use crate::bench::{Bench, managed, provider, seconds, v};
use crate::coordinator::{CommandKind, Input, Order};
use crate::message::Stage;
use crate::policy::Policy;
use crate::record::ProviderId;

fn fails(bench: &mut Bench, version: u64) {
    bench.input(Input::VerifyFailed { version: v(version), reason: "no such role".into() }).unwrap();
}

/// Its provider makes values that nothing can log in with.
fn without_logins() -> Policy {
    Policy { provider: Some(ProviderId { system: String::new(), ..provider() }), ..managed() }
}

#[test]
fn a_version_from_before_the_break_is_activated_only_once_its_test_login_works() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.current(), Some(1));
    assert!(bench.owes(&CommandKind::Test { version: v(2) }));
    bench.verified(2);
    assert_eq!(bench.current(), Some(2));
}

#[test]
fn no_rollback_leads_to_a_version_that_may_have_ended() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.verified(2);
    assert!(!bench.coordinator.record().stay);
    assert!(bench.order(Order::rollback("looked").unwrap()).is_err());
    bench.verified(1);
    bench.order(Order::rollback("looked").unwrap()).unwrap();
    assert_eq!(bench.current(), Some(1));
}

#[test]
fn in_safe_mode_no_version_is_given_up_for_one_that_may_have_ended() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.went_back();
    assert!(bench.order(Order::abandon(v(2), "no login").unwrap()).is_err());
    assert_eq!(bench.current(), Some(2));
}

#[test]
fn a_version_whose_test_login_fails_is_given_up_after_safe_mode_and_not_in_it() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.went_back();
    bench.verified(1);
    fails(&mut bench, 2);
    assert_eq!(bench.phase(), "draining", "it may be what all instances use");
    // Leaving safe mode has the login tried again.
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(bench.owes(&CommandKind::Test { version: v(2) }));
    fails(&mut bench, 2);
    assert_eq!((bench.phase(), bench.current()), ("rolling_back".into(), Some(1)));
}

#[test]
fn instances_stay_until_the_current_version_is_proved_to_work() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    fails(&mut bench, 1);
    assert!(bench.coordinator.record().stay);
    assert!(!bench.owes(&CommandKind::Test { version: v(1) }), "only an operator's order has it tried again");
    bench.order(Order::LeaveSafeMode).unwrap();
    bench.verified(1);
    assert!(!bench.coordinator.record().stay);
}

#[test]
fn where_nothing_can_log_in_an_operator_says_that_the_current_version_works() {
    let mut bench = Bench::running(without_logins(), &["api/a"]);
    bench.went_back();
    assert!(!bench.owes(&CommandKind::Test { version: v(1) }), "the shape of its value shows nothing");
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(!bench.coordinator.record().stay);
}

#[test]
fn leaving_safe_mode_says_nothing_of_the_current_version_while_another_one_waits() {
    let mut bench = Bench::running(without_logins(), &["api/a"]);
    bench.went_back();
    bench.sync("api/a", 7, Stage::Released, &[7]);
    bench.seen(8);
    bench.order(Order::LeaveSafeMode).unwrap();
    fails(&mut bench, 8);
    assert!(bench.coordinator.record().doubt(v(1)).is_some());
}

#[test]
fn an_order_to_rotate_ends_a_rollback_that_waits_for_instances_which_stay() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.went_back();
    bench.order(Order::LeaveSafeMode).unwrap();
    fails(&mut bench, 1);
    fails(&mut bench, 2);
    bench.order(Order::rollback("neither works").unwrap()).unwrap();
    bench.pass(seconds(60));
    assert_eq!(bench.phase(), "rolling_back");
    bench.order(Order::Rotate).unwrap();
    assert_eq!(bench.coordinator.record().rotation.as_ref().map(|rotation| rotation.new), Some(v(3)));
}

#[test]
fn safe_mode_holds_the_start_of_a_rotation_and_the_activation() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    bench.verified(1);
    bench.seen(2);
    assert_eq!(bench.phase(), "none");
    bench.order(Order::LeaveSafeMode).unwrap();
    assert_eq!(bench.phase(), "verifying");
    bench.verified(2);
    bench.went_back();
    bench.verified(2);
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "preparing");
    bench.order(Order::LeaveSafeMode).unwrap();
    assert_eq!(bench.current(), Some(2));
}
