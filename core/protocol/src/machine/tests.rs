use std::time::Duration;

use super::*;
use crate::coordinator::{Order, Tenure};
use crate::id::{Epoch, Revision};
use crate::name::SecretName;
use crate::policy::Policy;
use crate::record::{ProviderId, SecretRecord, Timing};
use crate::time::WallTime;

const LONG: Duration = Duration::from_secs(3600);

fn at(millis: u64) -> Now {
    Now { instant: Instant::from_nanos(1_000_000_000 + millis * 1_000_000), wall: WallTime(millis) }
}

fn until(now: Now) -> Instant {
    now.instant + LONG
}

fn machine() -> Machine<&'static str> {
    let provider = ProviderId { kind: "generate".into(), name: "random".into(), system: String::new() };
    let policy = Policy { provider: Some(provider), ..Policy::default() };
    let record = SecretRecord::new(SecretName::new("demo/db").unwrap(), Epoch(1), Timing::of(&policy));
    let tenure = Tenure { epoch: Epoch(1), since: at(0), valid_until: until(at(0)) };
    Machine::new(Coordinator::take_over(record, policy, tenure))
}

/// Polls until nothing more comes, and confirms every save at once.
fn settle(machine: &mut Machine<&'static str>, now: Now) -> Vec<Action<&'static str>> {
    let mut actions = Vec::new();
    while let Some(action) = machine.poll(now, until(now), &mut ()) {
        if let Action::Save { id, .. } = &action {
            machine.saved(now, *id, &mut ());
        }
        actions.push(action);
    }
    actions
}

fn version_seen(number: u64) -> Event<&'static str> {
    Event::Input(Input::VersionSeen { version: Version::new(number).unwrap() })
}

