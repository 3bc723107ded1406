//! The coordinator of one secret, up to where a round begins.

use std::collections::{BTreeMap, BTreeSet};

use rotacast_clock as clock;
use rotacast_protocol::coordinator::{Coordinator, Input, Tenure};
use rotacast_protocol::message::{SecretReport, Stage};
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::{Epoch, LeaseSequence, Phase, Policy, ReportSequence, Revision, SecretName, Version};

use super::instance::key_of;

pub(super) fn secret() -> SecretName {
    SecretName::new("payments/db").unwrap()
}

/// A rotation in which every instance has prepared, and which has just been activated: the state to announce. Every
/// round's state is later than the one before.
pub(super) fn activated(round: u64, instances: usize) -> Coordinator {
    let (now, policy) = (clock::now(), Policy::default());
    let mut record = SecretRecord::new(secret(), Epoch(round), Timing::of(&policy));
    // States are ordered by revision.
    record.revision = Revision(round * 1000);
    let valid_until = rotacast_protocol::Instant::from_nanos(u64::MAX);
    let tenure = Tenure { epoch: Epoch(round), since: now, valid_until };
    let mut coordinator = Coordinator::take_over(record, policy, tenure);
    let mut input = |input: Input| {
        take_in(&mut coordinator, input);
        settle(&mut coordinator);
    };
    let (first, second) = (Version::FIRST, Version::FIRST.next());
    input(Input::RosterRead);
    for version in [first, second] {
        if version == second {
            for number in 0..instances {
                input(Input::Registered { key: key_of(number), exclusive: false, live: true });
            }
        }
        input(Input::VersionSeen { version });
        input(Input::Verified { version });
    }
    for number in 0..instances {
        let record = coordinator.record();
        let report = SecretReport {
            generation: record.generation,
            revision: record.revision,
            reached: Some((second, Stage::Prepared)),
            held: BTreeSet::from([first, second]),
            lease: LeaseSequence(0),
            failure: None,
            auth_failures: BTreeMap::new(),
        };
        take_in(&mut coordinator, Input::Report { key: key_of(number), sequence: ReportSequence(1), report });
    }
    settle(&mut coordinator);
    assert_eq!(phase(&coordinator), Some(Phase::Activating), "every instance has prepared");
    coordinator
}

pub(super) fn phase(coordinator: &Coordinator) -> Option<Phase> {
    coordinator.record().rotation.as_ref().map(|rotation| rotation.phase)
}

pub(super) fn take_in(coordinator: &mut Coordinator, input: Input) {
    let now = clock::now();
    for change in coordinator.decide(now, input).unwrap() {
        coordinator.apply(now, &change);
    }
}

/// Until the coordinator has no more changes.
pub(super) fn settle(coordinator: &mut Coordinator) {
    loop {
        let now = clock::now();
        let changes = coordinator.decide(now, Input::Tick).unwrap();
        if changes.is_empty() {
            return;
        }
        changes.iter().for_each(|change| coordinator.apply(now, change));
    }
}
