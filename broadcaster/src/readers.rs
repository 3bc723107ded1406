//! Who may read, on every door of one address: gRPC, the dashboard, metrics.
//!
//! Reading is free on loopback and behind client certificates, unless readers are configured; elsewhere it needs a token.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use rotacast_protocol::OperatorName;
use tokio::sync::watch;

use crate::api::Refusal;
use crate::token::{TokenDigest, Tokens};

/// A person or program that has shown a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Person {
    pub(crate) name: OperatorName,
    pub(crate) may_act: bool,
}

impl Tokens {
    pub(crate) fn person(&self, digest: &TokenDigest) -> Option<Person> {
        let find = |people: &BTreeMap<OperatorName, TokenDigest>| {
            people.iter().find(|(_, known)| *known == digest).map(|(name, _)| name.clone())
        };
        find(&self.operators)
            .map(|name| Person { name, may_act: true })
            .or_else(|| find(&self.readers).map(|name| Person { name, may_act: false }))
    }
}

/// The token that a program shows: `Some(None)` if it shows something else as one.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<Option<TokenDigest>> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    Some(TokenDigest::of(text))
}

/// Decides who may read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readers {
    tokens: watch::Receiver<Arc<Tokens>>,
    open: bool,
}

impl Readers {
    /// `open`: any client that reaches the address may read, unless readers are configured. It is on loopback, or asks for
    /// client certificates.
    #[must_use]
    pub fn new(tokens: watch::Receiver<Arc<Tokens>>, open: bool) -> Self {
        Self { tokens, open }
    }

    pub(crate) fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.borrow())
    }

    pub(crate) fn token_needed(&self) -> bool {
        !self.open || !self.tokens.borrow().readers.is_empty()
    }

    /// Whether `person`, as who has asked is known, may read.
    ///
    /// # Errors
    /// It needs a token that the configuration knows.
    pub(crate) fn admit(&self, person: Option<Person>) -> Result<Option<Person>, Refusal> {
        match person {
            None if self.token_needed() => Err(Refusal::SignIn("reading needs a token here".into())),
            person => Ok(person),
        }
    }

    /// The same for a program.
    ///
    /// # Errors
    /// It needs a token that the configuration knows.
    pub(crate) fn admit_program(&self, headers: &HeaderMap) -> Result<Option<Person>, Refusal> {
        self.admit(bearer(headers).flatten().and_then(|digest| self.tokens().person(&digest)))
    }
}
