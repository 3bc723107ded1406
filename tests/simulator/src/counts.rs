//! Counts of what happened in runs.

use crate::fault::Struck;

/// What happened in a run, or in many.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Counts {
    pub events: u64,
    /// Simulated nanoseconds.
    pub time: u64,
    pub saves: u64,
    pub unknown: u64,
    pub deposed: u64,
    pub terms: u64,
    pub orders: u64,
    pub refused: u64,
    pub uses: u64,
    pub retired: u64,
    pub rotations: u64,
    /// Incarnations that operators said are gone.
    pub said_gone: u64,
    /// Those of them that ran.
    pub said_gone_and_runs: u64,
    /// Versions that operators gave up.
    pub given_up: u64,
    /// How often the store was restored.
    pub restores: u64,
    /// Runs in which the store was restored.
    pub restored: u64,
    /// Faults and interference, by kind.
    pub faults: Struck,
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.time += other.time;
        self.saves += other.saves;
        self.unknown += other.unknown;
        self.deposed += other.deposed;
        self.terms += other.terms;
        self.orders += other.orders;
        self.refused += other.refused;
        self.uses += other.uses;
        self.retired += other.retired;
        self.rotations += other.rotations;
        self.said_gone += other.said_gone;
        self.said_gone_and_runs += other.said_gone_and_runs;
        self.given_up += other.given_up;
        self.restores += other.restores;
        self.restored += other.restored;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_insert(0) += count;
        }
    }
}
