//! Shrinks a failing world to as few faults as possible.

use crate::fault::{Fault, Plan};
use crate::setup::Setup;
use crate::world::World;

/// The most runs that are spent on one failing world.
const MAX_RUNS: u32 = 3000;

/// A failing world without the faults that it does not need.
#[derive(Clone, Debug)]
pub struct Story {
    /// The seed.
    pub seed: u64,
    /// The faults that are left out.
    pub plan: Plan,
    /// The promise that is broken, and how.
    pub violation: String,
    /// What happens, in words.
    pub lines: Vec<String>,
    /// The faults that are left.
    pub faults: usize,
}

fn promise(violation: &str) -> &str {
    violation.split(" at ").next().unwrap_or_default()
}

fn fails(setup: &Setup, plan: &Plan, like: &str) -> Option<Vec<(Fault, u64)>> {
    let mut world = World::new(Setup { plan: plan.clone(), ..setup.clone() });
    let violation = world.run().err()?;
    (promise(&violation) == like).then_some(world.strikes)
}

/// Leaves out whole kinds of faults, then ever smaller groups of single ones, as long as the same promise is broken.
/// `None` if the world does not fail.
#[must_use]
pub fn shrink(setup: &Setup) -> Option<Story> {
    let violation = World::new(setup.clone()).run().err()?;
    let like = promise(&violation).to_owned();
    let mut plan = setup.plan.clone();
    let mut runs = 0;
    for fault in Fault::ALL {
        let mut without = plan.clone();
        without.without.insert(fault);
        if fails(setup, &without, &like).is_some() {
            plan = without;
        }
    }
    let mut left = fails(setup, &plan, &like)?;
    let mut size = left.len().div_ceil(2).max(1);
    while runs < MAX_RUNS {
        let mut start = 0;
        let mut smaller = false;
        while start < left.len() && runs < MAX_RUNS {
            let mut dropped = plan.clone();
            dropped.dropped.extend(left[start..(start + size).min(left.len())].iter().copied());
            runs += 1;
            if let Some(now) = fails(setup, &dropped, &like) {
                (plan, left, smaller) = (dropped, now, true);
            } else {
                start += size;
            }
        }
        if size == 1 && !smaller {
            break;
        }
        size = (size / 2).max(1);
    }
    let mut world = World::new(Setup { plan: plan.clone(), told: true, ..setup.clone() });
    let violation = world.run().err()?;
    Some(Story {
        seed: setup.seed,
        plan,
        violation,
        lines: world.story.take().unwrap_or_default(),
        faults: world.strikes.len(),
    })
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "the same, with {} faults left:", self.faults)?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "=> {}", self.violation)
    }
}
