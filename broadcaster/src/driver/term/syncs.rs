//! Answers Syncs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::future::join_all;
use rotacast_bus::SyncCall;
use rotacast_clock as clock;
use rotacast_proto::{Envelope, WireMessage as _};
use rotacast_protocol::SecretName;
use rotacast_protocol::message::SyncReply;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::super::Environment;
use super::super::directory::TaskHandle;
use super::super::mail::{Granted, Mail};
use super::Term;
use crate::metrics::SyncOutcome;

/// Syncs answered at once; further ones wait their turn in the bus's own bounded queue.
pub(in crate::driver) const SYNCS_AT_ONCE: usize = 1024;

/// A secret's part of a Sync for which its task has no room yet.
type Late = (SecretName, TaskHandle, Mail, oneshot::Receiver<Granted>);

/// How long a Sync may wait for the answers of its secrets, altogether. Half of the two seconds after which its sender
/// gives up: a secret that cannot answer must not cost the others their leases.
const SYNC_PATIENCE: Duration = Duration::from_secs(1);

impl Term {
    pub(super) async fn answer_syncs(self: Arc<Self>) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(SYNCS_AT_ONCE));
        let mut calls = self.environment.bus.serve_sync();
        let mut answers = JoinSet::new();
        while let Some(call) = calls.next().await {
            let SyncCall { request, reply } = call.context("serving Sync")?;
            while answers.try_join_next().is_some() {}
            let place = Arc::clone(&places).acquire_owned().await.context("the semaphore is never closed")?;
            let term = Arc::clone(&self);
            answers.spawn(async move {
                let began = std::time::Instant::now();
                let (outcome, answer) = term.answer(&request).await;
                if let Some(answer) = answer {
                    reply.send(answer);
                }
                term.environment.metrics.intake().sync(outcome, began.elapsed());
                drop(place);
            });
        }
        Ok(())
    }

    /// One Sync: every secret's task folds its part and says what it grants.
    async fn answer(&self, request: &Envelope) -> (SyncOutcome, Option<Envelope>) {
        let Environment { identities, key: signing, cluster, metrics, .. } = &self.environment;
        let Ok(request) = identities.sync(request) else { return (SyncOutcome::Refused, None) };
        let report = request.report;
        self.secrets.heard().note(&report.key, clock::instant(), report.secrets.keys());
        let over = tokio::time::Instant::now() + SYNC_PATIENCE;
        let unregistered = !self.is_registered(&report.key, over).await;
        let Some(_place) = self.sync_places.take(&report.key, !unregistered) else {
            return (SyncOutcome::Throttled, None);
        };
        let (mut refused, mut timed_out) = (0, 0);
        let (mut waiting, mut late) = (Vec::new(), Vec::new());
        for (secret, part) in report.secrets {
            let Some(task) = self.secrets.get(&secret) else { continue };
            let (reply, answer) = oneshot::channel();
            let mail = Mail::Sync { key: report.key.clone(), sequence: report.sequence, report: part, reply };
            match task.mail.try_send(mail) {
                Ok(()) => waiting.push((secret, answer)),
                Err(TrySendError::Closed(_)) => refused += 1,
                Err(TrySendError::Full(mail)) => late.push((secret, task, mail, answer)),
            }
        }
        let mut grants = BTreeMap::new();
        let mut traces = Vec::new();
        // One full mailbox must not cost the other secrets their time: those without room are waited for side by side.
        let late = late.into_iter().map(async |(secret, task, mail, answer): Late| {
            let answered = async {
                task.mail.send(mail).await.ok()?;
                answer.await.ok()
            };
            (secret, tokio::time::timeout_at(over, answered).await)
        });
        let (late, mut answers) = (join_all(late), Vec::new());
        for (secret, answer) in waiting {
            answers.push((secret, tokio::time::timeout_at(over, answer).await.map(Result::ok)));
        }
        for (secret, answer) in answers.into_iter().chain(late.await) {
            match answer {
                Ok(Some(Granted { grant, traceparent })) => {
                    traces.extend(Some(traceparent).filter(|it| !it.is_empty()));
                    grants.insert(secret, grant);
                }
                // The task has ended, and the term with it.
                Ok(None) => refused += 1,
                Err(_) => timed_out += 1,
            }
        }
        metrics.intake().leases(grants.len() as u64, refused, timed_out);
        let reply = SyncReply {
            key: report.key.clone(),
            nonce: request.nonce,
            epoch: self.tenure.epoch,
            covered: report.sequence,
            unregistered,
            secrets: grants,
        };
        let id = format!("sync:{}:{}", report.key.incarnation, request.nonce.0);
        let mut envelope = reply.seal(signing, cluster, id, clock::wall());
        // One message has one trace context: with news of two rotations, each comes with its state over the bus.
        if let ([_], Some(only)) = (&*traces, traces.first()) {
            envelope.traceparent.clone_from(only);
        }
        let outcome = if unregistered { SyncOutcome::Unregistered } else { SyncOutcome::Answered };
        (outcome, Some(envelope))
    }
}
