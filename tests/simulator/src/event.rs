//! The events of the world, and the messages that reach a broadcaster.

use std::rc::Rc;

use rotacast_protocol::coordinator::{Command, CommandKind, Input, Order};
use rotacast_protocol::machine::{CommandId, SaveId};
use rotacast_protocol::message::{InstanceReport, Registration, SecretState, SyncRequest};
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Epoch, Instant, OperatorName, Revision};

use crate::fault::Act;
use crate::forger::Forgery;
use crate::instance::ToInstance;
use crate::outside::{Roster, Stored};

/// An event, and its moment.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message reaches a broadcaster.
    ToLeader(usize, Box<Mail>),
    /// A message reaches one incarnation of an instance.
    ToInstance(usize, u64, Box<ToInstance>),
    /// A broadcaster asks for the leader's key, or renews it.
    Campaign { node: usize, life: u64 },
    /// That request reaches the store.
    CampaignArrives {
        node: usize,
        life: u64,
        /// The term to renew; none: a new one.
        epoch: Option<Epoch>,
        /// By its clock.
        sent: Instant,
    },
    /// A save reaches the store.
    SaveArrives {
        node: usize,
        /// Its term.
        epoch: Epoch,
        id: SaveId,
        bytes: Rc<Vec<u8>>,
        record: Rc<SecretRecord>,
        /// What it replaces.
        cursor: u64,
    },
    /// A command reaches the system that carries it out.
    EffectArrives {
        node: usize,
        /// Its term.
        epoch: Epoch,
        id: CommandId,
        command: Command,
        /// The desired state at that time.
        state: Box<SecretState>,
        /// The retirement it is about.
        unwanted_since: Option<Revision>,
        /// An operator has given the version up.
        given_up: bool,
        /// By the sender's clock.
        sent: Instant,
    },
    /// A term asks the store for the roster.
    RosterListed {
        node: usize,
        /// Its term.
        epoch: Epoch,
    },
    /// A term writes into the roster, at the store.
    RosterWritten {
        node: usize,
        /// Its term.
        epoch: Epoch,
        /// Each entry, and whether its registration came after the takeover.
        entries: Vec<(Registration, bool)>,
    },
    /// A registration, at the bus; who waits for it.
    Append(Registration, Option<(usize, u64)>),
    /// A linearizable read, at the store.
    StoreRead {
        index: usize,
        life: u64,
        /// The number of the read.
        id: u64,
        /// By its clock.
        sent: Instant,
    },
    /// Chaos interferes.
    Chaos,
    /// A scripted fault strikes.
    Scripted(Act),
    /// A service uses what it has.
    Use(usize),
    /// The faults stop.
    Heal,
    /// An operator looks at the status.
    Look,
}

/// A message to a broadcaster.
#[derive(Clone, Debug)]
pub enum Mail {
    /// The store's answer to a campaign.
    Leads {
        /// The incarnation that it is for.
        life: u64,
        /// The term.
        epoch: Epoch,
        /// Until when.
        valid_until: Instant,
        /// The record, read after winning.
        stored: Option<Stored>,
        /// It led already.
        renewed: bool,
        /// The store was restored, or is another one.
        went_back: bool,
    },
    /// The store's answer to a save; none: no answer in time.
    Saved {
        /// Of which term.
        epoch: Epoch,
        /// Which save.
        id: SaveId,
        /// Whether the save was done.
        outcome: Option<bool>,
    },
    /// How a command ended.
    EffectDone {
        /// Of which term.
        epoch: Epoch,
        id: CommandId,
        /// What it led to.
        result: Result<Vec<Input>, ()>,
    },
    /// A Sync.
    Sync {
        /// The incarnation that sent it.
        from: (usize, u64),
        request: SyncRequest,
    },
    /// A report, over the bus.
    Report(InstanceReport),
    /// A message that another instance of the service has made.
    Forged(Box<Forgery>),
    /// An operator's order.
    Order {
        /// The operator.
        by: OperatorName,
        /// The order.
        order: Order,
    },
    /// Any other input.
    Input(Input),
    /// There may be registrations on the bus that it has not heard of.
    Registrations,
    /// The roster, as its predecessors left it.
    Listed {
        /// Of which term.
        epoch: Epoch,
        roster: Rc<Roster>,
    },
    /// Entries that are in the roster now.
    Entered {
        /// Of which term.
        epoch: Epoch,
        entries: Vec<(Registration, bool)>,
    },
    /// It is time to look.
    Wake,
}

impl Event {
    /// A few words for the story, if the event matters to it.
    #[must_use]
    pub fn brief(&self) -> Option<String> {
        match self {
            Event::Heal => Some("the faults stop".into()),
            Event::Append(registration, _) => {
                let what = if registration.left { "leaves" } else { "registers" };
                Some(format!("{} {what}", registration.key))
            }
            Event::EffectArrives { node, command, .. } => match command.kind {
                CommandKind::Publish | CommandKind::ReadUsage { .. } => None,
                _ => Some(format!("broadcaster {node}: {:?} is carried out", command.kind)),
            },
            _ => None,
        }
    }
}
