//! The state of a small world.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use rotacast_holder::Instance;
use rotacast_protocol::challenge::Challenged;
use rotacast_protocol::machine::{Machine, SaveId};
use rotacast_protocol::message::{SecretState, SyncReply, SyncRequest};
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Challenge, Epoch, InstanceKey, Instant, Nonce, Policy, SecretName, Version};

use super::search::Reached;
use crate::clock::{Clock, MS, ms};
use crate::mutant::Mutant;

/// How long the leader's key lives without a renewal.
pub(super) const LOCK: u64 = 900 * MS;

/// How often each kind of event may happen: the bounds of a small world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Its name.
    pub name: &'static str,
    /// Instances from the beginning.
    pub running: usize,
    /// Of them, those that reach the store and no broadcaster.
    pub storebound: usize,
    /// Instances that may join.
    pub joiners: usize,
    /// A broadcaster may be stopped, at any moment, in the middle of a save too, so often.
    pub stops: u8,
    /// A broadcaster may be killed so often.
    pub kills: u8,
    /// Messages may be lost, late or doubled, or reach the wrong broadcaster, so often.
    pub faults: u8,
    /// Uses may begin so often, besides the use of what is returned at the moment of judgement.
    pub uses: u8,
    /// An operator may roll back so often.
    pub rollbacks: u8,
    /// Newer versions may be written so often, besides the one that is rotated to.
    pub versions: u8,
    /// An instance may be killed and start anew so often.
    pub restarts: u8,
    /// An instance may be cut off from everything for good so often.
    pub cuts: u8,
    /// The store may be restored so often.
    pub restores: u8,
    /// Most states that an ordinary run looks at; none: all there are.
    pub most: Option<usize>,
    /// Time passes so long.
    pub horizon: u64,
    /// Whether clocks drift, to the bound, against each other.
    pub drift: bool,
}

/// The sender of a Sync, what it sent, and what its next one has to echo.
pub(super) type Asker = (usize, Rc<SyncRequest>, Challenge);

/// A broadcaster with a term.
#[derive(Clone, Hash)]
pub(super) struct Node {
    pub(super) machine: Rc<Machine<Asker>>,
    pub(super) leads_until: Instant,
    pub(super) epoch: Epoch,
    pub(super) cursor: u64,
    pub(super) saving: Option<(SaveId, Rc<SecretRecord>)>,
    /// What each incarnation has to echo.
    pub(super) challenged: BTreeMap<InstanceKey, Challenged>,
    /// How far it has heard the registrations.
    pub(super) registrations_heard: usize,
}

/// An incarnation.
#[derive(Clone, Hash)]
pub(super) struct Life {
    pub(super) rules: Rc<Instance>,
    pub(super) guards: Vec<(Version, Instant)>,
    pub(super) syncing: Option<(Nonce, u64)>,
    pub(super) cut: bool,
    pub(super) storebound: bool,
    pub(super) registered: bool,
    /// The version that it served last.
    pub(super) served: Option<Version>,
    /// The version that it has served since before the store was restored.
    pub(super) kept: Option<Version>,
}

/// A message, save or command under way.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
pub(super) enum Wire {
    Sync(usize, Rc<SyncRequest>),
    Reply(usize, Rc<SyncReply>),
    State(usize, Rc<SecretState>),
    Read(usize, Instant, Rc<SecretState>),
}

/// A small world.
#[derive(Clone, Hash)]
pub struct Model {
    pub(super) now: u64,
    pub(super) nodes: [Option<Node>; 2],
    pub(super) stopped: [bool; 2],
    /// The next save of this broadcaster is where it is stopped.
    pub(super) stops_in_save: Option<usize>,
    pub(super) stored: Option<(Rc<SecretRecord>, u64)>,
    pub(super) lock: Option<(usize, Epoch, u64)>,
    pub(super) epoch: u64,
    pub(super) lives: Vec<Life>,
    /// Messages under way. What becomes of a message that was just sent is decided at once. A held one may arrive at
    /// any later moment.
    pub(super) wire: Vec<Wire>,
    pub(super) held: Vec<Wire>,
    /// The roster, in the store.
    pub(super) roster: BTreeSet<InstanceKey>,
    /// On the bus.
    pub(super) registrations: Vec<InstanceKey>,
    pub(super) versions: u64,
    pub(super) audit: BTreeSet<Version>,
    pub(super) disabled: BTreeSet<Version>,
    pub(super) nonce: u64,
    /// The Syncs that had an effect and may arrive again.
    pub(super) granted: BTreeSet<Nonce>,
    pub(super) left: Bounds,
    /// What a backup may have.
    pub(super) earlier: Vec<(Rc<SecretRecord>, BTreeSet<InstanceKey>)>,
    /// The store was restored; and no leader has said so yet.
    pub(super) restored: bool,
    pub(super) unnoticed: bool,
    /// Versions whose values the store has lost.
    pub(super) lost: BTreeSet<Version>,
    /// Versions whose retire began after the store was restored.
    pub(super) decided: BTreeSet<Version>,
    pub(super) violation: Option<String>,
}

/// What all states of a world have in common.
pub(super) struct Fixed {
    pub(super) secret: SecretName,
    pub(super) policy: Policy,
    pub(super) leaders: [Clock; 2],
    pub(super) instances: Clock,
    pub(super) mutant: Option<Mutant>,
    pub(super) reached: Reached,
}

impl Fixed {
    pub(super) fn new(bounds: &Bounds, mutant: Option<Mutant>) -> Self {
        let drift = if bounds.drift { 10_000 } else { 0 };
        let policy = Policy {
            lease_idle: ms(1000),
            lease_rotating: ms(400),
            self_lease: ms(300),
            max_use: ms(100),
            sync_idle: ms(500),
            sync_rotating: ms(200),
            min_overlap: Duration::ZERO,
            failure_budget: 10,
            ..crate::bench::managed()
        };
        let clock = |origin: u64, drift| Clock::new(origin, drift);
        Self {
            secret: crate::bench::secret(),
            policy,
            // Fast leaders, slow instances: the waits are as short and the leases as long as they can be.
            leaders: [clock(5_000 * MS, drift), clock(900_000 * MS, drift)],
            instances: clock(77_000 * MS, -drift),
            mutant,
            reached: Reached::default(),
        }
    }
}

impl Model {
    /// The hash by which the state is known.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut state = DefaultHasher::new();
        self.hash(&mut state);
        state.finish()
    }

    /// Whether an instance may be using a version now, or could begin to at this moment.
    pub(super) fn user(&self, fixed: &Fixed, version: Version) -> Option<usize> {
        let now = fixed.instances.at(self.now);
        (0..self.lives.len()).find(|index| {
            let life = &self.lives[*index];
            let holder = life.rules.holder(&fixed.secret);
            let active = holder.and_then(|holder| holder.active(now)).is_some_and(|(active, _)| active == version);
            let misled = self.restored && life.kept != Some(version) && !self.decided.contains(&version);
            !misled && (active || life.guards.iter().any(|(used, end)| *used == version && *end > now))
        })
    }

    pub(super) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}
