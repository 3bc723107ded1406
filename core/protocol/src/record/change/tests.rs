use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{Input, Order};
use crate::message::Stage;
use crate::policy::Policy;
use crate::record::{Cause, Label, RecordChange, SafeMode, SecretRecord};
use crate::time::WallTime;

#[test]
fn safe_mode_leaps_above_all_that_instances_acted_on_in_the_lost_history() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    // In the lost history, the record changed many times more.
    let mut restored = bench.coordinator.record().clone();
    for _ in 0..20 {
        bench.order(Order::pause("a change").unwrap()).unwrap();
        bench.order(Order::Resume).unwrap();
    }
    let (lost_revision, lost_generation) = (bench.revision(), bench.coordinator.record().generation);
    restored.apply(&RecordChange::SafeModeEntered(SafeMode {
        reason: "restored".into(),
        at: WallTime(0),
        unknown: Default::default(),
    }));
    assert!(restored.revision > lost_revision && restored.generation > lost_generation, "instances would not follow");
    assert!(restored.retirements[&v(1)].unwanted_since > lost_revision, "a release of the lost history would count");
    assert!(restored.rotation.unwrap().activated > Some(lost_revision), "a switch of the lost history would count");
}

/// Twenty later versions have ended while the old one drained.
#[test]
fn a_rotation_says_how_its_old_version_ended_although_many_others_have_ended_since() {
    let draining = Bench::draining(Policy { provider: None, ..managed() }, &["api/a"]);
    let mut record = draining.coordinator.record().clone();
    for number in 3..30 {
        let mut ended = record.versions[&v(2)].clone();
        ended.label = Label::Rejected;
        record.versions.insert(v(number), ended);
    }
    record.last_version = Some(v(29));
    let mut bench = Bench::over(record, draining.policy.clone(), 2);
    bench.register("api/a");
    for _ in 0..5000 {
        bench.sync("api/a", 2, Stage::Released, &[2]);
        bench.serve_guard(1);
        bench.pass(seconds(1));
        bench.destroy(1);
    }
    let finished = bench.coordinator.record().history.last().unwrap();
    let says = "no provider looks after it, so the credential of version 1 may still be valid";
    assert_eq!((finished.old, finished.reason.as_str()), (Some(v(1)), says));
}

#[test]
fn a_rollback_is_a_new_generation_and_ends_the_retirement_of_the_version_that_it_goes_back_to() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let generation = bench.coordinator.record().generation;
    bench.order(Order::rollback("no").unwrap()).unwrap();
    let record = bench.coordinator.record();
    assert!(record.generation > generation);
    assert_eq!(record.retirements.keys().copied().collect::<Vec<_>>(), [v(2)]);
}

#[test]
fn a_replaced_version_is_retired_under_a_guard_of_its_own() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    bench.seen(3);
    let retirement = &bench.coordinator.record().retirements[&v(2)];
    assert_eq!((retirement.cause, retirement.step), (Cause::Superseded, None));
}

#[test]
fn the_bounds_rise_with_the_policys_times_and_do_not_fall_with_them() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    for factor in [2, 1] {
        let times = |factor| {
            let Policy { lease_idle, self_lease, max_use, .. } = managed();
            (lease_idle * factor, self_lease * factor, max_use * factor)
        };
        let (lease_idle, self_lease, max_use) = times(factor);
        let policy = Policy { lease_idle, self_lease, max_use, ..managed() };
        bench.input(Input::PolicyChanged(Box::new(policy))).unwrap();
        let SecretRecord { timing, bounds, .. } = bench.coordinator.record();
        assert_eq!((timing.lease_idle, timing.self_lease, timing.max_use), times(factor));
        assert_eq!((bounds.lease, bounds.self_lease, bounds.max_use), times(2));
    }
}

#[test]
fn a_break_ends_a_seal_before_the_point_of_no_return_and_voids_overrides() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.order(Order::cut_off(v(1), [key("api/a")].into(), false, "it hangs").unwrap()).unwrap();
    assert!(bench.coordinator.record().sealed().contains(&v(1)));
    bench.went_back();
    assert!(bench.coordinator.record().sealed().is_empty(), "a lost rollback may have made version 1 current again");
    assert!(bench.coordinator.record().retirements[&v(1)].overrides.is_empty());
}

#[test]
fn instances_stay_after_safe_mode_while_a_newer_version_waits() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.went_back();
    bench.verified(2);
    bench.seen(3);
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(bench.coordinator.record().stay);
}
