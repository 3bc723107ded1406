//! What might break a promise, and does not: each test fails when its protection is taken out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bench::{Bench, key, managed, operator, seconds, v};
use rotacast_protocol::coordinator::{
    Change, CommandKind, ConditionName, Evidence, GuardStanding, Input, MAX_MEMBERS, Order, Rejection,
};
use rotacast_protocol::message::Stage;
use rotacast_protocol::policy::{Deadline, OnDeadline, WhenUnreachable};
use rotacast_protocol::record::{Label, RecordChange, RetireStep, SafeMode, SecretRecord};
use rotacast_protocol::time::outlast;
use rotacast_protocol::{LeaseSequence, Phase, Policy, ReportSequence, Revision, WallTime};

#[test]
fn the_pending_version_is_leased_so_that_preparing_needs_no_store_read() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    let leases = bench.sync("api/a", 2, Stage::Seen, &[1]);
    assert_eq!(leases.keys().copied().collect::<Vec<_>>(), [v(1), v(2)]);
}

#[test]
fn a_reply_grants_what_was_counted_even_if_the_tier_has_changed_in_between() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    // A Sync is applied in the short tier; its reply is built when the rotation is over and the long tier is back.
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.destroy(1);
    assert_eq!(bench.phase(), "none");
    let grant = bench.coordinator.grant(&key("api/a")).unwrap();
    assert_eq!(grant.leases, BTreeMap::from([(v(2), managed().lease_rotating)]));
}

#[test]
fn a_short_lease_that_arrived_ends_the_wait_for_the_long_one_before_it() {
    let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
    // Both get short leases; only a's reply arrives.
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.sync_without_reply("api/b", 2, Stage::Prepared, &[1, 2]);
    bench.sync("api/a", 2, Stage::Switched, &[1, 2]);
    bench.sync_without_reply("api/b", 2, Stage::Switched, &[1, 2]);
    // Then both fall silent.
    bench.pass(seconds(60));
    let record = bench.coordinator.record();
    let retirement = &record.retirements[&v(1)];
    let blocks = |name: &str| {
        let member = bench.coordinator.members().find(|member| member.key == key(name)).unwrap();
        bench.coordinator.guard_standing(member, v(1), retirement, bench.now).0 == GuardStanding::Holding
    };
    assert!(!blocks("api/a"), "its newest lease is over, and it had said that it goes by that one");
    assert!(blocks("api/b"), "for all we know it goes by the lease of an hour it had before");
}

