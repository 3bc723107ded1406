//! A test for each rule that the holder keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rotacast_holder::{Command, Holder, Input, READ_PATIENCE, Rejection, Setback, Step, StepFailure};
use rotacast_protocol::message::{FailureKind, SecretGrant, SecretState, Stage};
use rotacast_protocol::{Epoch, Generation, Instant, LeaseSequence, Nonce, Revision, SecretName, Version};

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn state(revision: u64, generation: u64, current: u64) -> SecretState {
    SecretState {
        secret: SecretName::new("payments/db").unwrap(),
        epoch: Epoch(1),
        revision: Revision(revision),
        generation: Generation(generation),
        rotation: None,
        phase: None,
        current: Version::new(current).ok(),
        pending: None,
        previous: None,
        sealed: BTreeSet::new(),
        sync_interval: SECOND * 10,
        self_lease: SECOND * 10,
        max_use: SECOND * 5,
        stay: false,
        lost_history: None,
    }
}

fn grant(sequence: u64, leases: &[(u64, u64)]) -> SecretGrant {
    SecretGrant {
        sequence: LeaseSequence(sequence),
        leases: leases
            .iter()
            .map(|(version, seconds)| (v(*version), SECOND * u32::try_from(*seconds).unwrap()))
            .collect(),
        state: None,
    }
}

/// A holder, and a driver that carries out its commands at once.
struct Bench {
    holder: Holder,
    nonce: u64,
    steps: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self { holder: Holder::new(SecretName::new("payments/db").unwrap()), nonce: 0, steps: Vec::new() }
    }

    fn state(&mut self, now: Instant, state: SecretState) -> Result<(), Rejection> {
        self.holder.handle(now, Input::State(state))
    }

    fn sync_sent(&mut self, now: Instant) -> Nonce {
        self.nonce += 1;
        self.holder.handle(now, Input::SyncSent { nonce: Nonce(self.nonce), at: now }).unwrap();
        Nonce(self.nonce)
    }

    /// Sends a Sync that is answered at once, with this sequence and these (version, seconds).
    fn lease(&mut self, now: Instant, sequence: u64, leases: &[(u64, u64)]) {
        let nonce = self.sync_sent(now);
        self.holder.handle(now, Input::Grant { nonce, grant: grant(sequence, leases) }).unwrap();
    }

    fn begin(&mut self, now: Instant, step: Step, version: u64) {
        self.holder.handle(now, Input::Begin { step, version: v(version) }).unwrap();
    }

    fn finish(&mut self, now: Instant, step: Step, version: u64, result: Result<(), &str>) {
        let result =
            result.map_err(|text| StepFailure::Refused(Setback { text: text.into(), retry_after: SECOND * 5 }));
        self.holder.handle(now, Input::Finished { step, version: v(version), result }).unwrap();
        if step == Step::Switch {
            // A runtime that has installed the new version and has no guards.
            self.holder.handle(now, Input::Held(BTreeSet::new())).unwrap();
        }
    }

    fn local_commands(&self, now: Instant) -> Vec<Command> {
        let remote = |command: &Command| matches!(command, Command::Sync | Command::ReadStore);
        self.holder.commands(now).into_iter().filter(|command| !remote(command)).collect()
    }

    /// Runs loads and steps until no command is outstanding.
    fn work(&mut self, now: Instant) {
        while let Some(command) = self.local_commands(now).first().copied() {
            match command {
                Command::Load(version) => {
                    self.steps.push(format!("load {version}"));
                    self.holder.handle(now, Input::Loaded { version }).unwrap();
                }
                Command::Run(step, version) => {
                    self.steps.push(format!("{step} {version}"));
                    self.begin(now, step, version.get());
                    self.finish(now, step, version.get(), Ok(()));
                }
                Command::Sync | Command::ReadStore => unreachable!("filtered out"),
            }
        }
    }

    fn held(&self) -> Vec<u64> {
        self.holder.report().held.iter().map(|version| version.get()).collect()
    }

    fn reached(&self) -> Option<(u64, Stage)> {
        self.holder.report().reached.map(|(version, stage)| (version.get(), stage))
    }

    fn active(&self, now: Instant) -> Option<u64> {
        self.holder.active(now).map(|(version, _)| version.get())
    }

    /// On version 1, with a lease of an hour.
    fn on_one() -> Self {
        let mut bench = Self::new();
        bench.state(at(0), state(1, 1, 1)).unwrap();
        bench.lease(at(0), 1, &[(1, 3600)]);
        bench.work(at(0));
        bench
    }

    /// On version 1. Version 2 is current, and not switched to yet.
    fn moving_to_two() -> Self {
        let mut bench = Self::on_one();
        bench.state(at(1), SecretState { previous: Some(v(1)), ..state(2, 2, 2) }).unwrap();
        bench.lease(at(1), 2, &[(1, 30), (2, 30)]);
        bench
    }
}

