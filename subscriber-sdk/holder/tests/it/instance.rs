//! The rules that the holders of one incarnation share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rotacast_holder::{Command, Input, Instance, InstanceCommand, InstanceInput, Rejection, SYNC_PACE_CEILING};
use rotacast_protocol::message::{SecretGrant, SecretState, SyncReply, SyncRequest};
use rotacast_protocol::{
    Challenge, Epoch, Generation, Incarnation, InstanceKey, InstanceName, Instant, LeaseSequence, Nonce,
    ReportSequence, Revision, SecretName, ServiceName, Version,
};

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

fn name(secret: &str) -> SecretName {
    SecretName::new(secret).unwrap()
}

fn key(incarnation: u128) -> InstanceKey {
    let (service, instance) = (ServiceName::new("api").unwrap(), InstanceName::new("pod-1").unwrap());
    InstanceKey::new(service, instance, Incarnation(incarnation))
}

fn state(secret: &str) -> SecretState {
    SecretState {
        secret: name(secret),
        epoch: Epoch(1),
        revision: Revision(1),
        generation: Generation(1),
        rotation: None,
        phase: None,
        current: Some(Version::FIRST),
        pending: None,
        previous: None,
        sealed: BTreeSet::new(),
        sync_interval: Duration::from_secs(10),
        self_lease: Duration::from_secs(10),
        max_use: Duration::from_secs(5),
        stay: false,
        lost_history: None,
    }
}

fn reply(nonce: u64, sequence: u64, secrets: &[&str]) -> SyncReply {
    let grant = |secret: &&str| {
        let leases = BTreeMap::from([(Version::FIRST, Duration::from_secs(30))]);
        (name(secret), SecretGrant { sequence: LeaseSequence(sequence), leases, state: Some(state(secret)) })
    };
    SyncReply {
        key: key(1),
        nonce: Nonce(nonce),
        epoch: Epoch(1),
        covered: ReportSequence(0),
        unregistered: false,
        unproven: false,
        challenge: Challenge::new(nonce + 100),
        secrets: secrets.iter().map(grant).collect(),
    }
}

fn registered(secrets: &[&str]) -> Instance {
    let mut instance = Instance::new(key(1), true);
    for secret in secrets {
        assert!(instance.add(name(secret)));
    }
    instance.handle(NOW, InstanceInput::Registered(secrets.iter().map(|secret| name(secret)).collect())).unwrap();
    instance
}

#[test]
fn nothing_is_asked_for_a_secret_before_a_registration_that_names_it_is_durable() {
    let mut instance = registered(&["a"]);
    instance.add(name("b"));
    let commands = instance.commands(NOW);
    let InstanceCommand::Register(registration) = &commands[0] else { panic!("{commands:?}") };
    assert_eq!(registration.secrets, [name("a"), name("b")].into());
    instance.handle(NOW, InstanceInput::SyncSent { nonce: Nonce(1), at: NOW }).unwrap();
    // Even a leader that grants a lease gives nothing to a secret whose registration may not be durable yet.
    let early = instance.handle(NOW, InstanceInput::SyncReply(reply(1, 1, &["a", "b"])));
    assert_eq!(early, Err(Rejection::UnknownNonce { found: Nonce(1) }));
    let about = |secret: &str| {
        let commands = instance.commands(NOW);
        commands
            .into_iter()
            .filter(|command| matches!(command, InstanceCommand::Secret(about, _) if *about == name(secret)))
            .collect::<Vec<_>>()
    };
    assert_eq!(about("a"), [InstanceCommand::Secret(name("a"), Command::Load(Version::FIRST))]);
    assert_eq!(about("b"), []);
}

#[test]
fn every_different_report_has_its_own_number_and_equal_ones_share_it() {
    let mut instance = registered(&["a"]);
    let first = instance.report().sequence;
    instance.handle(NOW, InstanceInput::Secret(name("a"), Input::State(state("a")))).unwrap();
    let second = instance.report().sequence;
    assert!(second > first);
    let replay = instance.handle(NOW, InstanceInput::Secret(name("a"), Input::State(state("a"))));
    assert!(matches!(replay, Err(Rejection::Stale { .. })));
    assert_eq!(instance.report().sequence, second);
}

#[test]
fn a_report_goes_out_when_there_is_news_and_not_for_every_renewed_lease() {
    let mut instance = registered(&["a"]);
    let reports = |instance: &Instance| instance.commands(NOW).contains(&InstanceCommand::Report);
    assert!(reports(&instance));
    instance.handle(NOW, InstanceInput::Reported(instance.report().sequence)).unwrap();
    assert!(!reports(&instance));
    for nonce in 1..=2 {
        instance.handle(NOW, InstanceInput::SyncSent { nonce: Nonce(nonce), at: NOW }).unwrap();
        instance.handle(NOW, InstanceInput::SyncReply(reply(nonce, nonce, &["a"]))).unwrap();
        assert_eq!(reports(&instance), nonce == 1, "the first brought a state, the second a lease");
        let sequence = instance.report().sequence;
        instance.handle(NOW, InstanceInput::Reported(sequence)).unwrap();
    }
}

