//! What a report costs the core on one core, with 1,000, 10,000 and 100,000 members: a phase in which every member syncs, with
//! the tick, the commands and the wake-up that the driver asks for after every batch; processor time. And what a million pairs of
//! instance and secret take, by what the process grows.
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
    Epoch, Incarnation, InstanceKey, Instant, LeaseSequence, Now, Policy, ReportSequence, SecretName, Version, WallTime,
};

/// Reports that are folded between two looks at what can go on.
const BATCH: usize = 256;

/// Reports that are measured, of few members or of many.
const REPORTS: usize = 100_000;

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// Processor time of this thread: a busy machine does not count.
fn processor_time() -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    spent.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

type Failure = Box<dyn std::error::Error>;

fn takes(coordinator: &mut Coordinator, now: Now, input: Input) -> Result<(), Failure> {
    for change in coordinator.decide(now, input)? {
        coordinator.apply(now, &change);
    }
    Ok(())
}

fn settles(coordinator: &mut Coordinator, now: Now) -> Result<(), Failure> {
    loop {
        let changes = coordinator.decide(now, Input::Tick)?;
        if changes.is_empty() {
            break;
        }
        changes.iter().for_each(|change| coordinator.apply(now, change));
    }
    std::hint::black_box((coordinator.commands(now), coordinator.next_wakeup(now)));
    Ok(())
}

fn key(number: usize) -> Result<InstanceKey, Failure> {
    Ok(InstanceKey::new(
        format!("service-{}", number % 50).parse()?,
        format!("pod-{number}").parse()?,
        Incarnation(number as u128),
    ))
}

fn report(coordinator: &Coordinator, version: Version, stage: Stage, held: &[Version], grants: u64) -> SecretReport {
    SecretReport {
        generation: coordinator.record().generation,
        revision: coordinator.record().revision,
        reached: Some((version, stage)),
        held: held.iter().copied().collect::<BTreeSet<_>>(),
        lease: LeaseSequence((1 << 24) + grants),
        failure: None,
        auth_failures: BTreeMap::new(),
    }
}

const NOW: Now = Now { instant: Instant::from_nanos(1), wall: WallTime(0) };

/// A secret whose first version is current.
fn rotated(secret: usize) -> Result<Coordinator, Failure> {
    let tenure = Tenure { epoch: Epoch(1), since: NOW, valid_until: Instant::from_nanos(u64::MAX) };
    let policy = Policy::default();
    let record = SecretRecord::new(SecretName::new(format!("payments/db-{secret}"))?, Epoch(1), Timing::of(&policy));
    let mut coordinator = Coordinator::take_over(record, policy, tenure);
    let version = Version::FIRST;
    for input in [Input::RosterRead, Input::VersionSeen { version }, Input::Verified { version }] {
        takes(&mut coordinator, NOW, input)?;
        settles(&mut coordinator, NOW)?;
    }
    Ok(coordinator)
}

fn joins(coordinator: &mut Coordinator, key: &InstanceKey) -> Result<(), Failure> {
    takes(coordinator, NOW, Input::Registered { key: key.clone(), exclusive: false, live: true })?;
    let said = report(coordinator, Version::FIRST, Stage::Released, &[Version::FIRST], 0);
    takes(coordinator, NOW, Input::Sync { key: key.clone(), sequence: ReportSequence(1), report: said })
}

/// Bytes of a pair of instance and secret, and of an instance's names, which its secrets share.
fn pairs(secrets: usize, instances: usize) -> Result<(f64, f64), Failure> {
    let before = resident_bytes();
    let keys = (0..instances).map(key).collect::<Result<Vec<_>, _>>()?;
    let names = resident_bytes();
    let mut coordinators = Vec::new();
    for secret in 0..secrets {
        let mut coordinator = rotated(secret)?;
        keys.iter().try_for_each(|key| joins(&mut coordinator, key))?;
        coordinators.push(coordinator);
    }
    let pairs = resident_bytes().saturating_sub(names) as f64 / (secrets * instances) as f64;
    Ok((pairs, names.saturating_sub(before) as f64 / instances as f64))
}

/// A secret on its way to a second version, which every member is about to report that it has prepared.
fn preparing(members: usize) -> Result<(Coordinator, Vec<Input>), Failure> {
    let mut coordinator = rotated(0)?;
    for number in 0..members {
        // As they come from the wire: every key is its own.
        joins(&mut coordinator, &key(number)?)?;
    }
    let (first, second) = (Version::FIRST, Version::FIRST.next());
    for input in [Input::VersionSeen { version: second }, Input::Verified { version: second }] {
        takes(&mut coordinator, NOW, input)?;
        settles(&mut coordinator, NOW)?;
    }
    let said = report(&coordinator, second, Stage::Prepared, &[first, second], 1);
    let input = |number| -> Result<Input, Failure> {
        Ok(Input::Sync { key: key(number)?, sequence: ReportSequence(2), report: said.clone() })
    };
    let inputs = (0..members).map(input).collect::<Result<Vec<_>, _>>()?;
    Ok((coordinator, inputs))
}

/// Seconds per report of so many members, over [`REPORTS`] of them.
fn measure(members: usize) -> Result<f64, Failure> {
    let mut secrets = (0..REPORTS / members).map(|_| preparing(members)).collect::<Result<Vec<_>, _>>()?;
    let began = processor_time();
    for (coordinator, inputs) in &mut secrets {
        for (number, input) in inputs.drain(..).enumerate() {
            takes(coordinator, NOW, input)?;
            if number % BATCH == 0 {
                settles(coordinator, NOW)?;
            }
        }
        settles(coordinator, NOW)?;
    }
    let seconds = (processor_time() - began) / REPORTS as f64;
    for (coordinator, _) in &secrets {
        let phase = coordinator.record().rotation.as_ref().map(|rotation| rotation.phase.as_str());
        assert_eq!(phase, Some("activating"), "every member has prepared");
    }
    Ok(seconds)
}

fn main() -> Result<(), Failure> {
    let (pair, names) = pairs(100, 10_000)?;
    println!(
        "{pair:.0} bytes a pair of instance and secret, and {names:.0} an instance's key and names, allocator included"
    );
    let mut smallest = None;
    for members in [1_000, 10_000, 100_000] {
        let runs = (0..3).map(|_| measure(members)).collect::<Result<Vec<_>, _>>()?;
        let seconds = runs.into_iter().fold(f64::INFINITY, f64::min);
        println!(
            "{members:>7} members: {:.2} us a report ({:.0} a second), {:.2} times that of 1,000",
            seconds * 1e6,
            1.0 / seconds,
            seconds / *smallest.get_or_insert(seconds)
        );
    }
    Ok(())
}
