//! Why a request is refused, and how that travels over gRPC.

use thiserror::Error;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Carries the kind of a refusal as a word, for programs.
const KIND: &str = "rotacast-refusal";
/// Carries what to do about it. Binary, since gRPC's plain metadata is ASCII only.
const FIX: &str = "rotacast-fix-bin";
/// Longest fix that travels, in bytes: servers and proxies cut headers off at 8 KiB.
const MAX_FIX_BYTES: usize = 1024;

/// Why a request is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The request makes no sense, whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// Nobody we know, or a signature that does not hold.
    #[error("{0}")]
    Unauthenticated(String),
    /// Known, but not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such secret, version or instance.
    #[error("{what}: not found")]
    NotFound {
        /// What was asked for.
        what: String,
        /// What to do: similar names, how to make one.
        fix: String,
    },
    /// The state does not allow it.
    #[error("{problem}")]
    Conflict {
        /// What was expected and found.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// Another broadcaster leads.
    #[error("this broadcaster does not lead: {problem}")]
    NotLeader {
        /// Who does, if known.
        problem: String,
    },
    /// Store, bus, provider or audit log cannot be used now. Whether the command took effect is unknown.
    #[error("{problem}")]
    Unavailable {
        /// Which, and what it says.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// Too much at once.
    #[error("{0}")]
    Busy(String),
}

impl Refusal {
    /// The kind as a word: stable, for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::Invalid(_) => "invalid",
            Refusal::Unauthenticated(_) => "unauthenticated",
            Refusal::Forbidden(_) => "forbidden",
            Refusal::NotFound { .. } => "not_found",
            Refusal::Conflict { .. } => "conflict",
            Refusal::NotLeader { .. } => "not_leader",
            Refusal::Unavailable { .. } => "unavailable",
            Refusal::Busy(_) => "busy",
        }
    }

    fn code(&self) -> Code {
        match self {
            Refusal::Invalid(_) => Code::InvalidArgument,
            Refusal::Unauthenticated(_) => Code::Unauthenticated,
            Refusal::Forbidden(_) => Code::PermissionDenied,
            Refusal::NotFound { .. } => Code::NotFound,
            Refusal::Conflict { .. } => Code::FailedPrecondition,
            Refusal::NotLeader { .. } | Refusal::Unavailable { .. } => Code::Unavailable,
            Refusal::Busy(_) => Code::ResourceExhausted,
        }
    }

    /// What to do about it; empty: nothing besides what the problem says.
    #[must_use]
    pub fn fix(&self) -> &str {
        match self {
            Refusal::NotFound { fix, .. } | Refusal::Conflict { fix, .. } | Refusal::Unavailable { fix, .. } => fix,
            Refusal::Unauthenticated(_) => {
                "sign with the key whose public half the configuration lists under [operators] for that name"
            }
            Refusal::NotLeader { .. } => {
                "name the broadcaster that leads with --server, or all of them: --server A,B finds it by itself"
            }
            Refusal::Busy(_) => "wait a minute and send it again",
            Refusal::Invalid(_) | Refusal::Forbidden(_) => "",
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut metadata = MetadataMap::new();
        metadata.insert(KIND, MetadataValue::from_static(refusal.kind()));
        let fix = refusal.fix();
        if !fix.is_empty() {
            let cut = &fix.as_bytes()[..fix.len().min(MAX_FIX_BYTES)];
            metadata.insert_bin(FIX, MetadataValue::from_bytes(cut));
        }
        Status::with_metadata(refusal.code(), refusal.to_string(), metadata)
    }
}

/// The kind of a refusal that came over gRPC; none if it was not one of ours.
#[must_use]
pub fn kind_of(status: &Status) -> Option<&str> {
    status.metadata().get(KIND)?.to_str().ok()
}

/// What to do about a refusal that came over gRPC.
#[must_use]
pub fn fix_of(status: &Status) -> Option<String> {
    let fix = status.metadata().get_bin(FIX)?.to_bytes().ok()?;
    Some(String::from_utf8_lossy(&fix).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_fix_survive_the_way_through_a_status() {
        let refusal = Refusal::Conflict { problem: "no rotation in flight".into(), fix: "début".into() };
        let status = Status::from(refusal);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(kind_of(&status), Some("conflict"));
        assert_eq!(fix_of(&status).as_deref(), Some("début"));
        assert_eq!(kind_of(&Status::internal("other")), None);
    }
}
