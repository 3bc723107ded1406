//! The messages the vectors are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rotacast_proto::{InstanceIdentity, ReplyWithKeys, SigningKey, SyncWithKeys};
use rotacast_protocol::message::{
    Failure, FailureKind, FetchRequest, InstanceReport, LostHistory, Registration, SecretGrant, SecretReport,
    SecretState, Stage, SyncReply, SyncRequest,
};
use rotacast_protocol::{
    Challenge, ClusterName, Epoch, Generation, InstanceKey, InstanceName, LeaseSequence, Nonce, Phase, ReportSequence,
    Revision, RotationId, SecretName, ServiceName, Version, WallTime,
};

/// 2026-11-23T00:00:00Z.
pub(crate) const TIME: WallTime = WallTime(1_795_392_000_000);

/// Seeds of the vectors' keys. Public: never use them for anything else.
pub(crate) const BROADCASTER_SEED: [u8; 32] = [1; 32];
pub(crate) const INSTANCE_SEED: [u8; 32] = [2; 32];
pub(crate) const OPERATOR_SEED: [u8; 32] = [3; 32];
pub(crate) const SERVICE_SEED: [u8; 32] = [4; 32];

pub(crate) fn broadcaster() -> SigningKey {
    SigningKey::from_seed(&BROADCASTER_SEED)
}

/// The key that takes the place of [`broadcaster`]'s.
fn next_broadcaster() -> SigningKey {
    SigningKey::from_seed(&[5; 32])
}

pub(crate) fn cluster() -> ClusterName {
    ClusterName::new("staging").unwrap()
}

