//! Reports folded per second by the core on one core, and memory per (instance, secret) pair.
//!
//! `cargo run --release -p rotacast-protocol --example fold`

#![allow(clippy::print_stdout)]
// A measurement reads the clock; the core itself never does.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use rotacast_protocol::coordinator::{Coordinator, Input, Tenure};
use rotacast_protocol::message::{SecretReport, Stage};
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::{
    Epoch, Generation, Incarnation, InstanceKey, Instant, LeaseSequence, Now, Policy, ReportSequence, Revision,
    SecretName, Version, WallTime,
};

const INSTANCES: u128 = 10_000;
const ROUNDS: u64 = 100;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = Now { instant: Instant::from_nanos(1), wall: WallTime(0) };
    let tenure = Tenure { epoch: Epoch(1), since: now, valid_until: Instant::from_nanos(u64::MAX) };
    let policy = Policy::default();
    let record = SecretRecord::new(SecretName::new("payments/db")?, Epoch(1), Timing::of(&policy));
    let mut coordinator = Coordinator::take_over(record, policy, tenure);
    let mut keys = Vec::new();
    for number in 0..INSTANCES {
        keys.push(InstanceKey {
            service: format!("service-{}", number % 50).parse()?,
            instance: format!("pod-{number}").parse()?,
            incarnation: Incarnation(number),
        });
    }
    let version = Version::FIRST;
    let report = SecretReport {
        generation: Generation(1),
        revision: Revision(1),
        reached: Some((version, Stage::Released)),
        held: BTreeSet::from([version]),
        lease: LeaseSequence(1),
        failure: None,
        auth_failures: BTreeMap::new(),
    };
    let before = resident_kib();
    let mut fastest = f64::MAX;
    for round in 1..=ROUNDS {
        // As they come from the wire: every report and every key is its own.
        let inputs: Vec<Input> = keys
            .iter()
            .map(|key| Input::Report { key: key.clone(), sequence: ReportSequence(round), report: report.clone() })
            .collect();
        let began = std::time::Instant::now();
        for input in inputs {
            for change in coordinator.decide(now, input)? {
                coordinator.apply(now, &change);
            }
        }
        fastest = fastest.min(began.elapsed().as_secs_f64());
    }
    let grown = resident_kib().saturating_sub(before);
    println!("reports folded per second, best of {ROUNDS} rounds: {:.0}", INSTANCES as f64 / fastest);
    println!(
        "memory per (instance, secret) pair, names and allocator included: {} bytes",
        grown * 1024 / INSTANCES as u64
    );
    Ok(())
}