#[test]
fn a_first_version_is_loaded_prepared_and_switched_to_in_that_order() {
    let bench = Bench::on_one();
    assert_eq!(bench.steps, ["load 1", "prepare 1", "switch 1"]);
    assert_eq!(bench.reached(), Some((1, Stage::Released)));
    assert_eq!(bench.active(at(0)), Some(1));
}

#[test]
fn the_joiners_barrier_no_value_is_read_before_there_is_a_lease() {
    let mut bench = Bench::new();
    assert_eq!(bench.holder.commands(at(0)), [Command::Sync]);
    bench.state(at(0), state(1, 1, 1)).unwrap();
    assert_eq!(bench.local_commands(at(0)), []);
    bench.lease(at(0), 1, &[(1, 30)]);
    assert_eq!(bench.local_commands(at(0)), [Command::Load(v(1))]);
}

#[test]
fn s54_rule_v_older_and_equal_revisions_change_nothing() {
    let mut bench = Bench::moving_to_two();
    for revision in [0, 1, 2] {
        let before = bench.holder.report();
        let stale = bench.state(at(2), state(revision, 9, 9));
        assert!(matches!(stale, Err(Rejection::Stale { .. })), "{stale:?}");
        assert_eq!(bench.holder.report(), before);
    }
}

#[test]
fn s54_rule_v_within_a_generation_no_version_comes_back_whatever_the_revision() {
    let mut bench = Bench::moving_to_two();
    bench.work(at(1));
    for back in [state(3, 2, 1), state(3, 1, 3), SecretState { pending: Some(v(1)), ..state(3, 2, 2) }] {
        let refused = bench.state(at(2), back);
        assert!(matches!(refused, Err(Rejection::GoesBack { .. })), "{refused:?}");
    }
    assert_eq!(bench.holder.report().revision, Revision(2));
    // With a higher generation the same state is a rollback.
    bench.state(at(2), SecretState { previous: Some(v(2)), ..state(3, 3, 1) }).unwrap();
}

#[test]
fn a_pending_version_is_prepared_and_reported_but_never_handed_out() {
    let mut bench = Bench::on_one();
    bench.state(at(1), SecretState { pending: Some(v(2)), ..state(2, 2, 1) }).unwrap();
    bench.lease(at(1), 2, &[(1, 30), (2, 30)]);
    assert_eq!(bench.reached(), Some((2, Stage::Seen)));
    bench.work(at(1));
    assert_eq!(bench.reached(), Some((2, Stage::Prepared)));
    assert_eq!(bench.held(), [1, 2]);
    assert_eq!(bench.active(at(1)), Some(1));
    assert_eq!(bench.holder.usable(v(2), at(1)), None);
    let refused = bench.holder.handle(at(1), Input::Begin { step: Step::Switch, version: v(2) });
    assert!(matches!(refused, Err(Rejection::NotOwed { .. })));
}

