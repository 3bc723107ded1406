use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::bench::{Bench, managed, operator, provider, v};
use crate::id::{Epoch, Generation, Revision, RotationNumber};
use crate::name::SecretName;
use crate::phase::{Outcome, Phase};
use crate::record::{
    Bounds, Cause, Doubt, Finished, Label, Origin, Override, Pause, PhaseEntered, RetireStep, Retirement, Rotation,
    SafeMode, SecretRecord, Statement, Timing, Unknown, Unproven, VersionRecord,
};
use crate::time::WallTime;

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let bench = Bench::draining(managed(), &["api/a"]);
    let good = bench.coordinator.record().clone();
    let spoil = |change: &dyn Fn(&mut SecretRecord)| {
        let mut record = good.clone();
        change(&mut record);
        SecretRecord::decode(&record.encode()).map(|_| ()).unwrap_err().to_string()
    };
    assert!(spoil(&|record| record.current = Some(v(1))).contains("current"));
    assert!(spoil(&|record| record.versions.get_mut(&v(2)).unwrap().sealed = true).contains("sealed"));
    assert!(spoil(&|record| record.bounds.lease = Duration::from_secs(1)).contains("bounds"));
    assert!(spoil(&|record| record.bounds.self_lease = Duration::ZERO).contains("bounds"));
    assert!(spoil(&|record| record.last_version = Some(v(1))).contains("last_version"));
    // To go through all numbers up to it would take for ever.
    assert!(
        spoil(&|record| record.last_version = Some(v(u64::MAX))).contains("the last version is 18446744073709551615")
    );
    assert!(spoil(&|record| record.rotation.as_mut().unwrap().phase = Phase::Preparing).contains("while preparing"));
}

#[test]
fn a_record_of_a_later_format_is_refused_by_name() {
    let bench = Bench::running(managed(), &[]);
    let text = String::from_utf8(bench.coordinator.record().encode()).unwrap();
    let later = text.replacen("\"format\":1", "\"format\":2", 1);
    let refusal = SecretRecord::decode(later.as_bytes()).unwrap_err().to_string();
    assert_eq!(refusal, "record format 2, but this build reads up to 1: upgrade this broadcaster");
}

#[test]
fn the_record_of_another_secret_is_refused() {
    let record = Bench::draining(managed(), &["api/a"]).coordinator.record().clone();
    assert_eq!(SecretRecord::decode_of(&record.secret, &record.encode()), Ok(record.clone()));
    let other = SecretName::new("other/db").unwrap();
    let refused = SecretRecord::decode_of(&other, &record.encode()).unwrap_err().to_string();
    assert_eq!(refused, format!("it is the record of {}, expected that of other/db", record.secret));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What a later build added survives, at every level.
    #[test]
    fn a_record_reads_back(record in record()) {
        let bytes = record.encode();
        prop_assert_eq!(SecretRecord::decode(&bytes), Ok(record));
    }

    #[test]
    fn decoding_never_panics(bytes in vec(any::<u8>(), 0..200), record in record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let _ = SecretRecord::decode(&bytes);
        let mut spoilt = record.encode();
        let at = at.index(spoilt.len());
        spoilt[at] = byte;
        let _ = SecretRecord::decode(&spoilt);
        let _ = SecretRecord::decode(&spoilt[..at]);
    }
}

fn unknown() -> impl Strategy<Value = Unknown> {
    let value = prop_oneof![
        Just(serde_json::Value::Null),
        any::<u32>().prop_map(serde_json::Value::from),
        "[a-z\"\\\\é]{0,6}".prop_map(serde_json::Value::from),
        vec(any::<u8>(), 0..3).prop_map(serde_json::Value::from),
    ];
    btree_map("x_[a-z]{1,4}".prop_map(String::from), value, 0..3)
}

fn millis() -> impl Strategy<Value = Duration> {
    (0..u64::MAX).prop_map(Duration::from_millis)
}

fn wall() -> impl Strategy<Value = WallTime> {
    any::<u64>().prop_map(WallTime)
}

prop_compose! {
    fn timing()(times in vec(millis(), 6), unknown in unknown()) -> Timing {
        Timing {
            lease_idle: times[0], lease_rotating: times[1], self_lease: times[2], max_use: times[3],
            sync_idle: times[4], sync_rotating: times[5], unknown,
        }
    }
}

prop_compose! {
    fn version_record()(
        (label, managed, announced, doubt) in (0..6_usize, any::<bool>(), any::<bool>(), 0..3_usize),
        seen in wall(), note in "[ -~é]{0,20}", unknown in unknown(),
    ) -> VersionRecord {
        VersionRecord {
            label: [Label::Pending, Label::Current, Label::Previous, Label::Retired, Label::Rejected, Label::Unproven][label],
            origin: if managed { Origin::Managed } else { Origin::Watched },
            provider: managed.then(provider),
            unproven: (label == 5).then_some(Unproven::NoProvider),
            sealed: false, announced, doubt: Doubt::ALL.get(doubt).copied(), seen, note, unknown,
        }
    }
}

