//! Commits: one transaction each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rotacast_proto::SecretValue;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::session::SessionId;
use crate::consul::Shared;
use crate::consul::call::{Call, clipped};
use crate::{Check, Commit, Committed, Cursor, Key, StoreError, Write};

/// Limit of Consul 1.8 for the operations of one transaction; later ones allow more.
const MAX_OPERATIONS: usize = 64;
/// Bits of the random number that makes every write a change: what every JSON reader keeps exactly.
const FLAG_BITS: u32 = 53;
/// What a transaction's JSON takes beside keys and values, at most, per operation.
const OVERHEAD_PER_OPERATION: usize = 128;

#[derive(Serialize)]
#[serde(rename_all = "UPPERCASE")]
struct Operation<'c> {
    kv: Kv<'c>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kv<'c> {
    verb: &'static str,
    key: &'c str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_base64")]
    value: Option<&'c SecretValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'c SessionId>,
}

impl<'c> Operation<'c> {
    fn of(verb: &'static str, key: &'c Key) -> Self {
        Self { kv: Kv { verb, key: key.as_str(), value: None, index: None, flags: None, session: None } }
    }
}

fn as_base64<S: Serializer>(value: &Option<&SecretValue>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(value) = value else { return serializer.serialize_none() };
    let mut text = Zeroizing::new(String::with_capacity(base64_length(value.len())));
    BASE64.encode_string(value.expose(), &mut text);
    serializer.serialize_str(&text)
}

