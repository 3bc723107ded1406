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
    known: Arc<RwLock<Known>>,
    changed: broadcast::Sender<SecretName>,
}

/// Under one lock: a secret that changes sides is never on neither.
#[derive(Default)]
struct Known {
    tasks: BTreeMap<SecretName, TaskHandle>,
    /// Why secrets have no task although the store has a record of them. No more than it has records.
    out_of_service: BTreeMap<SecretName, String>,
}

/// What a secret is in this term.
pub(super) enum Place {
    /// It has a task.
    Served(TaskHandle),
    /// It is out of service, and why.
    OutOfService(String),
    /// No record of it was read.
    Unknown,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { known: Arc::default(), changed: broadcast::Sender::new(CHANGES_BUFFERED) }
    }
}

impl Secrets {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().expect("no code panics while holding this lock")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().expect("no code panics while holding this lock")
    }

    /// Its task, or why it has none.
    pub(super) fn place(&self, secret: &SecretName) -> Place {
        let known = self.read();
        match (known.tasks.get(secret), known.out_of_service.get(secret)) {
            (Some(task), _) => Place::Served(task.clone()),
            (None, Some(reason)) => Place::OutOfService(reason.clone()),
            (None, None) => Place::Unknown,
        }
    }

    /// One secret's task.
    #[must_use]
    pub fn get(&self, secret: &SecretName) -> Option<TaskHandle> {
        self.read().tasks.get(secret).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(SecretName, TaskHandle)> {
        self.read().tasks.iter().map(|(secret, task)| (secret.clone(), task.clone())).collect()
    }

    /// The names of secrets whose status has changed.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<SecretName> {
        self.changed.subscribe()
    }

    /// Whether one more secret can be served.
    pub(super) fn has_room(&self) -> bool {
        let known = self.read();
        known.tasks.len() + known.out_of_service.len() < MAX_SECRETS
    }

    pub(super) fn insert(&self, secret: SecretName, task: TaskHandle) {
        {
            let mut known = self.write();
            known.out_of_service.remove(&secret);
            known.tasks.insert(secret.clone(), task);
        }
        self.announce(secret);
    }

    /// Takes a secret out of service: it has no task until it is inserted again.
    pub(super) fn take_out(&self, secret: SecretName, reason: String) {
        {
            let mut known = self.write();
            known.tasks.remove(&secret);
            known.out_of_service.insert(secret.clone(), reason);
        }
        self.announce(secret);
    }

    /// Why a secret is out of service, if it is.
    #[must_use]
    pub fn out_of_service(&self, secret: &SecretName) -> Option<String> {
        self.read().out_of_service.get(secret).cloned()
    }

    /// The secrets that are out of service.
    pub(super) fn unserved_names(&self) -> Vec<SecretName> {
        self.read().out_of_service.keys().cloned().collect()
    }

    pub(super) fn announce(&self, secret: SecretName) {
        // It is no error if no listener is there.
        drop(self.changed.send(secret));
    }

    pub(super) fn clear(&self) {
        *self.write() = Known::default();
    }
}
