//! One listener of a watch: it follows the tasks while this broadcaster leads, and the store's records while it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rotacast_protocol::status::SecretStatus;
use rotacast_protocol::{Revision, SecretName};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc, watch};

use super::control::out_of_service;
use super::directory::Place;
use super::{Environment, Role, Secrets, follower};
use crate::api::Refusal;

/// How often a broadcaster that does not lead reads the records for a listener: what people watch changes by the second.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Listeners for which a broadcaster that does not lead reads the store. Further ones are refused: the leader tells as
/// many as there are at no cost to the store.
pub(super) const MAX_READING: usize = 64;

type Statuses = mpsc::Sender<Result<SecretStatus, Refusal>>;

/// See the module.
pub(super) struct Listener {
    pub(super) wanted: Option<SecretName>,
    pub(super) environment: Environment,
    pub(super) secrets: Secrets,
    pub(super) role: watch::Receiver<Role>,
    pub(super) reading: Arc<Semaphore>,
    pub(super) statuses: Statuses,
}

/// The listener is gone, or a refusal was the last message.
struct Over;

impl Listener {
    /// Everything as it stands, and then whatever changes, until the listener is gone.
    pub(super) async fn run(mut self) {
        loop {
            let leads = matches!(*self.role.borrow_and_update(), Role::Leader { .. });
            let told = if leads { self.tell_tasks().await } else { self.tell_records().await };
            if told.is_err() {
                return;
            }
        }
    }

    async fn send(&self, status: Result<SecretStatus, Refusal>) -> Result<(), Over> {
        self.statuses.send(status).await.map_err(|_| Over)
    }

    /// Until the role changes.
    async fn tell_tasks(&mut self) -> Result<(), Over> {
        let mut changes = self.secrets.changes();
        let mut names: BTreeSet<SecretName> = self.names();
        loop {
            for name in names.iter().filter(|name| self.wanted.as_ref().is_none_or(|wanted| wanted == *name)) {
                match self.secrets.place(name) {
                    Place::Served(task) => {
                        let status = SecretStatus::clone(&task.status.borrow());
                        self.send(Ok(status)).await?;
                    }
                    // A listener of this one alone would wait without knowing why.
                    Place::OutOfService(fault) if self.wanted.is_some() => {
                        self.send(Err(out_of_service(name, fault.reason()))).await?;
                        return Err(Over);
                    }
                    Place::OutOfService(_) | Place::Unknown => {}
                }
            }
            let change = tokio::select! {
                change = changes.recv() => change,
                () = self.statuses.closed() => return Err(Over),
                changed = self.role.changed() => return changed.map_err(|_| Over),
            };
            names = match change {
                Ok(name) => [name].into(),
                // Fell behind: everything once more.
                Err(RecvError::Lagged(_)) => self.names(),
                Err(RecvError::Closed) => return Err(Over),
            };
        }
    }

    fn names(&self) -> BTreeSet<SecretName> {
        let served = self.secrets.all().into_iter().map(|(name, _)| name);
        served.chain(self.secrets.unserved_names()).collect()
    }

    /// Until the role changes.
    async fn tell_records(&mut self) -> Result<(), Over> {
        let Ok(_place) = Arc::clone(&self.reading).try_acquire_owned() else {
            let problem = format!("{MAX_READING} watches of a broadcaster that does not lead; watch the leader's");
            self.send(Err(Refusal::Busy(problem))).await?;
            return Err(Over);
        };
        let mut told: BTreeMap<SecretName, Revision> = BTreeMap::new();
        loop {
            match follower::statuses(&self.environment, self.wanted.as_ref()).await {
                Ok(statuses) => {
                    for status in statuses {
                        if told.insert(status.secret.clone(), status.revision) != Some(status.revision) {
                            self.send(Ok(status)).await?;
                        }
                    }
                }
                // It may be written yet.
                Err(Refusal::NotFound { .. }) => {}
                Err(refusal) => {
                    self.send(Err(refusal)).await?;
                    return Err(Over);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(READ_EVERY) => {}
                () = self.statuses.closed() => return Err(Over),
                changed = self.role.changed() => return changed.map_err(|_| Over),
            }
        }
    }
}
