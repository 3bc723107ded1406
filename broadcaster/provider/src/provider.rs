//! The provider seam.

use std::time::Duration;

use async_trait::async_trait;
use rotacast_proto::SecretValue;
use rotacast_protocol::record::ProviderId;
use rotacast_protocol::{SecretName, Version};

use crate::ProviderError;

/// One version's credential. No `Debug`: it holds the value.
#[derive(Clone)]
pub struct Credential {
    /// Of which secret.
    pub secret: SecretName,
    /// Which version.
    pub version: Version,
    /// The value as the store has it.
    pub value: SecretValue,
}

/// Why a login is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trial {
    /// The credential is new: the system may take a while until it knows it everywhere, and a refusal is tried again for as long.
    New,
    /// The credential has worked before: a refusal counts at once, and nothing is changed in the outside system.
    Known,
}

/// What a test login says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The credential works.
    Works,
    /// The system refuses the identity itself, or the value names none: why, without values.
    Rejected(String),
    /// It cannot be used as things are, which says nothing of the credential itself: a database is missing, another version has the
    /// same identity, the system cannot see its sessions. Why, without values. A new version is not used; for one that has worked,
    /// it is no proof that it has ended.
    Unusable(String),
}

/// One live use of a credential, as the provider sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Session {
    /// Names it, for people: `pid 4242, payments-api from 127.0.0.1, idle since 12:00:01`.
    pub description: String,
}

/// What becomes of the sessions that are live when a credential is disabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LiveSessions {
    /// They are waited for or ended, as the provider is configured.
    ByPolicy,
    /// They are ended now, whatever is configured: an operator's override says so, on record.
    End,
}

/// What a provider knows of a credential's use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// It cannot tell.
    None,
    /// These sessions are live now; an empty list is evidence of disuse.
    Sessions(Vec<Session>),
}

/// Makes, tests and retires the credentials of secrets in one outside system.
///
/// The contract, which `conformance` checks on every implementation:
/// - Every call is idempotent by (secret, version, value): it may have been made before, whole or in part,
///   by a process that died before it heard the answer.
/// - `disable` and `destroy` touch the credential of exactly this version. When the value names the same
///   identity as one of the `others` (a user name used again), or one this provider did not make and may
///   not own (a superuser, a role outside its group), they refuse. So they do if the provider did not make the identity, and no
///   login with the value has worked: any value can name any identity.
/// - No error or description carries a value.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Such as `postgres`.
    fn kind(&self) -> &'static str;

    /// The system whose credentials it makes, such as `payments at 127.0.0.1:5432`; never a secret. Two providers of one kind
    /// and one system can end each other's credentials. Empty where there is no outside system.
    fn system(&self) -> String;

    /// What it is, for people: `postgres payments at 127.0.0.1:5432`.
    fn describe(&self) -> String {
        format!("{} {}", self.kind(), self.system()).trim_end().to_owned()
    }

    /// What a record keeps of it, under the name that the configuration gives it.
    fn id(&self, name: &str) -> ProviderId {
        ProviderId { kind: self.kind().to_owned(), name: name.to_owned(), system: self.system() }
    }

    /// Whether a value that was written from outside could be this provider's, as far as that shows without asking the
    /// outside system. `Err`: why not, without the value.
    fn accepts(&self, value: &SecretValue) -> Result<(), String>;

    /// How often a credential that is in use is to be tested again. `None`: there is nowhere to log in.
    fn test_every(&self) -> Option<Duration>;

    /// Draws a new value. Outside state is not touched: the caller makes the value durable before `create`.
    fn draw(&self, secret: &SecretName, version: Version) -> Result<SecretValue, ProviderError>;

    /// Makes the credential valid in the outside system.
    async fn create(&self, credential: &Credential) -> Result<(), ProviderError>;

    /// Logs in with it. `others` are the secret's other versions that are still valid: a credential that
    /// shares its identity with one of them is rejected, since retiring one would end the other. One whose value is gone from
    /// the store has an empty value.
    async fn test(
        &self,
        credential: &Credential,
        others: &[Credential],
        trial: Trial,
    ) -> Result<Verdict, ProviderError>;

    /// Who uses it now. Refuses when its identity is known to be another version's, or not this provider's: those
    /// sessions are not uses of this credential.
    async fn usage(&self, credential: &Credential, others: &[Credential]) -> Result<Evidence, ProviderError>;

    /// Ends its validity: no further login succeeds, and a login was tried to show it. Sessions that are
    /// still there are waited for, by [`ProviderError::InUse`], or ended, as `sessions` says.
    async fn disable(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError>;

    /// Removes it. An absent one is no error; sessions as in [`Provider::disable`].
    async fn destroy(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError>;
}
