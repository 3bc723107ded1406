//! Follows the versions in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use futures::StreamExt as _;
use rotacast_proto::Level;
use rotacast_protocol::coordinator::Input;
use rotacast_protocol::{SecretName, Version};
use rotacast_store::{StoreError, VersionEvent};
use tracing::{debug, error};

use super::super::directory::Place;
use super::super::mail::Mail;
use super::super::secret_task::ValueFault;
use super::Term;
use super::delivery::News;
use super::records::KnownVersions;
use crate::findings::Topic;

/// Events of the versions that are taken in together, if so many wait.
const EVENTS_AT_ONCE: usize = 256;

impl Term {
    /// Versions, in order and without a gap. `known`: the secrets that were taken up already.
    pub(super) async fn follow_versions(
        self: Arc<Self>,
        known: BTreeMap<SecretName, KnownVersions>,
    ) -> anyhow::Result<()> {
        let last = known.iter().filter_map(|(secret, known)| Some((secret.clone(), known.last?))).collect();
        // What should be there when the watch begins, and is not listed.
        let mut unlisted: BTreeMap<SecretName, BTreeSet<Version>> =
            known.iter().map(|(secret, known)| (secret.clone(), known.stored.clone())).collect();
        let mut known: BTreeSet<SecretName> = known.into_keys().collect();
        let mut events = self.environment.tree.watch_versions_beyond(last).ready_chunks(EVENTS_AT_ONCE);
        // Of secrets that were not taken up yet: the newest version, and what is wrong with the others.
        let (mut newest, mut later) = (BTreeMap::new(), Vec::new());
        let mut read = false;
        while let Some(chunk) = events.next().await {
            for event in chunk {
                let event = match event {
                    Ok(event) => event,
                    Err(StoreError::WentBackwards { endpoint, problem }) => {
                        let reason = format!("store {endpoint}: {problem}");
                        error!(reason, "safe mode: nothing irreversible happens until an operator has looked");
                        for (_, task) in self.secrets.all() {
                            // The next term begins with it for each that did not take it in.
                            drop(
                                task.mail
                                    .try_send(Mail::Input(Box::new(Input::StoreWentBack { reason: reason.clone() }))),
                            );
                        }
                        anyhow::bail!("{reason}");
                    }
                    Err(problem) => return Err(problem).context("watching the versions"),
                };
                self.environment.metrics.intake().version(&event);
                match &event {
                    VersionEvent::Listed { secret, stamp } => {
                        unlisted.get_mut(secret).map(|versions| versions.remove(&stamp.version));
                    }
                    // Deleted before the watch began: no event tells it.
                    VersionEvent::Resynced(_) => {
                        read = true;
                        for (secret, versions) in std::mem::take(&mut unlisted) {
                            for version in versions {
                                self.tell_of_value(&secret, version, ValueFault::Gone).await;
                            }
                        }
                    }
                    _ => {}
                }
                match event {
                    VersionEvent::Listed { secret, stamp } | VersionEvent::Added { secret, stamp }
                        if !known.contains(&secret) =>
                    {
                        newest.insert(secret, stamp.version);
                    }
                    VersionEvent::Gap { ref secret, .. } | VersionEvent::Changed { ref secret, .. }
                        if newest.contains_key(secret) =>
                    {
                        later.push(event);
                    }
                    event => self.version_event(event).await,
                }
            }
            // Until the listing is read, something newer may follow.
            if read {
                for (secret, version) in std::mem::take(&mut newest) {
                    self.take_up(&secret, version).await;
                    known.insert(secret);
                }
                for event in later.drain(..) {
                    self.version_event(event).await;
                }
                self.versions_read.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    async fn version_event(&self, event: VersionEvent) {
        match event {
            VersionEvent::Listed { secret, stamp } | VersionEvent::Added { secret, stamp } => {
                if let Some(task) = self.secrets.get(&secret) {
                    self.tell(&secret, &task, News::Version(stamp.version)).await;
                }
            }
            VersionEvent::Changed { secret, stamp } => {
                let version = stamp.version;
                error!(
                    %secret, %version,
                    "the value of this version was written again; versions never change: write the next number instead"
                );
                self.tell_of_value(&secret, version, ValueFault::WrittenAgain).await;
            }
            VersionEvent::Deleted { secret, version, .. } => {
                debug!(%secret, %version, "the value of this version is gone from the store");
                self.tell_of_value(&secret, version, ValueFault::Gone).await;
            }
            VersionEvent::Gap { secret, missing, found } => {
                if let Some(task) = self.secrets.get(&secret) {
                    self.tell(&secret, &task, News::Gap { missing, found }).await;
                }
            }
            VersionEvent::GapClosed { secret } => {
                if let Some(task) = self.secrets.get(&secret) {
                    self.tell(&secret, &task, News::GapClosed).await;
                }
            }
            VersionEvent::Ignored { key, problem } => {
                let text = format!("it is below the prefix of the versions and is none: {problem}");
                let fix = "delete the key; `rotacast put` writes a version under the right number";
                self.environment.findings.raise(Topic::StrangeKey, key.as_str(), Level::Warning, text, fix);
            }
            VersionEvent::Resynced(cursor) => debug!(cursor = cursor.0, "the versions are read in full"),
        }
    }

    async fn tell_of_value(&self, secret: &SecretName, version: Version, fault: ValueFault) {
        if let Some(task) = self.secrets.get(secret) {
            self.tell(secret, &task, News::Value { version, fault }).await;
        }
    }

    /// Takes up a secret that is new to Rotacast, or whose record knows of no version: a predecessor may have begun it, and
    /// crashed before it did. It starts with its newest version: older ones are not Rotacast's to manage.
    async fn take_up(&self, secret: &SecretName, newest: Version) {
        let task = match self.secrets.place(secret) {
            Place::Served(task) => task,
            // It has a record, or its task broke off: it begins anew from there, not from its newest version.
            Place::OutOfService(_) => return,
            // All records were read in this term, which alone writes them since: this secret has none.
            Place::Unknown if self.has_room_for(secret) => {
                let setback = self.setback_for(secret);
                let Some(task) = self.start_task(secret.clone(), None, self.tenure, setback).await else { return };
                task
            }
            Place::Unknown => return,
        };
        self.tell(secret, &task, News::Version(newest)).await;
    }
}
