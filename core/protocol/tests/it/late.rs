//! What arrives so late that it is about something else by then.

use crate::bench::{Bench, key, managed, seconds, v};
use rotacast_protocol::Policy;
use rotacast_protocol::coordinator::{CommandKind, ConditionName, Evidence, Input, Order, Rejection};
use rotacast_protocol::message::Stage;
use rotacast_protocol::policy::WhenUnreachable;

/// Barrier and usage are answered until the audit log is asked.
fn until_audited(bench: &mut Bench) {
    while !bench.owes(&CommandKind::Audit { version: v(1) }) {
        for command in bench.coordinator.commands(bench.now) {
            let input = match command.kind {
                CommandKind::PassBarrier { version } => Input::BarrierPassed { version, revision: command.revision },
                CommandKind::ReadUsage { version } => {
                    Input::UsageRead { version, sent: bench.now.instant, evidence: Evidence::None }
                }
                _ => continue,
            };
            bench.input(input).unwrap();
        }
        bench.pass(seconds(1));
    }
}

#[test]
fn a_registration_that_was_under_way_for_long_proves_no_later_life_over() {
    // Life 1 registers and is killed; life 2 of the same name starts, registers and works; only now does the bus bring
    // what life 1 published. The order of the roster is not the order of the lives.
    let policy = Policy { when_unreachable: WhenUnreachable::Hold, ..managed() };
    let mut bench = Bench::running(policy, &["api/b"]);
    bench.input(Input::Registered { key: key("api/a#2"), exclusive: true, live: true }).unwrap();
    bench.sync("api/a#2", 1, Stage::Released, &[1]);
    bench.seen(2);
    bench.verified(2);
    for stage in [Stage::Prepared, Stage::Switched] {
        bench.sync("api/a#2", 2, stage, &[1, 2]);
        bench.sync("api/b", 2, stage, &[1, 2]);
    }
    bench.sync("api/b", 2, Stage::Released, &[2]);
    bench.input(Input::Registered { key: key("api/a#1"), exclusive: true, live: true }).unwrap();
    assert!(!bench.drains(1, seconds(600)), "api/a#2 still uses version 1");
}

#[test]
fn an_audit_entry_that_took_until_the_next_retirement_of_the_version_is_not_about_it() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    until_audited(&mut bench);
    // The disk takes its time; meanwhile the rotation is rolled back, and a further one retires version 1 after all.
    let asked = bench.revision();
    bench.order(Order::rollback("no").unwrap()).unwrap();
    bench.sync("api/a", 1, Stage::Switched, &[1, 2]);
    bench.sync("api/a", 1, Stage::Released, &[1]);
    assert!(bench.drains(2, seconds(60)));
    bench.destroy(2);
    bench.seen(3);
    bench.verified(3);
    bench.sync("api/a", 3, Stage::Prepared, &[1, 3]);
    bench.sync("api/a", 3, Stage::Switched, &[1, 3]);
    bench.sync("api/a", 3, Stage::Released, &[3]);
    until_audited(&mut bench);
    let late = Input::Audited { version: v(1), revision: asked };
    assert!(matches!(bench.input(late), Err(Rejection::Stale { .. })));
    let own = Input::Audited { version: v(1), revision: bench.revision() };
    assert_eq!(bench.input(own), Ok(()));
}

#[test]
fn an_audit_log_that_takes_no_entry_is_named() {
    let mut bench = Bench::draining(managed(), &["api/a"]);
    bench.sync("api/a", 2, Stage::Released, &[2]);
    until_audited(&mut bench);
    let blockers = bench.coordinator.blockers(bench.now);
    assert!(blockers.iter().any(|blocker| blocker.condition == ConditionName::Audited), "{blockers:?}");
}
