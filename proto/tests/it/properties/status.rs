//! Arbitrary statuses and orders, as the admin API carries them.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rotacast_protocol::coordinator::{ConditionName, Order, Overlay, StageCounts, Standing};
use rotacast_protocol::message::Stage;
use rotacast_protocol::record::Label;
use rotacast_protocol::status::{
    BlockerStatus, BroadcasterStatus, ConditionStatus, FindingCounts, FindingStatus, FinishedStatus, GuardStatus,
    InstanceStatus, Leading, PhaseStatus, RotationStatus, SecretStatus, ServiceStatus, Severity, VersionStatus,
    took_ms,
};
use rotacast_protocol::{Epoch, Generation, Outcome, Phase, Revision, RotationNumber, ServiceName, WallTime};

use super::arbitrary::{instance_key, secret, version};

/// Entries of one list.
const FEW: std::ops::Range<usize> = 0..3;

/// On the wire, an empty text stands for none.
fn text() -> impl Strategy<Value = String> {
    ".{1,20}"
}

fn at() -> impl Strategy<Value = WallTime> {
    (1..=u64::MAX).prop_map(WallTime)
}

fn phases() -> impl Strategy<Value = Vec<PhaseStatus>> {
    vec((select(Phase::ALL), at()).prop_map(|(phase, since)| PhaseStatus { phase, since }), FEW)
}

fn rotation() -> impl Strategy<Value = RotationStatus> {
    let what = (any::<u64>(), select(Phase::ALL), option::of(version()), version());
    (what, at(), at(), text(), option::of(text()), phases()).prop_map(
        |((number, phase, old, new), started_at, phase_since, trigger, rollback_reason, phases)| RotationStatus {
            number: RotationNumber(number),
            phase,
            old,
            new,
            started_at,
            phase_since,
            trigger,
            rollback_reason,
            phases,
        },
    )
}

fn finished() -> impl Strategy<Value = FinishedStatus> {
    let what = (any::<u64>(), select(Outcome::ALL), option::of(version()), version());
    (what, at(), at(), option::of(text()), phases()).prop_map(
        |((number, outcome, old, new), started_at, ended_at, reason, phases)| FinishedStatus {
            number: RotationNumber(number),
            outcome,
            old,
            new,
            started_at,
            ended_at,
            took_ms: took_ms(started_at, ended_at),
            reason,
            phases,
        },
    )
}

fn service() -> impl Strategy<Value = ServiceStatus> {
    ("[a-z0-9]{1,9}", any::<[u32; 6]>()).prop_map(|(name, [members, seen, prepared, switched, released, fenced])| {
        let counts = StageCounts { members, seen, prepared, switched, released, fenced };
        ServiceStatus { service: ServiceName::new(name).unwrap(), counts }
    })
}

fn blocker() -> impl Strategy<Value = BlockerStatus> {
    (select(ConditionName::ALL), option::of(text()), text(), option::of(at()), text(), option::of(text())).prop_map(
        |(condition, who, why, since, next, command)| BlockerStatus { condition, who, why, since, next, command },
    )
}

fn guard() -> impl Strategy<Value = GuardStatus> {
    let condition = (select(ConditionName::ALL), any::<bool>(), text())
        .prop_map(|(name, met, evidence)| ConditionStatus { name, met, evidence });
    (version(), vec(condition, FEW)).prop_map(|(version, conditions)| GuardStatus { version, conditions })
}

fn finding() -> impl Strategy<Value = FindingStatus> {
    (select(Severity::ALL), text(), text(), text(), at()).prop_map(|(level, subject, text, fix, since)| FindingStatus {
        level,
        subject,
        text,
        fix,
        since,
    })
}

pub(crate) fn secret_status() -> impl Strategy<Value = SecretStatus> {
    let known = (version(), select(Label::ALL), any::<bool>(), at());
    let known = known.prop_map(|(version, label, sealed, seen_at)| VersionStatus { version, label, sealed, seen_at });
    let record =
        (secret(), text(), any::<(u64, u64)>(), option::of(version()), vec(known, FEW), option::of(rotation()));
    let live = (vec(service(), FEW), vec(select(Overlay::ALL), FEW), vec(blocker(), FEW), vec(guard(), FEW));
    (record, live, vec(finished(), FEW), (option::of(at()), option::of(at())), vec(finding(), FEW)).prop_map(
        |(record, (services, overlays, blockers, guards), history, (record_read_at, next_rotation_at), findings)| {
            let (secret, provider, (revision, generation), current, versions, rotation) = record;
            SecretStatus {
                secret,
                provider,
                revision: Revision(revision),
                generation: Generation(generation),
                current,
                versions,
                rotation,
                services,
                overlays,
                blockers,
                guards,
                history,
                record_read_at,
                next_rotation_at,
                findings,
            }
        },
    )
}

pub(crate) fn broadcaster_status() -> impl Strategy<Value = BroadcasterStatus> {
    let leading = (text(), option::of(text())).prop_map(|(replica, address)| Leading { replica, address });
    let places = (text(), text(), text(), text());
    let findings = (any::<u64>(), any::<u64>()).prop_map(|(errors, warnings)| FindingCounts { errors, warnings });
    (places, option::of(1..=u64::MAX), any::<bool>(), option::of(leading), findings, vec(secret_status(), FEW))
        .prop_map(|((cluster, store, bus, replica), epoch, leader, leading, findings, secrets)| BroadcasterStatus {
            cluster,
            epoch: epoch.map(Epoch),
            leader,
            store,
            bus,
            replica,
            leading,
            findings,
            secrets,
        })
}

pub(crate) fn instance_status() -> impl Strategy<Value = InstanceStatus> {
    let reached = (option::of(version()), option::of(select(Stage::ALL)), vec(version(), FEW));
    let times = (option::of(any::<u64>()), any::<u64>());
    (instance_key(), secret(), reached, select(Standing::ALL), times, option::of(text())).prop_map(
        |(key, secret, (version, stage, held), standing, (silent_for_ms, lease_left_ms), last_failure)| {
            InstanceStatus { key, secret, version, stage, held, standing, silent_for_ms, lease_left_ms, last_failure }
        },
    )
}

pub(crate) fn order() -> impl Strategy<Value = Order> {
    // Spaces around a reason are cut off.
    let reason = || "[a-z][a-z ]{0,20}[a-z]";
    prop_oneof![
        select(&[Order::Rotate, Order::Resume, Order::Approve, Order::LeaveSafeMode][..]),
        reason().prop_map(|reason| Order::pause(&reason).unwrap()),
        reason().prop_map(|reason| Order::rollback(&reason).unwrap()),
        instance_key().prop_map(|instance| Order::Excuse { instance }),
        (instance_key(), reason()).prop_map(|(instance, reason)| Order::gone(instance, &reason).unwrap()),
        (version(), reason()).prop_map(|(version, reason)| Order::abandon(version, &reason).unwrap()),
        (version(), btree_set(instance_key(), 1..3), any::<bool>(), reason()).prop_map(
            |(version, instances, sessions, reason)| Order::cut_off(version, instances, sessions, &reason).unwrap()
        ),
    ]
}
