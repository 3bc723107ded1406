use crate::bench::{Bench, managed, seconds};
use crate::coordinator::ConditionName;
use crate::message::Stage;

#[test]
fn a_version_whose_rotation_may_not_start_is_named() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    bench.seen(2);
    assert_eq!(bench.phase(), "none");
    assert!(bench.coordinator.blockers(bench.now).iter().any(|it| it.why.contains("version 2 waits")));
}

#[test]
fn a_wait_for_the_audit_log_is_named() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.until_audit_is_due(1, seconds(4000));
    let blockers = bench.coordinator.blockers(bench.now);
    assert!(blockers.iter().any(|blocker| blocker.condition == ConditionName::Audited), "{blockers:?}");
}
