use std::collections::BTreeMap;

use crate::bench::{Bench, key, managed, seconds, v};
use crate::coordinator::{Change, Input, MAX_MEMBERS, Order, Rejection};
use crate::message::Stage;
use crate::policy::{Policy, WhenUnreachable};
use crate::time::outlast;

#[test]
fn a_newcomer_takes_the_place_of_a_member_that_is_over_when_the_bound_is_reached() {
    let mut bench = Bench::running(managed(), &[]);
    let now = bench.now;
    for number in 0..MAX_MEMBERS {
        let change = Change::MemberLeft { key: key(&format!("api/i{number}")), at: now };
        bench.coordinator.apply(now, &change);
    }
    bench.register("api/new");
    assert_eq!(bench.coordinator.members().count(), MAX_MEMBERS);
    assert!(bench.coordinator.members().any(|member| member.key == key("api/new")));
}

#[test]
fn a_newcomer_is_refused_when_the_bound_is_reached_and_every_member_may_run() {
    let mut bench = Bench::running(managed(), &[]);
    let now = bench.now;
    for number in 0..MAX_MEMBERS {
        let change = Change::MemberRegistered { key: key(&format!("api/i{number}")), exclusive: false, at: now };
        bench.coordinator.apply(now, &change);
    }
    for input in
        [Input::Left { key: key("api/new") }, Input::Registered { key: key("api/new"), exclusive: false, live: true }]
    {
        assert!(matches!(bench.input(input), Err(Rejection::Sender { .. })));
    }
    assert_eq!(bench.coordinator.members().count(), MAX_MEMBERS);
}

#[test]
fn a_registration_that_comes_after_its_leave_proves_no_incarnation_over() {
    let mut bench = Bench::running(managed(), &["api/a#2"]);
    bench.input(Input::Left { key: key("api/a#1") }).unwrap();
    let late = Input::Registered { key: key("api/a#1"), exclusive: true, live: true };
    assert!(matches!(bench.input(late), Err(Rejection::Stale { .. })));
    assert!(!bench.coordinator.members().any(|member| member.superseded));
}

#[test]
fn s24_a_forgotten_incarnation_that_registers_again_does_not_prove_a_later_one_over() {
    let mut bench = Bench::preparing(managed(), &["api/a#2"]);
    // The earlier incarnation was taken out of the roster, is heard again, and registers anew.
    bench.sync("api/a#1", 1, Stage::Seen, &[1]);
    bench.input(Input::Registered { key: key("api/a#1"), exclusive: true, live: true }).unwrap();
    assert!(!bench.coordinator.members().any(|member| member.superseded));
    // An incarnation with the exclusive name that acknowledges a grant ran when the grant was issued: earlier ones are over.
    bench.pass(seconds(1));
    bench.input(Input::Registered { key: key("api/a#3"), exclusive: true, live: true }).unwrap();
    bench.pass(seconds(1));
    bench.sync("api/a#3", 1, Stage::Seen, &[1]);
    assert!(!bench.coordinator.members().any(|member| member.superseded), "it has not acknowledged its grant yet");
    bench.sync("api/a#3", 1, Stage::Seen, &[1]);
    let over: Vec<_> =
        bench.coordinator.members().filter(|member| member.superseded).map(|it| it.key.clone()).collect();
    assert_eq!(over, [key("api/a#1"), key("api/a#2")]);
}

#[test]
fn a_registration_that_arrives_late_proves_no_later_incarnation_over() {
    // Incarnation 1 registers and is killed. Incarnation 2 starts, registers and works. Only now does the bus deliver the
    // registration of incarnation 1: the order of the roster is not the order in which incarnations ran.
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
    bench.pass(seconds(1));
    bench.input(Input::Registered { key: key("api/a#1"), exclusive: true, live: true }).unwrap();
    assert!(!bench.drains(1, seconds(600)), "api/a#2 still uses version 1");
}

#[test]
fn a_new_leader_activates_only_once_it_has_read_the_roster_or_heard_every_live_instance() {
    let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
    bench.take_over();
    bench.register("api/a");
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "preparing", "`b` is in the roster and not prepared");
    bench.register("api/b");
    bench.input(Input::RosterRead).unwrap();
    assert_eq!(bench.phase(), "preparing");
    bench.sync("api/b", 2, Stage::Prepared, &[1, 2]);
    assert_eq!(bench.phase(), "activating");
    // When the roster cannot be read, the leader waits until it has heard every live instance.
    let mut bench = Bench::preparing(managed(), &["api/a"]);
    bench.take_over();
    bench.register("api/a");
    bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
    let at = bench.coordinator.next_wakeup(bench.now).unwrap();
    bench.pass(at.since(bench.now.instant));
    assert_eq!(bench.phase(), "activating");
}

#[test]
fn only_an_exclusive_name_whose_registration_is_live_proves_earlier_incarnations_over() {
    for (exclusive, live) in [(true, true), (false, true), (true, false)] {
        let mut bench = Bench::running(managed(), &["api/a#1"]);
        bench.pass(seconds(1));
        bench.input(Input::Registered { key: key("api/a#2"), exclusive, live }).unwrap();
        bench.pass(seconds(1));
        for _ in 0..2 {
            bench.sync("api/a#2", 1, Stage::Released, &[1]);
        }
        let over = bench.coordinator.member_of(&key("api/a#1")).unwrap().superseded;
        assert_eq!(over, exclusive && live, "exclusive: {exclusive}, live: {live}");
    }
}

#[test]
fn an_instance_whose_registration_was_not_read_gets_no_lease() {
    let mut bench = Bench::running(managed(), &[]);
    assert_eq!(bench.sync_without_reply("api/a", 1, Stage::Released, &[1]), BTreeMap::new());
    bench.register("api/a");
    assert!(bench.sync("api/a", 1, Stage::Released, &[1]).contains_key(&v(1)));
}

#[test]
fn an_instance_that_an_operator_said_is_gone_is_so_for_the_next_leader_too() {
    let mut bench = Bench::running(managed(), &["api/a", "api/b"]);
    for _ in 0..5 {
        bench.pass(managed().sync_idle);
        bench.sync("api/b", 1, Stage::Released, &[1]);
    }
    bench.order(Order::gone(key("api/a"), "its node is lost").unwrap()).unwrap();
    bench.take_over();
    bench.register("api/a");
    assert!(bench.coordinator.member_of(&key("api/a")).unwrap().left);
}

#[test]
fn without_the_roster_a_new_leader_waits_for_two_idle_syncs_although_a_rotation_is_in_flight() {
    let mut bench = Bench::preparing(managed(), &["api/a", "api/b"]);
    bench.take_over();
    bench.register("api/a");
    let wait = outlast(managed().sync_idle * 2);
    let began = bench.now.instant;
    while bench.phase() == "preparing" {
        bench.sync("api/a", 2, Stage::Prepared, &[1, 2]);
        bench.pass(seconds(1));
        assert!(bench.now.instant < began + wait * 2, "{:?}", bench.coordinator.blockers(bench.now));
    }
    assert!(bench.now.instant >= began + wait, "an idle instance may not have sent a Sync yet");
}