#[test]
fn a_later_grant_that_names_other_versions_does_not_end_the_wait_for_a_long_one() {
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    // A short lease for version 1 is lost on the way, then one for version 2 alone arrives.
    bench.sync_without_reply("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.sync("api/a", 2, Stage::Prepared, &[2]);
    bench.report("api/a", 2, Stage::Switched, &[1, 2]).unwrap();
    bench.pass(seconds(60));
    let member = bench.coordinator.members().next().unwrap();
    let retirement = &bench.coordinator.record().retirements[&v(1)];
    assert!(bench.coordinator.guard_standing(member, v(1), retirement, bench.now).0 == GuardStanding::Holding);
}

#[test]
fn lowering_the_short_tier_does_not_forget_the_leases_that_were_granted_by_the_old_one() {
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
fn a_grant_is_always_newer_than_every_one_the_instance_has_heard_of() {
    // An earlier leader has counted far (16 million grants of one term, or a store restored to an earlier epoch).
    let mut bench = Bench::running(managed(), &["api/a"]);
    let (sequence, mut report) = bench.report_of("api/a", 1, Stage::Released, &[1]);
    report.lease = LeaseSequence(9 << 24);
    bench.input(Input::Sync { key: key("api/a"), sequence, report }).unwrap();
    assert!(bench.coordinator.grant(&key("api/a")).unwrap().sequence > LeaseSequence(9 << 24));
}

#[test]
fn a_lease_is_not_forgotten_however_many_versions_are_leased() {
    let policy = Policy { max_live_versions: 40, ..managed() };
    let mut bench = Bench::running(policy, &["api/a"]);
    // Twenty versions, each announced and leased, each replaced before it was activated; no reply arrives.
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
fn what_was_said_before_a_rollback_confirms_nothing_after_it() {
    let policy = Policy { required: BTreeMap::from([("api".parse().unwrap(), 1)]), ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a"]);
    // Not yet told of version 2, it says that it is on version 1: true, but no confirmation of a way back.
    let (sequence, before) = bench.report_of("api/a", 1, Stage::Released, &[1]);
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    bench.order(Order::rollback("no").unwrap()).unwrap();
    let (_, mut replayed) = bench.report_of("api/a", 1, Stage::Released, &[1]);
    replayed.generation = before.generation;
    replayed.revision = before.revision;
    bench
        .input(Input::Report { key: key("api/a"), sequence: ReportSequence(sequence.0 + 100), report: replayed })
        .unwrap();
    let guard = bench.coordinator.guard(v(2), bench.now);
    let required = guard.conditions.iter().find(|condition| condition.name == ConditionName::RequiredServices).unwrap();
    assert!(!required.met, "{required:?}");
}

#[test]
fn whoever_is_waited_for_has_a_wakeup_when_the_wait_ends() {
    for when_unreachable in [WhenUnreachable::Fence, WhenUnreachable::PresumeDeadAfter(seconds(7200))] {
        let policy = Policy { when_unreachable, ..managed() };
        let mut bench = Bench::preparing(policy, &["api/a", "api/b"]);
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        // b has no lease at all and was heard just now, then falls silent. Nothing but the wakeups drives time.
        bench.report("api/b", 1, Stage::Released, &[1]).unwrap();
        for _ in 0..100 {
            let Some(at) = bench.coordinator.next_wakeup(bench.now) else { break };
            bench.pass(at.since(bench.now.instant));
            let (sequence, report) = bench.report_of("api/a", 2, Stage::Prepared, &[1, 2]);
            bench.input(Input::Sync { key: key("api/a"), sequence, report }).unwrap();
            if bench.phase() == "activating" {
                break;
            }
        }
        assert_eq!(bench.phase(), "activating", "{when_unreachable:?}: nothing woke it up");
    }
}

#[test]
fn there_is_a_bound_on_members_and_room_is_made_by_those_that_are_over() {
    let mut bench = Bench::running(managed(), &[]);
    let now = bench.now;
    for number in 0..MAX_MEMBERS {
        let change = Change::MemberLeft { key: key(&format!("api/i{number}")), at: now };
        bench.coordinator.apply(now, &change);
    }
    bench.register("api/new");
    assert_eq!(bench.coordinator.members().count(), MAX_MEMBERS);
    assert!(bench.coordinator.members().any(|member| member.key == key("api/new")));
}

#[test]
fn a_leave_of_a_stranger_takes_no_room_that_is_not_there() {
    let mut bench = Bench::running(managed(), &[]);
    let now = bench.now;
    for number in 0..MAX_MEMBERS {
        let change = Change::MemberRegistered { key: key(&format!("api/i{number}")), exclusive: false, at: now };
        bench.coordinator.apply(now, &change);
    }
    for input in
        [Input::Left { key: key("api/new") }, Input::Registered { key: key("api/new"), exclusive: false, live: true }]
    {
        assert!(matches!(bench.input(input), Err(Rejection::Sender { .. })));
    }
    assert_eq!(bench.coordinator.members().count(), MAX_MEMBERS);
}

#[test]
fn a_registration_that_comes_after_its_leave_proves_nobody_dead() {
    let mut bench = Bench::running(managed(), &["api/a#2"]);
    bench.input(Input::Left { key: key("api/a#1") }).unwrap();
    let late = Input::Registered { key: key("api/a#1"), exclusive: true, live: true };
    assert!(matches!(bench.input(late), Err(Rejection::Stale { .. })));
    assert!(!bench.coordinator.members().any(|member| member.superseded));
}

#[test]
fn a_replaced_version_counts_as_valid_until_it_is_retired() {
    let policy = Policy { max_live_versions: 2, ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a"]);
    bench.seen(3);
    let new = |bench: &Bench| bench.coordinator.record().rotation.as_ref().unwrap().new;
    assert_eq!(new(&bench), v(2), "versions 1 and 2 are valid, and no more than two may be: version 3 waits");
    let mut roomy = Bench::preparing(Policy { max_live_versions: 3, ..managed() }, &["api/a"]);
    roomy.seen(3);
    assert_eq!(new(&roomy), v(3));
}

#[test]
fn a_flood_of_versions_is_refused_before_the_record_cannot_be_read_any_more() {
    let mut bench = Bench::preparing(Policy { max_live_versions: 2, ..managed() }, &["api/a"]);
    let mut refused = 0;
    for version in 3..3000 {
        if let Err(rejection) = bench.input(Input::VersionSeen { version: v(version) }) {
            assert!(rejection.to_string().contains("the record would have"), "{rejection}");
            refused += 1;
            break;
        }
    }
    assert_eq!(refused, 1);
    // All of them are skipped at once, and the record is still readable (the bench reads every one back).
    bench.order(Order::rollback("no").unwrap()).unwrap();
    bench.report("api/a", 1, Stage::Released, &[1]).unwrap();
    assert!(bench.drains(2, seconds(8000)));
    bench.destroy(2);
    assert!(bench.coordinator.record().versions.len() > 300);
    assert!(bench.coordinator.record().retirements.len() > 300);
}

#[test]
fn an_override_of_too_many_names_is_refused() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let mut instances = BTreeSet::new();
    for number in 0..2000 {
        let name = format!("api/{}{number}", "x".repeat(80));
        bench.register(&name);
        instances.insert(key(&name));
    }
    let order = Order::cut_off(v(1), instances, false, "all").unwrap();
    assert!(matches!(bench.order(order), Err(Rejection::Operator { .. })));
}

#[test]
fn a_pause_and_safe_mode_hold_the_destruction_itself_and_say_so() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    assert!(bench.owes(&CommandKind::Retire { version: v(1), step: RetireStep::Disable }));
    bench.order(Order::pause("wait").unwrap()).unwrap();
    assert!(!bench.retires(1));
    assert!(bench.coordinator.blockers(bench.now).iter().any(|blocker| blocker.why.starts_with("paused by ada")));
    bench.order(Order::Resume).unwrap();
    bench.input(Input::StoreWentBack { reason: "another cluster".into() }).unwrap();
    assert!(!bench.retires(1));
    assert!(bench.coordinator.blockers(bench.now).iter().any(|blocker| blocker.why.starts_with("safe mode")));
    bench.verified(2);
    bench.order(Order::LeaveSafeMode).unwrap();
    assert!(bench.retires(1));
    let blockers = bench.coordinator.blockers(bench.now);
    assert_eq!(blockers.iter().map(|it| it.condition).collect::<Vec<_>>(), [ConditionName::Retired]);
}

#[test]
fn a_version_that_may_not_start_is_named() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.input(Input::StoreWentBack { reason: "restored".into() }).unwrap();
    bench.seen(2);
    assert_eq!(bench.phase(), "none");
    assert!(bench.coordinator.blockers(bench.now).iter().any(|it| it.why.contains("version 2 waits")));
}

#[test]
fn a_barrier_reading_from_before_the_seal_does_not_count() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let early = bench.revision();
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.owes(&CommandKind::PassBarrier { version: v(1) }), "sealed");
    let sealed_at = bench.revision();
    for revision in [Revision(1), early] {
        assert!(
            bench.input(Input::BarrierPassed { version: v(1), revision }).is_err(),
            "a reading at {revision}, the seal at {sealed_at}"
        );
    }
    bench.input(Input::BarrierPassed { version: v(1), revision: sealed_at }).unwrap();
}

