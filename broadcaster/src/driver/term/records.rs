//! Takes up what earlier leaders have left.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rotacast_clock as clock;
use rotacast_proto::Level;
use rotacast_protocol::coordinator::{Coordinator, Tenure};
use rotacast_protocol::record::{RecordError, SecretRecord, Timing};
use rotacast_protocol::status::SecretStatus;
use rotacast_protocol::{SecretName, Version};
use rotacast_store::{Cursor, Records, StoreError};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::super::directory::{Fault, Place, TaskHandle};
use super::super::secret_task::{MAILBOX, SecretTask, needs_value};
use super::Term;
use super::delivery::News;
use crate::findings::Topic;

/// How often the leader tries a secret that is out of service again: soon after a repair, and rarely enough
/// that a task that breaks off each time costs nothing.
pub(super) const MEND_EVERY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(30) };

const MEND_RECORD: &str = "write the record back from a backup of the store, or upgrade to the release that wrote it; it is \
                           read again every 30 s";
const MEND_OVERWRITTEN: &str = "find the client that writes below Rotacast's prefix, and take its rights to do so. The record \
                                is read again within 30 s, and its secret begins in safe mode: `rotacast why NAME`";
const CANNOT_BEGIN: &str = "its task cannot begin, which is a bug: see the log";
const MEND_TASK: &str = "nothing to do: it starts again within 30 s. Put its log line into a bug report";

/// What a record said of its secret's versions when the term began. Of one that cannot be read: nothing.
#[derive(Default)]
pub(super) struct KnownVersions {
    /// The highest number.
    pub(super) last: Option<Version>,
    /// Those whose values the store should have.
    pub(super) stored: BTreeSet<Version>,
}

impl KnownVersions {
    fn of(record: &SecretRecord) -> Self {
        let stored = record.versions.keys().copied().filter(|version| needs_value(record, *version)).collect();
        Self { last: record.last_version, stored }
    }
}

impl Term {
    /// A linearizable read of all records: what earlier leaders have left. Tasks begin in this order: secrets that rotate
    /// first. The secrets whose record knows versions already.
    pub(super) async fn take_records_over(&self) -> anyhow::Result<BTreeMap<SecretName, KnownVersions>> {
        let Records { entries, strangers } =
            self.environment.tree.load_records().await.context("reading the rotation records")?;
        for (key, problem) in strangers {
            let text = format!("it is below the prefix of the records and names no secret: {problem}");
            let fix = "delete the key, unless a program of yours needs it";
            self.environment.findings.raise(Topic::StrangeKey, key.as_str(), Level::Warning, text, fix);
        }
        let mut known = BTreeMap::new();
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries {
            match SecretRecord::decode_of(&entry.secret, &entry.bytes) {
                Ok(record) => records.push((record, entry.cursor)),
                Err(problem) => {
                    // Not new: its versions are no reason to begin it anew.
                    known.insert(entry.secret.clone(), KnownVersions::default());
                    self.take_out_of_service(entry.secret, unreadable(&problem));
                }
            }
        }
        let count = records.len();
        let begun = records.iter().map(|(record, _)| record).filter(|record| !record.versions.is_empty());
        known.extend(begun.map(|record| (record.secret.clone(), KnownVersions::of(record))));
        // By name: every leader serves the same ones, whichever rotate.
        records.sort_by(|(a, _), (b, _)| a.secret.cmp(&b.secret));
        for (record, _) in records.split_off(self.secrets.room().min(count)) {
            self.leave_out(&record.secret);
        }
        records.sort_by_key(|(record, _)| !record.is_rotating());
        for (record, cursor) in records {
            let secret = record.secret.clone();
            let setback = self.setback_for(&secret);
            self.start_task(secret, Some((record, cursor)), self.tenure, setback).await;
        }
        for secret in self.environment.settings.configured() {
            let begins = matches!(self.secrets.place(&secret), Place::Unknown);
            if begins && self.has_room_for(&secret) {
                let setback = self.setback_for(&secret);
                self.start_task(secret, None, self.tenure, setback).await;
            }
        }
        info!(records = count, epoch = %self.tenure.epoch, "took the rotation records over");
        Ok(known)
    }

    pub(super) fn has_room_for(&self, secret: &SecretName) -> bool {
        let room = self.secrets.has_room();
        if !room {
            self.leave_out(secret);
        }
        room
    }

    fn leave_out(&self, secret: &SecretName) {
        self.secrets.leave_out(secret.clone());
        let text = format!("not served: this broadcaster serves at most {} secrets", self.secrets.limit());
        let fix = "raise limits.secrets, or move secrets to a cluster of their own";
        self.environment.findings.raise(Topic::Limit, secret.as_str(), Level::Error, text, fix);
    }

    /// One secret's fault stays its own: the others continue.
    pub(super) fn take_out_of_service(&self, secret: SecretName, fault: Fault) {
        let text = format!("it gets no lease and does not rotate: {}", fault.reason());
        let fix = match fault {
            Fault::Record(_) => {
                self.setbacks.broken(secret.clone());
                MEND_RECORD
            }
            Fault::Overwritten(_) => {
                self.setbacks.broken(secret.clone());
                MEND_OVERWRITTEN
            }
            Fault::Task(_) => MEND_TASK,
        };
        self.environment.findings.raise(Topic::OutOfService, secret.as_str(), Level::Error, text, fix);
        self.secrets.take_out(secret, fault);
    }

