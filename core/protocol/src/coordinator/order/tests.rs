use std::collections::BTreeSet;

use crate::bench::{Bench, key, managed, operator, seconds, v};
use crate::coordinator::{Change, CutOff, InvalidOrder, Order, Reason, Rejection};
use crate::id::Version;
use crate::message::Stage;
use crate::policy::Policy;
use crate::record::RecordChange;

#[test]
fn a_reason_is_neither_empty_nor_endless_nor_a_placeholder() {
    assert_eq!(Reason::new(" \t "), Err(InvalidOrder::NoReason));
    assert_eq!(Reason::new(&"a".repeat(1025)), Err(InvalidOrder::LongReason { found: 1025 }));
    assert_eq!(Reason::new(" WHY "), Err(InvalidOrder::PlaceholderReason));
    assert_eq!(Reason::new(" a look ").unwrap().as_str(), "a look");
}

#[test]
fn an_override_names_instances_or_sessions() {
    let reason = Reason::new("it hangs").unwrap();
    let nothing = CutOff::new(Version::FIRST, BTreeSet::new(), false, reason.clone());
    assert_eq!(nothing, Err(InvalidOrder::CutsOffNothing));
    assert!(CutOff::new(Version::FIRST, BTreeSet::new(), true, reason).is_ok());
}

#[test]
fn a_rollback_is_possible_before_retiring_and_refused_by_name_after() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    let refusal = bench.order(Order::rollback("late").unwrap()).unwrap_err().to_string();
    assert!(refusal.contains("it is retiring: version 1 is being destroyed"), "{refusal}");
}

#[test]
fn an_override_of_too_many_names_is_refused() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let mut instances = BTreeSet::new();
    for number in 0..2000 {
        let name = format!("api/{}{number}", "x".repeat(80));
        bench.register(&name);
        instances.insert(key(&name));
    }
    let order = Order::cut_off(v(1), instances, false, "all").unwrap();
    assert!(matches!(bench.order(order), Err(Rejection::Operator { .. })));
}

#[test]
fn an_override_names_members_of_a_version_that_is_on_its_way_out() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    let order = |version, name: &str| Order::cut_off(v(version), BTreeSet::from([key(name)]), false, "gone").unwrap();
    for (wrong, says) in [
        (order(2, "api/a"), "not on its way out"),
        (order(7, "api/a"), "not on its way out"),
        (order(1, "api/z"), "no member"),
    ] {
        let refusal = bench.order(wrong).unwrap_err().to_string();
        assert!(refusal.contains(says), "{refusal}");
    }
    bench.order(order(1, "api/a")).unwrap();
    assert!(bench.log.iter().any(|change| matches!(
        change,
        Change::Record(RecordChange::Overridden { word, .. }) if word.by == operator() && word.instances.len() == 1
    )));
}

#[test]
fn while_a_version_is_destroyed_an_override_may_cut_off_its_sessions_but_no_instances() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    assert!(bench.drains(1, seconds(4000)));
    assert_eq!(bench.phase(), "retiring");
    let order = |instances, sessions| Order::cut_off(v(1), instances, sessions, "lost").unwrap();
    let one = BTreeSet::from([key("api/a")]);
    for (instances, sessions) in [(one.clone(), false), (one, true)] {
        let refusal = bench.order(order(instances, sessions)).unwrap_err().to_string();
        assert!(refusal.contains("being destroyed"), "{refusal}");
    }
    bench.order(order(BTreeSet::new(), true)).unwrap();
    assert!(bench.coordinator.record().retirements[&v(1)].overrides.iter().any(|word| word.sessions));
}

#[test]
fn a_secret_without_a_provider_cannot_be_ordered_to_rotate() {
    let mut bench = Bench::running(Policy { provider: None, ..managed() }, &["api/a"]);
    assert!(matches!(bench.order(Order::Rotate), Err(Rejection::Operator { .. })));
    assert_eq!(bench.phase(), "none");
}
