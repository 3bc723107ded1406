//! Calling etcd: connecting, time limits, and what its errors mean.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use etcd_client::{Client, Error, KvClient, WatchClient};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use crate::{CALL_TIMEOUT, StoreError};

/// Largest answer that is accepted: a page of a listing, or what a watch has to catch up with at once. A watch
/// that has more to catch up with lists anew.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// How long one attempt at a read may take; leaves time for a second one, on another member.
const READ_ATTEMPT: Duration = Duration::from_secs(2);
/// First and longest pause between attempts at a read; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Longest text taken over from an error.
const MAX_PROBLEM_CHARS: usize = 300;

impl Shared {
    pub(super) async fn client(&self) -> Result<&Client, StoreError> {
        self.client
            .get_or_try_init(|| async {
                let connecting = Client::connect(&self.options.endpoints, Some(self.options.connect_options()));
                self.within(Instant::now() + CALL_TIMEOUT, connecting).await
            })
            .await
    }

    pub(super) async fn kv(&self) -> Result<KvClient, StoreError> {
        Ok(self.client().await?.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    pub(super) async fn watch_client(&self) -> Result<WatchClient, StoreError> {
        Ok(self.client().await?.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// One attempt, with the time limit of a whole call. What it did is unknown after a transient error.
    pub(super) async fn once<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        self.within(Instant::now() + CALL_TIMEOUT, call).await
    }

    /// A read: tried again, within the time limit of a whole call, as long as that may help.
    pub(super) async fn read<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let attempt_until = deadline.min(Instant::now() + READ_ATTEMPT);
            let error = match self.within(attempt_until, call()).await {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        match timeout_at(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(self.unreachable("no answer in time")),
        }
    }

    pub(super) fn unreachable(&self, problem: impl Into<String>) -> StoreError {
        StoreError::Unreachable { endpoint: self.name.clone(), problem: problem.into() }
    }

    /// etcd's words as a store's. They carry no values: etcd names neither keys nor values in its errors.
    pub(super) fn explain(&self, error: &Error) -> StoreError {
        let endpoint = self.name.clone();
        let problem = describe(error);
        let (code, message) = match error {
            Error::GRpcStatus(status) => (format!("{:?}", status.code()), status.message().to_owned()),
            Error::InvalidUri(_) | Error::InvalidArgs(_) => {
                return StoreError::Invalid { what: "etcd options".into(), problem };
            }
            _ => return StoreError::Unreachable { endpoint, problem },
        };
        explain_status(endpoint, &code, &message, problem)
    }
}

/// By the status code's name: `tonic`, whose type it is, is no dependency of ours.
fn explain_status(endpoint: String, code: &str, message: &str, problem: String) -> StoreError {
    let says = |text: &str| message.contains(text);
    if says("database space exceeded") {
        let problem = "its database is full (alarm NOSPACE): compact, defragment, then disarm the alarm".into();
        return StoreError::Unwritable { endpoint, problem };
    }
    if says("request is too large") {
        let problem =
            format!("{endpoint} allows less than a commit may hold; expected --max-request-bytes=1572864 there");
        return StoreError::Invalid { what: "a commit".into(), problem };
    }
    if code == "DataLoss" || says("corrupt cluster") {
        let problem = "its members disagree (alarm CORRUPT)".into();
        return StoreError::Corrupt { key: endpoint, problem };
    }
    let refused = ["user name is empty", "invalid user ID or password", "permission denied", "role not found"];
    if code == "PermissionDenied" || refused.iter().any(|text| says(text)) {
        return StoreError::Denied { endpoint, problem };
    }
    // A token that became invalid is renewed by the next attempt; wrong credentials were told above.
    StoreError::Unreachable { endpoint, problem }
}

/// Whether etcd no longer has the history that was asked for.
pub(super) fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("revision has been compacted"))
}

/// Whether the history that was asked for lies ahead of the cluster.
pub(super) fn is_future(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("is a future revision"))
}

/// Whether an answer was larger than we accept.
pub(super) fn is_too_much(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if format!("{:?}", status.code()) == "OutOfRange"
        && status.message().contains("message length too large"))
}

/// An error with its causes, which hold what people need ("connection refused", "unknown issuer").
fn describe(error: &Error) -> String {
    let (mut text, mut cause) = match error {
        Error::GRpcStatus(status) => (format!("{:?}: {}", status.code(), status.message()), status.source()),
        Error::TransportError(transport) => (transport.to_string(), transport.source()),
        other => (other.to_string(), other.source()),
    };
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.chars().take(MAX_PROBLEM_CHARS).collect()
}
