use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{GuardStanding, Input, Rejection};
use crate::id::{LeaseSequence, Revision};
use crate::message::{SecretReport, Stage};
use crate::policy::Policy;

#[test]
fn a_short_lease_that_arrived_ends_the_wait_for_the_long_one_before_it() {
    let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
    // Both get short leases. Only the reply to `a` arrives.
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.sync_without_reply("api/b", 2, Stage::Prepared, &[1, 2]);
    bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    bench.sync_without_reply("api/b", 2, Stage::Switched, &[1, 2]);
    // Both fall silent.
    bench.pass(seconds(60));
    let record = bench.coordinator.record();
    let retirement = &record.retirements[&v(1)];
    let blocks = |name: &str| {
        let member = bench.coordinator.members().find(|member| member.key == key(name)).unwrap();
        bench.coordinator.guard_standing(member, v(1), retirement, bench.now).0 == GuardStanding::Holding
    };
    assert!(!blocks("api/a"), "it has acknowledged the short lease, which has expired");
    assert!(blocks("api/b"), "it may not have got the short lease, so its lease of an hour may be running");
}

#[test]
fn a_later_grant_that_names_other_versions_does_not_end_the_wait_for_a_long_one() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    // A short lease of version 1 is lost on the way. Then one of version 2 alone arrives.
    bench.sync_without_reply("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.sync("api/a", 2, Stage::Prepared, &[2]);
    bench.report("api/a", 2, Stage::Switched, &[1, 2]).unwrap();
    bench.pass(seconds(60));
    let member = bench.coordinator.members().next().unwrap();
    let retirement = &bench.coordinator.record().retirements[&v(1)];
    assert!(bench.coordinator.guard_standing(member, v(1), retirement, bench.now).0 == GuardStanding::Holding);
}

#[test]
fn a_lease_is_not_forgotten_however_many_versions_are_leased() {
    let policy = Policy { max_live_versions: 40, ..managed() };
    let mut bench = Bench::running(policy, &["api/a"]);
    // Each version is announced, leased, and replaced before it is activated. No reply arrives.
    for version in 2..=20 {
        bench.seen(version);
        bench.verified(version);
        let leases = bench.sync_without_reply("api/a", version, Stage::Seen, &[version]);
        assert_eq!(leases.len(), 1);
    }
    let member = bench.coordinator.members().next().unwrap();
    for version in 1..=20 {
        assert!(member.granted(v(version)).is_some(), "the lease of version {version} is running");
    }
}

#[test]
fn grants_of_versions_that_the_record_does_not_know_are_bounded() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.went_back();
    for round in 0..500_u64 {
        let held: Vec<u64> = (0..16).map(|n| 1_000_000 + round * 16 + n).collect();
        bench.sync("api/a", 1, Stage::Released, &held);
    }
    let grants = bench.coordinator.member_of(&key("api/a")).unwrap().grants();
    assert!(grants <= 64, "{grants} grants of one member are remembered");
}

#[test]
fn a_report_that_was_overtaken_leaves_the_member_unchanged() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let (sequence, report) = bench.report_of("api/a", 2, Stage::Released, &[2]);
    bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    let before = bench.coordinator.member_of(&key("api/a")).unwrap().report().cloned();
    let late = bench.input(Input::Report { key: key("api/a"), sequence, report });
    assert!(matches!(late, Err(Rejection::Stale { .. })), "{late:?}");
    assert_eq!(bench.coordinator.member_of(&key("api/a")).unwrap().report().cloned(), before);
}

#[test]
fn an_incarnation_that_is_heard_is_not_over_although_a_later_one_claims_the_name() {
    let mut bench = Bench::running(managed(), &[]);
    for name in ["api/a#1", "api/a#2"] {
        bench.input(Input::Registered { key: key(name), exclusive: true, live: true }).unwrap();
        bench.pass(seconds(1));
        for _ in 0..2 {
            bench.sync(name, 1, Stage::Released, &[1]);
        }
    }
    let is_over = |bench: &Bench| bench.coordinator.member_of(&key("api/a#1")).unwrap().superseded;
    assert!(is_over(&bench));
    bench.sync("api/a#1", 1, Stage::Released, &[1]);
    assert!(!is_over(&bench));
}

/// Whether `api/a` has released version 1, after what is done with its report.
fn releases(report: impl FnOnce(&mut Bench, &mut SecretReport)) -> bool {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let (sequence, mut said) = bench.report_of("api/a", 2, Stage::Released, &[2]);
    report(&mut bench, &mut said);
    bench.input(Input::Report { key: key("api/a"), sequence, report: said }).unwrap();
    let record = bench.coordinator.record();
    let member = bench.coordinator.member_of(&key("api/a")).unwrap();
    member.has_released(v(1), &record.retirements[&v(1)], record.revision)
}

#[test]
fn a_release_is_of_a_state_of_this_history_that_no_longer_asks_for_the_version_and_of_the_last_grant() {
    assert!(releases(|_, _| {}));
    assert!(!releases(|_, report| report.held.extend([v(1)])), "it still holds the version");
    let before = |bench: &Bench| Revision(bench.coordinator.record().retirements[&v(1)].unwanted_since.0 - 1);
    assert!(!releases(|bench, report| report.revision = before(bench)), "that state asked for the version");
    let lost = |bench: &mut Bench, report: &mut SecretReport| {
        bench.went_back();
        report.revision = bench.revision().next();
    };
    assert!(!releases(lost), "the record has had no such state");
    let earlier = |report: &SecretReport| LeaseSequence(report.lease.0 - 1);
    assert!(!releases(|_, report| report.lease = earlier(report)), "a later grant may arrive yet");
}
