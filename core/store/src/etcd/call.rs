//! Calling etcd: connecting, time limits, and what its errors mean.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_proto::FileError;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::Shared;
use super::client::Client;
use crate::{CALL_TIMEOUT, NO_ANSWER, StoreError};

/// How long one attempt at a read may take; leaves time for a second one, on another member.
const READ_ATTEMPT: Duration = Duration::from_secs(2);
/// First and longest pause between attempts at a read; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Longest text taken over from an error.
const MAX_PROBLEM_CHARS: usize = 300;

impl Shared {
    pub(super) async fn client(&self) -> Result<Client, StoreError> {
        let mut connected = self.client.lock().await;
        let endpoints = self.endpoints.current();
        if let Some((with, client)) = &*connected
            && Arc::ptr_eq(with, &endpoints)
        {
            return Ok(client.clone());
        }
        let connecting = Client::connect(endpoints.to_vec(), self.options.user.clone());
        let client = self.within(Instant::now() + CALL_TIMEOUT, connecting).await?;
        *connected = Some((endpoints, client.clone()));
        Ok(client)
    }

    /// One attempt, with the time limit of a whole call. What it did is unknown after a transient error.
    pub(super) async fn once<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, StoreError> {
        self.within(Instant::now() + CALL_TIMEOUT, call).await
    }

    /// A read: tried again, within the time limit of a whole call, as long as that may help.
    pub(super) async fn read<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times()
            .build();
        let mut reason = None;
        loop {
            let attempt_until = deadline.min(Instant::now() + READ_ATTEMPT);
            let error = match timeout_at(attempt_until, call()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => self.explain(&status),
                // Silence does not hide the refusal of an earlier attempt.
                Err(_) => reason.take().unwrap_or_else(|| self.unreachable(NO_ANSWER)),
            };
            if !error.is_transient() {
                return Err(error);
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            reason = Some(error);
            tokio::time::sleep(pause).await;
        }
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, StoreError> {
        match timeout_at(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(self.unreachable(NO_ANSWER)),
        }
    }

    pub(super) fn unreachable(&self, problem: impl Into<String>) -> StoreError {
        StoreError::Unreachable { endpoint: self.name.clone(), problem: problem.into() }
    }

    /// etcd's words as a store's. They carry no values: etcd names neither keys nor values in its errors.
    pub(super) fn explain(&self, status: &Status) -> StoreError {
        let (endpoint, problem) = (self.name.clone(), describe(status));
        if let Some(problem) = status.source().and_then(|source| source.downcast_ref::<FileError>()) {
            return StoreError::OwnFile { endpoint, problem: problem.to_string() };
        }
        let says = |text: &str| status.message().contains(text);
        if says("database space exceeded") {
            let problem = "its database is full (alarm NOSPACE): compact, defragment, then disarm the alarm".into();
            return StoreError::Unwritable { endpoint, problem };
        }
        if says("request is too large") {
            let problem =
                format!("{endpoint} allows less than a commit may hold; expected --max-request-bytes=1572864 there");
            return StoreError::Invalid { what: "a commit".into(), problem };
        }
        if status.code() == Code::DataLoss || says("corrupt cluster") {
            let problem = "its members disagree (alarm CORRUPT)".into();
            return StoreError::Corrupt { key: endpoint, problem };
        }
        let refused = ["user name is empty", "invalid user ID or password", "permission denied", "role not found"];
        if status.code() == Code::PermissionDenied || refused.iter().any(|text| says(text)) {
            return StoreError::Denied { endpoint, problem };
        }
        if status.source().is_some() {
            // The connection's own error: the server has said nothing.
            return StoreError::Unreachable { endpoint, problem };
        }
        match status.code() {
            // What etcd says in an election or under load, and what the client says of a connection.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::ResourceExhausted => {
                StoreError::Unreachable { endpoint, problem }
            }
            _ => StoreError::Unknown { endpoint, problem },
        }
    }
}

/// Whether etcd no longer has the history that was asked for.
pub(super) fn is_compacted(status: &Status) -> bool {
    status.message().contains("revision has been compacted")
}

/// Whether the history that was asked for lies ahead of the cluster.
pub(super) fn is_future(status: &Status) -> bool {
    status.message().contains("is a future revision")
}

/// Whether an answer was larger than we accept.
pub(super) fn is_too_much(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("message length too large")
}

/// An error with its causes, which hold what people need ("connection refused", "unknown issuer").
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.chars().take(MAX_PROBLEM_CHARS).collect()
}