#[test]
fn a_reply_for_another_incarnation_changes_nothing() {
    let mut instance = registered(&["a"]);
    instance.handle(NOW, InstanceInput::SyncSent { nonce: Nonce(1), at: NOW }).unwrap();
    let before = instance.report();
    let other = SyncReply { key: key(2), ..reply(1, 1, &["a"]) };
    let refused = instance.handle(NOW, InstanceInput::SyncReply(other));
    assert_eq!(refused, Err(Rejection::OtherInstance { expected: key(1), found: key(2) }));
    assert_eq!(instance.report(), before);
}

#[test]
fn a_leader_that_does_not_know_it_makes_it_register_again() {
    let mut instance = registered(&["a"]);
    instance.handle(NOW, InstanceInput::SyncSent { nonce: Nonce(1), at: NOW }).unwrap();
    let unknown = SyncReply { unregistered: true, secrets: BTreeMap::new(), ..reply(1, 1, &[]) };
    instance.handle(NOW, InstanceInput::SyncReply(unknown)).unwrap();
    assert!(matches!(instance.commands(NOW)[0], InstanceCommand::Register(_)));
    instance.handle(NOW, InstanceInput::Registered([name("a")].into())).unwrap();
    assert!(!matches!(instance.commands(NOW)[0], InstanceCommand::Register(_)));
}

#[test]
fn secrets_are_bounded() {
    let mut instance = Instance::new(key(1), false);
    for number in 0..rotacast_protocol::message::MAX_SECRETS_PER_INSTANCE {
        assert!(instance.add(name(&format!("s{number}"))));
    }
    assert!(!instance.add(name("one-more")));
    assert!(instance.add(name("s0")), "known ones stay welcome");
}

fn unproven(nonce: u64) -> SyncReply {
    SyncReply { unproven: true, secrets: BTreeMap::new(), ..reply(nonce, 0, &[]) }
}

fn asks(instance: &Instance) -> bool {
    instance.commands(NOW).contains(&InstanceCommand::Sync)
}

fn sends(instance: &mut Instance, nonce: u64) -> SyncRequest {
    instance.handle(NOW, InstanceInput::SyncSent { nonce: Nonce(nonce), at: NOW }).unwrap();
    instance.sync_request(Nonce(nonce))
}

#[test]
fn a_sync_without_effect_is_made_again_at_once_with_the_challenge() {
    let mut instance = registered(&["a"]);
    assert_eq!(sends(&mut instance, 1).echo, None);
    assert!(!asks(&instance));
    instance.handle(NOW, InstanceInput::SyncReply(unproven(1))).unwrap();
    assert!(asks(&instance));
    assert_eq!(sends(&mut instance, 2).echo, Challenge::new(101));
    instance.handle(NOW, InstanceInput::SyncReply(reply(2, 2, &["a"]))).unwrap();
    assert_eq!(sends(&mut instance, 3).echo, Challenge::new(102), "each answer has the next one");
}

#[test]
fn leaders_that_ask_for_different_challenges_are_not_asked_in_a_loop() {
    let mut instance = registered(&["a"]);
    sends(&mut instance, 1);
    instance.handle(NOW, InstanceInput::SyncReply(unproven(1))).unwrap();
    sends(&mut instance, 2);
    instance.handle(NOW, InstanceInput::SyncReply(unproven(2))).unwrap();
    assert!(!asks(&instance), "a second time in a row");
    // At its pace, with the newest challenge.
    let later = NOW + SYNC_PACE_CEILING;
    assert!(instance.commands(later).contains(&InstanceCommand::Sync));
    assert_eq!(instance.sync_request(Nonce(3)).echo, Challenge::new(102));
}

#[test]
fn an_answer_that_is_lost_leaves_the_challenge_that_is_known() {
    let mut instance = registered(&["a"]);
    sends(&mut instance, 1);
    instance.handle(NOW, InstanceInput::SyncReply(unproven(1))).unwrap();
    sends(&mut instance, 2);
    instance.handle(NOW, InstanceInput::SyncFailed { nonce: Nonce(2) }).unwrap();
    assert_eq!(sends(&mut instance, 3).echo, Challenge::new(101));
    instance.handle(NOW, InstanceInput::SyncReply(unproven(3))).unwrap();
    assert!(asks(&instance));
}
