//! Providers, measured: all of them together, since their names are the operator's and there may be many.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use rotacast_proto::SecretValue;
use rotacast_protocol::record::ProviderId;
use rotacast_protocol::{SecretName, Version};
use rotacast_provider::{Credential, Evidence, LiveSessions, Provider, ProviderError, Trial, Verdict};

use super::calls::{Calls, Kind};
use crate::config::SecretPattern;
use crate::settings::{SecretSettings, Settings};

const CALLS: [&str; 5] = ["create", "test", "usage", "disable", "destroy"];

impl Kind for ProviderError {
    const ALL: &'static [&'static str] = &["unreachable", "own_file", "denied", "refused", "unfinished", "in_use"];

    fn kind(&self) -> Option<&'static str> {
        Some(match self {
            ProviderError::Unreachable { .. } => "unreachable",
            ProviderError::OwnFile { .. } => "own_file",
            ProviderError::Denied { .. } => "denied",
            ProviderError::Refused { .. } => "refused",
            ProviderError::Unfinished { .. } => "unfinished",
            ProviderError::InUse { .. } => "in_use",
        })
    }
}

pub(super) fn register(registry: &mut Registry) -> Calls {
    Calls::register::<ProviderError>(registry, "provider", &CALLS, &[])
}

/// The provider inside, with every call counted.
pub(super) struct MeasuredProvider {
    inner: Arc<dyn Provider>,
    calls: Calls,
}

impl MeasuredProvider {
    pub(super) fn new(inner: Arc<dyn Provider>, calls: Calls) -> Self {
        Self { inner, calls }
    }
}

#[async_trait]
impl Provider for MeasuredProvider {
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
        self.calls.measure("create", self.inner.create(credential)).await
    }

    async fn test(
        &self,
        credential: &Credential,
        others: &[Credential],
        trial: Trial,
    ) -> Result<Verdict, ProviderError> {
        self.calls.measure("test", self.inner.test(credential, others, trial)).await
    }

    async fn usage(&self, credential: &Credential, others: &[Credential]) -> Result<Evidence, ProviderError> {
        self.calls.measure("usage", self.inner.usage(credential, others)).await
    }

    async fn disable(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.calls.measure("disable", self.inner.disable(credential, others, sessions)).await
    }

    async fn destroy(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.calls.measure("destroy", self.inner.destroy(credential, others, sessions)).await
    }
}

/// The settings inside, with measured providers.
pub(super) struct MeasuredSettings {
    inner: Arc<dyn Settings>,
    calls: Calls,
}

impl MeasuredSettings {
    pub(super) fn new(inner: Arc<dyn Settings>, calls: Calls) -> Self {
        Self { inner, calls }
    }
}

impl Settings for MeasuredSettings {
    fn of(&self, secret: &SecretName) -> SecretSettings {
        self.inner.of(secret)
    }

    fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        let provider = self.inner.provider(id)?;
        Some(Arc::new(MeasuredProvider::new(provider, self.calls.clone())))
    }

    fn configured(&self) -> Vec<SecretName> {
        self.inner.configured()
    }

    fn patterns(&self) -> Vec<(String, SecretPattern)> {
        self.inner.patterns()
    }
}
