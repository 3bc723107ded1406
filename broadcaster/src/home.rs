//! Whether store and bus are this cluster's own.
//!
//! The store says which cluster it belongs to, by a name and an id that the cluster's first broadcaster drew. A
//! broadcaster of another cluster is refused at the start. If it shows while running (the store was replaced, or another
//! cluster's keys were copied over ours), the door is closed: this broadcaster neither leads nor answers from the store
//! until the store is its own again.
//!
//! The bus has the same id in a claim. A bus that another cluster claims under the same name is refused at the start too,
//! and is a finding while running; it closes no door, since safety never rests on the bus, and since one cluster must not
//! stop the rotations of another.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rotacast_bus::{BusError, CLAIM};
use rotacast_clock as clock;
use rotacast_proto::{Envelope, Kind, Level, VerifyingKey, WireMessage as _};
use rotacast_protocol::message::SecretState;
use rotacast_protocol::{ClusterId, Revision, SecretName};
use rotacast_store::StoreError;
use tokio::sync::watch;

use crate::driver::Environment;
use crate::findings::Topic;

/// The subject of what is wrong with whom the store belongs to.
const STORE: &str = "store";
/// A store that was made anew.
const EMPTIED: &str = "emptied store";
/// And the bus.
const BUS: &str = "bus";
/// And of states on it that are none of ours.
const STATES: &str = "states";

/// How long no state of another publisher has been met until that finding is over: a cluster that still publishes does so
/// with each of its rotations, and more often while they last.
const QUIET: Duration = Duration::from_secs(600);

/// What a broadcaster knows of where its store belongs. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Home(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    known: RwLock<Known>,
    /// Why the store is not this cluster's, while it is not.
    closed: watch::Sender<Option<Arc<str>>>,
    /// When a state of another publisher was last met.
    stranger: Mutex<Option<Instant>>,
}

#[derive(Default, Debug)]
struct Known {
    id: Option<ClusterId>,
    keys: Vec<VerifyingKey>,
}

impl Home {
    /// Looks whose the store is, and makes it this cluster's if it is no cluster's.
    ///
    /// # Errors
    /// [`StoreError::Foreign`], with a standing finding and a closed door; what the store says, which changes neither.
    pub(crate) async fn look(&self, environment: &Environment) -> Result<(), StoreError> {
        let Environment { tree, cluster, key, findings, .. } = environment;
        let known = match self.id() {
            // A store that was made anew gets the id that this broadcaster's own key has signed on the bus.
            None if tree.owner().await?.is_none() => {
                let known = id_on_bus(environment).await?;
                if known.is_some() {
                    say_that_it_was_emptied(environment);
                }
                known
            }
            known => known,
        };
        match tree.claim(cluster, known, key.public()).await {
            Ok(owner) => {
                *self.0.known.write().unwrap_or_else(PoisonError::into_inner) =
                    Known { id: Some(owner.id), keys: owner.keys };
                self.0.closed.send_if_modified(|closed| closed.take().is_some());
                findings.clear(Topic::Cluster, STORE);
                Ok(())
            }
            Err(problem @ StoreError::Foreign { .. }) => {
                let text = problem.to_string();
                let fix = "correct `cluster`, `store.prefix` or the store's address, and start this broadcaster anew; \
                           `rotacast doctor` of the other cluster shows its name and id";
                findings.raise(Topic::Cluster, STORE, Level::Error, text.clone(), fix);
                self.0.closed.send_if_modified(|closed| closed.replace(text.into()).is_none());
                Err(problem)
            }
            // One broken key ends nothing for a broadcaster that knows where it belongs.
            Err(problem @ StoreError::Corrupt { .. }) if known.is_some() => {
                let fix = "delete that key: it is written again within a minute";
                findings.raise(Topic::Cluster, STORE, Level::Warning, problem.to_string(), fix);
                Ok(())
            }
            Err(problem) => Err(problem),
        }
    }

