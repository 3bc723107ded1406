//! Tells each task what roster and versions say, without one task that takes nothing in holding up the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rotacast_proto::Level;
use rotacast_protocol::coordinator::Input;
use rotacast_protocol::{InstanceKey, SecretName, Version};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::super::directory::{Place, TaskHandle};
use super::super::mail::{Mail, Question};
use super::super::secret_task::{MAILBOX, ValueFault};
use super::super::{backoff, pause};
use super::Term;
use super::roster::Member;
use crate::findings::Topic;

/// How long a full mailbox holds up what comes for other tasks. A task that works empties it in less; the listing of a large
/// roster is to wait for it.
const ROOM_PATIENCE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_millis(500) };

const MEND: &str = "see the log for what its task waits for: the store or the audit log. If it names neither, restart this \
                    broadcaster and put the log into a bug report";

/// Something that roster or versions say of a secret.
pub(super) enum News {
    Registered {
        member: Member,
        /// Heard now, not listed.
        live: bool,
    },
    RosterRead,
    Version(Version),
    /// Versions wait behind numbers that were never written.
    Gap {
        missing: Version,
        found: Version,
    },
    GapClosed,
    /// Something has happened to the stored value of a version.
    Value {
        version: Version,
        fault: ValueFault,
    },
}

impl From<News> for Mail {
    fn from(news: News) -> Self {
        let input = match news {
            News::Registered { member, live } => member.input(live),
            News::RosterRead => Input::RosterRead,
            News::Version(version) => Input::VersionSeen { version },
            News::Gap { missing, found } => return Mail::Gap { missing, found },
            News::GapClosed => return Mail::GapClosed,
            News::Value { version, fault } => return Mail::Value { version, fault },
        };
        Mail::Input(Box::new(input))
    }
}

/// What one task was not told. As bounded as the roster.
#[derive(Default, PartialEq, Eq, Debug)]
struct Missed {
    /// The roster has what is to be told of them.
    instances: BTreeSet<InstanceKey>,
    roster_read: bool,
    /// The store lists them.
    versions: bool,
    /// None: nothing new; none within: it is closed.
    gap: Option<Option<(Version, Version)>>,
    faults: BTreeMap<Version, ValueFault>,
}

impl Missed {
    fn note(&mut self, news: &News) {
        match news {
            News::Registered { member, .. } => drop(self.instances.insert(member.key.clone())),
            News::RosterRead => self.roster_read = true,
            News::Version(_) => self.versions = true,
            News::Gap { missing, found } => self.gap = Some(Some((*missing, *found))),
            News::GapClosed => self.gap = Some(None),
            News::Value { version, fault } => drop(self.faults.insert(*version, *fault)),
        }
    }
}

/// The secrets whose tasks took nothing in. Once a task has room, the term tells it what it missed.
#[derive(Default)]
pub(super) struct Behind {
    secrets: Mutex<BTreeMap<SecretName, Missed>>,
    /// Secrets that have just fallen behind.
    fallen: Mutex<Vec<SecretName>>,
    more: Notify,
}

impl Behind {
    fn secrets(&self) -> std::sync::MutexGuard<'_, BTreeMap<SecretName, Missed>> {
        self.secrets.lock().expect("no code panics while it holds this lock")
    }

    fn fallen(&self) -> std::sync::MutexGuard<'_, Vec<SecretName>> {
        self.fallen.lock().expect("no code panics while it holds this lock")
    }

    /// Whether it is behind: then the term tells it this later, after what it missed before.
    fn misses(&self, secret: &SecretName, news: &News) -> bool {
        self.secrets().get_mut(secret).map(|missed| missed.note(news)).is_some()
    }

    fn falls(&self, secret: &SecretName, news: &News) {
        let mut secrets = self.secrets();
        if !secrets.contains_key(secret) {
            self.fallen().push(secret.clone());
            self.more.notify_one();
        }
        secrets.entry(secret.clone()).or_default().note(news);
    }

    /// What it has missed so far; none: nothing more, and it is behind no longer.
    fn next(&self, secret: &SecretName) -> Option<Missed> {
        let mut secrets = self.secrets();
        let missed = std::mem::take(secrets.get_mut(secret)?);
        if missed == Missed::default() {
            secrets.remove(secret);
            return None;
        }
        Some(missed)
    }
}