#[test]
fn the_old_version_is_handed_out_and_reported_as_held_until_the_switch() {
    let mut bench = Bench::moving_to_two();
    assert_eq!(bench.active(at(1)), Some(1));
    assert_eq!((bench.holder.report().revision, bench.held()), (Revision(2), vec![1]));
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    bench.begin(at(1), Step::Prepare, 2);
    bench.finish(at(1), Step::Prepare, 2, Ok(()));
    bench.begin(at(1), Step::Switch, 2);
    assert_eq!((bench.active(at(1)), bench.held()), (Some(1), vec![1, 2]));
    bench.finish(at(1), Step::Switch, 2, Ok(()));
    assert_eq!(bench.active(at(1)), Some(2));
    assert_eq!(bench.holder.usable(v(1), at(1)), None, "although its lease still runs");
}

#[test]
fn the_switch_counts_the_old_version_as_held_until_the_runtime_has_installed_the_new_one() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    bench.begin(at(1), Step::Prepare, 2);
    bench.finish(at(1), Step::Prepare, 2, Ok(()));
    bench.begin(at(1), Step::Switch, 2);
    bench.holder.handle(at(1), Input::Finished { step: Step::Switch, version: v(2), result: Ok(()) }).unwrap();
    assert_eq!(bench.local_commands(at(1)), [], "no release before the runtime says that no guard holds it");
    assert_eq!(bench.held(), [1, 2]);
}

#[test]
fn released_waits_for_the_last_guard_and_then_for_the_release_hook() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    bench.begin(at(1), Step::Prepare, 2);
    bench.finish(at(1), Step::Prepare, 2, Ok(()));
    bench.begin(at(1), Step::Switch, 2);
    bench.finish(at(1), Step::Switch, 2, Ok(()));
    bench.holder.handle(at(1), Input::Held([v(1), v(2)].into())).unwrap();
    bench.work(at(1));
    assert_eq!((bench.reached(), bench.held()), (Some((2, Stage::Switched)), vec![1, 2]));
    bench.holder.handle(at(2), Input::Held([v(2)].into())).unwrap();
    bench.begin(at(2), Step::Release, 1);
    assert_eq!(bench.held(), [1, 2], "the hook may still be closing connections");
    bench.finish(at(2), Step::Release, 1, Ok(()));
    assert_eq!((bench.reached(), bench.held()), (Some((2, Stage::Released)), vec![2]));
}

#[test]
fn a_release_hook_that_fails_keeps_the_version_held_and_is_tried_again() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    for step in [Step::Prepare, Step::Switch] {
        bench.begin(at(1), step, 2);
        bench.finish(at(1), step, 2, Ok(()));
    }
    bench.begin(at(1), Step::Release, 1);
    bench.finish(at(1), Step::Release, 1, Err("timed out"));
    let told = bench.holder.report().failure.unwrap();
    assert_eq!((told.kind, told.version, told.text.as_str()), (FailureKind::ReleaseFailed, v(1), "timed out"));
    assert_eq!((bench.held(), bench.holder.failure()), (vec![1, 2], None), "nothing is wrong with version 2");
    assert_eq!(bench.local_commands(at(2)), []);
    bench.work(at(6));
    assert_eq!((bench.held(), bench.holder.report().failure), (vec![2], None));
}

#[test]
fn a_release_hook_that_takes_too_long_is_named_while_it_goes_on() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    for step in [Step::Prepare, Step::Switch] {
        bench.begin(at(1), step, 2);
        bench.finish(at(1), step, 2, Ok(()));
    }
    let overdue = || Input::ReleaseOverdue { version: v(1), text: "it goes on".into() };
    assert!(bench.holder.handle(at(1), overdue()).is_err(), "it has not begun");
    bench.begin(at(1), Step::Release, 1);
    bench.holder.handle(at(31), overdue()).unwrap();
    let told = bench.holder.report().failure.unwrap();
    assert_eq!((told.kind, told.version), (FailureKind::ReleaseFailed, v(1)));
    assert_eq!(bench.held(), [1, 2]);
    // What is wrong with a version that is wanted comes first.
    bench.state(at(32), SecretState { generation: Generation(3), pending: Some(v(3)), ..state(3, 2, 2) }).unwrap();
    let setback = Setback { text: "no answer".into(), retry_after: SECOND };
    bench.holder.handle(at(32), Input::LoadFailed { version: v(3), setback }).unwrap();
    assert_eq!(bench.holder.report().failure.unwrap().kind, FailureKind::Fetch);
    bench.finish(at(33), Step::Release, 1, Ok(()));
    assert_eq!(bench.held(), [2]);
}

