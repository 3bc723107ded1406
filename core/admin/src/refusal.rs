//! How a refusal travels over gRPC.

use std::fmt;
use std::str::FromStr;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Carries the kind of a refusal as a word, for programs.
const KIND: &str = "rotacast-refusal";
/// Carries what to do about it. Binary, since gRPC's plain metadata is ASCII only.
const FIX: &str = "rotacast-fix-bin";
/// Longest fix that travels, in bytes: servers and proxies cut headers off at 8 KiB.
const MAX_FIX_BYTES: usize = 1024;

/// Why a request is refused, in one word for programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefusalKind {
    /// The request makes no sense, whatever the state.
    Invalid,
    /// An unknown sender, or a signature that does not hold.
    Unauthenticated,
    /// Known, but not allowed.
    Forbidden,
    /// There is no such secret, version or instance.
    NotFound,
    /// The state does not allow it.
    Conflict,
    /// Another broadcaster leads. Nothing was done.
    NotLeader,
    /// Store, bus, provider or audit log cannot be used now. Whether the command took effect is unknown.
    Unavailable,
    /// Too much at once.
    Busy,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::NotLeader,
        Self::Unavailable,
        Self::Busy,
    ];

    /// The word: stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::NotLeader => "not_leader",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
        }
    }

    /// gRPC's code for it.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Forbidden => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Conflict => Code::FailedPrecondition,
            Self::NotLeader | Self::Unavailable => Code::Unavailable,
            Self::Busy => Code::ResourceExhausted,
        }
    }

    /// A status that says so. `fix`: what to do about it; may be empty.
    #[must_use]
    pub fn status(self, problem: impl Into<String>, fix: &str) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(KIND, MetadataValue::from_static(self.as_str()));
        if !fix.is_empty() {
            let cut = &fix.as_bytes()[..fix.len().min(MAX_FIX_BYTES)];
            metadata.insert_bin(FIX, MetadataValue::from_bytes(cut));
        }
        Status::with_metadata(self.code(), problem, metadata)
    }

    /// The kind of a refusal that came over gRPC; none if it was not one of ours.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        status.metadata().get(KIND)?.to_str().ok()?.parse().ok()
    }
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RefusalKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| format!("{word:?} is no kind of refusal"))
    }
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
        for kind in RefusalKind::ALL {
            let status = kind.status("no rotation in flight", "début");
            assert_eq!(status.code(), kind.code());
            assert_eq!(RefusalKind::of(&status), Some(kind));
            assert_eq!(fix_of(&status).as_deref(), Some("début"));
        }
        assert_eq!(RefusalKind::of(&Status::internal("other")), None);
    }
}