    /// Tries again and again to serve what is out of service.
    pub(super) async fn mend_out_of_service(self: Arc<Self>) -> anyhow::Result<()> {
        // A finding goes once its secret has been served for a while: a task may break off again at once.
        let mut on_trial = Vec::new();
        let mut untold = Vec::new();
        loop {
            tokio::time::sleep(MEND_EVERY).await;
            for secret in std::mem::take(&mut on_trial) {
                if matches!(self.secrets.place(&secret), Place::Served(_)) {
                    self.environment.findings.clear(Topic::OutOfService, secret.as_str());
                }
            }
            for secret in self.secrets.unserved_names() {
                match self.serve_again(&secret).await {
                    Ok(Some(begun)) => {
                        on_trial.push(secret.clone());
                        untold.push((secret, begun));
                    }
                    Ok(None) => {}
                    Err(fault) => self.take_out_of_service(secret, fault),
                }
            }
            for (secret, begun) in std::mem::take(&mut untold) {
                if let Err(problem) = self.tell_versions(&secret, begun).await {
                    warn!(%secret, %problem, "cannot list its versions; trying again");
                    untold.push((secret, begun));
                }
            }
        }
    }

    /// Whether its record knows versions; `None`: it stays out of service, for the reason it is.
    async fn serve_again(&self, secret: &SecretName) -> Result<Option<bool>, Fault> {
        let entry = match self.environment.tree.read_record(secret).await {
            Ok(entry) => entry,
            Err(problem) => {
                // Which says nothing about the record.
                warn!(%secret, %problem, "cannot look whether it can be served; trying again");
                return Ok(None);
            }
        };
        let stored = match entry {
            None => None,
            Some(entry) => {
                let record = SecretRecord::decode_of(secret, &entry.bytes).map_err(|problem| unreadable(&problem))?;
                Some((record, entry.cursor))
            }
        };
        let begun = stored.as_ref().is_some_and(|(record, _)| !record.versions.is_empty());
        // What an earlier task of this term has granted and sealed is as little known as what another leader has: every wait
        // begins anew.
        let tenure = Tenure { since: clock::now(), ..self.tenure };
        let setback = self.setback_for(secret);
        Ok(self.start_task(secret.clone(), stored, tenure, setback).await.map(|_| begun))
    }

    /// Sends the task the versions that were announced while the secret had none. They are listed after it has one, since the
    /// watch sends it every later version itself. A secret that begins does so with its newest version.
    async fn tell_versions(&self, secret: &SecretName, begun: bool) -> Result<(), StoreError> {
        let Place::Served(task) = self.secrets.place(secret) else { return Ok(()) };
        for version in self.unseen_versions(secret, begun).await? {
            self.tell(secret, &task, News::Version(version)).await;
        }
        Ok(())
    }

    /// The versions that a task may not have seen; only the newest one for a secret that has not begun.
    pub(super) async fn unseen_versions(&self, secret: &SecretName, begun: bool) -> Result<Vec<Version>, StoreError> {
        let versions = self.environment.tree.list_versions(secret).await?;
        let versions = versions.iter().map(|stamp| stamp.version);
        Ok(if begun { versions.collect() } else { versions.max().into_iter().collect() })
    }

    /// Starts a secret's task, with the record that was read in this term if there is one. `tenure` begins no earlier than
    /// whatever another task or leader did last for it. `setback`: why the record may be older than what has happened.
    /// `None`: it cannot begin, and its secret is out of service.
    pub(super) async fn start_task(
        &self,
        secret: SecretName,
        stored: Option<(SecretRecord, Cursor)>,
        tenure: Tenure,
        setback: Option<String>,
    ) -> Option<TaskHandle> {
        let build = AssertUnwindSafe(|| self.task_of(&secret, stored, tenure, setback));
        let Ok((task, handle)) = catch_unwind(build) else {
            self.take_out_of_service(secret, Fault::Task(CANNOT_BEGIN.into()));
            return None;
        };
        // First the task can be found, then it is told who is in the roster: it hears of a newcomer in between at least once.
        // And only then it runs: one that breaks off at once is found, and taken out of service.
        self.secrets.insert(secret.clone(), handle.clone());
        self.spawn(secret.clone(), task.run(self.turns.beginning()));
        // Every incarnation in the roster that uses it is a member from the start.
        for member in self.members_of(&secret) {
            self.tell(&secret, &handle, News::Registered { member, live: false }).await;
        }
        self.tell(&secret, &handle, News::RosterRead).await;
        Some(handle)
    }

    fn task_of(
        &self,
        secret: &SecretName,
        stored: Option<(SecretRecord, Cursor)>,
        tenure: Tenure,
        setback: Option<String>,
    ) -> (SecretTask, TaskHandle) {
        let settings = self.environment.settings.of(secret);
        let (record, cursor) = match stored {
            Some((record, cursor)) => (record, Some(cursor)),
            None => (SecretRecord::new(secret.clone(), self.tenure.epoch, Timing::of(&settings.policy)), None),
        };
        let coordinator = Coordinator::take_over(record, settings.policy.clone(), tenure);
        self.secrets.heard().interval(secret.clone(), coordinator.record().longest_sync());
        let (mail, mailbox) = mpsc::channel(MAILBOX);
        let now = clock::now();
        let status = SecretStatus::of(&coordinator, settings.shown(coordinator.record(), now.wall), now);
        let (status_sender, status) = watch::channel(Arc::new(status));
        let task = SecretTask::new(
            self.environment.clone(),
            settings,
            coordinator,
            cursor,
            mailbox,
            self.leadership.clone(),
            setback,
            self.turns.clone(),
            status_sender,
            self.secrets.clone(),
            self.over.clone(),
        );
        (task, TaskHandle { mail, status })
    }
}

fn unreadable(problem: &RecordError) -> Fault {
    Fault::Record(format!("its record cannot be read: {problem}"))
}
