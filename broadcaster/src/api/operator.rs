//! Who an operator is: signature, name, freshness, and that no command is taken twice.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rotacast_admin::limits::MAX_PUT_BYTES;
use rotacast_proto::{Envelope, Kind, SecretValue, order_from_wire, v1};
use rotacast_protocol::coordinator::Reason;
use rotacast_protocol::{ClusterName, Epoch, OperatorName, SecretName, WallTime};
use zeroize::Zeroize as _;

use super::Refusal;
use super::control::Action;
use crate::audit::OrderProof;
use crate::operators::{Credential, Operators, OrderKind, SignedIn};
use crate::orders::{Given, Instruction, OrderDigest, RequestId};

/// How far a command's issue time may lie from this machine's clock, either way.
pub const FRESHNESS: Duration = Duration::from_secs(5 * 60);
/// Most commands of one operator remembered against replay: some seven a second for all of twice [`FRESHNESS`]. When they
/// are used up, this operator's commands are refused instead of one being forgotten while it could still be replayed.
/// Operators are as many as the configuration has, and none can use up what another needs.
const MAX_REMEMBERED_OF_ONE: usize = 4_096;

/// Longest name of a doubt about the audit log, in bytes: ours have 16.
const MAX_DOUBT_BYTES: usize = 64;

/// A message with an operator's signature, not looked at otherwise.
pub(super) struct Authentic {
    operator: OperatorName,
    envelope: Envelope,
}

/// Turns signed envelopes into commands of known operators, each at most once.
#[derive(Debug)]
pub struct Gate {
    cluster: ClusterName,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    known: HashMap<OperatorName, HashSet<u64>>,
    /// In order of the time when each may be forgotten.
    order: VecDeque<(u64, (OperatorName, u64))>,
}

impl Gate {
    /// Guards commands to `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterName) -> Self {
        Self { cluster, taken: Mutex::default() }
    }

    /// Checks signature, name, freshness and contents, and remembers the command. Those for another term than this
    /// broadcaster's (`term`) are refused too: the leader of that one may have taken them, and only it remembers. A restart
    /// begins a new term, so that what is forgotten with it is refused.
    ///
    /// # Errors
    /// [`Refusal`], with expected and found.
    pub fn admit(
        &self,
        envelope: v1::Envelope,
        operators: &Operators,
        term: Epoch,
        now: WallTime,
    ) -> Result<(SignedIn, Asked), Refusal> {
        self.take(self.authenticate(envelope, operators)?, term, now)
    }

    /// Checks the signature alone.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`]: no operator has signed it.
    pub(super) fn authenticate(&self, envelope: v1::Envelope, operators: &Operators) -> Result<Authentic, Refusal> {
        let envelope = Envelope::from(envelope);
        let found = operators.by_key(&envelope.key_id);
        envelope
            .verify(Kind::OperatorCommand, &self.cluster, |_| found.map(|(_, key)| key))
            .map_err(|error| Refusal::Unauthenticated(error.to_string()))?;
        let (operator, _) = found.expect("verify succeeds only with a key that was found");
        Ok(Authentic { operator: operator.clone(), envelope })
    }

    /// Checks the rest of what an operator has signed: see [`Gate::admit`].
    pub(super) fn take(&self, authentic: Authentic, term: Epoch, now: WallTime) -> Result<(SignedIn, Asked), Refusal> {
        let Authentic { operator: key_operator, mut envelope } = authentic;
        let payload = std::mem::take(&mut envelope.payload);
        let wire = v1::OperatorCommand::decode(payload.clone())
            .map_err(|error| Refusal::Invalid(format!("command does not parse: {error}")))?;
        check_whole(&wire, payload.len())?;
        if wire.operator != key_operator.as_str() {
            return Err(Refusal::Unauthenticated(format!(
                "command in the name of operator {:?}, but the key that signed it belongs to {key_operator}",
                shown(&wire.operator)
            )));
        }
        if wire.secret != envelope.subject {
            return Err(Refusal::Unauthenticated(format!(
                "command about {:?} in an envelope about {:?}",
                shown(&wire.secret),
                shown(&envelope.subject)
            )));
        }
        check_fresh(wire.issued_ms, now)?;
        check_term(wire.epoch, term)?;
        let nonce = wire.nonce;
        let issued = wire.issued_ms;
        let credential = Credential::Key(envelope.key_id.clone());
        let asked = parse(wire, envelope, payload)?;
        self.remember(key_operator.clone(), nonce, issued, now)?;
        Ok((SignedIn { name: key_operator, credential }, asked))
    }

    fn remember(&self, operator: OperatorName, nonce: u64, issued_ms: u64, now: WallTime) -> Result<(), Refusal> {
        let limit = u64::try_from(FRESHNESS.as_millis()).expect("a few minutes fit");
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.order.front().is_some_and(|(forget, _)| *forget < now.0) {
            let (_, (operator, nonce)) = taken.order.pop_front().expect("a front was seen");
            if let Some(nonces) = taken.known.get_mut(&operator) {
                nonces.remove(&nonce);
                if nonces.is_empty() {
                    taken.known.remove(&operator);
                }
            }
        }
        let nonces = taken.known.entry(operator.clone()).or_default();
        if nonces.len() >= MAX_REMEMBERED_OF_ONE {
            return Err(Refusal::Busy(format!(
                "{MAX_REMEMBERED_OF_ONE} commands of {operator} within ten minutes; expected fewer"
            )));
        }
        if !nonces.insert(nonce) {
            return Err(Refusal::Unauthenticated(format!(
                "command {nonce:016x} was taken before; a command is taken once"
            )));
        }
        // Kept until `check_fresh` must find it too old, whose window ends `limit` after its issue.
        let forget = issued_ms.saturating_add(limit);
        let at = taken.order.partition_point(|(other, _)| *other <= forget);
        taken.order.insert(at, (forget, (operator, nonce)));
        Ok(())
    }
}

