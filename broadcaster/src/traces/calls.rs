//! How the calls of a provider went, so that only news leave spans.

use std::collections::BTreeMap;

use rotacast_protocol::Version;
use rotacast_protocol::record::SecretRecord;

/// How the last call of each kind went. A call that goes as the one before did, every second while an instance holds on
/// to an old credential, leaves no further span. At most the calls of the versions that the record lists.
#[derive(Default)]
pub(super) struct Calls(BTreeMap<(Version, &'static str), Went>);

#[derive(Default)]
struct Went {
    how: String,
    /// Calls since then that went the same way.
    again: i64,
}

impl Calls {
    /// How often it went the same way since the last span, if this one goes another way.
    pub(super) fn news(&mut self, version: Version, call: &'static str, how: &str) -> Option<i64> {
        let went = self.0.entry((version, call)).or_default();
        if went.how == how {
            went.again += 1;
            return None;
        }
        how.clone_into(&mut went.how);
        Some(std::mem::take(&mut went.again))
    }

    pub(super) fn forget(&mut self, record: &SecretRecord) {
        self.0.retain(|(version, _), _| record.versions.contains_key(version));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_as_before_is_counted_and_told_with_the_next_that_does_not() {
        let mut calls = Calls::default();
        let (one, two) = (Version::new(1).unwrap(), Version::new(2).unwrap());
        assert_eq!(calls.news(one, "usage", "2 sessions"), Some(0));
        assert_eq!(calls.news(one, "usage", "2 sessions"), None);
        assert_eq!(calls.news(one, "usage", "2 sessions"), None);
        // Another version, and another call, are others.
        assert_eq!(calls.news(two, "usage", "2 sessions"), Some(0));
        assert_eq!(calls.news(one, "test", "2 sessions"), Some(0));
        assert_eq!(calls.news(one, "usage", "0 sessions"), Some(2));
        assert_eq!(calls.news(one, "usage", "2 sessions"), Some(0));
    }
}