prop_compose! {
    fn override_word()(at in wall(), reason in ".{0,20}", sessions in any::<bool>(), unknown in unknown(),
        instances in btree_set("[a-z/]{1,9}", 0..3)) -> Override {
        Override { by: operator(), reason, at, instances, sessions, unknown }
    }
}

prop_compose! {
    fn statement()(at in wall(), reason in ".{0,20}", unknown in unknown()) -> Statement {
        Statement { by: operator(), reason, at, unknown }
    }
}

prop_compose! {
    fn retirement()(
        (cause, step) in (0..3_usize, 0..4_usize), unwanted in any::<u64>(), since in wall(),
        overrides in vec(override_word(), 0..3), given_up in prop::option::of(statement()), unmade in any::<bool>(),
        unknown in unknown(),
    ) -> Retirement {
        Retirement {
            cause: [Cause::Rotated, Cause::RolledBack, Cause::Superseded][cause],
            unwanted_since: Revision(unwanted), since, overrides,
            step: [RetireStep::Disable, RetireStep::Destroy, RetireStep::Erase].get(step).copied(),
            given_up, unmade, unknown,
        }
    }
}

prop_compose! {
    fn finished()(generation in any::<u64>(), outcome in 0..3_usize, new in 1..9_u64, times in (wall(), wall()),
        reason in ".{0,20}", unknown in unknown()) -> Finished {
        Finished {
            generation: Generation(generation),
            number: RotationNumber(generation),
            outcome: [Outcome::Retired, Outcome::RolledBack, Outcome::Superseded][outcome],
            old: None, new: v(new), started: times.0, ended: times.1,
            phases: vec![PhaseEntered { phase: Phase::Verifying, at: times.0 }], reason, unknown,
        }
    }
}

prop_compose! {
    /// Any record whose parts agree.
    fn record()(
        versions in vec(version_record(), 0..6),
        timing in timing(),
        (current, phase, rotates) in (any::<prop::sample::Index>(), 0..6_usize, any::<bool>()),
        retirements in vec(retirement(), 6), leaving in subsequence((0..6_usize).collect::<Vec<_>>(), 0..6),
        sealed in vec(any::<bool>(), 6),
        numbers in vec(any::<u64>(), 4), wall in wall(), excused in btree_set("[a-z/]{1,9}", 0..3),
        (paused, safe, history) in (any::<bool>(), any::<bool>(), vec(finished(), 0..3)),
        unknowns in vec(unknown(), 5),
    ) -> SecretRecord {
        let mut record = SecretRecord::new(SecretName::new("payments/db").unwrap(), Epoch(numbers[0]), timing.clone());
        record.bounds = Bounds {
            lease: timing.lease_rotating, self_lease: timing.self_lease, max_use: timing.max_use,
            sync: record.timing.sync_idle,
            unknown: unknowns[0].clone(),
        };
        record.revision = Revision(numbers[1]);
        record.generation = Generation(numbers[2]);
        let count = versions.len();
        record.versions = versions.into_iter().enumerate().map(|(at, version)| (v(at as u64 + 1), version)).collect();
        record.last_version = (count > 0).then(|| v(count as u64));
        record.current = (count > 0).then(|| v(current.index(count) as u64 + 1));
        let phase = [Phase::Verifying, Phase::Preparing, Phase::Activating, Phase::Draining, Phase::Retiring,
            Phase::RollingBack][phase];
        if let Some(current) = record.current.filter(|_| rotates) {
            let forward = matches!(phase, Phase::Activating | Phase::Draining | Phase::Retiring);
            record.rotation = Some(Rotation {
                generation: Generation(numbers[3]),
                number: RotationNumber(numbers[3]),
                old: if forward { None } else { Some(current) },
                new: current, trigger: "store".into(), phase, started: wall, phase_since: wall,
                phases: vec![PhaseEntered { phase, at: wall }],
                created: numbers[1] % 2 == 0, activated: Some(Revision(numbers[3])), approved: Some(operator()),
                excused, rollback: Some("no".into()), unknown: unknowns[1].clone(),
            });
        }
        for at in leaving {
            let version = v(at as u64 + 1);
            if at < count && record.current != Some(version) {
                record.retirements.insert(version, retirements[at].clone());
                record.versions.get_mut(&version).unwrap().sealed = sealed[at];
            }
        }
        record.paused = paused.then(|| Pause {
            by: operator(), reason: "é\"".into(), at: wall, more: Vec::new(), unknown: unknowns[2].clone(),
        });
        record.safe_mode = safe.then(|| SafeMode { reason: "s".into(), at: wall, unknown: unknowns[3].clone() });
        record.history = history;
        record.unknown = unknowns[4].clone();
        record
    }
}
