//! The word that an incarnation is gone, and what was heard for other secrets.

use rotacast_protocol::Policy;
use rotacast_protocol::coordinator::Elsewhere;

use crate::bench::{Bench, key, seconds};

#[test]
fn an_instance_that_was_heard_for_another_secret_may_run() {
    let mut bench = Bench::running(Policy::default(), &["api/a"]);
    bench.pass(seconds(600));
    let (a, now) = (key("api/a"), bench.now);
    assert_eq!(bench.coordinator.may_be_running_still(&a, Elsewhere::default(), now), None);
    let heard = Elsewhere { this: Some(now.instant - seconds(5)), other: None };
    let why = bench.coordinator.may_be_running_still(&a, heard, now).unwrap();
    assert!(why.contains("was heard 5 s ago for another secret") && why.contains("ask again in 3 min"), "{why}");
    let long_ago = Elsewhere { this: Some(now.instant - seconds(185)), other: None };
    assert_eq!(bench.coordinator.may_be_running_still(&a, long_ago, now), None);
}

#[test]
fn a_leader_that_hears_no_instance_of_any_secret_takes_no_lone_instance_for_gone() {
    let mut bench = Bench::running(Policy::default(), &["api/a"]);
    bench.pass(seconds(600));
    let (a, now) = (key("api/a"), bench.now);
    let unheard = Elsewhere { this: None, other: Some(now.instant - seconds(130)) };
    let why = bench.coordinator.may_be_running_still(&a, unheard, now).unwrap();
    assert!(why.contains("has heard no instance of any secret for 2 min"), "{why}");
    let heard = Elsewhere { this: None, other: Some(now.instant - seconds(5)) };
    assert_eq!(bench.coordinator.may_be_running_still(&a, heard, now), None);
}
