//! One secret on a line of the overview.

use rotacast_protocol::coordinator::Overlay;
use rotacast_protocol::message::Stage;
use rotacast_protocol::status::{BlockerStatus, FinishedStatus, RotationStatus, SecretStatus, moment_or_null};
use rotacast_protocol::{Generation, Revision, SecretName, Version, WallTime};
use serde::Serialize;

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct SummaryView {
    pub(super) secret: SecretName,
    provider: String,
    current: Option<Version>,
    /// When the current version was first known.
    #[serde(serialize_with = "moment_or_null")]
    current_seen_at: Option<WallTime>,
    revision: Revision,
    generation: Generation,
    overlays: Vec<Overlay>,
    waiting_version: Option<Version>,
    rotation: Option<RotationStatus>,
    progress: Option<ProgressView>,
    members: u32,
    blockers: usize,
    /// The first.
    blocker: Option<BlockerStatus>,
    last: Option<FinishedStatus>,
    /// Null: when an operator writes a version or asks for one.
    #[serde(serialize_with = "moment_or_null")]
    next_rotation_at: Option<WallTime>,
    #[serde(serialize_with = "moment_or_null")]
    record_read_at: Option<WallTime>,
}

/// How many members have done what the phase waits for.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct ProgressView {
    stage: Stage,
    done: u32,
    of: u32,
}

impl From<SecretStatus> for SummaryView {
    fn from(status: SecretStatus) -> Self {
        let members = status.members();
        // Without members no instance is waited for, and a record knows of none.
        let progress = status.progress().filter(|_| members > 0);
        Self {
            current_seen_at: status.current.and_then(|current| status.version(current)).map(|it| it.seen_at),
            waiting_version: status.waiting_version(),
            progress: progress.map(|(stage, done)| ProgressView { stage, done, of: members }),
            members,
            blockers: status.blockers.len(),
            blocker: status.blockers.into_iter().next(),
            last: status.history.into_iter().next(),
            secret: status.secret,
            provider: status.provider,
            current: status.current,
            revision: status.revision,
            generation: status.generation,
            overlays: status.overlays,
            rotation: status.rotation,
            next_rotation_at: status.next_rotation_at,
            record_read_at: status.record_read_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::coordinator::StageCounts;
    use rotacast_protocol::record::Label;
    use rotacast_protocol::status::{ServiceStatus, VersionStatus};
    use rotacast_protocol::{Phase, RotationNumber};

    use super::*;

    const SEEN: WallTime = WallTime(1_000);

    fn status(phase: Phase) -> SecretStatus {
        let service = |members, switched, released| ServiceStatus {
            service: "s".parse().unwrap(),
            counts: StageCounts { members, prepared: members, switched, released, ..Default::default() },
        };
        let version = Version::new(2).unwrap();
        SecretStatus {
            current: Some(version),
            versions: vec![VersionStatus { version, label: Label::Current, sealed: false, seen_at: SEEN }],
            rotation: Some(RotationStatus {
                number: RotationNumber(1),
                phase,
                old: None,
                new: version,
                started_at: SEEN,
                phase_since: SEEN,
                trigger: "store".into(),
                rollback_reason: None,
                phases: Vec::new(),
            }),
            services: vec![service(3, 2, 1), service(1, 1, 1)],
            ..SecretStatus::new("payments/db".parse().unwrap())
        }
    }

    #[test]
    fn progress_is_told_in_the_terms_of_the_phase() {
        for (phase, expected) in [
            (Phase::Verifying, None),
            (Phase::Preparing, Some((Stage::Prepared, 4))),
            (Phase::Activating, Some((Stage::Switched, 3))),
            (Phase::Draining, Some((Stage::Released, 2))),
            (Phase::Retiring, Some((Stage::Released, 2))),
            (Phase::RollingBack, Some((Stage::Switched, 3))),
        ] {
            let view = SummaryView::from(status(phase));
            let expected = expected.map(|(stage, done)| ProgressView { stage, done, of: 4 });
            assert_eq!(view.progress, expected, "{phase}");
            assert_eq!(view.current_seen_at, Some(SEEN));
        }
        let without_members = SecretStatus { services: Vec::new(), ..status(Phase::Draining) };
        assert_eq!(SummaryView::from(without_members).progress, None);
    }
}
