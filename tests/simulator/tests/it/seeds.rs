//! Many seeds; see the crate's documentation for how to run one again.

use rotacast_simulator::shrink::shrink;
use rotacast_simulator::{Counts, Setup, World};

/// Seeds in an ordinary run and in `tools/test --long`; `ROTACAST_SEEDS` runs another number.
const SEEDS: u64 = 3_000;
const LONG: u64 = 50_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Seeds of worlds in which the store is restored.
const RESTORED: u64 = 1_000;
const LONG_RESTORED: u64 = 20_000;

fn run(setup: Setup, test: &str) -> Counts {
    let seed = setup.seed;
    let mut world = World::new(setup.clone());
    if let Err(violation) = world.run() {
        let story = shrink(&setup).map_or_else(String::new, |story| story.to_string());
        panic!(
            "seed {seed}: {violation}\nrun it again: ROTACAST_SEED={seed} cargo test -p rotacast-simulator {test}\n{story}"
        );
    }
    world.counts
}

/// The counts of all seeds of a test; `None` when a single seed is run again.
fn run_all(usual: u64, long: u64, test: &str, setup: impl Fn(u64) -> Setup) -> Option<Counts> {
    if let Some(seed) = number("ROTACAST_SEED") {
        println!("seed {seed}: {:?}", run(setup(seed), test));
        return None;
    }
    let first = number("ROTACAST_FIRST_SEED").unwrap_or(0);
    let usual = if std::env::var_os("ROTACAST_LONG").is_some() { long } else { usual };
    let mut counts = Counts::default();
    for seed in first..first + number("ROTACAST_SEEDS").unwrap_or(usual) {
        counts.add(&run(setup(seed), test));
    }
    println!("{counts:#?}");
    Some(counts)
}

#[test]
fn seeds_keep_every_promise() {
    let Some(counts) = run_all(SEEDS, LONG, "seeds_keep", Setup::seed) else { return };
    assert!(counts.retired > 0 && counts.deposed > 0 && counts.unknown > 0);
    for fault in rotacast_simulator::fault::Fault::ALL {
        assert!(counts.faults.contains_key(&fault), "{fault:?} never struck");
    }
}

/// Seeds of worlds in which operators say that instances are gone and give versions up.
const WORDS: u64 = 1_000;
const LONG_WORDS: u64 = 20_000;

#[test]
fn worlds_in_which_instances_are_said_to_be_gone_and_versions_are_given_up_keep_every_promise() {
    let Some(counts) = run_all(WORDS, LONG_WORDS, "worlds_in_which_instances", Setup::words) else { return };
    assert!(counts.said_gone > counts.said_gone_and_runs && counts.said_gone_and_runs > 0 && counts.given_up > 0);
}

#[test]
fn worlds_with_a_restored_store_keep_every_promise() {
    let setup = |seed| Setup::restored(seed, 1);
    let Some(counts) = run_all(RESTORED, LONG_RESTORED, "worlds_with_a_restored_store", setup) else { return };
    assert!(counts.retired > 0 && counts.restored > 0);
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    for seed in 0..20 {
        let log = |seed| {
            let mut world = World::new(Setup { logged: true, told: true, ..Setup::seed(seed) });
            world.run().unwrap();
            (world.log.unwrap(), world.story.unwrap(), world.trace, world.counts)
        };
        let (first, second) = (log(seed), log(seed));
        assert!(!first.0.is_empty());
        assert_eq!(first, second);
    }
}