    /// The cluster's id, once the store has said it.
    #[must_use]
    pub fn id(&self) -> Option<ClusterId> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).id
    }

    /// Why the store is not this cluster's, if it is not.
    #[must_use]
    pub fn closed(&self) -> Option<Arc<str>> {
        self.0.closed.borrow().clone()
    }

    /// Waits until the store is found to be another cluster's.
    pub(crate) async fn until_closed(&self) -> Arc<str> {
        let mut closed = self.0.closed.subscribe();
        let problem = closed.wait_for(Option::is_some).await.ok().and_then(|problem| problem.clone());
        match problem {
            Some(problem) => problem,
            // The sender lives as long as this handle.
            None => std::future::pending().await,
        }
    }

    /// Whose the bus is, for a store that is no cluster's yet. The problem, if another key than this broadcaster's has claimed
    /// the bus: a broadcaster that is refused leaves the store as it found it.
    ///
    /// # Errors
    /// What the bus says.
    pub(crate) async fn look_at_bus_first(&self, environment: &Environment) -> Result<Option<String>, BusError> {
        let Some(claim) = environment.bus.read_claim().await? else { return Ok(None) };
        Ok(id_in(&claim, environment).is_none().then(|| {
            format!(
                "{}, and the store belongs to none yet: {NOT_OUR_BUS}; if only the store was made anew, start the replica \
                 with that key first: it gives the store its id back",
                publishes_here(environment, &claim)
            )
        }))
    }

    /// Looks whose the bus is, and claims it for this cluster if it is no cluster's. The problem, if it is another one's.
    ///
    /// # Errors
    /// What the bus says.
    pub(crate) async fn look_at_bus(&self, environment: &Environment) -> Result<Option<String>, BusError> {
        self.forget_strangers(environment);
        let Some(id) = self.id() else { return Ok(None) };
        let Environment { bus, cluster, key, findings, .. } = environment;
        let ours = id.to_string();
        let mut found = bus.read_claim().await?;
        if found.is_none() {
            let payload = ours.clone().into_bytes().into();
            let claim = Envelope::sign(key, Kind::ClusterClaim, cluster, CLAIM, ours.as_str(), clock::wall(), payload);
            bus.publish_claim(&claim).await?;
            // Of two clusters that start at once, the later claim stays.
            found = bus.read_claim().await?;
        }
        let Some(found) = found.filter(|found| *found.payload != *ours.as_bytes()) else {
            findings.clear(Topic::Cluster, BUS);
            return Ok(None);
        };
        let text = format!("{}; this broadcaster's cluster has id {id}", publishes_here(environment, &found));
        findings.raise(Topic::Cluster, BUS, Level::Error, text.clone(), NOT_OUR_BUS);
        Ok(Some(format!("{text}: {NOT_OUR_BUS}")))
    }

    /// Notes that the bus had a state that no broadcaster of this cluster signed. It does not count.
    pub(crate) fn met_stranger(&self, environment: &Environment, secret: &SecretName, state: &Envelope) {
        *self.0.stranger.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let text = format!(
            "the bus had a state of {secret} that is none of this cluster's (key id {}): another broadcaster publishes under \
             the name {}. It did not count, and was overwritten",
            state.key_id, environment.cluster
        );
        let fix = "give one of the two clusters another `cluster`, or a bus of its own; if no other cluster uses the bus, see \
                   who else may write to it";
        environment.findings.raise(Topic::Cluster, STATES, Level::Warning, text, fix);
    }

    fn forget_strangers(&self, environment: &Environment) {
        let mut stranger = self.0.stranger.lock().unwrap_or_else(PoisonError::into_inner);
        if stranger.take_if(|met| met.elapsed() > QUIET).is_some() {
            environment.findings.clear(Topic::Cluster, STATES);
        }
    }

    /// Whether a broadcaster of this cluster signed a state that is newer than `revision`. What travels beside the signed part
    /// may say anything.
    pub(crate) fn is_newer(&self, environment: &Environment, state: &Envelope, revision: Revision) -> bool {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let ours = |id: &str, _: &str| {
            let all = known.keys.iter().chain(environment.own_keys());
            all.into_iter().find(|key| key.id().as_str() == id)
        };
        SecretState::open(state, &environment.cluster, ours).is_ok_and(|state| state.revision > revision)
    }
}

/// The id in the bus's claim, if this broadcaster's key has signed it.
async fn id_on_bus(environment: &Environment) -> Result<Option<ClusterId>, StoreError> {
    let claim = environment.bus.read_claim().await.map_err(|problem| StoreError::Unreachable {
        endpoint: environment.tree.store().describe(),
        problem: format!("whether its cluster had an id before cannot be seen: {problem}"),
    })?;
    Ok(claim.and_then(|claim| id_in(&claim, environment)))
}

/// An empty store is a cluster's beginning only once. The finding lasts as long as this broadcaster runs: the store looks like any
/// other from now on.
fn say_that_it_was_emptied(environment: &Environment) {
    let text = format!(
        "{} was empty when this broadcaster started, and the bus says that the cluster exists: its secrets, with who uses them \
         and what is still to be retired, are lost unless a backup is restored",
        environment.tree.store().describe()
    );
    let fix = "if the store was not made anew on purpose: stop every broadcaster, restore the store from its backup, and start \
               them again; services go on with what they have, for as long as their policies allow";
    environment.findings.raise(Topic::Cluster, EMPTIED, Level::Error, text, fix);
}

/// The id in a claim that one of this broadcaster's keys has signed.
fn id_in(claim: &Envelope, environment: &Environment) -> Option<ClusterId> {
    let key = |id: &str| environment.own_keys().find(|key| key.id().as_str() == id);
    let payload = claim.verify(Kind::ClusterClaim, &environment.cluster, key).ok()?;
    std::str::from_utf8(payload).ok()?.parse().ok()
}

fn publishes_here(environment: &Environment, claim: &Envelope) -> String {
    let Environment { bus, cluster, .. } = environment;
    let id: String = String::from_utf8_lossy(&claim.payload).chars().take(ID_CHARS).collect();
    let key = &claim.key_id;
    format!("{}: another cluster publishes here under the same name, {cluster} (id {id}, key id {key})", bus.describe())
}

/// Of a claim's id, which another program may have written.
const ID_CHARS: usize = 32;

/// How to part two clusters on one bus.
const NOT_OUR_BUS: &str = "give one of the two another `cluster`, or a bus of its own; if no other cluster uses this bus (the \
                           store and the keys of this one were made anew), delete its stream or topic of states: it is \
                           created again";