#[test]
fn a_rollback_goes_back_to_the_version_that_is_still_prepared() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Held([v(1)].into())).unwrap();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    for step in [Step::Prepare, Step::Switch] {
        bench.begin(at(1), step, 2);
        bench.holder.handle(at(1), Input::Finished { step, version: v(2), result: Ok(()) }).unwrap();
        bench.holder.handle(at(1), Input::Held([v(1)].into())).unwrap();
    }
    bench.state(at(2), SecretState { previous: Some(v(2)), ..state(3, 3, 1) }).unwrap();
    bench.steps.clear();
    bench.work(at(2));
    assert_eq!(bench.steps, ["switch 1", "release 2"]);
    assert_eq!((bench.active(at(2)), bench.reached()), (Some(1), Some((1, Stage::Released))));
}

#[test]
fn a_rollback_during_the_switch_hook_puts_the_service_back_as_well() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    bench.begin(at(1), Step::Prepare, 2);
    bench.finish(at(1), Step::Prepare, 2, Ok(()));
    bench.begin(at(1), Step::Switch, 2);
    bench.state(at(2), SecretState { previous: Some(v(2)), ..state(3, 3, 1) }).unwrap();
    assert_eq!(bench.reached(), Some((1, Stage::Prepared)), "the service may be using either");
    bench.finish(at(2), Step::Switch, 2, Ok(()));
    assert_eq!((bench.active(at(2)), bench.held()), (Some(1), vec![1, 2]));
    bench.steps.clear();
    bench.work(at(2));
    assert_eq!(bench.steps, ["switch 1", "release 2"]);
    assert_eq!(bench.held(), [1]);
}

#[test]
fn a_version_that_came_too_late_is_not_kept() {
    let mut bench = Bench::on_one();
    bench.state(at(1), SecretState { pending: Some(v(2)), ..state(2, 2, 1) }).unwrap();
    bench.state(at(2), SecretState { pending: Some(v(3)), ..state(3, 2, 1) }).unwrap();
    assert!(matches!(bench.holder.handle(at(2), Input::Loaded { version: v(2) }), Err(Rejection::NotOwed { .. })));
    assert_eq!(bench.held(), [1]);
}

#[test]
fn a_superseded_version_that_was_shown_to_the_service_is_released_by_it() {
    let mut bench = Bench::on_one();
    bench.state(at(1), SecretState { pending: Some(v(2)), ..state(2, 2, 1) }).unwrap();
    bench.lease(at(1), 2, &[(1, 30), (2, 30), (3, 30)]);
    bench.work(at(1));
    bench.state(at(2), SecretState { pending: Some(v(3)), ..state(3, 2, 1) }).unwrap();
    bench.lease(at(2), 3, &[(1, 30), (3, 30)]);
    bench.steps.clear();
    bench.work(at(2));
    assert_eq!(bench.steps, ["release 2", "load 3", "prepare 3"]);
    assert_eq!(bench.held(), [1, 3]);
}

#[test]
fn lease_rule_1_a_lease_counts_from_the_send_time_of_its_request() {
    let mut bench = Bench::new();
    bench.state(at(0), state(1, 1, 1)).unwrap();
    let nonce = bench.sync_sent(at(10));
    bench.holder.handle(at(25), Input::Grant { nonce, grant: grant(1, &[(1, 30)]) }).unwrap();
    bench.work(at(25));
    assert_eq!(bench.holder.usable(v(1), at(25)), Some(at(40)));
    assert_eq!(bench.holder.usable(v(1), at(40)), None, "exactly at its end it is over");
}

