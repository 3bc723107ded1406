//! Tells each task what roster and versions say, without one task that takes nothing in holding up the others.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rotacast_proto::Level;
use rotacast_protocol::SecretName;
use rotacast_protocol::coordinator::Input;
use rotacast_protocol::message::Registration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::super::directory::{Place, TaskHandle};
use super::super::mail::Mail;
use super::super::secret_task::MAILBOX;
use super::super::{backoff, pause};
use super::Term;
use super::roster::registered;
use crate::findings::Topic;

/// How long a full mailbox holds up what comes for other tasks. A task that works empties it in less; the listing of a large
/// roster is to wait for it, and not to be sent twice.
const ROOM_PATIENCE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_millis(500) };

const MEND: &str = "see the log for what its task waits for: the store or the audit log. If it names neither, restart this \
                    broadcaster and put the log into a bug report";

/// The secrets whose tasks took nothing in. They are told everything anew, once they have room.
#[derive(Default)]
pub(super) struct Behind {
    secrets: Mutex<BTreeMap<SecretName, Missed>>,
    more: Notify,
}

/// How far telling a task anew has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Missed {
    /// Not begun.
    Waits,
    /// Under way.
    UnderWay,
    /// Under way, and it missed more since it began.
    More,
}

impl Behind {
    fn secrets(&self) -> std::sync::MutexGuard<'_, BTreeMap<SecretName, Missed>> {
        self.secrets.lock().expect("no code panics while it holds this lock")
    }

    /// Whether it is behind; what it is not told now is among what it is told later.
    fn misses(&self, secret: &SecretName) -> bool {
        let mut secrets = self.secrets();
        let Some(missed) = secrets.get_mut(secret) else { return false };
        if *missed == Missed::UnderWay {
            *missed = Missed::More;
        }
        true
    }

    fn falls(&self, secret: &SecretName) {
        self.secrets().entry(secret.clone()).or_insert(Missed::Waits);
        self.more.notify_one();
    }

    /// The secrets for which telling anew begins.
    fn begin(&self) -> Vec<SecretName> {
        let mut secrets = self.secrets();
        let waiting = secrets.iter_mut().filter(|(_, missed)| **missed == Missed::Waits);
        waiting
            .map(|(secret, missed)| {
                *missed = Missed::UnderWay;
                secret.clone()
            })
            .collect()
    }

    /// Whether it has caught up: it was told everything, and missed nothing meanwhile.
    fn caught_up(&self, secret: &SecretName) -> bool {
        let mut secrets = self.secrets();
        match secrets.get_mut(secret) {
            Some(missed @ Missed::More) => {
                *missed = Missed::UnderWay;
                false
            }
            _ => {
                secrets.remove(secret);
                true
            }
        }
    }
}

impl Term {
    /// Tells a task something that roster or versions say. One whose mailbox stays full is told everything anew once it has
    /// room, so what it is told is always in the term's roster or in the store before.
    pub(super) async fn tell(&self, secret: &SecretName, task: &TaskHandle, mail: Mail) {
        if self.behind.misses(secret) {
            return;
        }
        let sent = tokio::time::timeout(ROOM_PATIENCE, task.mail.send(mail)).await;
        match sent {
            Ok(Ok(())) => {}
            // The next one is told everything when it begins.
            Ok(Err(_)) => debug!(%secret, "a task is gone"),
            Err(_) => {
                let text = format!(
                    "its task takes nothing in, and {MAILBOX} events wait for it: its instances get no leases from this \
                     broadcaster, and it does not rotate"
                );
                self.environment.findings.raise(Topic::Unresponsive, secret.as_str(), Level::Error, text, MEND);
                self.behind.falls(secret);
            }
        }
    }

    pub(super) async fn tell_input(&self, secret: &SecretName, task: &TaskHandle, input: Input) {
        self.tell(secret, task, Mail::Input(Box::new(input))).await;
    }

    /// Tells the tasks that were behind what they missed.
    pub(super) async fn tell_anew(self: Arc<Self>) -> anyhow::Result<()> {
        let mut under_way = JoinSet::new();
        loop {
            for secret in self.behind.begin() {
                under_way.spawn(Arc::clone(&self).catch_up(secret));
            }
            tokio::select! {
                () = self.behind.more.notified() => {}
                Some(ended) = under_way.join_next() => ended?,
            }
        }
    }

    async fn catch_up(self: Arc<Self>, secret: SecretName) {
        loop {
            // One without a task is told everything when it gets one.
            if let Place::Served(task) = self.secrets.place(&secret) {
                self.tell_all(&secret, &task).await;
            }
            if self.behind.caught_up(&secret) {
                self.environment.findings.clear(Topic::Unresponsive, secret.as_str());
                return;
            }
        }
    }

    /// Waits for room as long as it takes, or until the task ends.
    async fn tell_all(&self, secret: &SecretName, task: &TaskHandle) {
        let send = async |input: Input| task.mail.send(Mail::Input(Box::new(input))).await.is_ok();
        for member in self.members_of(secret) {
            if !send(registered(&member, false)).await {
                return;
            }
        }
        if self.roster_read.load(Ordering::Acquire) && !send(Input::RosterRead).await {
            return;
        }
        let mut pauses = backoff();
        while !task.mail.is_closed() {
            let begun = !task.status.borrow().versions.is_empty();
            match self.unseen_versions(secret, begun).await {
                Ok(versions) => {
                    for version in versions {
                        send(Input::VersionSeen { version }).await;
                    }
                    return;
                }
                Err(problem) => warn!(%secret, %problem, "cannot list the versions that it missed; trying again"),
            }
            pause(&mut pauses, &self.over).await;
        }
    }

    /// Every incarnation in the roster that uses a secret.
    pub(super) fn members_of(&self, secret: &SecretName) -> Vec<Registration> {
        self.roster().values().filter(|registration| registration.secrets.contains(secret)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_while_it_is_told_anew_is_told_once_more() {
        let (behind, secret) = (Behind::default(), "payments/db".parse::<SecretName>().unwrap());
        assert!(!behind.misses(&secret));
        behind.falls(&secret);
        assert!(behind.misses(&secret));
        assert_eq!(behind.begin(), std::slice::from_ref(&secret));
        assert!(behind.begin().is_empty());
        assert!(behind.misses(&secret));
        assert!(!behind.caught_up(&secret), "it missed something while it was told");
        assert!(behind.caught_up(&secret));
        assert!(!behind.misses(&secret));
    }
}
