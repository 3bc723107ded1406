//! Calling Consul: time limits, and what its answers mean.

use std::error::Error as _;
use std::sync::PoisonError;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};
use rotacast_proto::FileError;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::Shared;
use super::options::TOKEN_HEADER;
use crate::{CALL_TIMEOUT, Key, NO_ANSWER, StoreError};

/// Largest answer that is accepted. Consul has no pages: a listing comes whole.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// How long one attempt at a read may take until the answer begins; leaves time for a second one.
const READ_ATTEMPT: Duration = Duration::from_secs(2);
/// First and longest pause between attempts at a read; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Longest text taken over from an answer or error.
const MAX_PROBLEM_CHARS: usize = 300;

/// What an agent answers with a 500 while it reaches no leader.
const CUT_OFF: [&str; 7] = [
    "No cluster leader",
    "leadership",
    "rpc error",
    "No known Consul servers",
    "not ready",
    "EOF",
    "connection refused",
];

/// What Consul said to one request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Missing in answers to writes.
    pub(super) index: Option<u64>,
    /// May hold values.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// One request.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Wiped when it is dropped: it may hold values.
    pub(super) body: Option<Bytes>,
}

impl Call {
    pub(super) fn read(url: Url) -> Self {
        Self { method: Method::GET, url, body: None }
    }

    #[cfg(feature = "leader")]
    pub(super) fn write(url: Url, body: Zeroizing<Vec<u8>>) -> Self {
        Self { method: Method::PUT, url, body: Some(Bytes::from_owner(body)) }
    }
}

