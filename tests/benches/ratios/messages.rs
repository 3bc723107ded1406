//! The two messages of a round: how large they are, and what they cost in computing time.

use std::hint::black_box;

use super::current::processor_time;
use super::instance::Voice;
use super::rotacast::{Sizes, identities, sealed};
use super::rotation::activated;

const TIMES: u32 = 2000;

/// In a round with this many instances.
pub(super) fn sizes(instances: usize) -> Sizes {
    let state = sealed(&activated(1, instances).record().state());
    let report = Voice::of(0).switched(&state);
    Sizes { announcement: state.payload.len(), report: report.payload.len() }
}

/// Measures and prints.
pub(super) fn run() {
    let identities = identities();
    let mut instance = Voice::of(0);
    let state = sealed(&activated(1, 1).record().state());
    let report = instance.switched(&state);
    let each = |work: &mut dyn FnMut()| {
        let began = processor_time();
        (0..TIMES).for_each(|_| work());
        (processor_time() - began).as_secs_f64() * 1e6 / f64::from(TIMES)
    };
    let at_instance = each(&mut || {
        black_box(instance.switched(&state));
    });
    let at_leader = each(&mut || {
        black_box(identities.report(&report).unwrap());
    });
    println!("Signatures of one instance in one round, one thread, mean of {TIMES}");
    println!("  it checks a state and signs a report  {at_instance:>5.0} µs");
    println!("  the leader checks that report         {at_leader:>5.0} µs\n");
}