#[test]
fn lease_rule_1_a_reply_counts_for_the_request_it_echoes_and_once() {
    let mut bench = Bench::on_one();
    let (first, second) = (bench.sync_sent(at(5)), bench.sync_sent(at(6)));
    let stranger = bench.holder.handle(at(7), Input::Grant { nonce: Nonce(99), grant: grant(9, &[(1, 9999)]) });
    assert_eq!(stranger, Err(Rejection::UnknownNonce { found: Nonce(99) }));
    bench.holder.handle(at(7), Input::Grant { nonce: second, grant: grant(3, &[(1, 30)]) }).unwrap();
    let replayed = bench.holder.handle(at(8), Input::Grant { nonce: second, grant: grant(4, &[(1, 9999)]) });
    assert_eq!(replayed, Err(Rejection::UnknownNonce { found: second }));
    let overtaken = bench.holder.handle(at(8), Input::Grant { nonce: first, grant: grant(2, &[(1, 9999)]) });
    assert!(matches!(overtaken, Err(Rejection::StaleGrant { .. })), "{overtaken:?}");
    assert_eq!(bench.holder.usable(v(1), at(8)), Some(at(36)));
    assert_eq!(bench.holder.report().lease, LeaseSequence(3));
}

#[test]
fn outstanding_requests_are_bounded_and_the_oldest_is_given_up() {
    let mut bench = Bench::on_one();
    let oldest = bench.sync_sent(at(5));
    for _ in 0..rotacast_holder::MAX_OUTSTANDING {
        bench.sync_sent(at(6));
    }
    let late = bench.holder.handle(at(7), Input::Grant { nonce: oldest, grant: grant(9, &[(1, 30)]) });
    assert_eq!(late, Err(Rejection::UnknownNonce { found: oldest }));
}

#[test]
fn a_grant_that_is_over_on_arrival_is_not_acknowledged() {
    let mut bench = Bench::on_one();
    let nonce = bench.sync_sent(at(5));
    let late = bench.holder.handle(at(35), Input::Grant { nonce, grant: grant(2, &[(1, 30)]) });
    assert_eq!(late, Err(Rejection::LateGrant { found: LeaseSequence(2) }));
    assert_eq!(bench.holder.report().lease, LeaseSequence(1));
    assert_eq!(bench.active(at(35)), Some(1), "the earlier lease still runs");
}

#[test]
fn a_grant_for_a_version_it_has_nothing_to_do_with_is_ignored_but_acknowledged() {
    let mut bench = Bench::on_one();
    bench.lease(at(1), 2, &[(1, 3600), (7, 3600)]);
    assert_eq!(bench.holder.lease_until(v(7)), Instant::ZERO);
    assert!(bench.holder.commands(at(1)).contains(&Command::Sync), "the leader must hear that it arrived");
    bench.lease(at(2), 3, &[(1, 3600)]);
    assert!(!bench.holder.commands(at(2)).contains(&Command::Sync));
}

#[test]
fn an_answered_sync_says_nothing_new_until_it_is_time() {
    let bench = Bench::on_one();
    let mut bench = bench;
    bench.lease(at(1), 2, &[(1, 3600)]);
    assert_eq!(bench.holder.commands(at(1)), []);
    assert_eq!(bench.holder.next_wakeup(at(1)), Some(at(11)));
    assert_eq!(bench.holder.commands(at(11)), [Command::Sync]);
    bench.holder.handle(at(11), Input::AuthFailure { version: v(1), count: 1 }).unwrap();
    bench.lease(at(11), 3, &[(1, 8)]);
    assert_eq!(bench.holder.next_wakeup(at(11)), Some(at(14)), "the store, when half a self-lease is left");
    assert_eq!(bench.holder.commands(at(15)), [Command::Sync, Command::ReadStore], "half of a short lease");
}

#[test]
fn lease_rule_8_a_store_read_allows_what_it_shows_unsealed_from_its_send_time() {
    let mut bench = Bench::new();
    let mut seen = state(1, 1, 2);
    seen.previous = Some(v(1));
    seen.sealed = [v(1)].into();
    bench.holder.handle(at(103), Input::StoreRead { sent: at(100), state: seen }).unwrap();
    bench.work(at(103));
    assert_eq!(bench.holder.active(at(103)), Some((v(2), at(110))));
    assert_eq!(bench.holder.active(at(110)), None);
    assert_eq!(bench.holder.lease_until(v(1)), Instant::ZERO);
}

