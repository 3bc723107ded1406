//! Commits, as etcd transactions.

use crate::etcd::Shared;
use crate::etcd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcd::pb::request_op::Request;
use crate::etcd::pb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use crate::etcd::read::unsigned;
use crate::{Check, Commit, Committed, Cursor, Key, StoreError, Write};

impl Shared {
    pub(super) async fn commit(&self, commit: &Commit) -> Result<Committed, StoreError> {
        let compare = commit.checks.iter().map(compare).collect();
        let success = commit.writes.iter().map(operation).collect();
        self.transact(TxnRequest { compare, success }).await
    }

    pub(super) async fn transact(&self, transaction: TxnRequest) -> Result<Committed, StoreError> {
        let client = self.client().await?;
        let floor = self.history.floor();
        let answer = self.once(client.txn(&transaction)).await?;
        let header = self.header(answer.header.as_ref())?;
        self.answered(floor, header)?;
        Ok(if answer.succeeded { Committed::Done(Cursor(unsigned(header.revision))) } else { Committed::Conflict })
    }
}

impl Compare {
    /// The key was created at this revision; 0: it does not exist.
    pub(super) fn created(key: &Key, revision: i64) -> Self {
        Self::new(key, CompareTarget::Create, TargetUnion::CreateRevision(revision))
    }

    fn modified(key: &Key, revision: i64) -> Self {
        Self::new(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
    }

    fn new(key: &Key, target: CompareTarget, union: TargetUnion) -> Self {
        Self {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: key.as_str().into(),
            target_union: Some(union),
        }
    }
}

impl RequestOp {
    /// With a lease, the key lasts as long as the lease; 0: for good.
    pub(super) fn put(key: &Key, value: &[u8], lease: i64) -> Self {
        let put = PutRequest { key: key.as_str().into(), value: value.to_vec(), lease };
        Self { request: Some(Request::RequestPut(put)) }
    }

    pub(super) fn delete(key: &Key) -> Self {
        Self { request: Some(Request::RequestDeleteRange(DeleteRangeRequest { key: key.as_str().into() })) }
    }
}

fn compare(check: &Check) -> Compare {
    match check {
        Check::Absent(key) => Compare::created(key, 0),
        Check::Unchanged(key, cursor) => Compare::modified(key, written_at(cursor.0)),
        Check::Leads(key, epoch) => Compare::created(key, written_at(epoch.0)),
    }
}

/// Zero would mean "absent" to etcd. A number that no key can have been written at becomes one that none ever is.
fn written_at(number: u64) -> i64 {
    i64::try_from(number).ok().filter(|&revision| revision > 0).unwrap_or(i64::MAX)
}

fn operation(write: &Write) -> RequestOp {
    match write {
        Write::Put(key, value) => RequestOp::put(key, value.expose(), 0),
        Write::Delete(key) => RequestOp::delete(key),
    }
}
