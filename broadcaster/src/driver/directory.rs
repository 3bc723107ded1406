//! The tasks of the term in force, by secret.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use rotacast_protocol::SecretName;
use rotacast_protocol::status::SecretStatus;
use tokio::sync::{broadcast, mpsc, watch};

use super::mail::Mail;

/// Most secrets of one broadcaster. Bounds tasks and memory; a secret beyond it is refused with a log line.
pub(super) const MAX_SECRETS: usize = 10_000;

/// Changes a slow listener may lag behind before it is told to read everything anew.
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
    changed: broadcast::Sender<SecretName>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { tasks: Arc::default(), changed: broadcast::Sender::new(CHANGES_BUFFERED) }
    }
}

impl Secrets {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<SecretName, TaskHandle>> {
        self.tasks.read().expect("nobody panics while holding this lock")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<SecretName, TaskHandle>> {
        self.tasks.write().expect("nobody panics while holding this lock")
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

    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    pub(super) fn insert(&self, secret: SecretName, task: TaskHandle) {
        self.write().insert(secret.clone(), task);
        self.announce(secret);
    }

    pub(super) fn announce(&self, secret: SecretName) {
        // Nobody listening is no error.
        drop(self.changed.send(secret));
    }

    pub(super) fn clear(&self) {
        self.write().clear();
    }
}
