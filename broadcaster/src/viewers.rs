//! Who may read, on every door of one address: gRPC, the dashboard, metrics.
//!
//! Without roles, reading is free on loopback and behind client certificates; elsewhere, and as soon as there are roles, it
//! needs a token, and then it is as wide as the roles of its operator.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use rotacast_protocol::{OperatorName, SecretName};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Refusal;
use crate::connections::Peer;
use crate::operators::{Operators, Reading, SignedIn};
use crate::sign_ins::SignIns;
use crate::token::TokenDigest;

/// The token that a program shows: `Some(None)` if it shows something else as one.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<Option<TokenDigest>> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    Some(TokenDigest::of(text))
}

/// Someone who reads, with the rights of this moment.
#[derive(Clone, Debug)]
pub(crate) struct Viewer {
    operators: Arc<Operators>,
    /// None: reading needs no sign-in here.
    operator: Option<OperatorName>,
}

impl Viewer {
    /// Who has signed in.
    pub(crate) fn operator(&self) -> Option<&OperatorName> {
        self.operator.as_ref()
    }

    /// Whether there is an order that they may give.
    pub(crate) fn may_order(&self) -> bool {
        self.operator.as_ref().is_some_and(|name| self.operators.may_order_some(name))
    }

    /// Whether there is a role by which they may act alone in an emergency.
    pub(crate) fn may_act_alone(&self) -> bool {
        self.operator.as_ref().is_some_and(|name| self.operators.has_emergency_role(name))
    }

    /// Whether they may read something about a secret; `None`: about all, and the broadcaster itself.
    pub(crate) fn reads(&self, what: Reading, secret: Option<&SecretName>) -> bool {
        self.operator.as_ref().is_none_or(|name| self.operators.may_read(name, what, secret))
    }

    /// Refuses what [`Viewer::reads`] denies.
    ///
    /// # Errors
    /// Who may not read what.
    pub(crate) fn check(&self, what: Reading, secret: Option<&SecretName>) -> Result<(), Refusal> {
        if self.reads(what, secret) {
            return Ok(());
        }
        Err(self.denied(what, secret.map_or("*", SecretName::as_str)))
    }

    /// Refuses if there is nothing of the kind that they may read; what there is is left out by [`Viewer::reads`].
    ///
    /// # Errors
    /// Who may not read what.
    pub(crate) fn check_some(&self, what: Reading) -> Result<(), Refusal> {
        if self.operator.as_ref().is_none_or(|name| self.operators.may_read_some(name, what)) {
            return Ok(());
        }
        Err(self.denied(what, "*"))
    }

    fn denied(&self, what: Reading, secrets: &str) -> Refusal {
        let name = self.operator.as_ref().map_or("this client", OperatorName::as_str);
        let about = if secrets == "*" { "of all secrets".to_owned() } else { format!("of {secrets}") };
        let about = if what == Reading::Metrics { String::new() } else { format!(" {about}") };
        Refusal::Denied {
            problem: format!("{name} may not read {what}{about}"),
            fix: format!(
                "needed is a role with \"{what}\" in read and {secrets} in secrets: add it to roles of [operators.{name}] in the \
                 broadcaster's configuration"
            ),
        }
    }
}

/// Decides who may read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Viewers {
    operators: watch::Receiver<Arc<Operators>>,
    open: bool,
    sign_ins: SignIns,
}

impl Viewers {
    /// `open`: any client that reaches the address may read, unless there are roles. It is on loopback, or asks for client
    /// certificates.
    #[must_use]
    pub fn new(operators: watch::Receiver<Arc<Operators>>, open: bool) -> Self {
        Self { operators, open, sign_ins: SignIns::default() }
    }

    /// The same viewers; what they show is limited and counted there.
    #[must_use]
    pub fn counted_by(mut self, sign_ins: SignIns) -> Self {
        self.sign_ins = sign_ins;
        self
    }

    pub(crate) fn sign_ins(&self) -> &SignIns {
        &self.sign_ins
    }

    /// The operators and roles of this moment.
    pub(crate) fn operators(&self) -> Arc<Operators> {
        Arc::clone(&self.operators.borrow())
    }

    /// Hears of every change of operators and roles.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Operators>> {
        self.operators.clone()
    }

    pub(crate) fn token_needed(&self) -> bool {
        !self.open || !self.operators.borrow().roles().is_empty()
    }

    /// Who reads, if they may read at all.
    ///
    /// # Errors
    /// It needs a token that the configuration knows.
    pub(crate) fn admit(&self, signed_in: Option<SignedIn>) -> Result<Viewer, Refusal> {
        match signed_in {
            None if self.token_needed() => Err(Refusal::SignIn("reading needs a token here".into())),
            signed_in => {
                let operator = signed_in.map(|it| it.name);
                Ok(Viewer { operators: self.operators(), operator })
            }
        }
    }

    /// The same for a program.
    ///
    /// # Errors
    /// It needs a token that the configuration knows, or has shown too many wrong ones.
    pub(crate) fn admit_program(&self, headers: &HeaderMap, source: Option<Peer>) -> Result<Viewer, Refusal> {
        self.admit(self.shown(headers, source)?)
    }

    /// The same for one that was admitted, and may have lost its rights since.
    ///
    /// # Errors
    /// It needs a token that the configuration knows.
    pub(crate) fn admit_again(&self, headers: &HeaderMap) -> Result<Viewer, Refusal> {
        self.admit(bearer(headers).flatten().and_then(|digest| self.operators().by_token(&digest)))
    }

    /// Whose token a program shows; none: it shows none, or a wrong one.
    ///
    /// # Errors
    /// It has shown too many wrong ones.
    pub(crate) fn shown(&self, headers: &HeaderMap, source: Option<Peer>) -> Result<Option<SignedIn>, Refusal> {
        let Some(digest) = bearer(headers) else { return Ok(None) };
        let found = self.sign_ins.attempt(source, Instant::now(), || {
            let known = digest.and_then(|digest| self.operators().by_token(&digest));
            known.ok_or_else(|| Refusal::SignIn("this is not a token that the configuration knows".into()))
        });
        match found {
            Ok(signed_in) => Ok(Some(signed_in)),
            Err(busy @ Refusal::Busy(_)) => Err(busy),
            Err(_) => Ok(None),
        }
    }
}