#[test]
fn a_barrier_and_a_reading_of_an_earlier_way_out_do_not_count_for_a_later_one() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    let revision = bench.revision();
    let sent = bench.now.instant;
    bench.pass(seconds(1));
    bench.order(Order::rollback("no").unwrap()).unwrap();
    assert!(bench.coordinator.record().sealed().is_empty(), "version 1 is wanted again");
    assert!(bench.input(Input::BarrierPassed { version: v(1), revision }).is_err());
    assert!(bench.input(Input::UsageRead { version: v(1), sent, evidence: Evidence::None }).is_err());
    assert!(bench.input(Input::Audited { version: v(1), revision: bench.revision() }).is_err());
    // It is on its way out again, by way of version 3, and sealed again.
    bench.sync("api/a", 1, Stage::Released, &[1]);
    assert!(bench.drains(2, seconds(60)));
    bench.destroy(2);
    bench.seen(3);
    bench.verified(3);
    bench.sync("api/a", 3, Stage::Prepared, &[1, 3]);
    bench.sync("api/a", 3, Stage::Switched, &[1, 3]);
    bench.sync("api/a", 3, Stage::Released, &[3]);
    assert!(bench.owes(&CommandKind::PassBarrier { version: v(1) }));
    assert!(bench.input(Input::BarrierPassed { version: v(1), revision }).is_err());
    bench.input(Input::UsageRead { version: v(1), sent, evidence: Evidence::None }).unwrap();
    let guard = bench.coordinator.guard(v(1), bench.now);
    assert!(!guard.conditions.iter().find(|condition| condition.name == ConditionName::UsageEvidence).unwrap().met);
}

