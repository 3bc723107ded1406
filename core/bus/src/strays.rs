//! Messages that a bus drops because their sender had no business sending them.

use std::fmt;

/// Why a message was dropped before it was looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stray {
    /// It arrived in the leader's inbox and is not from the stream and consumer that the leader reads.
    Delivery,
    /// A registration or report about another instance than the subject it was published to.
    Subject,
    /// A Sync about an instance of another service than the login that sent it.
    Sync,
    /// A Sync, or a read of a state, whose answer was to go to another login's subject.
    ReplyTo,
    /// What arrived in an inbox in place of an answer.
    Reply,
    /// It is no message of Rotacast's, or larger than its kind may be.
    Unreadable,
}

impl Stray {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Delivery, Self::Subject, Self::Sync, Self::ReplyTo, Self::Reply, Self::Unreadable];

    /// As a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Subject => "subject",
            Self::Sync => "sync",
            Self::ReplyTo => "reply_to",
            Self::Reply => "reply",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Delivery => "delivered into the inbox of a reader",
            Self::Subject => "about another instance than their subject's",
            Self::Sync => "Syncs for another service",
            Self::ReplyTo => "requests to be answered elsewhere",
            Self::Reply => "in place of an answer",
            Self::Unreadable => "unreadable",
        })
    }
}
