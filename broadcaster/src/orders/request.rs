//! An order that waits for the approval of other operators, and whether it may be carried out. Pure.
//!
//! What is approved is exactly one order with its arguments: an approval names the digest of both, of the request, and of the
//! direction in which the secret's rotation went. Only approvals count whose operators may still give the order, with what
//! they have shown then. Times are the leader's wall clock: they bound how long an approval is worth something, and no
//! rule of safety rests on them.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use prost::Message as _;
use rotacast_proto::{Envelope, Kind, v1};
use rotacast_protocol::{ClusterName, Generation, OperatorName, SecretName, WallTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::operators::{Credential, Decision, Operators, OrderKind, RoleName, SignedIn};

/// The format that this build writes and reads.
const FORMAT: u32 = 1;
/// Keeps these digests apart from any others over the same bytes.
const DOMAIN: &[u8] = b"rotacast-request-1\n";

/// Which request: drawn at random, so that one that is gone is never meant by a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for RequestId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = fits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        parsed.map(Self).ok_or_else(|| {
            format!(
                "{:?} is no request: expected 16 hexadecimal digits, as `rotacast approvals` shows them",
                text.chars().take(64).collect::<String>()
            )
        })
    }
}

/// The digest of an order with its arguments: see [`Request::digest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderDigest(pub [u8; 32]);

/// One operator's approval.
#[derive(Clone, PartialEq, Debug)]
pub struct Approval {
    pub by: SignedIn,
    pub at: WallTime,
    /// What the operator has signed; none: on the dashboard.
    pub signed: Option<Envelope>,
}

/// An order that waits.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    pub id: RequestId,
    /// Who has given it, and must not approve it.
    pub by: SignedIn,
    pub order: OrderKind,
    pub secret: Option<SecretName>,
    /// The role by which it was given.
    pub role: RoleName,
    /// How many approvals that role asked for. A later configuration can ask for more, and not for fewer.
    pub needed: NonZeroU32,
    /// The direction of the secret's rotation then: a later one is not what was approved.
    pub generation: Option<Generation>,
    /// The order with its arguments, as [`v1::OperatorCommand`].
    pub command: Bytes,
    /// What its operator has signed; none: on the dashboard.
    pub signed: Option<Envelope>,
    pub asked: WallTime,
    /// From then on neither it nor its approvals are worth anything.
    pub expires: WallTime,
    pub approvals: Vec<Approval>,
}

/// How it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may be carried out.
    Complete { role: Option<RoleName> },
    /// So many approvals are missing.
    Waits { missing: u32 },
    /// Its time is over.
    Expired,
    /// The operator who gave it may not give it any more.
    Void { why: String },
}

/// Why an approval is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotApproved {
    /// It names another order.
    OtherOrder,
    /// Who has given the order approves it.
    Initiator,
    /// No role allows the approver this order.
    Denied {
        problem: String,
        fix: String,
    },
    Expired,
}

impl Request {
    /// What an approval names: this request, its order with all arguments, and the direction of the rotation.
    #[must_use]
    pub fn digest(&self, cluster: &ClusterName) -> OrderDigest {
        digest(cluster, self.id, self.generation, &self.command)
    }

    /// How it stands, by the rights and the time of this moment.
    #[must_use]
    pub fn standing(&self, operators: &Operators, now: WallTime) -> Standing {
        if now >= self.expires {
            return Standing::Expired;
        }
        if !operators.holds(&self.by) {
            return Standing::Void {
                why: format!("{} is no operator any more with what the order was given with", self.by.name),
            };
        }
        let (role, needed) = match operators.decide(&self.by.name, self.order, self.secret.as_ref(), false) {
            // Never fewer than it was asked for with: a reload carries nothing out.
            Decision::NeedsApprovals(rule) => (Some(rule.role), rule.needed.max(self.needed)),
            Decision::Granted { role } => (role, self.needed),
            Decision::Denied { problem, .. } => return Standing::Void { why: problem },
        };
        let counted = u32::try_from(self.counted(operators).len()).unwrap_or(u32::MAX);
        match needed.get().saturating_sub(counted) {
            0 => Standing::Complete { role },
            missing => Standing::Waits { missing },
        }
    }

