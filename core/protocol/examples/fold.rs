//! What a report costs the core on one core, with 1,000, 10,000 and 100,000 members: a phase in which every member syncs, with
//! the tick, the commands and the wake-up that the driver asks for after every batch. And the bytes of a pair of instance and
//! secret, by what the process grows: the first figure of a size, since later ones reuse what was freed.
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

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) * 1024
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
    Ok(InstanceKey {
        service: format!("service-{}", number % 50).parse()?,
        instance: format!("pod-{number}").parse()?,
        incarnation: Incarnation(number as u128),
    })
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

/// Seconds per report in the phase `preparing`, and bytes per member before it.
fn measure(members: usize) -> Result<(f64, f64), Failure> {
    let now = Now { instant: Instant::from_nanos(1), wall: WallTime(0) };
    let tenure = Tenure { epoch: Epoch(1), since: now, valid_until: Instant::from_nanos(u64::MAX) };
    let policy = Policy::default();
    let record = SecretRecord::new(SecretName::new("payments/db")?, Epoch(1), Timing::of(&policy));
    let mut coordinator = Coordinator::take_over(record, policy, tenure);
    let (first, second) = (Version::FIRST, Version::FIRST.next());
    let on = |coordinator: &mut Coordinator, input| -> Result<(), Failure> {
        takes(coordinator, now, input)?;
        settles(coordinator, now)
    };
    on(&mut coordinator, Input::RosterRead)?;
    on(&mut coordinator, Input::VersionSeen { version: first })?;
    on(&mut coordinator, Input::Verified { version: first })?;
    let before = resident_bytes();
    for number in 0..members {
        // As they come from the wire: every key is its own.
        let key = key(number)?;
        let (exclusive, live) = (false, true);
        takes(&mut coordinator, now, Input::Registered { key: key.clone(), exclusive, live })?;
        let said = report(&coordinator, first, Stage::Released, &[first], 0);
        takes(&mut coordinator, now, Input::Sync { key: key.clone(), sequence: ReportSequence(1), report: said })?;
    }
    let bytes = resident_bytes().saturating_sub(before) as f64 / members as f64;
    on(&mut coordinator, Input::VersionSeen { version: second })?;
    on(&mut coordinator, Input::Verified { version: second })?;
    let said = report(&coordinator, second, Stage::Prepared, &[first, second], 1);
    let input = |number| -> Result<Input, Failure> {
        Ok(Input::Sync { key: key(number)?, sequence: ReportSequence(2), report: said.clone() })
    };
    let inputs = (0..members).map(input).collect::<Result<Vec<_>, _>>()?;
    let began = std::time::Instant::now();
    for (number, input) in inputs.into_iter().enumerate() {
        takes(&mut coordinator, now, input)?;
        if number % BATCH == 0 {
            settles(&mut coordinator, now)?;
        }
    }
    settles(&mut coordinator, now)?;
    let seconds = began.elapsed().as_secs_f64() / members as f64;
    let phase = coordinator.record().rotation.as_ref().map(|rotation| rotation.phase.to_string().to_lowercase());
    assert_eq!(phase.as_deref(), Some("activating"), "every member has prepared");
    Ok((seconds, bytes))
}

fn main() -> Result<(), Failure> {
    // Largest first: memory that was freed before would be used again, and not counted.
    let mut measured = Vec::new();
    for members in [100_000, 10_000, 1_000] {
        let mut best = measure(members)?;
        for _ in 0..if members > 10_000 { 1 } else { 9 } {
            let again = measure(members)?;
            best.0 = best.0.min(again.0);
        }
        measured.push((members, best.0));
        if members == 100_000 {
            println!("{:.0} bytes a pair of instance and secret, names and allocator included", best.1);
        }
    }
    let smallest = measured.last().map_or(f64::NAN, |(_, seconds)| *seconds);
    for (members, seconds) in measured.into_iter().rev() {
        println!(
            "{members:>7} members: {:.2} us a report ({:.0} a second), {:.2} times that of 1,000",
            seconds * 1e6,
            1.0 / seconds,
            seconds / smallest
        );
    }
    Ok(())
}
