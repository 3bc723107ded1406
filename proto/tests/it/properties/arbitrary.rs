//! Arbitrary valid messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;
use rotacast_proto::{MAX_AUTH_FAILURE_VERSIONS, MAX_DURATION, MAX_LEASED_VERSIONS, MAX_SEALED_VERSIONS};
use rotacast_protocol::message::{
    Failure, FailureKind, FetchRequest, InstanceReport, LostHistory, MAX_FAILURE_TEXT_BYTES, MAX_HELD_VERSIONS,
    Registration, SecretGrant, SecretReport, SecretState, Stage, SyncReply, SyncRequest,
};
use rotacast_protocol::{
    Challenge, ClusterName, Epoch, Generation, Incarnation, InstanceKey, InstanceName, LeaseSequence, Nonce, Phase,
    ReportSequence, Revision, RotationId, SecretName, ServiceName, Version, WallTime,
};

/// Secrets in one generated message; the full bound is tested once, by hand.
const SECRETS: usize = 6;

pub(crate) fn secret() -> impl Strategy<Value = SecretName> {
    "[a-z0-9][a-z0-9._-]{0,20}(/[a-z0-9][a-z0-9._-]{0,20}){0,3}".prop_map(|name| SecretName::new(name).unwrap())
}

pub(crate) fn cluster() -> impl Strategy<Value = ClusterName> {
    "[a-z0-9][a-z0-9._-]{0,30}".prop_map(|name| ClusterName::new(name).unwrap())
}

pub(crate) fn instance_key() -> impl Strategy<Value = InstanceKey> {
    let name = "[a-z0-9][a-z0-9._-]{0,127}";
    (name, name, any::<u128>()).prop_map(|(service, instance, incarnation)| {
        InstanceKey::new(
            ServiceName::new(service).unwrap(),
            InstanceName::new(instance).unwrap(),
            Incarnation(incarnation),
        )
    })
}

pub(crate) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![1..50_u64, 1..=u64::MAX].prop_map(|number| Version::new(number).unwrap())
}

fn duration(shortest: u64) -> impl Strategy<Value = Duration> {
    let longest = u64::try_from(MAX_DURATION.as_millis()).unwrap();
    (shortest..=longest).prop_map(Duration::from_millis)
}

fn phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(vec![
        Phase::Verifying,
        Phase::Preparing,
        Phase::Activating,
        Phase::Draining,
        Phase::Retiring,
        Phase::RollingBack,
    ])
}

pub(crate) fn registration() -> impl Strategy<Value = Registration> {
    (instance_key(), any::<bool>(), btree_set(secret(), 0..SECRETS), any::<bool>())
        .prop_map(|(key, exclusive, secrets, left)| Registration { key, exclusive, secrets, left })
}

