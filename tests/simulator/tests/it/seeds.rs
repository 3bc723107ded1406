//! Many seeds; see the crate's documentation for how to run one again.

use rotacast_simulator::shrink::shrink;
use rotacast_simulator::{Counts, Setup, World};

/// Seeds in an ordinary run and in `tools/test --long`; `ROTACAST_SEEDS` runs another number.
const SEEDS: u64 = 3_000;
const LONG: u64 = 50_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn run(seed: u64) -> Counts {
    let mut world = World::new(Setup::seed(seed));
    if let Err(violation) = world.run() {
        let story = shrink(&Setup::seed(seed)).map_or_else(String::new, |story| story.to_string());
        panic!(
            "seed {seed}: {violation}\nrun it again: ROTACAST_SEED={seed} cargo test -p rotacast-simulator seeds_keep\n{story}"
        );
    }
    world.counts
}

#[test]
fn seeds_keep_every_promise() {
    if let Some(seed) = number("ROTACAST_SEED") {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let first = number("ROTACAST_FIRST_SEED").unwrap_or(0);
    let mut counts = Counts::default();
    let usual = if std::env::var_os("ROTACAST_LONG").is_some() { LONG } else { SEEDS };
    for seed in first..first + number("ROTACAST_SEEDS").unwrap_or(usual) {
        counts.add(&run(seed));
    }
    println!("{counts:#?}");
    assert!(counts.retired > 0 && counts.deposed > 0 && counts.unknown > 0);
    for fault in rotacast_simulator::fault::Fault::ALL {
        assert!(counts.faults.contains_key(&fault), "{fault:?} never struck");
    }
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