fn base64_length(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    results: Option<Vec<Done>>,
    errors: Option<Vec<Refused>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Done {
    kv: Option<DoneKv>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DoneKv {
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Refused {
    op_index: usize,
    pub(super) what: String,
}

/// How a transaction ended.
pub(super) enum Transacted {
    /// Done; the newest index among the keys it names, if there are any.
    Done(Option<u64>),
    /// Refused by these operations.
    Refused(Vec<Refused>),
}

impl Shared {
    pub(super) async fn commit(&self, commit: &Commit) -> Result<Committed, StoreError> {
        for write in &commit.writes {
            let (Write::Put(key, _) | Write::Delete(key)) = write;
            self.check_key(key)?;
        }
        let sessions = self.sessions_of(&commit.checks);
        let mut operations: Vec<Operation<'_>> = Vec::new();
        for (check, session) in commit.checks.iter().zip(&sessions) {
            add_check(&mut operations, check, session.as_ref());
        }
        let checks = operations.len();
        // The same for all keys of a commit, and for every attempt at it.
        let flags = rand::random::<u64>() >> (u64::BITS - FLAG_BITS);
        operations.extend(commit.writes.iter().map(|write| match write {
            Write::Put(key, value) => {
                let mut operation = Operation::of("set", key);
                operation.kv.value = Some(value);
                operation.kv.flags = Some(flags);
                operation
            }
            Write::Delete(key) => Operation::of("delete", key),
        }));
        if operations.len() > MAX_OPERATIONS {
            return Err(StoreError::Invalid {
                what: "a commit".into(),
                problem: format!("{} operations, expected at most Consul's {MAX_OPERATIONS}", operations.len()),
            });
        }
        let floor = self.history.floor();
        let newest = match self.transact(&operations).await? {
            Transacted::Refused(refused) => return self.conflict(&refused, checks),
            Transacted::Done(newest) => newest,
        };
        let puts = commit.writes.iter().any(|write| matches!(write, Write::Put(..)));
        let cursor = match (newest, commit.writes.first()) {
            // The keys that were put have the greatest index of all.
            (Some(index), _) if puts => {
                // Given just now, so beyond all that was seen.
                self.history.answered(&self.name, floor, None, index)?;
                index
            }
            // Consul does not tell at which index it deleted: the table's is not earlier.
            (_, Some(Write::Put(key, _) | Write::Delete(key))) => self.probe(key, floor).await?,
            (newest, None) => newest.unwrap_or(floor.position()),
        };
        self.history.reached(&self.name, floor, cursor)?;
        Ok(Committed::Done(Cursor(cursor)))
    }

    /// For each check of a term that this handle holds, its session. After a restored backup, indexes are given
    /// again: another leader's lock may then have the index of our lost one, but never its session.
    fn sessions_of(&self, checks: &[Check]) -> Vec<Option<SessionId>> {
        let terms = self.terms();
        let session = |check: &Check| match check {
            Check::Leads(key, epoch) => terms.get(&(key.clone(), epoch.0)).cloned(),
            Check::Absent(_) | Check::Unchanged(..) => None,
        };
        checks.iter().map(session).collect()
    }

    /// A refused check is a conflict; anything else is a mistake in the request.
    fn conflict(&self, refused: &[Refused], checks: usize) -> Result<Committed, StoreError> {
        self.refused_rights(refused)?;
        if refused.iter().all(|refused| refused.op_index < checks) {
            return Ok(Committed::Conflict);
        }
        Err(StoreError::Invalid { what: "a commit".into(), problem: reasons(refused) })
    }

    pub(super) fn refused_rights(&self, refused: &[Refused]) -> Result<(), StoreError> {
        match refused.iter().find(|refused| refused.what.contains("Permission denied")) {
            Some(_) => Err(self.denied(&reasons(refused))),
            None => Ok(()),
        }
    }

    /// Takes the lock if no session holds it, also on a key that was written by hand.
    pub(super) async fn lock(
        &self,
        key: &Key,
        value: &SecretValue,
        session: &SessionId,
    ) -> Result<Transacted, StoreError> {
        let mut lock = Operation::of("lock", key);
        lock.kv.value = Some(value);
        lock.kv.session = Some(session);
        self.transact(&[lock]).await
    }

    /// Deletes a key if this session holds it.
    pub(super) async fn unlock(&self, key: &Key, session: &SessionId) -> Result<Transacted, StoreError> {
        let mut held = Operation::of("check-session", key);
        held.kv.session = Some(session);
        self.transact(&[held, Operation::of("delete", key)]).await
    }

    async fn transact(&self, operations: &[Operation<'_>]) -> Result<Transacted, StoreError> {
        let size = |operation: &Operation<'_>| {
            let value = operation.kv.value.map_or(0, SecretValue::len);
            OVERHEAD_PER_OPERATION + operation.kv.key.len() * 2 + base64_length(value)
        };
        // Of its full size from the start, so that no part of it is left behind in memory.
        let mut body = Zeroizing::new(Vec::with_capacity(operations.iter().map(size).sum()));
        serde_json::to_writer(&mut *body, operations).expect("text and numbers always serialise");
        let mut url = self.url(["txn"]);
        // Heeded if it only checks.
        url.query_pairs_mut().append_key_only("consistent");
        let answer = self.once(&Call::write(url, body)).await?;
        let outcome: Outcome = serde_json::from_slice(&answer.body).map_err(|problem| self.unreadable(&problem))?;
        if let Some(refused) = outcome.errors.filter(|refused| !refused.is_empty()) {
            return Ok(Transacted::Refused(refused));
        }
        if answer.status.as_u16() != 200 {
            return Err(self.unreachable(format!("its answer to a transaction is {} without a reason", answer.status)));
        }
        let indexes = outcome.results.into_iter().flatten().filter_map(|done| Some(done.kv?.modify_index));
        Ok(Transacted::Done(indexes.max()))
    }
}

fn add_check<'c>(operations: &mut Vec<Operation<'c>>, check: &'c Check, session: Option<&'c SessionId>) {
    let at = |key, index| {
        let mut operation = Operation::of("check-index", key);
        operation.kv.index = Some(index);
        operation
    };
    match check {
        Check::Absent(key) => operations.push(Operation::of("check-not-exists", key)),
        Check::Unchanged(key, cursor) => operations.push(at(key, cursor.0)),
        Check::Leads(key, epoch) => {
            operations.push(at(key, epoch.0));
            if let Some(session) = session {
                let mut held = Operation::of("check-session", key);
                held.kv.session = Some(session);
                operations.push(held);
            }
        }
    }
}

/// Consul's reasons name keys and indexes, never values.
pub(super) fn reasons(refused: &[Refused]) -> String {
    let all: Vec<&str> = refused.iter().map(|refused| refused.what.as_str()).collect();
    clipped(&all.join("; "))
}