pub(crate) fn secret_state() -> impl Strategy<Value = SecretState> {
    let counters = (any::<u64>(), any::<u64>(), any::<u64>());
    let rotation = option::of((1..=u64::MAX, option::of(phase())));
    let versions = (option::of(version()), option::of(version()), option::of(version()));
    let lost = option::of((1..=u64::MAX, option::of(version())));
    let times = (duration(1), duration(0), duration(0), any::<bool>(), lost);
    (secret(), counters, rotation, versions, btree_set(version(), 0..=MAX_SEALED_VERSIONS), times).prop_map(
        |(secret, (epoch, revision, generation), rotation, (current, pending, previous), sealed, times)| SecretState {
            epoch: Epoch(epoch),
            revision: Revision(revision),
            generation: Generation(generation),
            rotation: rotation.map(|(opened, _)| RotationId { secret: secret.clone(), generation: Generation(opened) }),
            phase: rotation.and_then(|(_, phase)| phase),
            current,
            pending,
            previous,
            sealed,
            sync_interval: times.0,
            self_lease: times.1,
            max_use: times.2,
            stay: times.3,
            lost_history: times
                .4
                .filter(|(noticed, _)| *noticed <= revision)
                .map(|(noticed, kept_to)| LostHistory { noticed: Revision(noticed), kept_to }),
            secret,
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    let kind = prop::sample::select(FailureKind::ALL);
    let text = any::<String>().prop_filter("bounded", |text| text.len() <= MAX_FAILURE_TEXT_BYTES);
    (kind, version(), text).prop_map(|(kind, version, text)| Failure { kind, version, text })
}

fn secret_report() -> impl Strategy<Value = SecretReport> {
    let stage = prop::sample::select(vec![Stage::Seen, Stage::Prepared, Stage::Switched, Stage::Released]);
    let counters = (any::<u64>(), any::<u64>(), any::<u64>());
    let reached = option::of((version(), stage));
    let held = btree_set(version(), 0..=MAX_HELD_VERSIONS);
    let auth_failures = btree_map(version(), any::<u64>(), 0..=MAX_AUTH_FAILURE_VERSIONS);
    (counters, reached, held, option::of(failure()), auth_failures).prop_map(
        |((generation, revision, lease), reached, held, failure, auth_failures)| SecretReport {
            generation: Generation(generation),
            revision: Revision(revision),
            reached,
            held,
            lease: LeaseSequence(lease),
            failure,
            auth_failures,
        },
    )
}

pub(crate) fn report() -> impl Strategy<Value = InstanceReport> {
    (instance_key(), any::<u64>(), btree_map(secret(), secret_report(), 0..SECRETS))
        .prop_map(|(key, sequence, secrets)| InstanceReport { key, sequence: ReportSequence(sequence), secrets })
}

pub(crate) fn sync_request() -> impl Strategy<Value = SyncRequest> {
    (any::<u64>(), any::<u64>(), report()).prop_map(|(nonce, echo, report)| SyncRequest {
        nonce: Nonce(nonce),
        echo: Challenge::new(echo),
        report,
    })
}

pub(crate) fn sync_reply() -> impl Strategy<Value = SyncReply> {
    let grant =
        (secret_state(), any::<bool>(), any::<u64>(), btree_map(version(), duration(0), 0..=MAX_LEASED_VERSIONS));
    let counters = (any::<u64>(), any::<u64>(), any::<u64>());
    let challenge = (any::<bool>(), any::<u64>());
    (instance_key(), counters, any::<bool>(), challenge, prop::collection::vec(grant, 0..SECRETS)).prop_map(
        |(key, (nonce, epoch, covered), unregistered, (unproven, challenge), grants)| SyncReply {
            key,
            nonce: Nonce(nonce),
            epoch: Epoch(epoch),
            covered: ReportSequence(covered),
            unregistered,
            unproven,
            challenge: Challenge::new(challenge),
            secrets: grants
                .into_iter()
                .map(|(state, told, sequence, leases)| {
                    let secret = state.secret.clone();
                    let state = told.then_some(state);
                    (secret, SecretGrant { sequence: LeaseSequence(sequence), leases, state })
                })
                .collect::<BTreeMap<_, _>>(),
        },
    )
}

pub(crate) fn fetch_request() -> impl Strategy<Value = FetchRequest> {
    (instance_key(), any::<u64>(), any::<u64>(), secret(), option::of(version())).prop_map(
        |(key, nonce, issued, secret, version)| FetchRequest {
            key,
            nonce: Nonce(nonce),
            issued: WallTime(issued),
            secret,
            version,
        },
    )
}

/// The largest report there can be: every list full, every name and number as long as it gets.
pub(crate) fn largest_report() -> InstanceReport {
    let key = largest_key();
    let secrets = (0..rotacast_protocol::message::MAX_SECRETS_PER_INSTANCE).map(|index| {
        let report = SecretReport {
            generation: Generation(u64::MAX),
            revision: Revision(u64::MAX),
            reached: Some((largest_version(0), Stage::Released)),
            held: (0..MAX_HELD_VERSIONS).map(largest_version).collect(),
            lease: LeaseSequence(u64::MAX),
            failure: Some(Failure {
                kind: FailureKind::SwitchFailed,
                version: largest_version(0),
                text: "x".repeat(MAX_FAILURE_TEXT_BYTES),
            }),
            auth_failures: (0..MAX_AUTH_FAILURE_VERSIONS).map(|n| (largest_version(n), u64::MAX)).collect(),
        };
        (largest_secret(index), report)
    });
    InstanceReport { key, sequence: ReportSequence(u64::MAX), secrets: secrets.collect() }
}

/// The largest Sync reply there can be.
pub(crate) fn largest_reply() -> SyncReply {
    let secrets = (0..rotacast_protocol::message::MAX_SECRETS_PER_INSTANCE).map(|index| {
        let secret = largest_secret(index);
        let state = SecretState {
            epoch: Epoch(u64::MAX),
            revision: Revision(u64::MAX),
            generation: Generation(u64::MAX),
            rotation: Some(RotationId { secret: secret.clone(), generation: Generation(u64::MAX) }),
            phase: Some(Phase::RollingBack),
            current: Some(largest_version(0)),
            pending: Some(largest_version(1)),
            previous: Some(largest_version(2)),
            sealed: (0..MAX_SEALED_VERSIONS).map(largest_version).collect::<BTreeSet<_>>(),
            sync_interval: MAX_DURATION,
            self_lease: MAX_DURATION,
            max_use: MAX_DURATION,
            stay: true,
            lost_history: Some(LostHistory { noticed: Revision(u64::MAX), kept_to: Some(largest_version(0)) }),
            secret: secret.clone(),
        };
        let leases = (0..MAX_LEASED_VERSIONS).map(|number| (largest_version(number), MAX_DURATION)).collect();
        (secret, SecretGrant { sequence: LeaseSequence(u64::MAX), leases, state: Some(state) })
    });
    SyncReply {
        key: largest_key(),
        nonce: Nonce(u64::MAX),
        epoch: Epoch(u64::MAX),
        covered: ReportSequence(u64::MAX),
        unregistered: true,
        unproven: true,
        challenge: Challenge::new(u64::MAX),
        secrets: secrets.collect(),
    }
}

fn largest_key() -> InstanceKey {
    InstanceKey::new(
        ServiceName::new("s".repeat(128)).unwrap(),
        InstanceName::new("i".repeat(128)).unwrap(),
        Incarnation(u128::MAX),
    )
}

fn largest_secret(index: usize) -> SecretName {
    SecretName::new(format!("{index:0>128}")).unwrap()
}

fn largest_version(below: usize) -> Version {
    Version::new(u64::MAX - u64::try_from(below).unwrap()).unwrap()
}