    /// The operators whose approvals count at this moment, each once.
    #[must_use]
    pub fn counted(&self, operators: &Operators) -> BTreeSet<&OperatorName> {
        let counts = |approval: &&Approval| {
            let name = &approval.by.name;
            *name != self.by.name
                && operators.holds(&approval.by)
                && operators.may_approve(name, self.order, self.secret.as_ref()).is_ok()
        };
        self.approvals.iter().filter(counts).map(|approval| &approval.by.name).collect()
    }

    /// Takes an approval of the order that `seen` names. One operator counts once, whatever they approve with and how often.
    ///
    /// # Errors
    /// Why it does not count; nothing has changed.
    pub fn approve(
        &mut self,
        approval: Approval,
        seen: OrderDigest,
        operators: &Operators,
        cluster: &ClusterName,
    ) -> Result<(), NotApproved> {
        if approval.at >= self.expires {
            return Err(NotApproved::Expired);
        }
        if seen != self.digest(cluster) {
            return Err(NotApproved::OtherOrder);
        }
        if approval.by.name == self.by.name {
            return Err(NotApproved::Initiator);
        }
        operators
            .may_approve(&approval.by.name, self.order, self.secret.as_ref())
            .map_err(|(problem, fix)| NotApproved::Denied { problem, fix })?;
        self.approvals.retain(|known| known.by.name != approval.by.name);
        self.approvals.push(approval);
        Ok(())
    }

    /// Takes an operator's approval back. Whether there was one.
    pub fn take_back(&mut self, operator: &OperatorName) -> bool {
        let before = self.approvals.len();
        self.approvals.retain(|known| known.by.name != *operator);
        self.approvals.len() < before
    }
}

/// See [`Request::digest`].
fn digest(cluster: &ClusterName, id: RequestId, generation: Option<Generation>, command: &[u8]) -> OrderDigest {
    let cluster = cluster.as_str().as_bytes();
    let length = u64::try_from(cluster.len()).expect("a name is short");
    let mut hasher = Sha256::new_with_prefix(DOMAIN);
    hasher.update(length.to_be_bytes());
    hasher.update(cluster);
    hasher.update(id.0.to_be_bytes());
    hasher.update(generation.map_or(0, |it| it.0).to_be_bytes());
    hasher.update(command);
    OrderDigest(hasher.finalize().into())
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    by: StoredSignedIn,
    order: String,
    secret: Option<SecretName>,
    role: String,
    needed: NonZeroU32,
    generation: Option<u64>,
    command: String,
    signed: Option<String>,
    asked_ms: u64,
    expires_ms: u64,
    approvals: Vec<StoredApproval>,
}