impl Shared {
    /// `/v1/<path>`; each segment is encoded by itself.
    pub(super) fn url<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().push("v1").extend(path);
        }
        if let Some(datacenter) = &self.options.datacenter {
            url.query_pairs_mut().append_pair("dc", datacenter);
        }
        url
    }

    /// Where a key, or with `/` behind it a folder, is read.
    pub(super) fn key_url(&self, key: &str) -> Url {
        self.url(["kv"].into_iter().chain(key.split('/')))
    }

    /// Consul cannot address every key by its path.
    pub(super) fn check_key(&self, key: &Key) -> Result<(), StoreError> {
        let odd = key.as_str().split('/').find(|segment| matches!(*segment, "" | "." | ".."));
        match odd {
            None => Ok(()),
            Some(segment) => Err(StoreError::Invalid {
                what: format!("key {key}"),
                problem: format!(
                    "Consul's keys have no empty segment (so no '/' at the beginning), no '.' and no '..'; found {segment:?}: \
                     change store.prefix or store.source_prefix"
                ),
            }),
        }
    }

    /// One attempt, with the time limit of a whole call. What it did is unknown after a transient error.
    #[cfg(feature = "leader")]
    pub(super) async fn once(&self, call: &Call) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        self.attempt(call, deadline, deadline).await
    }

    /// A read: tried again, within the time limit of a whole call, as long as that may help.
    pub(super) async fn read(&self, call: &Call) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times()
            .build();
        let mut reason = None;
        loop {
            let begun_until = deadline.min(Instant::now() + READ_ATTEMPT);
            let error = match self.attempt(call, begun_until, deadline).await {
                // Silence does not hide the refusal of an earlier attempt.
                Err(silence) if is_silence(&silence) => reason.take().unwrap_or(silence),
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            reason = Some(error);
            tokio::time::sleep(pause).await;
        }
    }

    /// A read that Consul answers when there is news, or after `wait`.
    pub(super) async fn blocking(&self, call: &Call, begun_within: Duration) -> Result<Answer, StoreError> {
        let begun_until = Instant::now() + begun_within;
        self.attempt(call, begun_until, begun_until + CALL_TIMEOUT).await
    }

    /// Once more with another token, if the one in use is refused and its file holds another one by now. A call that was
    /// refused has done nothing.
    async fn attempt(&self, call: &Call, begun_until: Instant, deadline: Instant) -> Result<Answer, StoreError> {
        let token = self.token(None).await?;
        let denied = match self.attempt_with(token.as_ref(), call, begun_until, deadline).await {
            Err(denied @ StoreError::Denied { .. }) => denied,
            outcome => return outcome,
        };
        let newest = self.token(token.as_ref()).await?;
        if newest == token {
            return Err(denied);
        }
        tracing::info!(store = self.name, "the token was refused, and its file holds another one: using that");
        self.attempt_with(newest.as_ref(), call, begun_until, deadline).await
    }

    /// The token in use; read anew if it is the one that was refused.
    async fn token(&self, refused: Option<&HeaderValue>) -> Result<Option<HeaderValue>, StoreError> {
        let Some(source) = &self.options.token else { return Ok(None) };
        let in_use = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if in_use.is_some() && in_use.as_ref() != refused {
            return Ok(in_use);
        }
        let own =
            |problem: FileError| StoreError::OwnFile { endpoint: self.name.clone(), problem: problem.to_string() };
        let text = source.fetch().await.map_err(own)?;
        let mut token = HeaderValue::from_str(text.trim())
            .map_err(|_| self.denied("the token holds characters that no token has"))?;
        token.set_sensitive(true);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }

    async fn attempt_with(
        &self,
        token: Option<&HeaderValue>,
        call: &Call,
        begun_until: Instant,
        deadline: Instant,
    ) -> Result<Answer, StoreError> {
        let mut request = self.http.current().request(call.method.clone(), call.url.clone());
        if let Some(token) = token {
            request = request.header(TOKEN_HEADER, token);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = match timeout_at(begun_until, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.explain(&error)),
            Err(_) => return Err(self.unreachable(NO_ANSWER)),
        };
        let status = response.status();
        let index = response.headers().get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let body = match timeout_at(deadline, self.body(response)).await {
            Ok(body) => body?,
            Err(_) => return Err(self.unreachable("its answer broke off")),
        };
        match status.as_u16() {
            // For reads: there is no such key or session. For transactions: a check did not hold.
            200 | 404 | 409 => Ok(Answer { status, index, body }),
            _ => Err(self.refusal(status, &body)),
        }
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let expected = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = Zeroizing::new(Vec::with_capacity(expected.min(MAX_ANSWER_BYTES)));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.explain(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(StoreError::TooLarge {
                    what: format!("an answer of {}", self.name),
                    found: body.len() + chunk.len(),
                    limit: MAX_ANSWER_BYTES,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub(super) fn unreachable(&self, problem: impl Into<String>) -> StoreError {
        StoreError::Unreachable { endpoint: self.name.clone(), problem: problem.into() }
    }

    pub(super) fn denied(&self, problem: &str) -> StoreError {
        StoreError::Denied {
            endpoint: self.name.clone(),
            problem: format!("{problem}: check the token (store.token_file) and its policy"),
        }
    }

    /// An answer that is none of the expected ones. Consul's texts name keys, never values.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> StoreError {
        let text = clipped(&String::from_utf8_lossy(body));
        let problem = format!("{status}: {text}");
        match status.as_u16() {
            401 | 403 => self.denied(&problem),
            413 => StoreError::Invalid {
                what: "a commit".into(),
                problem: format!("{problem}; expected Consul's default for limits.txn_max_req_len, or more"),
            },
            // Consul wraps its servers' refusals in a 500.
            500 if text.contains("Permission denied") || text.contains("ACL not found") => self.denied(&problem),
            400 | 500 if text.contains("Session TTL") => StoreError::Invalid {
                what: "the time-to-live of a leadership".into(),
                problem: format!("{problem}: lower Consul's session_ttl_min or lengthen the term"),
            },
            429 | 502..=504 => self.unreachable(problem),
            // What an agent says while its servers elect a leader, or are cut off from it.
            500 if CUT_OFF.iter().any(|words| text.contains(words)) => self.unreachable(problem),
            500..=599 => StoreError::Unknown { endpoint: self.name.clone(), problem },
            _ => StoreError::Invalid {
                what: self.name.clone(),
                problem: format!("it answers {problem}: does store.address name a Consul agent?"),
            },
        }
    }

    fn explain(&self, error: &reqwest::Error) -> StoreError {
        let mut text = String::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = if text.is_empty() { more } else { format!("{text}: {more}") };
            }
            cause = error.source();
        }
        if text.is_empty() {
            // Without the URL, which is in the endpoint's name already.
            text = if error.is_connect() { "cannot connect".into() } else { "the request failed".into() };
        }
        // rustls' own words, and those of the other side's alerts.
        let about_tls = ["certificate", "Certificate", "UnknownIssuer", "fatal alert", "InvalidContentType"];
        let fix = if about_tls.iter().any(|word| text.contains(word)) {
            ": check store.tls (ca, cert, key, server_name)"
        } else if error.is_connect() {
            ": check store.address"
        } else {
            ""
        };
        self.unreachable(format!("{}{fix}", clipped(&text)))
    }
}

fn is_silence(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable { problem, .. } if problem == NO_ANSWER)
}

pub(super) fn clipped(text: &str) -> String {
    text.trim().chars().take(MAX_PROBLEM_CHARS).collect()
}
