//! Why a request is refused.

use rotacast_admin::RefusalKind;
use thiserror::Error;
use tonic::Status;

/// Why a request is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The request makes no sense, whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// An unknown key, or a signature that does not hold.
    #[error("{0}")]
    Unauthenticated(String),
    /// A token is needed, and none is shown that the configuration knows.
    #[error("{0}")]
    SignIn(String),
    /// Known, but not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// Known, and without the right to it.
    #[error("{problem}")]
    Denied {
        /// Who may not do what.
        problem: String,
        /// What is needed for it.
        fix: String,
    },
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
    /// The kind, for programs.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        match self {
            Refusal::Invalid(_) => RefusalKind::Invalid,
            Refusal::Unauthenticated(_) | Refusal::SignIn(_) => RefusalKind::Unauthenticated,
            Refusal::Forbidden(_) | Refusal::Denied { .. } => RefusalKind::Forbidden,
            Refusal::NotFound { .. } => RefusalKind::NotFound,
            Refusal::Conflict { .. } => RefusalKind::Conflict,
            Refusal::NotLeader { .. } => RefusalKind::NotLeader,
            Refusal::Unavailable { .. } => RefusalKind::Unavailable,
            Refusal::Busy(_) => RefusalKind::Busy,
        }
    }

    /// What to do about it; empty: nothing besides what the problem says.
    #[must_use]
    pub fn fix(&self) -> &str {
        match self {
            Refusal::NotFound { fix, .. }
            | Refusal::Conflict { fix, .. }
            | Refusal::Denied { fix, .. }
            | Refusal::Unavailable { fix, .. } => fix,
            Refusal::Unauthenticated(_) => {
                "sign with the key whose public half the configuration lists under [operators] for that name"
            }
            Refusal::SignIn(_) => {
                "show a token with --token-file FILE (or ROTACAST_TOKEN_FILE); `rotacast token --out NAME` makes one, and its \
                 digest belongs under [operators.NAME] in the broadcaster's configuration"
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
        refusal.kind().status(refusal.to_string(), refusal.fix())
    }
}