/// Refuses what holds more than this build reads: an order is not carried out in part, and what fills a message up does not
/// travel into the audit log. The value of a `put` is not copied for that.
fn check_whole(wire: &v1::OperatorCommand, found: usize) -> Result<(), Refusal> {
    let expected = wire.encoded_len();
    if found != expected {
        return Err(Refusal::Invalid(format!(
            "command of {found} bytes; expected {expected}, which hold all that this build knows of it: use the `rotacast` of \
             the broadcaster's version"
        )));
    }
    Ok(())
}

fn check_fresh(issued_ms: u64, now: WallTime) -> Result<(), Refusal> {
    let limit = u64::try_from(FRESHNESS.as_millis()).expect("a few minutes fit");
    if issued_ms.abs_diff(now.0) > limit {
        return Err(Refusal::Unauthenticated(format!(
            "command issued at {}, but it is {now} here; expected at most 5 minutes apart: send it again, and \
             set the clock of the machine that is wrong",
            WallTime(issued_ms)
        )));
    }
    Ok(())
}

fn check_term(given_in: u64, term: Epoch) -> Result<(), Refusal> {
    if given_in != term.0 {
        return Err(Refusal::Unauthenticated(format!(
            "command given in term {given_in}, but this is term {term}, and the leader before may have taken it: look at \
             the status and give it again if it was not"
        )));
    }
    Ok(())
}

/// What an operator asks.
pub enum Asked {
    /// An order.
    Order(Given),
    /// To approve another one's order: the secret that it is about, if any, the request, and the order that the operator has seen.
    Approve { secret: Option<SecretName>, request: RequestId, seen: OrderDigest, proof: OrderProof },
    /// To take an order or an approval back.
    Withdraw { secret: Option<SecretName>, request: RequestId, proof: OrderProof },
}

