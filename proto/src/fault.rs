//! What is wrong between us and a server.

use std::fmt;

/// Which kind of fault a server's error is. The driver of that server decides it; who has to act follows from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ServerFault {
    /// It does not answer: it is down, cut off, or elsewhere.
    NotReachable,
    /// It does not accept who we are, or what we ask.
    Refused,
    /// It has no room.
    Full,
    /// It, or what Rotacast keeps there, is set up in a way that cannot work.
    Misconfigured,
    /// It answers with an error that its driver does not know.
    NotUnderstood,
}

impl ServerFault {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::NotReachable, Self::Refused, Self::Full, Self::Misconfigured, Self::NotUnderstood];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReachable => "not_reachable",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::Misconfigured => "misconfigured",
            Self::NotUnderstood => "not_understood",
        }
    }

    /// What repairs it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NotReachable => "start it, or correct its address in the configuration",
            Self::Refused => {
                "correct the login in its file, or give it the rights that the documentation lists; no restart is needed"
            }
            Self::Full => "give it more room; Rotacast goes on by itself then",
            Self::Misconfigured => "correct what the text names",
            Self::NotUnderstood => "look at its own log for this error",
        }
    }
}

impl fmt::Display for ServerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
