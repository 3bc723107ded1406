//! One secret on a line of the overview.

use rotacast_proto::v1;
use serde::Serialize;

use rotacast_admin::view::{BlockerView, FinishedView, Moment, RotationView, SecretView};

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct SummaryView {
    pub(super) secret: String,
    provider: String,
    current: Option<u64>,
    /// When the current version was first known.
    current_seen_at: Option<Moment>,
    revision: u64,
    generation: u64,
    overlays: Vec<String>,
    waiting_version: Option<u64>,
    rotation: Option<RotationView>,
    progress: Option<ProgressView>,
    members: u32,
    blockers: usize,
    /// The first.
    blocker: Option<BlockerView>,
    last: Option<FinishedView>,
    /// Null: when somebody writes a version or asks for one.
    next_rotation_at: Option<Moment>,
    record_read_at: Option<Moment>,
}

/// How many members have done what the phase waits for.
#[derive(Clone, PartialEq, Serialize)]
struct ProgressView {
    stage: &'static str,
    done: u32,
    of: u32,
}

impl From<v1::SecretStatus> for SummaryView {
    fn from(status: v1::SecretStatus) -> Self {
        let view = SecretView::from(status);
        let members = view.services.iter().map(|service| service.members).sum();
        let seen = |version: u64| view.versions.iter().find(|it| it.version == version).and_then(|it| it.seen_at);
        Self {
            current_seen_at: view.current.and_then(seen),
            waiting_version: view.waiting_version(),
            progress: view.rotation.as_ref().and_then(|rotation| progress(rotation.phase, &view, members)),
            members,
            blockers: view.blockers.len(),
            blocker: view.blockers.into_iter().next(),
            last: view.history.into_iter().next(),
            secret: view.secret,
            provider: view.provider,
            current: view.current,
            revision: view.revision,
            generation: view.generation,
            overlays: view.overlays,
            rotation: view.rotation,
            next_rotation_at: view.next_rotation_at,
            record_read_at: view.record_read_at,
        }
    }
}

fn progress(phase: &str, view: &SecretView, members: u32) -> Option<ProgressView> {
    // Without members no instance is waited for, and a record knows of none.
    if members == 0 {
        return None;
    }
    let sum = |of: fn(&rotacast_admin::view::ServiceView) -> u32| view.services.iter().map(of).sum();
    let (stage, done) = match phase {
        "preparing" => ("prepared", sum(|service| service.prepared)),
        "activating" | "rolling_back" => ("switched", sum(|service| service.switched)),
        "draining" | "retiring" => ("released", sum(|service| service.released)),
        _ => return None,
    };
    Some(ProgressView { stage, done, of: members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: v1::Phase) -> v1::SecretStatus {
        let service = |members, switched, released| v1::StageCounts {
            service: "s".into(),
            members,
            prepared: members,
            switched,
            released,
            ..Default::default()
        };
        v1::SecretStatus {
            secret: "payments/db".into(),
            current: 2,
            versions: vec![v1::VersionInfo { version: 2, seen_ms: 1_000, ..Default::default() }],
            rotation: Some(v1::RotationInfo { phase: phase.into(), ..Default::default() }),
            services: vec![service(3, 2, 1), service(1, 1, 1)],
            ..Default::default()
        }
    }

    #[test]
    fn progress_is_told_in_the_terms_of_the_phase() {
        for (phase, expected) in [
            (v1::Phase::Verifying, None),
            (v1::Phase::Preparing, Some(("prepared", 4))),
            (v1::Phase::Activating, Some(("switched", 3))),
            (v1::Phase::Draining, Some(("released", 2))),
            (v1::Phase::RollingBack, Some(("switched", 3))),
        ] {
            let view = SummaryView::from(status(phase));
            let expected = expected.map(|(stage, done)| ProgressView { stage, done, of: 4 });
            assert!(view.progress == expected, "{phase:?}");
            assert!(view.current_seen_at == Some(Moment(1_000)));
        }
        let nobody = v1::SecretStatus { services: Vec::new(), ..status(v1::Phase::Draining) };
        assert!(SummaryView::from(nobody).progress.is_none());
    }
}