#[test]
fn an_audit_entry_whose_guard_no_longer_holds_retires_nothing() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    let end = bench.now.instant + seconds(4000);
    while !bench.owes(&CommandKind::Audit { version: v(1) }) && bench.now.instant < end {
        for command in bench.coordinator.commands(bench.now) {
            match command.kind {
                CommandKind::PassBarrier { version } => {
                    bench.input(Input::BarrierPassed { version, revision: command.revision }).unwrap();
                }
                CommandKind::ReadUsage { version } => {
                    let sent = bench.now.instant;
                    bench.input(Input::UsageRead { version, sent, evidence: Evidence::None }).unwrap();
                }
                _ => {}
            }
        }
        if !bench.owes(&CommandKind::Audit { version: v(1) }) {
            bench.pass(seconds(1));
        }
    }
    bench.order(Order::pause("wait").unwrap()).unwrap();
    assert!(matches!(
        bench.input(Input::Audited { version: v(1), revision: bench.revision() }),
        Err(Rejection::Stale { .. })
    ));
    assert_eq!(bench.phase(), "draining");
}

#[test]
fn a_new_leader_outlasts_every_lease_its_predecessors_may_have_granted() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    bench.take_over();
    bench.register("api/a");
    bench.sync("api/a", 2, Stage::Released, &[2]);
    let policy = managed();
    let wait = outlast(policy.lease_idle) + outlast(policy.max_use);
    let began = bench.now.instant;
    while !bench.drains(1, seconds(10)) {
        bench.sync("api/a", 2, Stage::Released, &[2]);
        assert!(bench.now.instant < began + wait * 2, "{:?}", bench.coordinator.blockers(bench.now));
    }
    assert!(bench.now.instant >= began + wait);
}

#[test]
fn a_new_leader_does_not_take_those_it_has_heard_for_all_there_are() {
    let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
    bench.take_over();
    bench.register("api/a");
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "preparing", "b is in the roster and not prepared");
    bench.register("api/b");
    bench.input(Input::RosterRead).unwrap();
    assert_eq!(bench.phase(), "preparing");
    bench.sync("api/b", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "activating");
    // With a roster that cannot be read, everyone alive is heard instead.
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    bench.take_over();
    bench.register("api/a");
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    let at = bench.coordinator.next_wakeup(bench.now).unwrap();
    bench.pass(at.since(bench.now.instant));
    assert_eq!(bench.phase(), "activating");
}

#[test]
fn a_rollback_is_possible_before_retiring_and_refused_by_name_after() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    let refusal = bench.order(Order::rollback("late").unwrap()).unwrap_err().to_string();
    assert!(refusal.contains("it is retiring: version 1 is being destroyed"), "{refusal}");
}

