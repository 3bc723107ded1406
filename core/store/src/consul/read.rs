//! Reads and listings.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rotacast_proto::SecretValue;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, de};

use super::Shared;
use super::call::{Answer, Call};
#[cfg(feature = "leader")]
use super::leader::SessionId;
use super::watch::patience;
use crate::history::Floor;
use crate::{Cursor, Entry, Key, Listing, StoreError};

/// A name below any folder that no key of ours has: reading it tells the table's index, and whether we may read there. Another
/// client may have written it; with random digits behind it, it is a name that nothing has.
const ABSENT: &str = "~";

/// How many of the keys that vanished from a listing are asked for: rights go by prefix, so a few spread over them find what is hidden,
/// and a large deletion costs no more.
const MOST_ASKED: usize = 32;

/// A key as Consul tells it. No `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    key: String,
    #[serde(default, deserialize_with = "from_base64")]
    value: Option<SecretValue>,
    create_index: u64,
    pub(super) modify_index: u64,
    #[cfg(feature = "leader")]
    #[serde(default)]
    pub(super) session: Option<SessionId>,
}

impl Pair {
    fn into_entry(self) -> Entry {
        Entry {
            key: Key::new(self.key),
            value: self.value.unwrap_or_else(|| SecretValue::new(Vec::new())),
            created: Cursor(self.create_index),
            modified: Cursor(self.modify_index),
        }
    }

    /// What Consul's own interface makes for an empty folder.
    fn is_folder_marker(&self) -> bool {
        self.key.ends_with('/') && self.value.as_ref().is_none_or(SecretValue::is_empty)
    }
}

/// Without a copy of the text that would not be wiped.
fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretValue>, D::Error> {
    struct Encoded;
    impl<'de> Visitor<'de> for Encoded {
        type Value = Option<SecretValue>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("Base64 or null")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            // The decoder's own words would show a byte of the value.
            BASE64.decode(text).map(|bytes| Some(SecretValue::new(bytes))).map_err(|_| E::custom("no Base64"))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_str(self).map_err(D::Error::custom)
        }
    }
    deserializer.deserialize_option(Encoded)
}

/// A listing, and where a blocking query goes on from.
pub(super) struct Listed {
    pub(super) entries: Vec<Entry>,
    pub(super) index: u64,
}

impl Shared {
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.pair(key).await?.map(Pair::into_entry))
    }

    pub(super) async fn pair(&self, key: &Key) -> Result<Option<Pair>, StoreError> {
        self.check_key(key)?;
        let floor = self.history.floor();
        let answer = self.read(&Call::read(consistent(self.key_url(key.as_str())))).await?;
        self.pair_of(floor, &answer)
    }

    fn pair_of(&self, floor: Floor, answer: &Answer) -> Result<Option<Pair>, StoreError> {
        let index = self.index(answer)?;
        let pair = self.pairs(answer)?.pop();
        match pair {
            // The index of a key that is not there is the table's.
            None => self.history.answered(&self.name, floor, None, index)?,
            Some(_) => self.history.reached(&self.name, floor, index)?,
        }
        Ok(pair)
    }

    /// Waits until the key's index is no longer `index`, or Consul's own time for it is over.
    #[cfg(feature = "leader")]
    pub(super) async fn pair_after(&self, key: &Key, index: u64, wait: Duration) -> Result<Option<Pair>, StoreError> {
        let mut url = consistent(self.key_url(key.as_str()));
        url.query_pairs_mut()
            .append_pair("index", &index.max(1).to_string())
            .append_pair("wait", &format!("{}ms", wait.as_millis()));
        let answer = self.blocking(&Call::read(url), patience(wait)).await?;
        Ok(self.pairs(&answer)?.pop())
    }

    /// The index of the whole table, linearizably, checked against what was seen before. Fails by name if nothing
    /// below `parent` may be read.
    pub(super) async fn probe(&self, parent: &Key, floor: Floor) -> Result<u64, StoreError> {
        for name in [ABSENT.to_owned(), format!("{ABSENT}{:016x}", rand::random::<u64>())] {
            let answer = self.read(&Call::read(consistent(self.key_url(parent.child(&name).as_str())))).await?;
            // The index of a key that is there is its own.
            if self.pair_of(floor, &answer)?.is_none() {
                return self.index(&answer);
            }
        }
        Err(self.unreachable("two keys whose names nothing has are there"))
    }

    /// Fails by name if one of the keys may not be read: Consul leaves what may not be read out of a listing without a word.
    pub(super) async fn may_read(&self, keys: &[Key]) -> Result<(), StoreError> {
        let step = keys.len().div_ceil(MOST_ASKED).max(1);
        for key in keys.iter().step_by(step) {
            self.pair(key).await?;
        }
        Ok(())
    }

    pub(super) async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        let floor = self.history.floor();
        let listed = self.listed(parent, None, floor).await?;
        if listed.entries.is_empty() {
            // What may not be read is left out without a word.
            self.probe(parent, floor).await?;
        }
        Ok(Listing { entries: listed.entries, cursor: Cursor(listed.index) })
    }

    /// Everything below `parent`: now, or when its index is no longer the one given and Consul's time for it.
    pub(super) async fn listed(
        &self,
        parent: &Key,
        after: Option<(u64, Duration)>,
        floor: Floor,
    ) -> Result<Listed, StoreError> {
        self.check_key(parent)?;
        let mut url = consistent(self.key_url(&format!("{parent}/")));
        url.query_pairs_mut().append_key_only("recurse");
        let answer = match after {
            None => self.read(&Call::read(url)).await?,
            Some((index, wait)) => {
                url.query_pairs_mut()
                    .append_pair("index", &index.max(1).to_string())
                    .append_pair("wait", &format!("{}ms", wait.as_millis()));
                self.blocking(&Call::read(url), patience(wait)).await?
            }
        };
        let index = self.index(&answer)?;
        let pairs = self.pairs(&answer)?.into_iter().filter(|pair| !pair.is_folder_marker());
        let entries: Vec<Entry> = pairs.map(Pair::into_entry).collect();
        self.history.reached(&self.name, floor, index)?;
        Ok(Listed { entries, index })
    }

    fn index(&self, answer: &Answer) -> Result<u64, StoreError> {
        // Zero would make a blocking query return at once, for ever.
        answer
            .index
            .map(|index| index.max(1))
            .ok_or_else(|| self.unreachable("its answer has no X-Consul-Index: is a proxy in between?"))
    }

    fn pairs(&self, answer: &Answer) -> Result<Vec<Pair>, StoreError> {
        if answer.status.as_u16() == 404 {
            return Ok(Vec::new());
        }
        let pairs: Option<Vec<Pair>> =
            serde_json::from_slice(&answer.body).map_err(|problem| self.unreadable(&problem))?;
        Ok(pairs.unwrap_or_default())
    }

    /// The parser's words may quote what it found; where it stopped is enough.
    pub(super) fn unreadable(&self, problem: &serde_json::Error) -> StoreError {
        self.unreachable(format!("its answer is not what Consul answers, at byte {}", problem.column()))
    }
}

fn consistent(mut url: reqwest::Url) -> reqwest::Url {
    url.query_pairs_mut().append_key_only("consistent");
    url
}