impl Term {
    /// Tells a task something that roster or versions say; later, if its mailbox stays full. So the term's roster or the store
    /// has to have it before.
    pub(super) async fn tell(&self, secret: &SecretName, task: &TaskHandle, news: News) {
        if self.behind.misses(secret, &news) {
            return;
        }
        let place = match task.mail.try_reserve() {
            Err(tokio::sync::mpsc::error::TrySendError::Full(())) => {
                tokio::time::timeout(ROOM_PATIENCE, task.mail.reserve()).await.ok()
            }
            place => Some(place.map_err(|_| tokio::sync::mpsc::error::SendError(()))),
        };
        match place {
            Some(Ok(place)) => place.send(news.into()),
            // The term tells the next one everything when it begins.
            Some(Err(_)) => debug!(%secret, "a task is gone"),
            None => {
                self.behind.falls(secret, &news);
                let text = format!(
                    "its task takes nothing in, and {MAILBOX} events wait for it: its instances get no leases from this \
                     broadcaster, and it does not rotate"
                );
                self.environment.findings.raise(Topic::Unresponsive, secret.as_str(), Level::Error, text, MEND);
            }
        }
    }

    /// Tells the tasks that were behind what they missed.
    pub(super) async fn tell_what_was_missed(self: Arc<Self>) -> anyhow::Result<()> {
        let mut under_way = JoinSet::new();
        loop {
            let fallen = std::mem::take(&mut *self.behind.fallen());
            for secret in fallen {
                under_way.spawn(Arc::clone(&self).catch_up(secret));
            }
            tokio::select! {
                () = self.behind.more.notified() => {}
                // Its secret stays behind, and its finding stands.
                Some(Err(problem)) = under_way.join_next() => error!(%problem, "telling a task what it missed broke off"),
            }
        }
    }

    async fn catch_up(self: Arc<Self>, secret: SecretName) {
        let mut pauses = backoff();
        while let Some(missed) = self.behind.next(&secret) {
            // A secret without a task: the term tells the next one everything when it begins.
            let Place::Served(task) = self.secrets.place(&secret) else { continue };
            // In the order in which it was missed: the roster is read after all that it lists.
            for instance in missed.instances {
                // Taken out of the roster meanwhile: no secret waits for it.
                if let Some(member) = self.member(&instance) {
                    give(&task, News::Registered { member, live: false }).await;
                }
            }
            if missed.roster_read {
                give(&task, News::RosterRead).await;
            }
            if missed.versions {
                self.give_versions(&secret, &task, &mut pauses).await;
            }
            match missed.gap {
                Some(Some((missing, found))) => give(&task, News::Gap { missing, found }).await,
                Some(None) => give(&task, News::GapClosed).await,
                None => {}
            }
            for (version, fault) in missed.faults {
                give(&task, News::Value { version, fault }).await;
            }
        }
        self.environment.findings.clear(Topic::Unresponsive, secret.as_str());
    }

    /// Waits for room, and for the store, as long as it takes or until the task ends.
    async fn give_versions(&self, secret: &SecretName, task: &TaskHandle, pauses: &mut backon::ExponentialBackoff) {
        let (reply, answer) = oneshot::channel();
        // The task has ended: the term tells the next one everything.
        if task.mail.send(Mail::Question(Question::LastVersion(reply))).await.is_err() {
            return;
        }
        let Ok(last) = answer.await else { return };
        while !task.mail.is_closed() {
            match self.unseen_versions(secret, last.is_some()).await {
                Ok(versions) => {
                    for version in versions {
                        give(task, News::Version(version)).await;
                    }
                    return;
                }
                Err(problem) => warn!(%secret, %problem, "cannot list the versions that it missed; trying again"),
            }
            pause(pauses, &self.over).await;
        }
    }
}

/// Waits for room as long as it takes, or until the task ends: the term tells the next one everything.
async fn give(task: &TaskHandle, news: News) {
    drop(task.mail.send(news.into()).await);
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::Incarnation;

    use super::*;

    #[test]
    fn what_is_missed_while_a_task_catches_up_is_told_after_that() {
        let (behind, secret) = (Behind::default(), "payments/db".parse::<SecretName>().unwrap());
        let of = |number| InstanceKey::new("api".parse().unwrap(), "pod".parse().unwrap(), Incarnation(number));
        let news = |number| News::Registered { member: Member::new(of(number)), live: true };
        assert!(!behind.misses(&secret, &news(1)));
        behind.falls(&secret, &news(1));
        assert_eq!(*std::mem::take(&mut *behind.fallen()), *std::slice::from_ref(&secret));
        assert!(behind.misses(&secret, &News::RosterRead));
        let missed = Missed { instances: BTreeSet::from([of(1)]), roster_read: true, ..Missed::default() };
        assert_eq!(behind.next(&secret), Some(missed));
        assert!(behind.misses(&secret, &news(2)), "it catches up, and is behind still");
        assert_eq!(behind.next(&secret), Some(Missed { instances: BTreeSet::from([of(2)]), ..Missed::default() }));
        assert_eq!(behind.next(&secret), None);
        assert!(!behind.misses(&secret, &news(3)));
        assert!(behind.fallen().is_empty());
    }
}
