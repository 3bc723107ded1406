//! When each incarnation was last heard in the term in force, for whatever secret.

use std::collections::HashMap;
use std::time::Duration;

use rotacast_protocol::coordinator::{Elsewhere, LastSign, gone_after};
use rotacast_protocol::{InstanceKey, Instant, ReportSequence, SecretName};

/// Of every incarnation in the roster, and of no other: as bounded as the roster.
pub(super) struct Heard {
    term_began: Instant,
    last: HashMap<InstanceKey, Last>,
    /// The longest interval at which instances of a secret are heard. As bounded as the secrets that are served.
    intervals: HashMap<SecretName, Duration>,
    /// The longest of them in this term: of a secret that is not served, none is known.
    longest: Duration,
}

/// What was heard of one incarnation.
#[derive(Default)]
struct Last {
    sign: Option<LastSign>,
    /// Its newest report: a recording of an earlier one is no sign.
    report: ReportSequence,
}

impl Default for Heard {
    fn default() -> Self {
        Self { term_began: Instant::ZERO, last: HashMap::new(), intervals: HashMap::new(), longest: Duration::ZERO }
    }
}

impl Heard {
    /// A term begins: what an earlier one has heard says nothing of this one's ears.
    pub(super) fn begin(&mut self, at: Instant) {
        *self = Self { term_began: at, ..Self::default() };
    }

    /// Instances of a secret are heard at this interval at the longest.
    pub(super) fn interval(&mut self, secret: SecretName, longest_sync: Duration) {
        self.longest = self.longest.max(longest_sync);
        self.intervals.insert(secret, longest_sync);
    }

    /// It is in the roster.
    pub(super) fn registered(&mut self, key: InstanceKey) {
        self.last.entry(key).or_default();
    }

    /// It has left, or the roster has dropped it.
    pub(super) fn forget(&mut self, key: &InstanceKey) {
        self.last.remove(key);
    }

    /// It has sent a report over the bus, for these secrets. It counts if it is newer than every one before.
    pub(super) fn reports<'s>(
        &mut self,
        key: &InstanceKey,
        sequence: ReportSequence,
        at: Instant,
        secrets: impl Iterator<Item = &'s SecretName>,
    ) {
        if self.last.get(key).is_some_and(|last| last.report < sequence) {
            self.syncs(key, sequence, at, secrets);
        }
    }

    /// It has sent a Sync with an effect, for these secrets.
    pub(super) fn syncs<'s>(
        &mut self,
        key: &InstanceKey,
        sequence: ReportSequence,
        at: Instant,
        secrets: impl Iterator<Item = &'s SecretName>,
    ) {
        let Some(last) = self.last.get_mut(key) else { return };
        last.report = last.report.max(sequence);
        let interval = |secret| self.intervals.get(secret).copied().unwrap_or(self.longest);
        let interval = secrets.map(interval).max().unwrap_or_default();
        let (until, before) = (at + gone_after(interval), last.sign.unwrap_or(LastSign { at, may_run_until: at }));
        last.sign = Some(LastSign { at: at.max(before.at), may_run_until: until.max(before.may_run_until) });
    }

    /// What speaks against saying that an incarnation is gone.
    pub(super) fn elsewhere(&self, key: &InstanceKey) -> Elsewhere {
        let others = self.last.iter().filter(|(other, _)| *other != key);
        Elsewhere {
            this: self.last.get(key).and_then(|last| last.sign),
            other: others.map(|(_, last)| last.sign.map_or(self.term_began, |sign| sign.at)).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::Incarnation;

    use super::*;

    fn key(name: &str) -> InstanceKey {
        InstanceKey::new("api".parse().unwrap(), name.parse().unwrap(), Incarnation(1))
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_heard_is_kept_for_the_roster_alone_and_for_one_term() {
        let sign =
            |seconds| Some(LastSign { at: at(seconds), may_run_until: at(seconds) + gone_after(Duration::ZERO) });
        let mut heard = Heard::default();
        let note = |heard: &mut Heard, name: &str, seconds| {
            heard.syncs(&key(name), ReportSequence(1), at(seconds), [].into_iter());
        };
        heard.begin(at(10));
        note(&mut heard, "stranger", 11);
        heard.registered(key("a"));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere::default(), "there is no other");
        heard.registered(key("b"));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere { this: None, other: Some(at(10)) });
        note(&mut heard, "a", 20);
        note(&mut heard, "a", 19);
        heard.registered(key("a"));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere { this: sign(20), other: Some(at(10)) });
        assert_eq!(heard.elsewhere(&key("b")), Elsewhere { this: None, other: Some(at(20)) });
        heard.forget(&key("b"));
        assert_eq!(heard.elsewhere(&key("a")).other, None);
        heard.begin(at(30));
        assert_eq!(heard.elsewhere(&key("a")), Elsewhere::default());
    }

    #[test]
    fn silence_counts_by_the_interval_of_each_secret_that_it_was_heard_for() {
        let [often, rarely] = ["a/db", "b/db"].map(|name| name.parse::<SecretName>().unwrap());
        let (short, long) = (Duration::from_secs(5), Duration::from_secs(600));
        let mut heard = Heard::default();
        heard.interval(often.clone(), short);
        heard.interval(rarely.clone(), long);
        heard.registered(key("a"));
        let until = |heard: &Heard| heard.elsewhere(&key("a")).this.unwrap().may_run_until;
        heard.syncs(&key("a"), ReportSequence(1), at(10), [&often].into_iter());
        assert_eq!(until(&heard), at(10) + gone_after(short));
        heard.syncs(&key("a"), ReportSequence(1), at(20), [&often, &rarely].into_iter());
        heard.syncs(&key("a"), ReportSequence(1), at(30), [&often].into_iter());
        assert_eq!(until(&heard), at(20) + gone_after(long));
        assert_eq!(heard.elsewhere(&key("a")).this.unwrap().at, at(30));
    }

    #[test]
    fn a_report_that_comes_again_is_no_sign() {
        let mut heard = Heard::default();
        heard.registered(key("a"));
        let report = |heard: &mut Heard, sequence, seconds| {
            heard.reports(&key("a"), ReportSequence(sequence), at(seconds), [].into_iter());
            heard.elsewhere(&key("a")).this.map(|sign| sign.at)
        };
        assert_eq!(report(&mut heard, 5, 10), Some(at(10)));
        assert_eq!(report(&mut heard, 5, 20), Some(at(10)));
        assert_eq!(report(&mut heard, 4, 30), Some(at(10)));
        assert_eq!(report(&mut heard, 6, 40), Some(at(40)));
        heard.syncs(&key("a"), ReportSequence(8), at(50), [].into_iter());
        assert_eq!(report(&mut heard, 8, 60), Some(at(50)));
    }
}
