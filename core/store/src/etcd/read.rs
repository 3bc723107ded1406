//! Reads and listings.

use rotacast_proto::SecretValue;

use super::Shared;
use super::call::is_compacted;
use super::generated::mvccpb::KeyValue;
use super::pb::{RangeRequest, ResponseHeader};
use crate::history::Floor;
use crate::{Cursor, Entry, Key, Listing, StoreError};

/// Keys in one page of a listing: with the longest values 32 MiB.
const PAGE: i64 = 128;
/// How often a listing begins anew because its revision was compacted while it was being read; needs a
/// compaction each time.
const LISTING_ATTEMPTS: usize = 3;

impl Shared {
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.get_leased(key).await?.map(|(entry, _)| entry))
    }

    /// A key, and the lease that it is bound to; 0: none.
    pub(super) async fn get_leased(&self, key: &Key) -> Result<Option<(Entry, i64)>, StoreError> {
        let client = self.client().await?;
        let floor = self.history.floor();
        let request = RangeRequest { key: key.as_str().into(), ..RangeRequest::default() };
        let mut answer = self.read(|| client.range(&request)).await?;
        self.answered(floor, self.header(answer.header.as_ref())?)?;
        Ok(answer.kvs.pop().map(|kv| {
            let lease = kv.lease;
            (entry(kv), lease)
        }))
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
        let client = self.client().await?;
        let mut request =
            RangeRequest { limit: PAGE, revision: revision.unwrap_or_default(), ..RangeRequest::below(parent) };
        let mut entries = Vec::new();
        loop {
            let floor = self.history.floor();
            let answer = self.read(|| async {
                match client.range(&request).await {
                    Err(status) if is_compacted(&status) => Ok(None),
                    answer => answer.map(Some),
                }
            });
            let Some(answer) = answer.await? else { return Ok(None) };
            let header = self.header(answer.header.as_ref())?;
            self.answered(floor, header)?;
            // The other pages are of the first one's moment.
            if request.revision == 0 {
                request.revision = header.revision;
            }
            // As etcd has it: the next page begins behind it even if it is no text.
            let last = answer.kvs.last().map(|kv| kv.key.clone());
            entries.extend(answer.kvs.into_iter().map(entry));
            match last {
                Some(last) if answer.more => request.key = [&*last, &[0]].concat(),
                _ => return Ok(Some(Listing { entries, cursor: Cursor(unsigned(request.revision)) })),
            }
        }
    }

    pub(super) fn answered(&self, floor: Floor, header: &ResponseHeader) -> Result<(), StoreError> {
        self.history.answered(&self.name, floor, Some(header.cluster_id), unsigned(header.revision))
    }

    pub(super) fn header<'h>(&self, header: Option<&'h ResponseHeader>) -> Result<&'h ResponseHeader, StoreError> {
        header.ok_or_else(|| self.unreachable("its answer has no header: is a proxy in between?"))
    }
}

pub(super) fn entry(kv: KeyValue) -> Entry {
    let (created, modified) = (Cursor(unsigned(kv.create_revision)), Cursor(unsigned(kv.mod_revision)));
    Entry { key: key_of(&kv.key), value: SecretValue::new(kv.value), created, modified }
}

/// A key that is no text is shown with escapes such as `\xff`. No name of ours has a backslash, so that it is reported
/// as a key that does not parse, and stands for no other.
pub(super) fn key_of(bytes: &[u8]) -> Key {
    match std::str::from_utf8(bytes) {
        Ok(text) => Key::new(text),
        Err(_) => Key::new(bytes.escape_ascii().to_string()),
    }
}

impl RangeRequest {
    /// `parent/` up to, not including, `parent0`: `0` follows `/`.
    pub(super) fn below(parent: &Key) -> Self {
        Self { key: format!("{parent}/").into(), range_end: format!("{parent}0").into(), ..Self::default() }
    }
}

/// Revisions are never negative.
pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