#[derive(Serialize, Deserialize)]
struct StoredSignedIn {
    operator: OperatorName,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredApproval {
    by: StoredSignedIn,
    at_ms: u64,
    signed: Option<String>,
}

impl From<&SignedIn> for StoredSignedIn {
    fn from(by: &SignedIn) -> Self {
        let (key, token) = match &by.credential {
            Credential::Key(id) => (Some(id.clone()), None),
            Credential::Token(digest) => (None, Some(digest.to_string())),
        };
        Self { operator: by.name.clone(), key, token }
    }
}

impl TryFrom<StoredSignedIn> for SignedIn {
    type Error = String;
    fn try_from(stored: StoredSignedIn) -> Result<Self, String> {
        let credential = match (stored.key, stored.token) {
            (Some(id), None) => Credential::Key(id),
            (None, Some(digest)) => Credential::Token(digest.parse()?),
            _ => return Err("expected a key or a token".into()),
        };
        Ok(Self { name: stored.operator, credential })
    }
}

fn to_text(signed: &Envelope) -> String {
    BASE64.encode(v1::Envelope::from(signed.clone()).encode_to_vec())
}

fn from_text(text: &str) -> Result<Envelope, String> {
    let bytes = BASE64.decode(text).map_err(|error| format!("not base64: {error}"))?;
    v1::Envelope::decode(&bytes[..]).map(Envelope::from).map_err(|error| format!("not a signed message: {error}"))
}

impl Request {
    /// As the store keeps it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            format: FORMAT,
            by: (&self.by).into(),
            order: self.order.to_string(),
            secret: self.secret.clone(),
            role: self.role.to_string(),
            needed: self.needed,
            generation: self.generation.map(|it| it.0),
            command: BASE64.encode(&self.command),
            signed: self.signed.as_ref().map(to_text),
            asked_ms: self.asked.0,
            expires_ms: self.expires.0,
            approvals: self
                .approvals
                .iter()
                .map(|it| StoredApproval {
                    by: (&it.by).into(),
                    at_ms: it.at.0,
                    signed: it.signed.as_ref().map(to_text),
                })
                .collect(),
        };
        serde_json::to_vec(&stored).expect("names, numbers and text are JSON")
    }

    /// Reads what the store keeps.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(id: &str, bytes: &[u8]) -> Result<Self, String> {
        let id = id.parse()?;
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if stored.format != FORMAT {
            return Err(format!("format {}, expected {FORMAT}: written by a newer rotacast?", stored.format));
        }
        let approval = |it: StoredApproval| {
            let signed = it.signed.as_deref().map(from_text).transpose()?;
            Ok::<_, String>(Approval { by: it.by.try_into()?, at: WallTime(it.at_ms), signed })
        };
        Ok(Self {
            id,
            by: stored.by.try_into()?,
            order: stored.order.parse::<OrderKind>().map_err(|error| error.to_string())?,
            secret: stored.secret,
            role: stored.role.parse()?,
            needed: stored.needed,
            generation: stored.generation.map(Generation),
            command: BASE64.decode(stored.command).map_err(|error| format!("command: {error}"))?.into(),
            signed: stored.signed.as_deref().map(from_text).transpose()?,
            asked: WallTime(stored.asked_ms),
            expires: WallTime(stored.expires_ms),
            approvals: stored.approvals.into_iter().map(approval).collect::<Result<_, _>>()?,
        })
    }
}

impl Request {
    /// Checks what is signed with the keys of this moment. Approvals whose signatures do not hold are left out; keys that are no
    /// longer configured show nothing, and [`Request::standing`] does not count what was signed with them.
    ///
    /// # Errors
    /// The order itself is not what its operator has signed.
    pub fn verified(mut self, operators: &Operators, cluster: &ClusterName) -> Result<Self, String> {
        if let Some(payload) = signed_payload(&self.by, self.signed.as_ref(), operators, cluster)?
            && payload != self.command
        {
            return Err(format!("it is not the order that {} has signed", self.by.name));
        }
        let (id, seen) = (self.id, self.digest(cluster));
        self.approvals.retain(|approval| {
            match signed_payload(&approval.by, approval.signed.as_ref(), operators, cluster) {
                Ok(Some(payload)) => names(&payload, &approval.by.name, id, seen),
                Ok(None) => true,
                Err(_) => false,
            }
        });
        Ok(self)
    }
}

/// What an operator has signed; none if there is nothing that the keys of this moment could check.
fn signed_payload(
    by: &SignedIn,
    signed: Option<&Envelope>,
    operators: &Operators,
    cluster: &ClusterName,
) -> Result<Option<Bytes>, String> {
    let Credential::Key(id) = &by.credential else { return Ok(None) };
    if !operators.holds(by) {
        return Ok(None);
    }
    let signed = signed.ok_or_else(|| format!("the signature of {} is missing", by.name))?;
    let key = |found: &str| operators.by_key(found).filter(|(name, _)| **name == by.name && found == id);
    let payload = signed.verify(Kind::OperatorCommand, cluster, |found| key(found).map(|(_, key)| key));
    payload.cloned().map(Some).map_err(|error| format!("the signature of {}: {error}", by.name))
}

/// Whether it is this operator's approval of that order.
fn names(payload: &Bytes, operator: &OperatorName, id: RequestId, seen: OrderDigest) -> bool {
    let Ok(command) = v1::OperatorCommand::decode(payload.clone()) else { return false };
    let Some(v1::operator_command::Action::ApproveRequest(approved)) = command.action else { return false };
    command.operator == operator.as_str() && approved.request == id.to_string() && *approved.digest == seen.0
}
