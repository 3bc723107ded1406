//! Reads, listings and commits.

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, ResponseHeader, Txn, TxnOp};
use rotacast_proto::SecretValue;

use super::Shared;
use super::call::is_compacted;
use crate::history::Floor;
use crate::{Check, Commit, Committed, Cursor, Entry, Key, Listing, StoreError, Write};

/// Keys in one page of a listing: with the longest values 32 MiB.
const PAGE: i64 = 128;
/// How often a listing begins anew because its revision was compacted while it was being read; needs a
/// compaction each time.
const LISTING_ATTEMPTS: usize = 3;

impl Shared {
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let kv = self.kv().await?;
        let floor = self.history.floor();
        let mut answer = self
            .read(|| {
                let mut kv = kv.clone();
                async move { kv.get(key.as_str(), None).await }
            })
            .await?;
        self.answered(floor, self.header(answer.header())?)?;
        answer.take_kvs().pop().map(|kv| self.entry(kv)).transpose()
    }

    pub(super) async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        for _ in 0..LISTING_ATTEMPTS {
            if let Some(listing) = self.list_at(parent, None).await? {
                return Ok(listing);
            }
        }
        Err(self.unreachable(format!("its history was compacted {LISTING_ATTEMPTS} times during one listing")))
    }

    /// Everything below `parent` as of `revision`, or as of now. `None`: compacted.
    pub(super) async fn list_at(&self, parent: &Key, revision: Option<i64>) -> Result<Option<Listing>, StoreError> {
        let kv = self.kv().await?;
        let (mut from, to) = range(parent);
        let mut at = revision;
        let mut entries = Vec::new();
        loop {
            let floor = self.history.floor();
            let answer = self
                .read(|| {
                    let mut kv = kv.clone();
                    let mut options = GetOptions::new().with_range(to.clone()).with_limit(PAGE);
                    if let Some(revision) = at {
                        options = options.with_revision(revision);
                    }
                    let from = from.clone();
                    async move {
                        match kv.get(from, Some(options)).await {
                            Err(error) if is_compacted(&error) => Ok(None),
                            answer => answer.map(Some),
                        }
                    }
                })
                .await?;
            let Some(mut answer) = answer else { return Ok(None) };
            let header = self.header(answer.header())?;
            self.answered(floor, header)?;
            let as_of = *at.get_or_insert(header.revision());
            let more = answer.more();
            for kv in answer.take_kvs() {
                entries.push(self.entry(kv)?);
            }
            match entries.last() {
                Some(last) if more => from = format!("{}\0", last.key),
                _ => return Ok(Some(Listing { entries, cursor: Cursor(unsigned(as_of)) })),
            }
        }
    }

    pub(super) async fn commit(&self, commit: &Commit) -> Result<Committed, StoreError> {
        let compares: Vec<Compare> = commit.checks.iter().map(compare).collect();
        let writes: Vec<TxnOp> = commit.writes.iter().map(operation).collect();
        self.transact(Txn::new().when(compares).and_then(writes)).await
    }

    pub(super) async fn transact(&self, transaction: Txn) -> Result<Committed, StoreError> {
        let mut kv = self.kv().await?;
        let floor = self.history.floor();
        let answer = self.once(kv.txn(transaction)).await?;
        let header = self.header(answer.header())?;
        self.answered(floor, header)?;
        Ok(if answer.succeeded() { Committed::Done(Cursor(unsigned(header.revision()))) } else { Committed::Conflict })
    }

    pub(super) fn answered(&self, floor: Floor, header: &ResponseHeader) -> Result<(), StoreError> {
        self.history.answered(&self.name, floor, Some(header.cluster_id()), unsigned(header.revision()))
    }

    pub(super) fn header<'h>(&self, header: Option<&'h ResponseHeader>) -> Result<&'h ResponseHeader, StoreError> {
        header.ok_or_else(|| self.unreachable("its answer has no header: is a proxy in between?"))
    }

    pub(super) fn entry(&self, kv: KeyValue) -> Result<Entry, StoreError> {
        let (created, modified) = (Cursor(unsigned(kv.create_revision())), Cursor(unsigned(kv.mod_revision())));
        let (key, value) = kv.into_key_value();
        let value = SecretValue::new(value);
        let key = String::from_utf8(key).map_err(|error| StoreError::Corrupt {
            key: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            problem: "a key that is no text".into(),
        })?;
        Ok(Entry { key: Key::new(key), value, created, modified })
    }
}

fn compare(check: &Check) -> Compare {
    match check {
        Check::Absent(key) => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Check::Unchanged(key, cursor) => Compare::mod_revision(key.as_str(), CompareOp::Equal, written_at(cursor.0)),
        Check::Leads(key, epoch) => Compare::create_revision(key.as_str(), CompareOp::Equal, written_at(epoch.0)),
    }
}

/// Zero would mean "absent" to etcd. A number that no key can have been written at becomes one that none ever is.
fn written_at(number: u64) -> i64 {
    i64::try_from(number).ok().filter(|&revision| revision > 0).unwrap_or(i64::MAX)
}

fn operation(write: &Write) -> TxnOp {
    match write {
        Write::Put(key, value) => TxnOp::put(key.as_str(), value.expose(), None),
        Write::Delete(key) => TxnOp::delete(key.as_str(), None),
    }
}

/// `parent/` up to, not including, `parent0`: `0` follows `/`.
pub(super) fn range(parent: &Key) -> (String, String) {
    (format!("{parent}/"), format!("{parent}0"))
}

/// Revisions are never negative.
pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