#[test]
fn lease_rule_8_a_late_read_allows_nothing_that_is_known_to_be_sealed() {
    let mut bench = Bench::on_one();
    bench.state(at(1), SecretState { sealed: [v(1)].into(), ..state(5, 2, 2) }).unwrap();
    bench.holder.handle(at(4000), Input::StoreRead { sent: at(3995), state: state(1, 1, 1) }).unwrap();
    assert_eq!(bench.active(at(4000)), None);
}

/// The SDK keeps nothing on disk: a new incarnation knows nothing of the one before it.
#[test]
fn s41_an_incarnation_that_knows_nothing_takes_its_version_from_the_store_and_not_from_an_old_log() {
    let mut bench = Bench::new();
    // An old log still shows the time before the rotation. It alone allows nothing.
    bench.state(at(0), state(1, 1, 1)).unwrap();
    bench.work(at(0));
    assert_eq!((bench.active(at(0)), bench.steps.len()), (None, 0));
    let stored = SecretState { sealed: [v(1)].into(), ..state(5, 2, 2) };
    bench.holder.handle(at(1), Input::StoreRead { sent: at(1), state: stored }).unwrap();
    bench.work(at(1));
    assert_eq!(bench.active(at(1)), Some(2));
    // It does not lead back either.
    assert!(bench.state(at(2), state(1, 1, 1)).is_err());
    bench.work(at(2));
    assert_eq!(bench.active(at(2)), Some(2));
    assert!(!bench.steps.iter().any(|step| step == "load 1"), "{:?}", bench.steps);
}

#[test]
fn without_a_leader_it_keeps_reading_the_store_and_never_lapses() {
    let mut bench = Bench::on_one();
    let mut now = at(0);
    let mut reads = 0;
    while now < at(7200) {
        now = bench.holder.next_wakeup(now).unwrap();
        assert_eq!(bench.active(now), Some(1), "{now:?}");
        let commands = bench.holder.commands(now);
        if commands.contains(&Command::Sync) {
            let nonce = bench.sync_sent(now);
            bench.holder.handle(now, Input::SyncFailed { nonce }).unwrap();
        }
        if commands.contains(&Command::ReadStore) {
            reads += 1;
            bench.holder.handle(now, Input::StoreRead { sent: now, state: state(1, 1, 1) }).unwrap();
        }
    }
    assert!((700..760).contains(&reads), "{reads} reads: one per half self-lease, once the lease was about to end");
}

#[test]
fn with_neither_leader_nor_store_it_stops_exactly_at_the_lapse() {
    let bench = Bench::on_one();
    let last = Instant::from_nanos(at(3600).as_nanos() - 1);
    assert_eq!(bench.active(last), Some(1));
    assert_eq!(bench.active(at(3600)), None);
}

#[test]
fn a_holder_that_slept_past_its_lease_hands_out_nothing_until_it_has_a_new_one() {
    let bench = Bench::moving_to_two();
    assert_eq!(bench.active(at(5000)), None);
    assert!(bench.holder.commands(at(5000)).contains(&Command::ReadStore));
    assert_eq!(bench.local_commands(at(5000)), [], "not even the value is read");
}

#[test]
fn a_newly_wanted_version_waits_for_the_leader_before_it_reads_the_store() {
    let mut bench = Bench::on_one();
    bench.state(at(1), state(2, 2, 2)).unwrap();
    assert_eq!(bench.holder.commands(at(1)), [Command::Sync]);
    let nonce = bench.sync_sent(at(1));
    assert_eq!(bench.holder.next_wakeup(at(1)), Some(at(1) + READ_PATIENCE));
    assert_eq!(bench.holder.commands(at(1) + READ_PATIENCE), [Command::ReadStore]);
    bench.holder.handle(at(1), Input::SyncFailed { nonce }).unwrap();
    assert_eq!(bench.holder.commands(at(1)), [Command::ReadStore], "a leader known to be away is not waited for");
}

