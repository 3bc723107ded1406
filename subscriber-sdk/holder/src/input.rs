//! What can happen to a holder, and what it asks for.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rotacast_protocol::message::{SecretGrant, SecretState};
use rotacast_protocol::{Generation, InstanceKey, Instant, LeaseSequence, Nonce, Revision, SecretName, Version};
use thiserror::Error;

/// Work on one version that the service takes part in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// Let the service validate the value and get ready for it.
    Prepare,
    /// Let the service move new work to it.
    Switch,
    /// Let the service close what is left of it.
    Release,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Step::Prepare => "prepare",
            Step::Switch => "switch",
            Step::Release => "release",
        })
    }
}

/// Why something did not succeed, and when to try again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Setback {
    /// In words, without the value. Cut to the protocol's bound.
    pub text: String,
    /// Not before this has passed. The driver chooses it, with jitter.
    pub retry_after: Duration,
}

/// How a step did not succeed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum StepFailure {
    /// The service refuses the version, or cannot do the step with it.
    Refused(Setback),
    /// Something else is in the way for now, such as a database that starts. It does not speak against the version.
    NotReady(Setback),
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// A desired state arrived: over the bus, doubled, late or in any order.
    State(SecretState),
    /// A Sync request is about to be sent; `at` was read from the clock before sending.
    SyncSent {
        /// Its nonce.
        nonce: Nonce,
        /// The send time: leases count from here.
        at: Instant,
    },
    /// A Sync got no answer.
    SyncFailed {
        /// Which.
        nonce: Nonce,
    },
    /// The leader's answer to a Sync.
    Grant {
        /// Which request it answers.
        nonce: Nonce,
        /// What it says of this secret.
        grant: SecretGrant,
    },
    /// The record was read from the store, linearizably.
    StoreRead {
        /// The clock before the read was sent: self-leases count from here.
        sent: Instant,
        /// The desired state the record describes.
        state: SecretState,
    },
    /// A value was fetched and is in memory.
    Loaded {
        /// Which.
        version: Version,
    },
    /// A value could not be fetched.
    LoadFailed {
        /// Which.
        version: Version,
        /// Why.
        setback: Setback,
    },
    /// The driver is about to run a step. It must not when this is rejected.
    Begin {
        /// Which.
        step: Step,
        /// With which version.
        version: Version,
    },
    /// The step that was begun is over.
    Finished {
        /// Which.
        step: Step,
        /// With which version.
        version: Version,
        /// How.
        result: Result<(), StepFailure>,
    },
    /// The release that was begun takes longer than it should. It goes on.
    ReleaseOverdue {
        /// Of which version.
        version: Version,
        /// In words, without the value.
        text: String,
    },
    /// The versions that live guards still point to, read after the runtime last acted on this holder.
    Held(BTreeSet<Version>),
    /// The service saw logins with this version fail.
    AuthFailure {
        /// Which.
        version: Version,
        /// How often.
        count: u64,
    },
}

/// A side effect that is outstanding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Command {
    /// Fetch a version's value; its lease was obtained before. Answer with `Loaded` or `LoadFailed`.
    Load(Version),
    /// Run a step: `Begin`, then, if that is accepted, the work, then `Finished`.
    Run(Step, Version),
    /// Ask the leader: for leases, and whether anything is new.
    Sync,
    /// Read the record from the store, linearizably: the leader does not answer in time.
    ReadStore,
}

/// An input that changes nothing, by whose fault it is.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Rejection {
    /// A duplicate or a replay: harmless, expected.
    #[error("state of revision {found} is not newer than revision {newest}")]
    Stale {
        /// The newest seen.
        newest: Revision,
        /// What came.
        found: Revision,
    },
    /// The sender breaks the protocol: within a generation no version comes back.
    #[error(
        "state of revision {revision}, generation {generation} goes back to {found:?}, after {newest:?} (generation \
         {newest_generation}) was asked for; expected a higher generation for that"
    )]
    GoesBack {
        /// The state's revision.
        revision: Revision,
        /// The state's generation.
        generation: Generation,
        /// What it wants as current.
        found: Option<Version>,
        /// The newest version asked for so far.
        newest: Option<Version>,
        /// The generation so far.
        newest_generation: Generation,
    },
    /// It is about something else.
    #[error("message about {found}, expected {expected}")]
    OtherSecret {
        /// This holder's secret.
        expected: SecretName,
        /// The message's.
        found: SecretName,
    },
    /// It is about a secret that this instance does not use.
    #[error("message about secret {found}, which this instance does not use")]
    UnknownSecret {
        /// The message's.
        found: SecretName,
    },
    /// It is for another incarnation.
    #[error("message for {found}, expected {expected}")]
    OtherInstance {
        /// This instance.
        expected: InstanceKey,
        /// The message's.
        found: InstanceKey,
    },
    /// A reply to nothing that was asked, or to something asked too long ago.
    #[error("reply with nonce {:#x} answers no outstanding Sync", found.0)]
    UnknownNonce {
        /// The reply's.
        found: Nonce,
    },
    /// A later grant has overtaken it.
    #[error("grant {found} is not newer than grant {newest}")]
    StaleGrant {
        /// The newest seen.
        newest: LeaseSequence,
        /// What came.
        found: LeaseSequence,
    },
    /// The reply took longer than the leases it carries.
    #[error("grant {found} was over before it arrived")]
    LateGrant {
        /// The grant.
        found: LeaseSequence,
    },
    /// The driver wants to begin, or has brought, what is no longer asked for.
    #[error("{what} of {version:?} is not asked for (any more)")]
    NotOwed {
        /// What.
        what: &'static str,
        /// Of which version.
        version: Version,
    },
    /// The driver ends what it did not begin.
    #[error("{step} of {version:?} was not begun")]
    NotBegun {
        /// Which step.
        step: Step,
        /// With which version.
        version: Version,
    },
}
