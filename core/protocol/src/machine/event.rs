//! What a machine takes in and gives out.

use std::collections::BTreeSet;

use crate::coordinator::{Change, Command, Failed, Input, Order, Rejection};
use crate::id::{InstanceKey, ReportSequence, RotationNumber, Version};
use crate::message::{SecretGrant, SecretReport};
use crate::name::OperatorName;
use crate::record::{RecordChange, SecretRecord};

/// Names one run of one command within a term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// Names one save within a term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SaveId(pub u64);

/// Where between half and the whole of its length a pause ends, so that many secrets do not retry in step. The machine
/// draws no random numbers: its shell does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Jitter(u16);

impl Jitter {
    /// The whole pause.
    pub const NONE: Jitter = Jitter(1000);

    /// From thousandths; what is above 1000 counts as 1000.
    #[must_use]
    pub fn from_permille(permille: u16) -> Self {
        Self(permille.min(1000))
    }

    pub(super) fn permille(self) -> u32 {
        u32::from(self.0)
    }
}

/// What reaches the machine. `R` is the shell's token for the party that waits for an answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event<R> {
    /// Something happened. While the leadership is not known to last, it waits: most inputs come once.
    Input(Input),
    /// A Sync. Without a leadership that lasts it is refused: its sender repeats it.
    Sync {
        key: InstanceKey,
        sequence: ReportSequence,
        report: SecretReport,
        /// For [`Answer::Granted`] or [`Answer::Refused`].
        reply: R,
    },
    /// An operator's order, checked for who gave it.
    Order {
        by: OperatorName,
        order: Order,
        /// For [`Answer::Ordered`] or [`Answer::Refused`].
        reply: R,
    },
    /// A command has ended.
    CommandDone {
        /// The run of [`Action::Run`].
        id: CommandId,
        /// What it led to, or why it is to be tried again.
        outcome: Result<Vec<Input>, Failed>,
        /// For the pause before it is tried again.
        jitter: Jitter,
    },
    /// Versions wait behind a number that has not been written.
    Gap {
        /// The first number that is missing.
        missing: Version,
        /// The first version behind it.
        found: Version,
    },
    /// A question whose answer the shell reads from the machine once all that came before has taken effect.
    Question {
        /// For [`Answer::Now`].
        reply: R,
    },
}

/// An answer to an event with a reply token.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// To a Sync.
    Granted(SecretGrant),
    /// To an order: the rotation in flight, if any, by its number, and its new version.
    Ordered(Option<(RotationNumber, Version)>),
    /// The event changes nothing.
    Refused(Rejection),
    /// To a question: the machine's state is what it asks for.
    Now,
}

/// A change of the record that has taken effect, with the rotation that it belongs to: a start belongs to the rotation
/// that it opens, an end to the one that it closes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Recorded {
    /// The change.
    pub change: RecordChange,
    pub rotation: Option<RotationNumber>,
}

/// What the shell does for the machine, in this order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action<R> {
    /// Save the record by compare-and-swap, then call `saved`. Overrides among the changes go into the audit log first.
    /// A save that is refused ends the term; one whose outcome is unknown is asked after until it is known.
    Save {
        /// For `saved`.
        id: SaveId,
        /// The record as the changes leave it.
        record: Box<SecretRecord>,
        /// What changes.
        changes: Vec<Change>,
        /// The operator who ordered it.
        by: Option<OperatorName>,
    },
    /// Start a command; its end is [`Event::CommandDone`]. Doing it twice is harmless.
    Run {
        /// Names this run.
        id: CommandId,
        /// What to do.
        command: Command,
    },
    /// Answer the caller that waits.
    Reply {
        /// The token of the event.
        to: R,
        /// The answer.
        answer: Answer,
    },
    /// The record has changed and is saved.
    Changed {
        /// How, in order.
        changes: Vec<Recorded>,
        /// The operator who ordered it.
        by: Option<OperatorName>,
    },
    /// Note that these numbers were used in a history that the store has lost: they are no gap for what follows.
    NoteLost {
        /// The numbers; never empty.
        numbers: BTreeSet<Version>,
    },
    /// Later versions wait until this number is written.
    AwaitVersion {
        missing: Version,
        /// The first version behind it.
        found: Version,
    },
    /// An input changed nothing.
    Refused(Rejection),
}
