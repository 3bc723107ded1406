//! Every broken rule is noticed: by the world of a seed, by its directed test, by a row of
//! docs/understand/scenarios.md, or in a small world. A rule that another one stands behind is named with the reason.
//! Only `tools/mutants` builds this.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rotacast_protocol::coordinator::ConditionName;
use rotacast_simulator::kill::kill;
use rotacast_simulator::mutant::{Around, HolderRule, Rule};
use rotacast_simulator::scenario::scenarios;
use rotacast_simulator::small::{configurations, search};
use rotacast_simulator::{Mutant, Setup, World};

/// Seeds in which a broken rule must be noticed.
const SEEDS: u64 = 600;

/// Seeds of worlds in which the store is restored.
const RESTORED: u64 = 1_000;

/// Runs a check for each rule, in parallel, and lists the failures.
fn complaints<T: Sync>(all: &[T], check: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let complaint = check(one);
                    found.lock().unwrap_or_else(PoisonError::into_inner).extend(complaint);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_broken_rule_is_noticed() {
    let all: Vec<Mutant> = Mutant::all().collect();
    let unnoticed = complaints(&all, |mutant| {
        if let Some(why) = mutant.covered() {
            println!("{mutant}: another rule stands behind it: {why}");
            return None;
        }
        match kill(*mutant, 0..SEEDS) {
            Some(kill) => {
                let by = kill.seed.map_or_else(|| "directed test".to_owned(), |seed| format!("seed {seed}"));
                println!("{mutant}: {by}: {}", kill.violation);
                None
            }
            None => Some(mutant.to_string()),
        }
    });
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn no_scenario_holds_without_its_rules() {
    let idle = complaints(&scenarios(), |scenario| scenario.needs_its_rules().err());
    assert!(idle.is_empty(), "{idle:#?}");
}

#[test]
fn worlds_with_a_restored_store_find_broken_rules() {
    let broken = [Rule::ProofHeld, Rule::RollbackProved, Rule::StayProved];
    let unnoticed = complaints(&broken, |rule| {
        let broken = |seed| Setup { mutant: Some(Mutant::Leader(*rule)), ..Setup::restored(seed, 1) };
        let found = (0..RESTORED).find_map(|seed| Some((seed, World::new(broken(seed)).run().err()?)));
        println!("{rule:?}: {found:?}");
        found.is_none().then(|| format!("{rule:?}"))
    });
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn small_worlds_find_broken_rules() {
    let broken = [
        Mutant::Leader(Rule::FenceWaits),
        Mutant::Leader(Rule::UseTime),
        Mutant::Leader(Rule::Guard(ConditionName::SelfLeasesOver)),
        Mutant::Leader(Rule::Guard(ConditionName::MembersReleased)),
        Mutant::Holder(HolderRule::ClockOnUse),
        Mutant::Around(Around::UseEnds),
        Mutant::Leader(Rule::LeapUnseals),
        Mutant::Leader(Rule::ChallengeEchoed),
    ];
    let unnoticed = complaints(&broken, |mutant| {
        let found = configurations(false).into_iter().find_map(|bounds| {
            let (way, violation) = search(&bounds, Some(*mutant), 60_000).violation?;
            Some((bounds.name, way.len(), violation))
        });
        println!("{mutant}: {found:?}");
        found.is_none().then(|| mutant.to_string())
    });
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}