fn rotate(reply: &'static str) -> Event<&'static str> {
    Event::Order { by: OperatorName::new("ada").unwrap(), order: Order::Rotate, reply }
}

#[test]
fn nothing_leaves_while_a_save_is_under_way() {
    let mut machine = machine();
    settle(&mut machine, at(0));
    machine.handle(rotate("rotate"));
    let Some(Action::Save { id, .. }) = machine.poll(at(1), until(at(1)), &mut ()) else {
        panic!("a save comes first")
    };
    let revision = machine.coordinator().record().revision;
    machine.handle(Event::Question { reply: "status" });
    assert_eq!(machine.poll(at(2), until(at(2)), &mut ()), None);
    assert_eq!(machine.room(), 0);
    assert_eq!(machine.coordinator().record().revision, revision);
    machine.saved(at(3), id, &mut ());
    let replies: Vec<_> = settle(&mut machine, at(3))
        .into_iter()
        .filter_map(|action| if let Action::Reply { to, .. } = action { Some(to) } else { None })
        .collect();
    assert_eq!(replies, ["rotate", "status"]);
}

#[test]
fn an_answer_to_another_save_changes_nothing() {
    let mut machine = machine();
    settle(&mut machine, at(0));
    machine.handle(rotate("rotate"));
    let Some(Action::Save { id, .. }) = machine.poll(at(1), until(at(1)), &mut ()) else {
        panic!("a save comes first")
    };
    machine.saved(at(2), SaveId(id.0 - 1), &mut ());
    assert!(machine.is_saving());
    assert_eq!(machine.poll(at(2), until(at(2)), &mut ()), None);
}

#[test]
fn an_input_waits_for_a_late_renewal_and_an_order_is_refused() {
    let mut machine = machine();
    settle(&mut machine, at(0));
    let late = at(2 * 3_600_000);
    machine.handle(version_seen(1));
    assert_eq!(machine.poll(late, late.instant, &mut ()), None);
    assert!(machine.awaits_leadership());
    let actions = settle(&mut machine, late);
    assert!(actions.iter().any(|action| matches!(action, Action::Changed { .. })), "{actions:?}");
    assert_eq!(machine.coordinator().record().last_version, Some(Version::FIRST));
    assert!(!machine.awaits_leadership());

    let later = at(4 * 3_600_000);
    machine.handle(rotate("rotate"));
    let action = machine.poll(later, later.instant, &mut ());
    assert!(
        matches!(&action, Some(Action::Reply { answer: Answer::Refused(Rejection::Deposed { .. }), .. })),
        "{action:?}"
    );
}

#[test]
fn a_command_that_fails_is_tried_again_after_a_pause_that_grows() {
    let mut machine = machine();
    settle(&mut machine, at(0));
    machine.handle(version_seen(1));
    let mut pauses = Vec::new();
    let mut now = at(0);
    for _ in 0..3 {
        let actions = settle(&mut machine, now);
        let test = actions.iter().find_map(|action| match action {
            Action::Run { id, command } if matches!(command.kind, CommandKind::Test { .. }) => Some(*id),
            _ => None,
        });
        let id = test.expect("the test login is due");
        machine.handle(Event::CommandDone { id, outcome: Err("refused".into()), jitter: Jitter::NONE });
        settle(&mut machine, now);
        let next = machine.next_wakeup(now).expect("it is tried again");
        pauses.push(next.since(now.instant).as_millis());
        now = Now { instant: next, ..now };
    }
    assert_eq!(pauses, [200, 400, 800]);
    assert_eq!(machine.coordinator().troubles().map(|(_, trouble)| trouble.times).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_command_in_flight_is_not_started_again_and_its_late_end_counts_once() {
    let mut machine = machine();
    settle(&mut machine, at(0));
    machine.handle(version_seen(1));
    let runs = |actions: Vec<Action<&str>>| -> Vec<CommandId> {
        actions
            .into_iter()
            .filter_map(|action| match action {
                Action::Run { id, command } if matches!(command.kind, CommandKind::Test { .. }) => Some(id),
                _ => None,
            })
            .collect()
    };
    let first = runs(settle(&mut machine, at(0)));
    assert_eq!(first.len(), 1);
    machine.handle(Event::Question { reply: "status" });
    assert_eq!(runs(settle(&mut machine, at(1))), []);
    let done = |outcome| Event::CommandDone { id: first[0], outcome, jitter: Jitter::NONE };
    machine.handle(done(Ok(vec![Input::Verified { version: Version::FIRST }])));
    settle(&mut machine, at(2));
    let current = machine.coordinator().record().current;
    assert_eq!(current, Some(Version::FIRST));
    machine.handle(done(Err("late".into())));
    settle(&mut machine, at(3));
    assert_eq!(machine.coordinator().troubles().count(), 0);
}

#[test]
fn the_bus_is_believed_to_know_more_a_bounded_number_of_times() {
    let mut machine = machine();
    let mut actions = settle(&mut machine, at(0));
    machine.handle(version_seen(1));
    actions.extend(settle(&mut machine, at(0)));
    let mut last = Revision(0);
    for round in 0..=MAX_LEAPS {
        let publish = actions.iter().find_map(|action| match action {
            Action::Run { id, command } if command.kind == CommandKind::Publish => Some(*id),
            _ => None,
        });
        let id = publish.expect("the state is published after every leap");
        let outcome = Ok(vec![Input::StoreWentBack { reason: "newer on the bus".into() }]);
        machine.handle(Event::CommandDone { id, outcome, jitter: Jitter::NONE });
        actions = settle(&mut machine, at(u64::from(round) + 1));
        let revision = machine.coordinator().record().revision;
        assert_eq!(revision > last, round < MAX_LEAPS, "round {round}");
        last = revision;
    }
    assert!(machine.coordinator().troubles().any(|(_, trouble)| trouble.failed.problem.contains("another client")));
}

#[test]
fn a_number_that_was_to_be_made_when_the_history_broke_is_no_gap() {
    let version = |number| Version::new(number).unwrap();
    let mut machine = machine();
    for input in [Input::VersionSeen { version: version(1) }, Input::Verified { version: version(1) }] {
        machine.handle(Event::Input(input));
        settle(&mut machine, at(0));
    }
    machine.handle(rotate("rotate"));
    settle(&mut machine, at(1));
    let gap = || Event::Gap { missing: version(2), found: version(3) };
    machine.handle(gap());
    let waits = settle(&mut machine, at(2));
    assert!(waits.contains(&Action::AwaitVersion { missing: version(2), found: version(3) }), "{waits:?}");
    machine.handle(Event::Input(Input::StoreWentBack { reason: "restored".into() }));
    let noted = Action::NoteLost { numbers: [version(2)].into() };
    let broke = settle(&mut machine, at(3));
    assert!(broke.contains(&noted), "what already waits behind it follows: {broke:?}");
    machine.handle(gap());
    assert_eq!(settle(&mut machine, at(4)), [noted], "what is written later follows");
}
