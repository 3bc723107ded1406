//! The provider of values that no outside system knows: signing keys, shared tokens.

use std::time::Duration;

use async_trait::async_trait;
use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};

use crate::{Credential, Draw, Evidence, LiveSessions, Provider, ProviderError, Trial, Verdict};

/// Draws random text. Nothing outside is touched, so that there is nothing to create, to disable or to
/// destroy, and no system to ask for usage: the retire guard rests on the instances' reports and leases alone.
#[derive(Debug, Clone, Default)]
pub struct GenerateProvider {
    draw: Draw,
}

impl GenerateProvider {
    /// Its [`Provider::kind`].
    pub const KIND: &'static str = "generate";

    /// One that draws like this.
    #[must_use]
    pub fn new(draw: Draw) -> Self {
        Self { draw }
    }
}

/// Checks the shape alone: there is nowhere to log in. A value of a live version used again is rejected, since the old one
/// could then never be retired.
#[must_use]
pub fn judge_shape(credential: &Credential, others: &[Credential]) -> Verdict {
    let value = &credential.value;
    if value.is_empty() {
        return Verdict::Rejected("the value is empty".into());
    }
    if value.len() > SecretValue::MAX_BYTES {
        let (found, most) = (value.len(), SecretValue::MAX_BYTES);
        return Verdict::Rejected(format!("the value has {found} bytes; expected at most {most}"));
    }
    let same = others.iter().find(|other| other.version != credential.version && other.value == *value);
    match same {
        Some(other) => Verdict::Rejected(format!("the value equals that of version {}", other.version)),
        None => Verdict::Works,
    }
}

#[async_trait]
impl Provider for GenerateProvider {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn system(&self) -> String {
        String::new()
    }

    fn accepts(&self, _: &SecretValue) -> Result<(), String> {
        Ok(())
    }

    fn test_every(&self) -> Option<Duration> {
        None
    }

    fn draw(&self, _secret: &SecretName, _version: Version) -> Result<SecretValue, ProviderError> {
        Ok(SecretValue::new(self.draw.text().as_bytes().to_vec()))
    }

    async fn create(&self, _credential: &Credential) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn test(
        &self,
        credential: &Credential,
        others: &[Credential],
        _trial: Trial,
    ) -> Result<Verdict, ProviderError> {
        Ok(judge_shape(credential, others))
    }

    async fn usage(&self, _credential: &Credential, _others: &[Credential]) -> Result<Evidence, ProviderError> {
        Ok(Evidence::None)
    }

    async fn disable(
        &self,
        _credential: &Credential,
        _others: &[Credential],
        _sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn destroy(
        &self,
        _credential: &Credential,
        _others: &[Credential],
        _sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        Ok(())
    }
}
