//! An instance after a store was restored: which of the versions that it holds are the store's versions of the same
//! numbers.

use std::collections::BTreeSet;

use crate::bench::{Bench, key, managed, seconds, secret, v};
use rotacast_holder::{Command, Holder, Input, Step};
use rotacast_protocol::coordinator::{Input as To, Order};
use rotacast_protocol::message::{LostHistory, SecretGrant, SecretState, Stage};
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Generation, LeaseSequence, Nonce, ReportSequence, Revision};

struct Hand {
    holder: Holder,
    nonce: u64,
    sequence: u64,
}

impl Hand {
    fn new() -> Self {
        Self { holder: Holder::new(secret()), nonce: 0, sequence: 1 << 40 }
    }

    /// Takes a state, gets a lease for every version that it wants or holds, and works until no command is outstanding.
    fn takes(&mut self, bench: &Bench, state: SecretState) {
        let now = bench.now.instant;
        let _ = self.holder.handle(now, Input::State(state.clone()));
        for _ in 0..20 {
            self.nonce += 1;
            let nonce = Nonce(self.nonce);
            self.holder.handle(now, Input::SyncSent { nonce, at: now }).unwrap();
            let wanted = self.holder.report().held.into_iter().chain(state.current).chain(state.pending);
            let leases = wanted.filter(|version| !state.sealed.contains(version)).map(|v| (v, seconds(3600))).collect();
            // As of an earlier term.
            let grant = SecretGrant { sequence: LeaseSequence(self.nonce), leases, state: None };
            self.holder.handle(now, Input::Grant { nonce, grant }).unwrap();
            let local =
                self.holder.commands(now).into_iter().find(|it| !matches!(it, Command::Sync | Command::ReadStore));
            match local {
                None => return,
                Some(Command::Load(version)) => self.holder.handle(now, Input::Loaded { version }).unwrap(),
                Some(Command::Run(step, version)) => {
                    self.holder.handle(now, Input::Begin { step, version }).unwrap();
                    self.holder.handle(now, Input::Finished { step, version, result: Ok(()) }).unwrap();
                    if step == Step::Switch {
                        self.holder.handle(now, Input::Held(BTreeSet::new())).unwrap();
                    }
                }
                Some(_) => unreachable!(),
            }
        }
    }

    fn follows(&mut self, bench: &Bench) {
        self.takes(bench, bench.coordinator.record().state());
    }

    fn tells(&mut self, bench: &mut Bench) {
        self.sequence += 1;
        let input =
            To::Report { key: key("api/a"), sequence: ReportSequence(self.sequence), report: self.holder.report() };
        bench.input(input).unwrap();
    }
}

/// Version 2 was known, and not announced, when the backup was taken. In the lost history every instance switched to it
/// and version 1 was retired. The restored store has the same version 2.
#[test]
fn a_version_that_the_backup_knows_did_not_come_again() {
    let mut bench = Bench::running(managed(), &[]);
    let mut hand = Hand::new();
    bench.register("api/a");
    hand.follows(&bench);
    bench.seen(2);
    let backup = bench.coordinator.record().encode();
    bench.verified(2);
    for _ in 0..4 {
        hand.follows(&bench);
        hand.tells(&mut bench);
    }
    assert_eq!((bench.current(), hand.holder.serving()), (Some(2), Some(v(2))));
    assert!(bench.drains(1, seconds(9000)));
    bench.destroy(1);
    bench.settle();
    hand.follows(&bench);
    // The store is restored.
    let mut next = Bench::over(SecretRecord::decode(&backup).unwrap(), managed(), 9);
    next.now = bench.now;
    next.register("api/a");
    next.input(To::StoreWentBack { reason: "restored".into() }).unwrap();
    hand.follows(&next);
    hand.tells(&mut next);
    next.verified(2);
    hand.follows(&next);
    hand.tells(&mut next);
    let failure = hand.holder.failure().cloned();
    let phase = next.phase();
    next.order(Order::LeaveSafeMode).unwrap();
    hand.follows(&next);
    hand.tells(&mut next);
    let serving = hand.holder.serving();
    let ends = next.drains(2, seconds(20_000));
    assert!(
        failure.is_none() && phase != "rolling_back",
        "in safe mode: {phase}, {failure:?}; after it {serving:?} is served, which has ended; version 2, which works, is retired: {ends}"
    );
}

/// An instance that heard nothing while the others stayed.
#[test]
fn a_number_that_came_again_is_noticed_by_an_instance_that_missed_the_stay() {
    let bench = Bench::running(managed(), &[]);
    let mut hand = Hand::new();
    let first = bench.coordinator.record().state();
    let state = |revision: u64, generation: u64, current: u64, lost_history| SecretState {
        revision: Revision(revision),
        generation: Generation(generation),
        current: Some(v(current)),
        lost_history,
        ..first.clone()
    };
    hand.takes(&bench, state(100, 5, 3, None));
    assert_eq!(hand.holder.serving(), Some(v(3)));
    // The store was restored, and safe mode was entered and left. Number 3 came again with another value and is
    // current.
    let lost = LostHistory { noticed: Revision(1 << 32), kept_to: Some(v(2)) };
    hand.takes(&bench, state((1 << 32) + 200, (1 << 32) + 7, 3, Some(lost)));
    let reached = hand.holder.report().reached.unwrap();
    assert!(reached.1 < Stage::Prepared, "the value of the lost version 3 counts as {reached:?} of the new one");
}

/// The store is restored a second time while every instance still stays.
#[test]
fn a_number_of_the_time_between_two_restores_is_noticed() {
    let bench = Bench::running(managed(), &[]);
    let mut hand = Hand::new();
    let first = bench.coordinator.record().state();
    let state = |revision: u64, generation: u64, pending: Option<u64>| SecretState {
        revision: Revision(revision),
        generation: Generation(generation),
        current: Some(v(1)),
        pending: pending.map(v),
        stay: true,
        lost_history: Some(LostHistory { noticed: Revision(revision >> 32 << 32), kept_to: Some(v(1)) }),
        ..first.clone()
    };
    hand.takes(&bench, state(1 << 32, 1 << 32, None));
    hand.takes(&bench, state((1 << 32) + 5, (1 << 32) + 1, Some(2)));
    assert_eq!(hand.holder.report().reached, Some((v(2), Stage::Prepared)));
    // The instance hears of the second restore only with what was written after it: number 2 again.
    hand.takes(&bench, state((2 << 32) + 5, (2 << 32) + 1, Some(2)));
    let reached = hand.holder.report().reached.unwrap();
    assert!(reached.1 < Stage::Prepared, "version 2 of before the second restore counts as {reached:?}");
}
