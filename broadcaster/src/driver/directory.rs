//! The tasks of the term in force, by secret.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use rotacast_protocol::SecretName;
use rotacast_protocol::status::SecretStatus;
use tokio::sync::{broadcast, mpsc, watch};

use super::mail::Mail;

/// Most secrets of one broadcaster: as many as were measured. Bounds tasks and memory. `put` refuses the first version of
/// one more before anything is written; one that another program writes is not served, which is a finding.
pub(super) const MAX_SECRETS: usize = 10_000;

/// Changes that a slow listener may lag behind before it has to read everything anew.
const CHANGES_BUFFERED: usize = 1024;

/// One secret's task.
#[derive(Clone)]
pub struct TaskHandle {
    /// Its mailbox.
    pub mail: mpsc::Sender<Mail>,
    /// Its newest status.
    pub status: watch::Receiver<Arc<SecretStatus>>,
}

/// The tasks by secret, shared by everything that talks to them.
#[derive(Clone)]
pub struct Secrets {
    tasks: Arc<RwLock<BTreeMap<SecretName, TaskHandle>>>,
    /// Why secrets have no task although the store has a record of them. No more than it has records.
    out_of_service: Arc<RwLock<BTreeMap<SecretName, String>>>,
    changed: broadcast::Sender<SecretName>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            tasks: Arc::default(),
            out_of_service: Arc::default(),
            changed: broadcast::Sender::new(CHANGES_BUFFERED),
        }
    }
}

impl Secrets {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<SecretName, TaskHandle>> {
        self.tasks.read().expect("no code panics while it holds this lock")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<SecretName, TaskHandle>> {
        self.tasks.write().expect("no code panics while it holds this lock")
    }

    /// One secret's task.
    #[must_use]
    pub fn get(&self, secret: &SecretName) -> Option<TaskHandle> {
        self.read().get(secret).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(SecretName, TaskHandle)> {
        self.read().iter().map(|(secret, task)| (secret.clone(), task.clone())).collect()
    }

    /// The names of secrets whose status has changed.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<SecretName> {
        self.changed.subscribe()
    }

    /// Whether one more secret can be served.
    pub(super) fn has_room(&self) -> bool {
        self.read().len() + self.unserved().len() < MAX_SECRETS
    }

    pub(super) fn insert(&self, secret: SecretName, task: TaskHandle) {
        self.unserved_mut().remove(&secret);
        self.write().insert(secret.clone(), task);
        self.announce(secret);
    }

    /// Takes a secret out of service: it has no task until it is inserted again.
    pub(super) fn take_out(&self, secret: SecretName, reason: String) {
        self.write().remove(&secret);
        self.unserved_mut().insert(secret.clone(), reason);
        self.announce(secret);
    }

    /// Why a secret is out of service, if it is.
    #[must_use]
    pub fn out_of_service(&self, secret: &SecretName) -> Option<String> {
        self.unserved().get(secret).cloned()
    }

    /// The secrets that are out of service.
    pub(super) fn unserved_names(&self) -> Vec<SecretName> {
        self.unserved().keys().cloned().collect()
    }

    fn unserved(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<SecretName, String>> {
        self.out_of_service.read().expect("no code panics while holding this lock")
    }

    fn unserved_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<SecretName, String>> {
        self.out_of_service.write().expect("no code panics while holding this lock")
    }

    pub(super) fn announce(&self, secret: SecretName) {
        // It is no error if no listener is there.
        drop(self.changed.send(secret));
    }

    pub(super) fn clear(&self) {
        self.write().clear();
        self.unserved_mut().clear();
    }
}
