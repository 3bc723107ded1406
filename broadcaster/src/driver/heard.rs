//! When each incarnation was last heard in the term in force, for whatever secret.

use std::collections::HashMap;

use rotacast_protocol::coordinator::Elsewhere;
use rotacast_protocol::{InstanceKey, Instant};

/// Of every incarnation in the roster, and of no other: as bounded as the roster.
pub(super) struct Heard {
    term_began: Instant,
    last: HashMap<InstanceKey, Option<Instant>>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { term_began: Instant::ZERO, last: HashMap::new() }
    }
}

impl Heard {
    /// A term begins: what an earlier one has heard says nothing of this one's ears.
    pub(super) fn begin(&mut self, at: Instant) {
        *self = Self { term_began: at, last: HashMap::new() };
    }

    /// It is in the roster.
    pub(super) fn registered(&mut self, key: InstanceKey) {
        self.last.entry(key).or_default();
    }

    /// It has left, or the roster has dropped it.
    pub(super) fn forget(&mut self, key: &InstanceKey) {
        self.last.remove(key);
    }

    /// It has sent a Sync or a report.
    pub(super) fn note(&mut self, key: &InstanceKey, at: Instant) {
        if let Some(last) = self.last.get_mut(key) {
            *last = (*last).max(Some(at));
        }
    }

    /// What speaks against saying that an incarnation is gone.
    pub(super) fn elsewhere(&self, key: &InstanceKey) -> Elsewhere {
        let others = self.last.iter().filter(|(other, _)| *other != key);
        Elsewhere {
            this: self.last.get(key).copied().flatten(),
            other: others.map(|(_, last)| last.unwrap_or(self.term_began)).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rotacast_protocol::Incarnation;

    use super::*;

    #[test]
    fn what_is_heard_is_kept_for_the_roster_alone_and_for_one_term() {
        let key = |name: &str| InstanceKey::new("api".parse().unwrap(), name.parse().unwrap(), Incarnation(1));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut heard = Heard::default();
        heard.begin(at(10));
        heard.note(&key("stranger"), at(11));
        heard.registered(key("a"));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere::default(), "there is no other");
        heard.registered(key("b"));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere { this: None, other: Some(at(10)) });
        heard.note(&key("a"), at(20));
        heard.note(&key("a"), at(19));
        heard.registered(key("a"));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere { this: Some(at(20)), other: Some(at(10)) });
        assert_eq!(heard.elsewhere(&key("b")), Elsewhere { this: None, other: Some(at(20)) });
        heard.forget(&key("b"));
        assert_eq!(heard.elsewhere(&key("a")).other, None);
        heard.begin(at(30));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere::default());
    }
}
