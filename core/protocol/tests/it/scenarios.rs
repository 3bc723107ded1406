//! Rows of docs/understand/scenarios.md that a few steps of the core show whole.

use crate::bench::{Bench, key, managed, seconds};
use rotacast_protocol::coordinator::Order;
use rotacast_protocol::message::Stage;
use rotacast_protocol::policy::OnFailure;
use rotacast_protocol::record::{RecordError, SecretRecord};
use rotacast_protocol::{Policy, Revision};
use serde_json::{Value, json};

/// The reload fails at the instances in `refusing`. The others have prepared.
fn reloads_fail(policy: Policy, refusing: &[&str]) -> Bench {
    let names = ["api/a", "api/b", "api/c"];
    let mut bench = Bench::preparing(policy, &names);
    for name in names {
        if refusing.contains(&name) {
            bench.refuse(name, 2);
        } else {
            bench.sync(name, 2, Stage::Prepared, &[1, 2]);
        }
    }
    bench
}

#[test]
fn s40_reloads_that_fail_hold_or_roll_back_as_the_policy_says() {
    // Within the budget the rotation waits, and the blockers name each instance that refuses, and why.
    let budget = Policy { failure_budget: 1, ..managed() };
    let bench = reloads_fail(budget.clone(), &["api/b"]);
    assert_eq!((bench.phase().as_str(), bench.current()), ("preparing", Some(1)));
    let blockers = bench.coordinator.blockers(bench.now);
    let named: Vec<_> = blockers.iter().filter(|it| !it.who.is_empty()).map(|it| it.who.clone()).collect();
    assert_eq!(named, [key("api/b").to_string()], "{blockers:?}");
    assert!(blockers.iter().any(|blocker| blocker.why.contains("no such table")), "{blockers:?}");

    // Beyond the budget the rotation rolls back, and every instance keeps the old version.
    let mut bench = reloads_fail(budget, &["api/b", "api/c"]);
    assert_eq!((bench.phase().as_str(), bench.current()), ("rolling_back", Some(1)));
    for name in ["api/a", "api/b", "api/c"] {
        bench.sync(name, 1, Stage::Released, &[1]);
    }
    assert!(bench.drains(2, seconds(4000)));
    bench.destroy(2);
    assert_eq!((bench.phase().as_str(), bench.current()), ("none", Some(1)));

    // Where the policy says `hold`, the rotation waits however many refuse, and an operator decides.
    let hold = Policy { on_failure: OnFailure::Hold, ..managed() };
    let mut bench = reloads_fail(hold, &["api/a", "api/b", "api/c"]);
    bench.pass(seconds(4000));
    assert_eq!((bench.phase().as_str(), bench.current()), ("preparing", Some(1)));
    bench.order(Order::rollback("enough").unwrap()).unwrap();
    assert_eq!((bench.phase().as_str(), bench.current()), ("rolling_back", Some(1)));
}

/// A record as a broadcaster of the next build writes it, with a field that this build does not know.
fn of_the_next_build(record: &SecretRecord) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(&record.encode()).unwrap();
    json["next_builds_field"] = json!({"a": [1, 2]});
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn s52_a_record_of_the_next_build_is_carried_on_and_keeps_what_this_one_does_not_know() {
    let policy = Policy { lease_idle: seconds(60), sync_idle: seconds(10), ..managed() };
    let preparing = Bench::preparing(policy.clone(), &["api/a"]);
    let record = SecretRecord::decode(&of_the_next_build(preparing.coordinator.record())).unwrap();
    let epoch = record.epoch.0 + 1;
    // An older broadcaster takes over in the middle, and ends the rotation.
    let mut bench = Bench::over(record, policy, epoch);
    bench.register("api/a");
    for (stage, held) in [(Stage::Prepared, &[1, 2][..]), (Stage::Switched, &[1, 2]), (Stage::Released, &[2])] {
        bench.sync("api/a", 2, stage, held);
        bench.pass(seconds(30));
        bench.sync("api/a", 2, stage, held);
    }
    assert!(bench.drains(1, seconds(100)), "{:?}", bench.coordinator.blockers(bench.now));
    bench.destroy(1);
    assert_eq!((bench.phase().as_str(), bench.current()), ("none", Some(2)));
    // The next broadcaster is of the newer build, and finds its field.
    let json: Value = serde_json::from_slice(&bench.coordinator.record().encode()).unwrap();
    assert_eq!(json["next_builds_field"], json!({"a": [1, 2]}));
    assert!(bench.revision() > Revision(0));
    // A format that this build cannot read is refused by name, so the record is not changed.
    let mut json = json;
    json["format"] = json!(2);
    let refused = SecretRecord::decode(&serde_json::to_vec(&json).unwrap());
    assert!(matches!(refused, Err(RecordError::NewerFormat { found: 2 })), "{refused:?}");
}
