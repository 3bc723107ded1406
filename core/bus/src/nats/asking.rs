//! Asking over core NATS: request and reply, with nothing stored.
//!
//! What arrives in an inbox need not be the answer: the client library would take the first message for it. Here what is no
//! answer is skipped and counted, and the wait goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use rotacast_log_limit::LogLimit;
use rotacast_proto::Envelope;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{NatsBus, envelope};
use crate::BusError;

/// Messages that wait to be looked at for one request. Further ones are dropped: an answer is one message.
const ANSWERS: usize = 16;

/// A task that ends with its owner.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Requests that wait, by the last token of the subject that their answer goes to.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<HashMap<String, mpsc::Sender<Message>>>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<Message>>> {
        // Whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The inbox of a connection: one subscription for all of its requests.
pub(super) struct Inbox {
    prefix: String,
    waiting: Waiting,
    _reader: Task,
}

impl Inbox {
    pub(super) async fn open(client: &Client) -> Result<Self, async_nats::SubscribeError> {
        let prefix = client.new_inbox();
        let mut messages = client.subscribe(format!("{prefix}.*")).await?;
        let waiting = Waiting::default();
        let theirs = waiting.clone();
        let reader = Task::spawn(async move {
            while let Some(message) = messages.next().await {
                let token = message.subject.rsplit('.').next().unwrap_or_default();
                let asker = theirs.all().get(token).cloned();
                // None: an answer that is late.
                if asker.is_some_and(|asker| asker.try_send(message).is_err()) {
                    tracing::debug!("one of too many answers dropped");
                }
            }
        });
        Ok(Self { prefix, waiting, _reader: reader })
    }
}

/// One request that waits. Dropped, it waits no more.
struct Asked {
    token: String,
    waiting: Waiting,
    answers: mpsc::Receiver<Message>,
}

impl Asked {
    fn new(inbox: &Inbox, client: &Client) -> Self {
        let unique = client.new_inbox();
        let token = unique.rsplit('.').next().unwrap_or_default().to_owned();
        let (sender, answers) = mpsc::channel(ANSWERS);
        inbox.waiting.all().insert(token.clone(), sender);
        Self { token, waiting: inbox.waiting.clone(), answers }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.waiting.all().remove(&self.token);
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// No client listens where it was sent.
    NoListener,
    /// None came in time.
    Late,
    /// It could not be sent.
    Unsent(String),
}

impl NatsBus {
    /// Sends a request, and waits for the first message that `accept` takes for its answer.
    pub(super) async fn ask<T>(
        &self,
        subject: String,
        (headers, payload): (HeaderMap, Bytes),
        timeout: Duration,
        accept: impl Fn(Message) -> Result<T, String>,
    ) -> Result<T, Unanswered> {
        let client = &self.inner.client;
        let mut asked = Asked::new(&self.inner.inbox, client);
        let reply = format!("{}.{}", self.inner.inbox.prefix, asked.token);
        let answered = async {
            let sent = client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
            sent.map_err(|problem| Unanswered::Unsent(problem.to_string()))?;
            loop {
                let closed = || Unanswered::Unsent("the client was closed".into());
                let message = asked.answers.recv().await.ok_or_else(closed)?;
                if message.status == Some(StatusCode::NO_RESPONDERS) {
                    return Err(Unanswered::NoListener);
                }
                match accept(message) {
                    Ok(answer) => return Ok(answer),
                    Err(problem) => self.no_answer(&problem),
                }
            }
        };
        tokio::time::timeout(timeout, answered).await.unwrap_or(Err(Unanswered::Late))
    }

    /// Counts and names what arrived in our inbox and answers nothing.
    fn no_answer(&self, problem: &str) {
        static LIMIT: LogLimit = LogLimit::new();
        #[cfg(feature = "leader")]
        self.inner.strays.note(crate::Stray::Reply);
        if let Some(left_out) = LIMIT.admit() {
            tracing::warn!(problem, left_out, "skipped what arrived in place of an answer");
        }
    }

    /// One Sync. Without a leader that listens: `NoLeader` at once.
    pub(super) async fn ask_for_sync(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        let endpoint = &self.inner.endpoint;
        let message = (envelope::headers(request, endpoint)?, request.payload.clone());
        // Whether it is the leader's is for the caller to check, by its signature.
        let answer = |reply: Message| match envelope::read(reply.headers.as_ref(), reply.payload) {
            Ok(reply) if reply.subject == request.subject => Ok(reply),
            Ok(reply) => Err(format!("it is about {:?}", reply.subject.chars().take(300).collect::<String>())),
            Err(problem) => Err(problem.to_string()),
        };
        let no_leader = |problem: &str| BusError::NoLeader { endpoint: endpoint.clone(), problem: problem.to_owned() };
        let asked = self.ask(self.inner.names.sync(&self.inner.options.party), message, timeout, answer).await;
        asked.map_err(|problem| match problem {
            Unanswered::NoListener => no_leader("no broadcaster leads here"),
            Unanswered::Late if !self.is_connected() => self.unreachable("not connected; reconnecting"),
            Unanswered::Late if self.inner.violations.last().is_some() => self.unanswered("no answer in time"),
            Unanswered::Late => no_leader("no answer in time"),
            Unanswered::Unsent(problem) => self.unreachable(problem),
        })
    }
}
