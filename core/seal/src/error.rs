//! Why a value is not sealed or not opened.

use std::fmt::Write as _;

use rotacast_proto::KeyId;
use thiserror::Error;

use crate::key::ReaderName;

/// Why a value is not sealed or not opened. Never carries a value or a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealError {
    /// What is stored does not parse.
    #[error("the sealed value does not parse: {problem}")]
    Malformed {
        /// What is wrong, without contents.
        problem: String,
    },
    /// A later version of Rotacast wrote it.
    #[error("the value is sealed in format {found}, expected {expected}: was it written by a newer rotacast?")]
    Format {
        /// The format found.
        found: u32,
        /// The format that is known here.
        expected: u32,
    },
    /// None of the keys at hand is one that it was sealed for.
    #[error("{}", no_key(.sealed_for, .at_hand))]
    NoKey {
        /// Whom it is sealed for.
        sealed_for: Vec<(ReaderName, KeyId)>,
        /// The keys at hand.
        at_hand: Vec<KeyId>,
    },
    /// The wrapped data key does not open with the key that it names.
    #[error(
        "the data key that is wrapped for key {key} does not open with it: it was changed, or moved here from another secret, \
         version or cluster"
    )]
    DataKey {
        /// Which key.
        key: KeyId,
    },
    /// The ciphertext does not open with the data key.
    #[error(
        "the ciphertext does not open with its data key: it was changed or cut, or moved here from another secret, version or \
         cluster"
    )]
    Ciphertext,
    /// More readers than Rotacast ever writes.
    #[error("it names {found} readers, expected at most {limit}: another program wrote it")]
    TooManyReaders {
        /// How many.
        found: usize,
        /// At most.
        limit: usize,
    },
}

fn no_key(sealed_for: &[(ReaderName, KeyId)], at_hand: &[KeyId]) -> String {
    let mut text = String::from("the value is sealed for ");
    for (at, (reader, key)) in sealed_for.iter().enumerate() {
        // A String takes everything.
        let _ = write!(text, "{}{reader} (key {key})", if at == 0 { "" } else { ", " });
    }
    if sealed_for.is_empty() {
        text.push_str("no reader");
    }
    if at_hand.is_empty() {
        text.push_str("; there is no sealing key here");
    } else {
        let keys: Vec<&str> = at_hand.iter().map(KeyId::as_str).collect();
        let _ = write!(text, "; the sealing keys here are {}", keys.join(", "));
    }
    text
}
