use std::collections::BTreeMap;

use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{Change, Coordinator, Input, Order, Rejection, Tenure};
use crate::id::{Epoch, LeaseSequence};
use crate::message::Stage;
use crate::policy::Policy;
use crate::time::outlast;

#[test]
fn the_pending_version_is_leased_so_that_preparing_needs_no_store_read() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    let leases = bench.sync("api/a", 2, Stage::Seen, &[1]);
    assert_eq!(leases.keys().copied().collect::<Vec<_>>(), [v(1), v(2)]);
}

#[test]
fn a_reply_grants_the_length_that_was_recorded_although_the_tier_has_changed_since() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    // A Sync is applied in the short tier. Its reply is made when the rotation is over and the long tier is back.
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.destroy(1);
    assert_eq!(bench.phase(), "none");
    let grant = bench.coordinator.grant(&key("api/a")).unwrap();
    assert_eq!(grant.leases, BTreeMap::from([(v(2), managed().lease_rotating)]));
}

#[test]
fn a_successor_outlasts_short_leases_that_were_granted_before_the_policy_lowered_them() {
    let long = Policy { lease_rotating: seconds(600), ..managed() };
    let short = Policy { lease_rotating: seconds(30), ..managed() };
    let mut bench = Bench::draining(long.clone(), &["api/a"]);
    // The rotation has run for so long that only leases of the short tier are left.
    bench.pass(seconds(2 * 3600));
    assert_eq!(bench.coordinator.record().bounds.lease, seconds(600));
    bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    bench.policy = short.clone();
    bench.input(Input::PolicyChanged(Box::new(short))).unwrap();
    bench.pass(seconds(1));
    assert!(
        bench.coordinator.record().bounds.lease >= seconds(600),
        "a lease of 600 s was granted a second ago: a successor must outlast it"
    );
}

#[test]
fn rotations_back_to_back_do_not_return_to_long_leases_in_between() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.pass(seconds(2 * 3600));
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.seen(3);
    assert!(bench.drains(1, seconds(60)));
    bench.destroy(1);
    assert_eq!(bench.phase(), "verifying");
    assert_eq!(bench.coordinator.record().bounds.lease, seconds(30));
}

#[test]
fn a_grant_has_a_higher_number_than_every_one_that_the_instance_acknowledges() {
    // The store was restored to an earlier epoch.
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    let (sequence, mut report) = bench.report_of("api/a", 1, Stage::Released, &[1]);
    report.lease = LeaseSequence(9 << 24);
    bench.input(Input::Sync { key: key("api/a"), sequence, report }).unwrap();
    assert!(bench.coordinator.grant(&key("api/a")).unwrap().sequence > LeaseSequence(9 << 24));
}

#[test]
fn a_leader_whose_leadership_has_expired_decides_nothing() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.order(Order::Rotate).unwrap();
    assert!(!bench.coordinator.commands(bench.now).is_empty());
    bench.now.instant = bench.coordinator.tenure().valid_until;
    assert!(matches!(bench.input(Input::VersionSeen { version: v(3) }), Err(Rejection::Deposed { .. })));
    assert_eq!(bench.coordinator.commands(bench.now), []);
}

#[test]
fn a_leader_grants_nothing_before_the_record_carries_its_term() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let (record, now) = (bench.coordinator.record().clone(), bench.now);
    let tenure = Tenure { epoch: Epoch(record.epoch.0 + 1), ..*bench.coordinator.tenure() };
    bench.coordinator = Coordinator::take_over(record, managed(), tenure);
    let registered = Change::MemberRegistered { key: key("api/a"), exclusive: false, at: now };
    bench.coordinator.apply(now, &registered);
    let grants = |bench: &mut Bench| {
        let (sequence, report) = bench.report_of("api/a", 1, Stage::Released, &[1]);
        let changes = bench.coordinator.decide(now, Input::Sync { key: key("api/a"), sequence, report }).unwrap();
        changes.iter().any(|change| matches!(change, Change::LeaseGranted { .. }))
    };
    assert!(!grants(&mut bench));
    bench.settle();
    assert!(grants(&mut bench));
}

#[test]
fn a_leader_numbers_its_grants_above_those_of_earlier_leaders() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    for _ in 0..3 {
        bench.sync_without_reply("api/a", 1, Stage::Released, &[1]);
    }
    let earlier = bench.coordinator.grant(&key("api/a")).unwrap().sequence;
    bench.take_over();
    bench.register("api/a");
    bench.sync_without_reply("api/a", 1, Stage::Released, &[1]);
    assert!(bench.coordinator.grant(&key("api/a")).unwrap().sequence > earlier);
}

#[test]
fn a_sealed_version_is_not_leased() {
    let mut bench = Bench::draining(managed(), &["api/a", "api/b"]);
    assert!(bench.sync("api/a", 2, Stage::Switched, &[1, 2]).contains_key(&v(1)));
    for name in ["api/a", "api/b"] {
        bench.sync(name, 2, Stage::Released, &[2]);
    }
    assert!(bench.coordinator.record().sealed().contains(&v(1)));
    bench.register("api/c");
    let leases = bench.sync("api/c", 2, Stage::Switched, &[1, 2]);
    assert_eq!(leases.keys().copied().collect::<Vec<_>>(), [v(2)]);
}

#[test]
fn leases_are_long_only_once_the_record_says_that_long_ones_may_run() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    assert_eq!(bench.coordinator.lease(), managed().lease_idle);
    let mut record = bench.coordinator.record().clone();
    record.bounds.lease = managed().lease_rotating;
    bench.coordinator = Coordinator::take_over(record, managed(), *bench.coordinator.tenure());
    assert_eq!(bench.coordinator.lease(), managed().lease_rotating);
    bench.settle();
    assert_eq!(bench.coordinator.record().bounds.lease, managed().lease_idle);
    assert_eq!(bench.coordinator.lease(), managed().lease_idle);
}

#[test]
fn the_bound_is_lowered_once_every_long_lease_has_expired_on_every_clock() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let long = outlast(managed().lease_idle);
    bench.pass(long - seconds(1));
    assert_eq!(bench.coordinator.record().bounds.lease, managed().lease_idle);
    bench.pass(seconds(1));
    assert_eq!(bench.coordinator.record().bounds.lease, managed().lease_rotating);
}
