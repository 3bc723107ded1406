//! Reports folded per second of processor time by the core, on one thread.

use std::collections::{BTreeMap, BTreeSet};

use rotacast_clock as clock;
use rotacast_protocol::coordinator::{Coordinator, Input, Tenure};
use rotacast_protocol::message::{SecretReport, Stage};
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::{
    Epoch, Generation, Incarnation, InstanceKey, LeaseSequence, Policy, ReportSequence, Revision, SecretName, Version,
};

use super::current::processor_time;

const INSTANCES: u64 = 10_000;
const ROUNDS: u64 = 50;

/// Measures and prints.
pub(super) fn run() {
    let now = clock::now();
    let valid_until = rotacast_protocol::Instant::from_nanos(u64::MAX);
    let policy = Policy::default();
    let record = SecretRecord::new(SecretName::new("payments/db").unwrap(), Epoch(1), Timing::of(&policy));
    let mut coordinator = Coordinator::take_over(record, policy, Tenure { epoch: Epoch(1), since: now, valid_until });
    let key = |number: u64| {
        InstanceKey::new(
            format!("service-{}", number % 50).parse().unwrap(),
            format!("pod-{number}").parse().unwrap(),
            Incarnation(number.into()),
        )
    };
    let report = SecretReport {
        generation: Generation(1),
        revision: Revision(1),
        reached: Some((Version::FIRST, Stage::Released)),
        held: BTreeSet::from([Version::FIRST]),
        lease: LeaseSequence(1),
        failure: None,
        auth_failures: BTreeMap::new(),
    };
    let mut rates = Vec::new();
    for round in 1..=ROUNDS {
        // As they come from the network: every report and every key is separate.
        let inputs: Vec<Input> = (0..INSTANCES)
            .map(|number| Input::Report { key: key(number), sequence: ReportSequence(round), report: report.clone() })
            .collect();
        let began = processor_time();
        for input in inputs {
            for change in coordinator.decide(now, input).unwrap() {
                coordinator.apply(now, &change);
            }
        }
        rates.push(INSTANCES as f64 / (processor_time() - began).as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    println!("Reports folded by the core, one thread, {INSTANCES} members");
    println!("  median of {ROUNDS} rounds   {:>5.2} million/s", rates[rates.len() / 2] / 1e6);
    println!("  best                   {:>5.2} million/s\n", rates[rates.len() - 1] / 1e6);
}