#[test]
fn failures_are_reported_until_the_version_moves_on_and_retried_on_request() {
    let mut bench = Bench::moving_to_two();
    let setback = |text: &str| Setback { text: text.into(), retry_after: SECOND };
    bench.holder.handle(at(1), Input::LoadFailed { version: v(2), setback: setback("store away") }).unwrap();
    assert_eq!(bench.holder.report().failure.unwrap().kind, FailureKind::Fetch);
    assert_eq!(bench.local_commands(at(1)), []);
    assert_eq!(bench.local_commands(at(2)), [Command::Load(v(2))]);
    bench.holder.handle(at(2), Input::Loaded { version: v(2) }).unwrap();
    assert_eq!(bench.holder.report().failure, None);
    bench.begin(at(2), Step::Prepare, 2);
    bench.finish(at(2), Step::Prepare, 2, Err(&"é".repeat(200)));
    let failure = bench.holder.report().failure.unwrap();
    assert_eq!((failure.kind, failure.version, failure.text.len()), (FailureKind::PrepareRefused, v(2), 256));
    assert_eq!((bench.local_commands(at(6)), bench.active(at(6))), (vec![], Some(1)));
    bench.work(at(7));
    assert_eq!(bench.active(at(7)), Some(2));
    assert_eq!(bench.holder.report().failure, None);
}

#[test]
fn a_refused_version_that_is_given_up_leaves_no_failure_and_is_released() {
    let mut bench = Bench::on_one();
    bench.state(at(1), SecretState { pending: Some(v(2)), ..state(2, 2, 1) }).unwrap();
    bench.lease(at(1), 2, &[(1, 30), (2, 30)]);
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    bench.begin(at(1), Step::Prepare, 2);
    bench.finish(at(1), Step::Prepare, 2, Err("does not log in"));
    bench.state(at(2), SecretState { previous: Some(v(2)), ..state(3, 3, 1) }).unwrap();
    assert_eq!((bench.held(), bench.holder.report().failure), (vec![1, 2], None));
    bench.work(at(7));
    assert_eq!(bench.reached(), Some((1, Stage::Released)));
}

#[test]
fn a_failed_switch_leaves_the_old_version_in_use_and_held() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    bench.begin(at(1), Step::Prepare, 2);
    bench.finish(at(1), Step::Prepare, 2, Ok(()));
    bench.begin(at(1), Step::Switch, 2);
    bench.finish(at(1), Step::Switch, 2, Err("pool is full"));
    assert_eq!((bench.active(at(1)), bench.held()), (Some(1), vec![1, 2]));
    assert_eq!(bench.reached(), Some((2, Stage::Prepared)));
    bench.work(at(6));
    assert_eq!((bench.active(at(6)), bench.held()), (Some(2), vec![2]));
}

#[test]
fn auth_failures_are_counted_by_version_for_the_newest_versions() {
    let mut bench = Bench::on_one();
    for number in 1..=20 {
        bench.holder.handle(at(1), Input::AuthFailure { version: v(number), count: 1 }).unwrap();
        bench.holder.handle(at(1), Input::AuthFailure { version: v(number), count: number - 1 }).unwrap();
    }
    let expected: BTreeMap<Version, u64> = (5..=20).map(|number| (v(number), number)).collect();
    assert_eq!(bench.holder.report().auth_failures, expected);
}

#[test]
fn a_step_that_is_running_keeps_every_other_one_back() {
    let mut bench = Bench::moving_to_two();
    bench.holder.handle(at(1), Input::Loaded { version: v(2) }).unwrap();
    bench.begin(at(1), Step::Prepare, 2);
    assert_eq!(bench.local_commands(at(1)), []);
    let second = bench.holder.handle(at(1), Input::Begin { step: Step::Prepare, version: v(2) });
    assert!(matches!(second, Err(Rejection::NotOwed { .. })));
    let other = bench.holder.handle(at(1), Input::Finished { step: Step::Switch, version: v(2), result: Ok(()) });
    assert_eq!(other, Err(Rejection::NotBegun { step: Step::Switch, version: v(2) }));
}
