//! Takes up what earlier leaders have left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use rotacast_clock as clock;
use rotacast_protocol::SecretName;
use rotacast_protocol::coordinator::{Coordinator, Input};
use rotacast_protocol::message::Registration;
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::status::SecretStatus;
use rotacast_store::Cursor;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use super::super::directory::{MAX_SECRETS, TaskHandle};
use super::super::secret_task::{MAILBOX, SecretTask};
use super::roster::registered;
use super::{Term, send};

impl Term {
    /// A linearizable read of all records: what earlier leaders have left. Tasks begin in this order: secrets that rotate
    /// first. The secrets whose record knows versions already.
    pub(super) async fn take_records_over(&self) -> anyhow::Result<BTreeSet<SecretName>> {
        let entries = self.environment.tree.load_records().await.context("reading the rotation records")?;
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries {
            let record =
                SecretRecord::decode(&entry.bytes).with_context(|| format!("the record of {}", entry.secret))?;
            records.push((record, entry.cursor));
        }
        records.sort_by_key(|(record, _)| !record.is_rotating());
        let count = records.len();
        let mut known = BTreeSet::new();
        for (record, cursor) in records {
            let secret = record.secret.clone();
            if !record.versions.is_empty() {
                known.insert(secret.clone());
            }
            if self.has_room_for(&secret) {
                self.start_task(secret, Some((record, cursor))).await;
            }
        }
        for secret in self.environment.settings.configured() {
            if self.secrets.get(&secret).is_none() && self.has_room_for(&secret) {
                self.start_task(secret, None).await;
            }
        }
        info!(records = count, epoch = %self.tenure.epoch, "took the rotation records over");
        Ok(known)
    }

    pub(super) fn has_room_for(&self, secret: &SecretName) -> bool {
        let room = self.secrets.len() < MAX_SECRETS;
        if !room {
            error!(%secret, "not served: one broadcaster serves at most {MAX_SECRETS} secrets");
        }
        room
    }

    /// Starts a secret's task, with the record that was read in this term if there is one.
    pub(super) async fn start_task(&self, secret: SecretName, stored: Option<(SecretRecord, Cursor)>) -> TaskHandle {
        let settings = self.environment.settings.of(&secret);
        let (record, cursor) = match stored {
            Some((record, cursor)) => (record, Some(cursor)),
            None => (SecretRecord::new(secret.clone(), self.tenure.epoch, Timing::of(&settings.policy)), None),
        };
        let coordinator = Coordinator::take_over(record, settings.policy.clone(), self.tenure);
        let (mail, mailbox) = mpsc::channel(MAILBOX);
        let status = SecretStatus::of(&coordinator, settings.shown(coordinator.record()), clock::now());
        let (status_sender, status) = watch::channel(Arc::new(status));
        let task = SecretTask::new(
            self.environment.clone(),
            settings,
            coordinator,
            cursor,
            mailbox,
            self.leadership.clone(),
            self.setback.clone(),
            self.turns.clone(),
            status_sender,
            self.secrets.clone(),
            self.over.clone(),
        );
        let (name, turn) = (secret.clone(), self.turns.beginning());
        self.tasks().spawn(async move { (name, task.run(turn).await) });
        let handle = TaskHandle { mail, status };
        // First the task can be found, then the roster is read: whoever registers in between is told to it at least once.
        self.secrets.insert(secret.clone(), handle.clone());
        // Everyone in the roster who uses it is a member from the start.
        let members: Vec<Registration> =
            self.roster().values().filter(|registration| registration.secrets.contains(&secret)).cloned().collect();
        for registration in members {
            send(&handle, registered(&registration, false)).await;
        }
        if self.roster_read.load(Ordering::Acquire) {
            send(&handle, Input::RosterRead).await;
        }
        handle
    }
}
