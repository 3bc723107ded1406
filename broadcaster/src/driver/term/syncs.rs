//! Answers Syncs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::future::join_all;
use rotacast_bus::SyncCall;
use rotacast_clock as clock;
use rotacast_proto::{Envelope, ReplyWithKeys, WireMessage as _};
use rotacast_protocol::message::SyncReply;
use rotacast_protocol::{ReportSequence, SecretName};
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
        let Environment { identities, key: signing, other_keys, cluster, metrics, .. } = &self.environment;
        let Ok((request, used)) = identities.sync(request) else { return (SyncOutcome::Refused, None) };
        let report = request.report;
        let over = tokio::time::Instant::now() + SYNC_PATIENCE;
        let place = if self.is_listed(&report.key) {
            None
        } else {
            let Some(place) = self.sync_places.take(&report.key.service) else { return (SyncOutcome::Throttled, None) };
            self.wait_until_listed(&report.key, over).await;
            Some(place)
        };
        let answered = self.challenge(&report.key, request.echo);
        drop(place);
        let reply = SyncReply {
            key: report.key.clone(),
            nonce: request.nonce,
            epoch: self.tenure.epoch,
            covered: ReportSequence(0),
            unregistered: answered.is_none(),
            unproven: answered.is_some_and(|answered| !answered.is_proven),
            challenge: answered.map(|answered| answered.next),
            secrets: BTreeMap::new(),
        };
        let id = format!("sync:{}:{}", report.key.incarnation, request.nonce.0);
        let announced = other_keys.to_vec();
        let seal = |reply| ReplyWithKeys { reply, announced }.seal(signing, cluster, id, clock::wall());
        if reply.unregistered {
            return (SyncOutcome::Unregistered, Some(seal(reply)));
        }
        // A recording, or the first one since the takeover: it keeps nothing alive.
        if reply.unproven {
            return (SyncOutcome::Unproven, Some(seal(reply)));
        }
        // A newcomer that is refused, or a recording, is no live instance.
        identities.uses().note(&report.key, used);
        self.secrets.heard().syncs(&report.key, report.sequence, clock::instant(), report.secrets.keys());
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
        let mut envelope = seal(SyncReply { covered: report.sequence, secrets: grants, ..reply });
        // One message has one trace context: with news of two rotations, each comes with its state over the bus.
        if let ([_], Some(only)) = (&*traces, traces.first()) {
            envelope.traceparent.clone_from(only);
        }
        (SyncOutcome::Answered, Some(envelope))
    }
}
