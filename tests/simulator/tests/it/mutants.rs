//! Every rule, broken, is noticed: by the world of a seed, or by its directed test. A rule that another stands behind is
//! named with the reason.

use rotacast_simulator::Mutant;
use rotacast_simulator::directed::directed;
use rotacast_simulator::kill::kill;

/// Seeds in which a broken rule must be noticed.
const SEEDS: u64 = 600;

#[test]
fn every_broken_rule_is_noticed() {
    let mut unnoticed = Vec::new();
    for mutant in Mutant::all() {
        if let Some(why) = mutant.covered() {
            println!("{mutant}: another rule stands behind it: {why}");
            continue;
        }
        match kill(mutant, 0..SEEDS) {
            Some(kill) => {
                let by = kill.seed.map_or_else(|| "directed test".to_owned(), |seed| format!("seed {seed}"));
                println!("{mutant}: {by}: {}", kill.violation);
            }
            None => unnoticed.push(mutant.to_string()),
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn directed_tests_pass_with_their_rule_in_force() {
    for mutant in Mutant::all() {
        assert!(directed(mutant, false).is_none_or(|result| result.is_ok()), "{mutant}");
    }
}
