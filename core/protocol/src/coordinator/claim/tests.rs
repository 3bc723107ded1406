use super::*;
use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{Condition, ConditionName, Input};
use crate::id::{Generation, LeaseSequence, Revision};
use crate::message::Stage;

/// `api/a` has switched, and `api/b` holds version 1 up.
fn draining() -> Bench {
    let mut bench = Bench::draining(managed(), &["api/a", "api/b"]);
    bench.pass(seconds(1));
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench
}

/// What `api/b` would be believed, but for one claim.
fn claims(bench: &mut Bench, change: impl Fn(&mut SecretReport)) -> [Result<(), Rejection>; 2] {
    let (sequence, mut report) = bench.report_of("api/b", 2, Stage::Released, &[2]);
    change(&mut report);
    let report_of = |report: &SecretReport| Input::Report { key: key("api/b"), sequence, report: report.clone() };
    [bench.input(report_of(&report)), bench.input(Input::Sync { key: key("api/b"), sequence, report })]
}

fn refuses(bench: &mut Bench, claim: Claim, newest: u64, found: u64, change: impl Fn(&mut SecretReport)) {
    let before = bench.coordinator.member_of(&key("api/b")).unwrap().clone();
    let refused = Err(Rejection::Claim { key: key("api/b"), claim, newest, found });
    assert_eq!(claims(bench, change), [refused.clone(), refused.clone()]);
    let after = bench.coordinator.member_of(&key("api/b")).unwrap();
    assert_eq!((after.sequence, after.granted_sequence), (before.sequence, before.granted_sequence));
    let guard = bench.coordinator.guard(v(1), bench.now);
    let released = |it: &Condition| it.name == ConditionName::MembersReleased && it.met;
    assert!(!guard.conditions.iter().any(released), "{claim} is believed");
}

#[test]
fn a_grant_that_was_never_made_is_refused_by_name() {
    let mut bench = draining();
    let newest = bench.coordinator.member_of(&key("api/b")).unwrap().granted_sequence.0;
    for found in [newest + 1, newest + (1 << 24), u64::MAX] {
        refuses(&mut bench, Claim::Lease, newest, found, |report| report.lease = LeaseSequence(found));
    }
    assert_eq!(claims(&mut bench, |report| report.lease = LeaseSequence(newest))[0], Ok(()));
}

#[test]
fn a_grant_to_an_incarnation_that_has_none_in_this_term_is_of_an_earlier_one() {
    let mut bench = draining();
    bench.take_over();
    bench.register("api/b");
    let first = bench.coordinator.tenure().epoch.0 << 24;
    refuses(&mut bench, Claim::Lease, first, first + 1, |report| report.lease = LeaseSequence(first + 1));
    assert_eq!(claims(&mut bench, |report| report.lease = LeaseSequence(first))[0], Ok(()));
}

#[test]
fn a_state_that_is_newer_than_the_record_is_refused_by_name() {
    let mut bench = draining();
    let (revision, generation) = (bench.coordinator.record().revision.0, bench.coordinator.record().generation.0);
    for found in [revision + 1, u64::MAX] {
        refuses(&mut bench, Claim::Revision, revision, found, |report| report.revision = Revision(found));
    }
    for found in [generation + 1, u64::MAX] {
        refuses(&mut bench, Claim::Generation, generation, found, |report| report.generation = Generation(found));
    }
}

#[test]
fn after_history_was_lost_every_claim_may_be_true() {
    let mut bench = draining();
    bench.went_back();
    let newest = bench.coordinator.record().revision.0;
    assert_eq!(claims(&mut bench, |report| report.revision = Revision(newest + 1))[0], Ok(()));
}