/// Reads the contents. `payload` is dropped with what was decoded from it if it holds a value; otherwise it goes back into
/// its envelope, as proof of the order.
fn parse(mut wire: v1::OperatorCommand, mut envelope: Envelope, payload: Bytes) -> Result<Asked, Refusal> {
    use v1::operator_command::Action as Wire;
    let about = |secret: &str| match secret {
        "" => Ok(None),
        secret => SecretName::new(secret).map(Some).map_err(invalid),
    };
    match wire.action.take() {
        Some(Wire::Put(put)) => {
            let secret = SecretName::new(wire.secret).map_err(invalid)?;
            let found = put.value.len();
            if found == 0 || found > MAX_PUT_BYTES {
                return Err(Refusal::Invalid(format!("value of {found} bytes; expected 1 to {MAX_PUT_BYTES}")));
            }
            let value = SecretValue::new(put.value.to_vec());
            drop(put);
            wipe(payload);
            let instruction = Instruction::Secret(secret, Action::Put(value));
            let reason = given_reason(&wire.reason)?;
            Ok(Asked::Order(Given { instruction, reason, emergency: wire.emergency, proof: OrderProof::CoversValue }))
        }
        Some(Wire::ApproveRequest(approved)) => {
            let digest: [u8; 32] = approved
                .digest
                .as_ref()
                .try_into()
                .map_err(|_| Refusal::Invalid(format!("digest of {} bytes; expected 32", approved.digest.len())))?;
            let (secret, request) = (about(&wire.secret)?, approved.request.parse().map_err(invalid)?);
            envelope.payload = payload;
            let proof = OrderProof::Signed(Box::new(envelope));
            Ok(Asked::Approve { secret, request, seen: OrderDigest(digest), proof })
        }
        Some(Wire::WithdrawRequest(withdrawn)) => {
            let (secret, request) = (about(&wire.secret)?, withdrawn.request.parse().map_err(invalid)?);
            envelope.payload = payload;
            Ok(Asked::Withdraw { secret, request, proof: OrderProof::Signed(Box::new(envelope)) })
        }
        action => {
            let emergency = wire.emergency;
            let (instruction, reason) = instruction_of(v1::OperatorCommand { action, ..wire })?;
            envelope.payload = payload;
            let proof = OrderProof::Signed(Box::new(envelope));
            Ok(Asked::Order(Given { instruction, reason, emergency, proof }))
        }
    }
}

/// The order, and the reason beside it, of a command that carries no value.
pub(crate) fn instruction_of(wire: v1::OperatorCommand) -> Result<(Instruction, Option<Reason>), Refusal> {
    use v1::operator_command::Action as Wire;
    let reason = given_reason(&wire.reason)?;
    let instruction = match wire.action {
        Some(Wire::AcceptAuditLoss(loss)) => {
            if loss.doubt.len() > MAX_DOUBT_BYTES {
                return Err(Refusal::Invalid(format!(
                    "doubt of {} bytes; expected at most {MAX_DOUBT_BYTES}",
                    loss.doubt.len()
                )));
            }
            let reason = Reason::new(&wire.reason).map_err(invalid)?;
            Instruction::AcceptAuditLoss { doubt: loss.doubt, reason }
        }
        Some(order) => {
            let secret = SecretName::new(wire.secret).map_err(invalid)?;
            Instruction::Secret(secret, Action::Order(order_from_wire(order, &wire.reason).map_err(invalid)?))
        }
        None => return Err(Refusal::Invalid("the command has no action this build knows; upgrade it".into())),
    };
    check_reason(instruction.kind(), reason.as_ref())?;
    Ok((instruction, reason))
}

/// The reason that travels beside an order; none if it is empty.
pub(crate) fn given_reason(text: &str) -> Result<Option<Reason>, Refusal> {
    if text.trim().is_empty() { Ok(None) } else { Reason::new(text).map(Some).map_err(invalid) }
}

/// Refuses an order without a reason where it needs one.
pub(crate) fn check_reason(order: OrderKind, reason: Option<&Reason>) -> Result<(), Refusal> {
    match reason {
        None if order.needs_reason() => Err(Refusal::Invalid(format!("{order}: the reason is empty: say why"))),
        _ => Ok(()),
    }
}

/// Wipes a received message that carried a value, where its buffer is ours alone. While the transport
/// still shares the buffer that is not possible; it reuses it for the next message or frees it.
fn wipe(payload: Bytes) {
    if let Ok(mut payload) = payload.try_into_mut() {
        payload.as_mut().zeroize();
    }
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::Invalid(error.to_string())
}

/// Enough of a stranger's text to recognise it.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_who_sends_too_many_commands_keeps_no_other_from_sending_one() {
        let gate = Gate::new(ClusterName::new("prod").unwrap());
        let remember =
            |who: &str, nonce, now| gate.remember(OperatorName::new(who).unwrap(), nonce, 1_000, WallTime(now));
        for nonce in 0..MAX_REMEMBERED_OF_ONE as u64 {
            remember("eve", nonce, 1_000).unwrap();
        }
        assert!(matches!(remember("eve", u64::MAX, 1_000), Err(Refusal::Busy(_))));
        assert!(remember("kim", 1, 1_000).is_ok());
        assert!(matches!(remember("kim", 1, 1_000), Err(Refusal::Unauthenticated(_))), "once each");
        // What is too old to be taken is forgotten.
        assert!(remember("eve", u64::MAX, 1_001 + 300_000).is_ok());
        assert_eq!(gate.taken.lock().unwrap().known.len(), 1);
    }
}
