use crate::bench::{Bench, managed, seconds, v};
use crate::coordinator::{ConditionName, Evidence, Input, Order, Rejection};
use crate::message::Stage;
use crate::record::RetireStep;

#[test]
fn a_usage_reading_of_an_earlier_retirement_does_not_count_for_a_later_one() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    let sent = bench.now.instant;
    bench.pass(seconds(1));
    bench.order(Order::rollback("no").unwrap()).unwrap();
    assert!(bench.coordinator.record().sealed().is_empty(), "version 1 is wanted again");
    assert!(bench.input(Input::UsageRead { version: v(1), sent, evidence: Evidence::None }).is_err());
    assert!(bench.input(Input::Audited { version: v(1), revision: bench.revision() }).is_err());
    // A rotation to version 3 retires it, and it is sealed again.
    bench.sync("api/a", 1, Stage::Released, &[1]);
    assert!(bench.drains(2, seconds(60)));
    bench.destroy(2);
    bench.seen(3);
    bench.verified(3);
    bench.sync("api/a", 3, Stage::Prepared, &[1, 3]);
    bench.sync("api/a", 3, Stage::Switched, &[1, 3]);
    bench.sync("api/a", 3, Stage::Released, &[3]);
    assert!(bench.coordinator.record().sealed().contains(&v(1)));
    bench.input(Input::UsageRead { version: v(1), sent, evidence: Evidence::None }).unwrap();
    let guard = bench.coordinator.guard(v(1), bench.now);
    assert!(!guard.conditions.iter().find(|condition| condition.name == ConditionName::UsageEvidence).unwrap().met);
}

#[test]
fn an_audit_entry_whose_guard_no_longer_holds_retires_nothing() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.until_audit_is_due(1, seconds(4000));
    bench.order(Order::pause("wait").unwrap()).unwrap();
    assert!(matches!(
        bench.input(Input::Audited { version: v(1), revision: bench.revision() }),
        Err(Rejection::Stale { .. })
    ));
    assert_eq!(bench.phase(), "draining");
}

#[test]
fn an_audit_entry_that_arrives_in_the_next_retirement_of_the_version_does_not_count_for_it() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.until_audit_is_due(1, seconds(4000));
    // The disk is slow. Meanwhile the rotation is rolled back, and a further one retires version 1 after all.
    let asked = bench.revision();
    bench.order(Order::rollback("no").unwrap()).unwrap();
    bench.sync("api/a", 1, Stage::Switched, &[1, 2]);
    bench.sync("api/a", 1, Stage::Released, &[1]);
    assert!(bench.drains(2, seconds(60)));
    bench.destroy(2);
    bench.seen(3);
    bench.verified(3);
    bench.sync("api/a", 3, Stage::Prepared, &[1, 3]);
    bench.sync("api/a", 3, Stage::Switched, &[1, 3]);
    bench.sync("api/a", 3, Stage::Released, &[3]);
    bench.until_audit_is_due(1, seconds(4000));
    let late = Input::Audited { version: v(1), revision: asked };
    assert!(matches!(bench.input(late), Err(Rejection::Stale { .. })));
    let own = Input::Audited { version: v(1), revision: bench.revision() };
    assert_eq!(bench.input(own), Ok(()));
}

#[test]
fn the_retire_steps_are_done_in_their_order() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    for (due, step) in RetireStep::ALL.iter().enumerate() {
        for other in RetireStep::ALL.iter().skip(due + 1) {
            assert!(bench.input(Input::StepDone { version: v(1), step: *other }).is_err(), "{other} before {step}");
        }
        bench.input(Input::StepDone { version: v(1), step: *step }).unwrap();
    }
    assert!(bench.coordinator.record().retirements.is_empty());
}
