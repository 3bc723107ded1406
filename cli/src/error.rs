//! Why a command ends before it is done, and with which exit code.

use std::io;
use std::process::ExitCode;

use rotacast_admin::{RefusalKind, fix_of};
use rotacast_proto::FieldError;
use tonic::{Code, Status};

/// Exit codes other than 0. Stable: see `docs/operate/cli.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Timeout = 4,
    NotFound = 5,
    RolledBack = 6,
}

impl Exit {
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.number())
    }
}

/// What went wrong, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// A word for programs.
    pub(crate) kind: String,
    pub(crate) problem: String,
    /// May be empty.
    pub(crate) fix: String,
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Box<Failure>),
    /// The reader of the output has closed it (`rotacast status | head -1`): no failure of ours.
    Unread,
}

impl Stop {
    pub(crate) fn failed(
        exit: Exit,
        kind: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (kind, problem, fix) = (kind.into(), problem.into(), fix.into());
        Stop::Failed(Box::new(Failure { exit, kind, problem, fix }))
    }

    /// What went wrong.
    pub(crate) fn problem(&self) -> &str {
        match self {
            Stop::Failed(failure) => &failure.problem,
            Stop::Unread => "the reader of the output has closed it",
        }
    }

    pub(crate) fn usage(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::failed(Exit::Usage, "usage", problem, fix)
    }

    /// What a failed write to standard output means.
    pub(crate) fn unwritten(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Unread,
            _ => Self::failed(Exit::Failed, "output", format!("cannot write to standard output: {error}"), ""),
        }
    }

    /// A server's answer that is none.
    pub(crate) fn answered(server: &str, status: &Status) -> Self {
        let fix = fix_of(status).unwrap_or_default();
        if let Some(kind) = RefusalKind::of(status) {
            let exit = match kind {
                RefusalKind::NotFound => Exit::NotFound,
                RefusalKind::NotLeader | RefusalKind::Unavailable => Exit::Unreachable,
                RefusalKind::Invalid
                | RefusalKind::Unauthenticated
                | RefusalKind::Forbidden
                | RefusalKind::Conflict
                | RefusalKind::Busy => Exit::Failed,
            };
            return Self::failed(exit, kind.as_str(), status.message(), fix);
        }
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::unreachable(server, &innermost(status))
            }
            Code::Unimplemented => Self::failed(
                Exit::Failed,
                "unimplemented",
                format!("{server} does not know this request"),
                "upgrade the broadcaster, or check that --server names one",
            ),
            code => Self::failed(Exit::Failed, "refused", format!("{server}: {code}: {}", status.message()), fix),
        }
    }

    /// An answer that this build cannot read: most likely a later release has added a word.
    pub(crate) fn unexpected(server: &str, error: &FieldError) -> Self {
        let problem = format!("the answer of {server} cannot be read: {error}");
        let fix = "use the `rotacast` of the broadcaster's release: `rotacast version` here and there says which";
        Self::failed(Exit::Failed, "unexpected_answer", problem, fix)
    }

    /// An order was taken, and its answer leaves something out.
    pub(crate) fn unfinished(what: &str) -> Self {
        let problem = format!("the order was taken, but the answer {what}");
        Self::failed(Exit::Failed, "unexpected_answer", problem, "`rotacast status` shows what came of it")
    }

    /// Over plain HTTP; gRPC's answer says the same.
    pub(crate) fn token_needed(problem: &str) -> Self {
        let fix = "show a token with --token-file FILE (or ROTACAST_TOKEN_FILE); `rotacast token --out NAME` makes one";
        Self::failed(Exit::Failed, RefusalKind::Unauthenticated.as_str(), problem, fix)
    }

    pub(crate) fn unreachable(server: &str, problem: &str) -> Self {
        let problem = format!("broadcaster at {server} cannot be reached: {problem}");
        // TLS tells of certificates in words only.
        let fix = match problem.contains("ertificate") {
            true => "check --ca, and --client-cert with --client-key if the server asks for a client's certificate",
            false => {
                "start it (`rotacast dev` or `rotacast serve`), or name another one with --server or ROTACAST_SERVER"
            }
        };
        Self::failed(Exit::Unreachable, "unreachable", problem, fix)
    }

    /// None of several broadcasters could be asked; `problems` says why, of each.
    pub(crate) fn none_reachable(problems: Vec<Stop>) -> Self {
        let told = problems.iter().filter_map(|stop| match stop {
            Stop::Failed(failure) => Some(failure.problem.as_str()),
            Stop::Unread => None,
        });
        let told: Vec<&str> = told.collect();
        let fix = "start them, or name others with --server or ROTACAST_SERVER";
        Self::failed(Exit::Unreachable, "unreachable", told.join("\n"), fix)
    }

    /// What an order that got no answer means.
    pub(crate) fn of_an_order(self) -> Self {
        match self {
            Stop::Failed(mut failure) if failure.kind == "unreachable" => {
                failure.problem.push_str("; the order may have taken effect");
                failure.fix = "look at `rotacast status` before giving it again".into();
                Stop::Failed(failure)
            }
            stop => stop,
        }
    }

    /// What it means when none of so many broadcasters took an order.
    pub(crate) fn of_all(self, count: usize) -> Self {
        match self {
            Stop::Failed(mut failure) if count > 1 => {
                failure
                    .problem
                    .push_str(&format!("; none of the {count} broadcasters of --server takes the order now"));
                failure.fix =
                    "nothing was done: give it again in a few seconds, or name the one that leads with --server".into();
                Stop::Failed(failure)
            }
            stop => stop,
        }
    }

    /// Whether the broadcaster said that it does not lead: it has done nothing.
    pub(crate) fn is_not_leader(&self) -> bool {
        matches!(self, Stop::Failed(failure) if failure.kind == "not_leader")
    }

    /// Whether it may be different in a moment.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Stop::Failed(failure) if failure.exit == Exit::Unreachable)
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Stop::Failed(failure) if failure.exit == Exit::NotFound)
    }
}

/// gRPC's errors say "transport error"; what happened is in their causes.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
