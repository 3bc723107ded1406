//! The rules that the cores' sources name are the rules that have a mutant, and the other way round.

use std::collections::BTreeSet;
use std::path::Path;

use rotacast_simulator::Mutant;
use rotacast_simulator::directed::directed;

/// The names in `rotacast_mutate::rule(NAME, …)` of all sources below a folder.
fn named_in(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let attributes = source.split("rotacast_mutate::rule(").skip(1);
            found.extend(attributes.filter_map(|rest| Some(rest.split_once(',')?.0.trim().to_owned())));
        }
    }
}

#[test]
fn every_rule_in_the_sources_has_a_mutant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut named = Vec::new();
    for folder in ["core/protocol/src", "subscriber-sdk/holder/src"] {
        named_in(&root.join(folder), &mut named);
    }
    let in_sources: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(in_sources.len(), named.len(), "a rule is named twice in {named:?}");
    let mutants: BTreeSet<String> = Mutant::all().filter_map(Mutant::rule).collect();
    assert_eq!(in_sources, mutants.iter().map(String::as_str).collect());
}

#[test]
fn directed_tests_pass_with_their_rule_in_force() {
    for mutant in Mutant::all() {
        assert!(directed(mutant, false).is_none_or(|result| result.is_ok()), "{mutant}");
    }
}
