use crate::bench::{Bench, managed, seconds, v};
use crate::coordinator::{CommandKind, ConditionName, Order};
use crate::message::Stage;
use crate::record::RetireStep;

#[test]
fn a_pause_and_safe_mode_hold_the_retire_steps_and_are_named_as_the_reason() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    assert!(bench.owes(&CommandKind::Retire { version: v(1), step: RetireStep::Disable }));
    bench.order(Order::pause("wait").unwrap()).unwrap();
    assert!(!bench.retires(1));
    assert!(bench.coordinator.blockers(bench.now).iter().any(|blocker| blocker.why.starts_with("paused by ada")));
    bench.order(Order::Resume).unwrap();
    bench.went_back();
    assert!(!bench.retires(1));
    assert!(bench.coordinator.blockers(bench.now).iter().any(|blocker| blocker.why.starts_with("safe mode")));
    bench.verified(2);
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(bench.retires(1));
    let blockers = bench.coordinator.blockers(bench.now);
    assert_eq!(blockers.iter().map(|it| it.condition).collect::<Vec<_>>(), [ConditionName::Retired]);
}
