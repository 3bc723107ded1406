//! The tasks of the term in force, by secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use rotacast_protocol::SecretName;
use rotacast_protocol::status::SecretStatus;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::heard::Heard;
use super::mail::{Mail, Question};

/// Changes that a slow listener may lag behind before it has to read everything anew.
const CHANGES_BUFFERED: usize = 1024;

/// How long the leader's own questions wait for one task, which may wait for its store: the others are asked after it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// One secret's task.
#[derive(Clone)]
pub struct TaskHandle {
    /// Its mailbox.
    pub mail: mpsc::Sender<Mail>,
    /// Its newest status.
    pub status: watch::Receiver<Arc<SecretStatus>>,
}

impl TaskHandle {
    /// Asks it; none if it has ended, or does not answer in time.
    pub(super) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.mail.send(Mail::Question(question(reply))).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(ANSWER_PATIENCE, asked).await.ok().flatten()
    }
}

/// The tasks by secret, shared by everything that talks to them.
#[derive(Clone)]
pub struct Secrets {
    known: Arc<RwLock<Known>>,
    changed: broadcast::Sender<SecretName>,
    /// At most this many are served.
    limit: usize,
    heard: Arc<Mutex<Heard>>,
}

/// Under one lock: a secret that changes sides is never on neither.
#[derive(Default)]
struct Known {
    tasks: BTreeMap<SecretName, TaskHandle>,
    /// Why secrets have no task although the store has a record of them. No more than it has records.
    out_of_service: BTreeMap<SecretName, Fault>,
    /// Secrets of the store for which there was no room. No more than the store has.
    left_out: BTreeSet<SecretName>,
}

/// Why a secret is out of service.
#[derive(Clone)]
pub(super) enum Fault {
    /// Its record cannot be read, and why.
    Record(String),
    /// Another client has written or deleted its record while this term lasts, and which of both.
    Overwritten(String),
    /// Its task ended before its term did, and why.
    Task(String),
}

impl Fault {
    pub(super) fn reason(&self) -> &str {
        let (Self::Record(reason) | Self::Overwritten(reason) | Self::Task(reason)) = self;
        reason
    }
}

/// What a secret is in this term.
pub(super) enum Place {
    /// It has a task.
    Served(TaskHandle),
    /// It is out of service, and why.
    OutOfService(Fault),
    /// No record of it was read.
    Unknown,
}

impl Secrets {
    /// None yet, and never more than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { known: Arc::default(), changed: broadcast::Sender::new(CHANGES_BUFFERED), limit, heard: Arc::default() }
    }

    /// When each incarnation was last heard.
    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no code panics while holding this lock")
    }

    /// The most that are served.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

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
            (None, Some(fault)) => Place::OutOfService(fault.clone()),
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
        self.room() > 0
    }

    /// How many more secrets can be served.
    pub(super) fn room(&self) -> usize {
        let known = self.read();
        self.limit.saturating_sub(known.tasks.len() + known.out_of_service.len())
    }

    /// Notes that a secret of the store is not served for want of room.
    pub(super) fn leave_out(&self, secret: SecretName) {
        self.write().left_out.insert(secret);
    }

    /// The secrets of the store that are not served for want of room.
    pub(super) fn left_out(&self) -> BTreeSet<SecretName> {
        self.read().left_out.clone()
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
    pub(super) fn take_out(&self, secret: SecretName, fault: Fault) {
        {
            let mut known = self.write();
            known.tasks.remove(&secret);
            known.out_of_service.insert(secret.clone(), fault);
        }
        self.announce(secret);
    }

    /// Why a secret is out of service, if it is.
    #[must_use]
    pub fn out_of_service(&self, secret: &SecretName) -> Option<String> {
        self.read().out_of_service.get(secret).map(|fault| fault.reason().to_owned())
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
