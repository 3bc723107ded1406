//! The rules of a store that was restored.

use std::collections::BTreeSet;

use rotacast_protocol::coordinator::{CommandKind, Condition, ConditionName, Coordinator, Input, Order, Tenure};
use rotacast_protocol::message::Stage;
use rotacast_protocol::policy::{Deadline, OnDeadline};
use rotacast_protocol::record::{ProviderId, SecretRecord};
use rotacast_protocol::{Epoch, Phase, Policy};

use super::{apply, says};
use crate::bench::{Bench, key, managed, provider, seconds, v};
use crate::mutant::Rule;

/// See [`super::directed`].
pub(super) fn leader(rule: Rule, spoil: &impl Fn()) -> Option<Result<(), String>> {
    let result = match rule {
        Rule::StayLeased => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            says(
                !leased(&mut bench, 7),
                "L: after a break in the store's history, an instance may not go on with what it uses",
            )
        }
        Rule::EndedUnleased => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            let mut record = bench.coordinator.record().clone();
            // As after many rotations: a version that ended long ago is no longer listed.
            let listed = record.versions.remove(&v(1))?;
            record.versions.insert(v(30), listed);
            (record.current, record.last_version) = (Some(v(30)), Some(v(30)));
            let now = bench.now;
            takes_over(&mut bench, record);
            bench.now = now;
            bench.register("api/a");
            went_back(&mut bench);
            spoil();
            says(leased(&mut bench, 1), "L: a version that ended long ago is leased")
        }
        Rule::GrantsBounded => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            for round in 0..20_u64 {
                let held: Vec<u64> = (0..16).map(|n| 1_000_000 + round * 16 + n).collect();
                bench.sync("api/a", 1, Stage::Released, &held);
            }
            let grants = bench.coordinator.member_of(&key("api/a")).map_or(0, |member| member.grants());
            says(grants > 64, "B: grants are remembered without a bound")
        }
        Rule::NumbersLost => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.order(Order::LeaveSafeMode).ok();
            spoil();
            bench.sync("api/a", 7, Stage::Released, &[7]);
            let comes_again = bench.input(Input::VersionSeen { version: v(2) }).is_ok();
            says(comes_again, "truth: a number comes again while an instance uses the version that had it before")
        }
        Rule::LostAnnounced => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.input(Input::Verified { version: v(1) }).ok();
            bench.order(Order::LeaveSafeMode).ok();
            spoil();
            bench.input(Input::VersionSeen { version: v(2) }).ok();
            let announced = bench.coordinator.record().versions.get(&v(2)).is_some_and(|version| version.announced);
            says(!announced, "S1: leases of a lost version of this number are not waited for")
        }
        Rule::LeapAgain => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            let before = bench.coordinator.record().revision;
            went_back(&mut bench);
            says(bench.coordinator.record().revision == before, "S1: leases of what was lost since are not waited for")
        }
        Rule::LeapAbove => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            let backup = bench.coordinator.record().clone();
            went_back(&mut bench);
            bench.order(Order::LeaveSafeMode).ok();
            let first = bench.coordinator.record().revision;
            bench.pass(seconds(1));
            takes_over(&mut bench, backup);
            spoil();
            went_back(&mut bench);
            says(
                bench.coordinator.record().revision <= first,
                "A: instances refuse every state after a second restoration",
            )
        }
        Rule::LeapVoidsWords => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            let instances = BTreeSet::from([key("api/a")]);
            let word = Order::cut_off(v(1), instances, false, "it hangs").expect("a reason");
            bench.order(word).ok();
            spoil();
            went_back(&mut bench);
            let stands = bench.coordinator.record().retirements.values().any(|it| !it.overrides.is_empty());
            says(stands, "S1: an override that may have been taken back in the lost history cuts an instance off")
        }
        Rule::LeapUnseals => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            for _ in 0..800 {
                bench.pass(seconds(10));
                bench.sync("api/a", 2, Stage::Released, &[2]);
            }
            spoil();
            went_back(&mut bench);
            // A rollback in the lost history made version 1 current again.
            says(!leased(&mut bench, 1), "A: an instance may not go on with what a lost rollback made current again")
        }
        Rule::ReleaseKnown => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            let (sequence, mut report) = bench.report_of("api/a", 1, Stage::Seen, &[]);
            report.revision = report.revision.next();
            bench.input(Input::Report { key: key("api/a"), sequence, report }).ok();
            says(
                !super::blocks(&bench, "api/a"),
                "S1: an instance that acts on a state which the record has not had counts as having released",
            )
        }
        Rule::StayWaits => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.input(Input::Verified { version: v(2) }).ok();
            bench.input(Input::VersionSeen { version: v(3) }).ok();
            spoil();
            bench.order(Order::LeaveSafeMode).ok();
            says(!bench.coordinator.record().stay, "A: every instance is sent back while a newer version waits")
        }
        Rule::SafeModeRollback => {
            let mut policy = managed();
            policy.deadlines.insert(Phase::Preparing, Deadline { after: seconds(600), then: OnDeadline::RollBack });
            let mut bench = Bench::preparing(policy, &["api/a"]);
            went_back(&mut bench);
            spoil();
            bench.pass(seconds(601));
            says(bench.phase() == "rolling_back", "safe mode: a rotation goes back in it by itself")
        }
        Rule::UnmadeGivenUp => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            bench.order(Order::Rotate).ok();
            spoil();
            went_back(&mut bench);
            bench.sync("api/a", 2, Stage::Released, &[2]);
            bench.order(Order::LeaveSafeMode).ok();
            let made_again = bench.owes(&CommandKind::Create { version: v(2) });
            says(made_again, "S1: a credential whose number is in use is made once more, with another value")
        }
        Rule::CreateKnowsBus => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            bench.order(Order::Rotate).ok();
            bench.take_over();
            spoil();
            let made = bench.owes(&CommandKind::Create { version: v(2) });
            says(made, "S1: a credential is made from a record that the bus may know to be older than what is in use")
        }
        Rule::LeapDoubts => {
            let mut bench = Bench::preparing(managed(), &["api/a"]);
            spoil();
            went_back(&mut bench);
            let tested = bench.owes(&CommandKind::Test { version: v(2) });
            says(!tested, "A: what came back with the store counts as working, and may have ended")
        }
        Rule::ActivatesProved => {
            let mut bench = Bench::preparing(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            bench.order(Order::LeaveSafeMode).ok();
            bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
            says(bench.current() == Some(2), "A: a version that may have ended is activated")
        }
        Rule::RollbackProved => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.input(Input::VersionSeen { version: v(2) }).ok();
            bench.order(Order::LeaveSafeMode).ok();
            bench.input(Input::Verified { version: v(2) }).ok();
            bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
            spoil();
            bench.order(Order::rollback("looked").expect("a reason")).ok();
            says(bench.current() == Some(1), "A: a rollback leads to a version that may have ended")
        }
        Rule::AbandonProved => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            bench.order(Order::abandon(v(2), "no login").expect("a reason")).ok();
            says(bench.current() == Some(1), "A: a version is given up for one that may have ended")
        }
        Rule::StayProved => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            bench.order(Order::LeaveSafeMode).ok();
            says(!bench.coordinator.record().stay, "A: all instances are sent to a version that may have ended")
        }
        Rule::ProofGivesUp => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.input(Input::Verified { version: v(1) }).ok();
            bench.order(Order::LeaveSafeMode).ok();
            spoil();
            refused(&mut bench, 2);
            says(bench.phase() == "draining", "L: a rotation to a version that has ended goes on for ever")
        }
        Rule::ProofHeld => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            refused(&mut bench, 2);
            says(bench.current() == Some(1), "A: what all instances use is given up for a version that may have ended")
        }
        Rule::ProofAgain => {
            let mut bench = Bench::running(managed(), &["api/a"]);
            went_back(&mut bench);
            refused(&mut bench, 1);
            spoil();
            bench.order(Order::LeaveSafeMode).ok();
            let tested = bench.owes(&CommandKind::Test { version: v(1) });
            says(!tested, "L: a login that failed once is never tried again")
        }
        Rule::ProofNeedsLogin => {
            let mut bench = Bench::running(without_logins(), &["api/a"]);
            went_back(&mut bench);
            spoil();
            let tested = bench.owes(&CommandKind::Test { version: v(1) });
            says(tested, "A: the shape of a value that may have ended is to show that it works")
        }
        Rule::WordOfCurrent => {
            let mut bench = Bench::running(without_logins(), &["api/a"]);
            went_back(&mut bench);
            bench.sync("api/a", 7, Stage::Released, &[7]);
            bench.input(Input::VersionSeen { version: v(8) }).ok();
            spoil();
            bench.order(Order::LeaveSafeMode).ok();
            bench.input(Input::VerifyFailed { version: v(8), reason: "empty".into() }).ok();
            says(
                bench.coordinator.record().versions.get(&v(1)).is_some_and(|version| version.doubt.is_none()),
                "A: a version that may have ended counts as working since another one was to come",
            )
        }
        Rule::RotateMakesWay => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.order(Order::LeaveSafeMode).ok();
            refused(&mut bench, 1);
            refused(&mut bench, 2);
            bench.order(Order::rollback("neither works").expect("a reason")).ok();
            spoil();
            bench.order(Order::Rotate).ok();
            says(bench.phase() == "rolling_back", "L: a rollback waits for those who wait for what cannot be ordered")
        }
        Rule::StayMakesWay => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.input(Input::VersionSeen { version: v(3) }).ok();
            bench.order(Order::LeaveSafeMode).ok();
            spoil();
            bench.order(Order::rollback("in the way").expect("a reason")).ok();
            bench.pass(seconds(1));
            bench.sync("api/a", 1, Stage::Seen, &[2]);
            says(bench.phase() == "rolling_back", "L: a rollback waits for those who wait for its end")
        }
        Rule::WayBackWorks => {
            let mut bench = Bench::draining(managed(), &["api/a"]);
            went_back(&mut bench);
            bench.order(Order::rollback("back").expect("a reason")).ok();
            refused(&mut bench, 1);
            spoil();
            let guard = bench.coordinator.guard(v(2), bench.now);
            let may = |it: &Condition| it.name == ConditionName::Phase && it.met;
            says(guard.conditions.iter().any(may), "A: a rollback to a version that is refused ends the one that works")
        }
        _ => return None,
    };
    Some(result)
}

fn went_back(bench: &mut Bench) {
    apply(bench, Input::StoreWentBack { reason: "restored".into() });
}

fn refused(bench: &mut Bench, version: u64) {
    bench.input(Input::VerifyFailed { version: v(version), reason: "no such role".into() }).ok();
}

/// A provider whose values nothing can log in with.
fn without_logins() -> Policy {
    let provider = provider();
    Policy { provider: Some(ProviderId { system: String::new(), ..provider }), ..managed() }
}

fn leased(bench: &mut Bench, version: u64) -> bool {
    bench.sync("api/a", version, Stage::Released, &[version]);
    bench.coordinator.grant(&key("api/a")).is_some_and(|grant| grant.leases.contains_key(&v(version)))
}

fn takes_over(bench: &mut Bench, record: SecretRecord) {
    let valid_until = bench.now.instant + seconds(10_000_000);
    let tenure = Tenure { epoch: Epoch(9), since: bench.now, valid_until };
    bench.coordinator = Coordinator::take_over(record, managed(), tenure);
    apply(bench, Input::RosterRead);
    apply(bench, Input::Tick);
}