#[test]
fn s51_a_deadline_that_passes_during_a_pause_is_reported_and_applied_afterwards() {
    let deadline = Deadline { after: seconds(60), then: OnDeadline::RollBack };
    let policy = Policy { deadlines: BTreeMap::from([(Phase::Preparing, deadline)]), ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a"]);
    bench.order(Order::pause("wait").unwrap()).unwrap();
    bench.pass(seconds(61));
    assert_eq!(bench.phase(), "preparing");
    let blockers = bench.coordinator.blockers(bench.now);
    assert!(
        blockers.iter().any(|blocker| blocker.next == "the rotation rolls back once an operator resumes the secret"),
        "{blockers:?}"
    );
    bench.order(Order::Resume).unwrap();
    assert_eq!(bench.phase(), "rolling_back");
}

#[test]
fn a_first_version_that_fails_leaves_nothing_current_and_the_next_one_starts_afresh() {
    let mut bench = Bench::new(managed());
    bench.seen(1);
    bench.input(Input::VerifyFailed { version: v(1), reason: "password refused".into() }).unwrap();
    assert_eq!((bench.phase().as_str(), bench.current()), ("rolling_back", None));
    assert!(bench.drains(1, seconds(60)));
    bench.destroy(1);
    assert_eq!(bench.phase(), "none");
    bench.seen(2);
    bench.verified(2);
    assert_eq!(bench.current(), Some(2));
}

#[test]
fn an_override_names_members_of_a_version_that_is_on_its_way_out() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let order = |version, name: &str| Order::cut_off(v(version), BTreeSet::from([key(name)]), false, "gone").unwrap();
    for (wrong, says) in [
        (order(2, "api/a"), "not on its way out"),
        (order(7, "api/a"), "not on its way out"),
        (order(1, "api/z"), "no member"),
    ] {
        let refusal = bench.order(wrong).unwrap_err().to_string();
        assert!(refusal.contains(says), "{refusal}");
    }
    bench.order(order(1, "api/a")).unwrap();
    assert!(bench.log.iter().any(|change| matches!(
        change,
        Change::Record(RecordChange::Overridden { word, .. }) if word.by == operator() && word.instances.len() == 1
    )));
}

#[test]
fn a_credential_that_was_revoked_by_hand_can_be_said_to_be_while_it_is_being_destroyed() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    assert_eq!(bench.phase(), "retiring");
    let order = |instances, sessions| Order::cut_off(v(1), instances, sessions, "lost").unwrap();
    let one = BTreeSet::from([key("api/a")]);
    for (instances, sessions) in [(one.clone(), false), (one, true)] {
        let refusal = bench.order(order(instances, sessions)).unwrap_err().to_string();
        assert!(refusal.contains("being destroyed"), "{refusal}");
    }
    bench.order(order(BTreeSet::new(), true)).unwrap();
    assert!(bench.coordinator.record().retirements[&v(1)].overrides.iter().any(|word| word.sessions));
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let bench = Bench::draining(managed(), &["api/a"]);
    let good = bench.coordinator.record().clone();
    let spoil = |change: &dyn Fn(&mut SecretRecord)| {
        let mut record = good.clone();
        change(&mut record);
        SecretRecord::decode(&record.encode()).map(|_| ()).unwrap_err().to_string()
    };
    assert!(spoil(&|record| record.current = Some(v(1))).contains("current"));
    assert!(spoil(&|record| record.versions.get_mut(&v(2)).unwrap().sealed = true).contains("sealed"));
    assert!(spoil(&|record| record.bounds.lease = Duration::from_secs(1)).contains("bounds"));
    assert!(spoil(&|record| record.bounds.self_lease = Duration::ZERO).contains("bounds"));
    assert!(spoil(&|record| record.last_version = Some(v(1))).contains("last_version"));
    assert!(spoil(&|record| record.rotation.as_mut().unwrap().phase = Phase::Preparing).contains("while preparing"));
}

#[test]
fn s24_a_forgotten_life_that_registers_again_does_not_prove_a_later_one_over() {
    let mut bench = Bench::preparing(managed(), &["api/a#2"]);
    // The earlier life was taken out of the roster, is heard again, and is told to register anew.
    bench.sync("api/a#1", 1, Stage::Seen, &[1]);
    bench.input(Input::Registered { key: key("api/a#1"), exclusive: true, live: true }).unwrap();
    assert!(!bench.coordinator.members().any(|member| member.superseded));
    // One that holds the name alone and has heard of a grant was alive after it: whoever was there before is over.
    bench.input(Input::Registered { key: key("api/a#3"), exclusive: true, live: true }).unwrap();
    bench.pass(seconds(1));
    bench.sync("api/a#3", 1, Stage::Seen, &[1]);
    assert!(!bench.coordinator.members().any(|member| member.superseded), "it has not heard of its grant yet");
    bench.sync("api/a#3", 1, Stage::Seen, &[1]);
    let over: Vec<_> =
        bench.coordinator.members().filter(|member| member.superseded).map(|it| it.key.clone()).collect();
    assert_eq!(over, [key("api/a#1"), key("api/a#2")]);
}

#[test]
fn what_was_acknowledged_of_a_lost_history_counts_for_nothing() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    // In the history that the store lost, this instance had gone much further.
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