pub(crate) fn secret(name: &str) -> SecretName {
    SecretName::new(name).unwrap()
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn versions(numbers: &[u64]) -> BTreeSet<Version> {
    numbers.iter().copied().map(version).collect()
}

pub(crate) fn service() -> SigningKey {
    SigningKey::from_seed(&SERVICE_SEED)
}

/// The instance of all vectors.
pub(crate) fn instance() -> InstanceIdentity {
    attested_by(&service())
}

/// The same, with the word of another service's key.
pub(crate) fn attested_by(service_key: &SigningKey) -> InstanceIdentity {
    let (service, instance) = ("payments-api", "payments-api-0");
    InstanceIdentity::with_key(
        SigningKey::from_seed(&INSTANCE_SEED),
        cluster(),
        ServiceName::new(service).unwrap(),
        InstanceName::new(instance).unwrap(),
        service_key,
    )
}

pub(crate) fn key() -> InstanceKey {
    instance().key().clone()
}

pub(crate) fn registration() -> Registration {
    let secrets = [secret("payments/db"), secret("shared/jwt-signing")];
    Registration { key: key(), exclusive: true, secrets: secrets.into(), left: false }
}

pub(crate) fn leave() -> Registration {
    Registration { left: true, secrets: BTreeSet::new(), exclusive: false, ..registration() }
}

/// A secret that nothing rotates.
pub(crate) fn idle_state() -> SecretState {
    SecretState {
        secret: secret("payments/db"),
        epoch: Epoch(3),
        revision: Revision(41),
        generation: Generation(6),
        rotation: None,
        phase: None,
        current: Some(version(7)),
        pending: None,
        previous: None,
        sealed: versions(&[5, 6]),
        sync_interval: Duration::from_secs(60),
        self_lease: Duration::from_secs(10),
        max_use: Duration::from_secs(5),
        stay: false,
        lost_history: None,
    }
}

pub(crate) fn draining_state() -> SecretState {
    SecretState {
        revision: Revision(44),
        generation: Generation(7),
        rotation: Some(RotationId { secret: secret("payments/db"), generation: Generation(7) }),
        phase: Some(Phase::Draining),
        current: Some(version(8)),
        previous: Some(version(7)),
        sealed: versions(&[5, 6, 7]),
        sync_interval: Duration::from_secs(10),
        ..idle_state()
    }
}

/// The largest numbers there are, and a duration that is no whole number of milliseconds.
pub(crate) fn extreme_state() -> SecretState {
    SecretState {
        secret: secret(&format!("{}/{}", "a".repeat(63), "b".repeat(64))),
        epoch: Epoch(u64::MAX),
        revision: Revision(u64::MAX),
        generation: Generation(u64::MAX),
        rotation: None,
        phase: None,
        current: Some(version(u64::MAX)),
        pending: Some(version(1)),
        previous: None,
        sealed: BTreeSet::new(),
        sync_interval: Duration::from_nanos(1_999_999),
        self_lease: Duration::from_nanos(10_000_999_999),
        max_use: Duration::from_nanos(999_999),
        stay: true,
        lost_history: Some(LostHistory { noticed: Revision(u64::MAX), kept_to: Some(version(u64::MAX)) }),
    }
}

pub(crate) fn empty_report() -> InstanceReport {
    InstanceReport { key: key(), sequence: ReportSequence(1), secrets: BTreeMap::new() }
}

pub(crate) fn report() -> InstanceReport {
    let switched = SecretReport {
        generation: Generation(7),
        revision: Revision(44),
        reached: Some((version(8), Stage::Switched)),
        held: versions(&[7, 8]),
        lease: LeaseSequence(19),
        failure: None,
        auth_failures: BTreeMap::from([(version(7), 2)]),
    };
    let refused = SecretReport {
        generation: Generation(2),
        revision: Revision(5),
        reached: Some((version(2), Stage::Seen)),
        held: versions(&[1]),
        lease: LeaseSequence(4),
        failure: Some(Failure {
            kind: FailureKind::PrepareRefused,
            version: version(2),
            text: "clé trop courte: 16 bytes, expected 32".into(),
        }),
        auth_failures: BTreeMap::new(),
    };
    let nothing_yet = SecretReport {
        generation: Generation(0),
        revision: Revision(0),
        reached: None,
        held: BTreeSet::new(),
        lease: LeaseSequence(0),
        failure: None,
        auth_failures: BTreeMap::new(),
    };
    let secrets = [
        (secret("payments/db"), switched),
        (secret("shared/jwt-signing"), refused),
        (secret("shared/new"), nothing_yet),
    ];
    InstanceReport { sequence: ReportSequence(12), secrets: secrets.into(), ..empty_report() }
}

pub(crate) fn sync_request() -> SyncWithKeys {
    let request = SyncRequest {
        nonce: Nonce(0xfeed_f00d_dead_beef),
        echo: Challenge::new(0xc0ff_ee00_0bad_cafe),
        report: report(),
    };
    let (trusted, announced) = (broadcaster().public().id().clone(), next_broadcaster().public().id().clone());
    SyncWithKeys { request, trusted: vec![trusted], announced: vec![announced] }
}

pub(crate) fn sync_reply() -> ReplyWithKeys {
    let leases = [(version(7), Duration::from_secs(30)), (version(8), Duration::from_millis(30_000))];
    let with_state = SecretGrant { sequence: LeaseSequence(20), leases: leases.into(), state: Some(draining_state()) };
    let lease_only = SecretGrant {
        sequence: LeaseSequence(5),
        leases: BTreeMap::from([(version(1), Duration::from_secs(3600))]),
        state: None,
    };
    let reply = SyncReply {
        key: key(),
        nonce: Nonce(0xfeed_f00d_dead_beef),
        epoch: Epoch(3),
        covered: ReportSequence(12),
        unregistered: false,
        unproven: false,
        challenge: Challenge::new(0x0bad_cafe_c0ff_ee00),
        secrets: BTreeMap::from([(secret("payments/db"), with_state), (secret("shared/jwt-signing"), lease_only)]),
    };
    ReplyWithKeys { reply, announced: vec![next_broadcaster().public().clone()] }
}

pub(crate) fn unregistered_reply() -> ReplyWithKeys {
    let reply = sync_reply().reply;
    let secrets = BTreeMap::new();
    let reply = SyncReply { unregistered: true, covered: ReportSequence(0), challenge: None, secrets, ..reply };
    ReplyWithKeys { reply, announced: Vec::new() }
}

pub(crate) fn first_sync_request() -> SyncWithKeys {
    let said = sync_request();
    SyncWithKeys { request: SyncRequest { echo: None, ..said.request.clone() }, ..said }
}

pub(crate) fn unproven_reply() -> ReplyWithKeys {
    let reply = sync_reply().reply;
    let secrets = BTreeMap::new();
    let reply = SyncReply { unproven: true, covered: ReportSequence(0), secrets, ..reply };
    ReplyWithKeys { reply, announced: Vec::new() }
}

pub(crate) fn fetch_request() -> FetchRequest {
    FetchRequest {
        key: key(),
        nonce: Nonce(77),
        issued: TIME,
        secret: secret("payments/db"),
        version: Some(version(8)),
    }
}

pub(crate) fn state_only_request() -> FetchRequest {
    FetchRequest { nonce: Nonce(78), version: None, ..fetch_request() }
}
