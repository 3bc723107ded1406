//! A provider whose calls leave spans.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use rotacast_proto::SecretValue;
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{SecretName, Version};
use rotacast_provider::{Credential, Evidence, LiveSessions, Provider, ProviderError, Trial, Verdict};

use super::Traces;
use super::calls::Calls;
use super::rotations::{RotationSpans, place_of};
use super::spans::{cut, span};

/// See the module. Made anew for each effect, since its calls belong to the phase in which the effect was due.
pub struct TracedProvider {
    inner: Arc<dyn Provider>,
    traces: Traces,
    record: Arc<SecretRecord>,
    calls: Arc<Mutex<Calls>>,
}

impl TracedProvider {
    /// `inner` itself while traces are off.
    #[must_use]
    pub fn around(inner: Arc<dyn Provider>, spans: &RotationSpans, record: &SecretRecord) -> Arc<dyn Provider> {
        if !spans.traces().is_on() {
            return inner;
        }
        let (traces, calls) = (spans.traces().clone(), spans.shared_calls());
        Arc::new(Self { inner, traces, record: Arc::new(record.clone()), calls })
    }

    async fn call<T>(
        &self,
        name: &'static str,
        version: Version,
        call: impl Future<Output = Result<T, ProviderError>> + Send,
        how: impl Fn(&T) -> String + Send,
    ) -> Result<T, ProviderError> {
        let start = SystemTime::now();
        let result = call.await;
        let went = match &result {
            Ok(told) => how(told),
            Err(problem) => problem.to_string(),
        };
        self.leave(name, version, (start, SystemTime::now()), &cut(&went), result.is_err());
        result
    }

    fn leave(&self, name: &'static str, version: Version, times: (SystemTime, SystemTime), went: &str, failed: bool) {
        let again = self.calls.lock().unwrap_or_else(PoisonError::into_inner).news(version, name, went);
        let (Some(again), Some((trace, parent))) = (again, place_of(&self.traces, &self.record, version)) else {
            return;
        };
        let mut attributes = vec![
            KeyValue::new("rotacast.secret", self.record.secret.to_string()),
            KeyValue::new("rotacast.version", i64::try_from(version.get()).unwrap_or(i64::MAX)),
            KeyValue::new("rotacast.provider", self.inner.describe()),
            KeyValue::new("rotacast.result", if failed { "failed".to_owned() } else { went.to_owned() }),
        ];
        if again > 0 {
            attributes.push(KeyValue::new("rotacast.same_before", again));
        }
        let id = SpanId::from_bytes(rand::random());
        let mut span = span(&trace, id, parent, format!("provider {name}"), times, attributes);
        span.span_kind = SpanKind::Client;
        if failed {
            span.status = Status::error(went.to_owned());
        }
        self.traces.send(span);
    }
}

#[async_trait]
impl Provider for TracedProvider {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn system(&self) -> String {
        self.inner.system()
    }

    fn accepts(&self, value: &SecretValue) -> Result<(), String> {
        self.inner.accepts(value)
    }

    fn test_every(&self) -> Option<Duration> {
        self.inner.test_every()
    }

    fn draw(&self, secret: &SecretName, version: Version) -> Result<SecretValue, ProviderError> {
        self.inner.draw(secret, version)
    }

    async fn create(&self, credential: &Credential) -> Result<(), ProviderError> {
        self.call("create", credential.version, self.inner.create(credential), done).await
    }

    async fn test(
        &self,
        credential: &Credential,
        others: &[Credential],
        trial: Trial,
    ) -> Result<Verdict, ProviderError> {
        let how = |verdict: &Verdict| match verdict {
            Verdict::Works => "works".to_owned(),
            Verdict::Rejected(reason) => format!("rejected: {reason}"),
            Verdict::Unusable(reason) => format!("unusable: {reason}"),
        };
        self.call("test", credential.version, self.inner.test(credential, others, trial), how).await
    }

    async fn usage(&self, credential: &Credential, others: &[Credential]) -> Result<Evidence, ProviderError> {
        let how = |evidence: &Evidence| match evidence {
            Evidence::None => "cannot tell".to_owned(),
            Evidence::Sessions(sessions) => format!("{} sessions", sessions.len()),
        };
        self.call("usage", credential.version, self.inner.usage(credential, others), how).await
    }

    async fn disable(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.call("disable", credential.version, self.inner.disable(credential, others, sessions), done).await
    }

    async fn destroy(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.call("destroy", credential.version, self.inner.destroy(credential, others, sessions), done).await
    }
}

fn done((): &()) -> String {
    "done".to_owned()
}
