//! Faults that last until they are repaired: one bounded list, written by every background task.
//!
//! `doctor`, `status`, `/readyz`, the dashboard and the metrics read it. A finding stands from the moment it is raised until the same task clears
//! it; raising it again keeps the time at which it began.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rotacast_clock as clock;
use rotacast_log_limit::LogLimit;
use rotacast_proto::{Finding, Level};
use rotacast_protocol::status::{FindingCounts, FindingStatus, Severity};
use rotacast_protocol::{SecretName, WallTime};
use tracing::{error, info, warn};

/// Most findings about one topic that are kept by name: an answer of `doctor` stays readable. Those beyond it are counted.
pub const MAX_FINDINGS: usize = 256;

/// Most findings about one topic that are counted one by one: more than a broadcaster has secrets. A source with a million
/// bad keys costs little memory.
const MAX_COUNTED: usize = 16_384;

/// Lines about one topic in a minute: every finding that is kept by name, as it begins and as it ends.
const MAX_LINES: u32 = 512;

/// What a finding is about. The label of the gauge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Topic {
    /// This broadcaster cannot run for leader, or its terms end with errors.
    Leadership,
    /// A secret is out of service: its record cannot be read, or its task broke off.
    OutOfService,
    /// A secret's task takes nothing in.
    Unresponsive,
    /// A secret is not served, because the limit on secrets is reached.
    Limit,
    /// A key below our own prefix that Rotacast did not write.
    StrangeKey,
    /// A pattern in the configuration that matches no secret.
    Pattern,
    /// A source key's value is not imported, or the source key is gone.
    Import,
    /// A certificate of ours ends soon, or its files cannot be used.
    Certificate,
    /// The store does not answer as it should, or its set-up changed for the worse.
    Store,
    /// The bus does not answer as it should, or its set-up changed for the worse.
    Bus,
    /// The store or the bus is another cluster's, or another cluster uses it too.
    Cluster,
    /// A record was written by a clock that was ahead.
    Clock,
    /// Another broadcaster has this one's replica name.
    Replica,
    /// The configuration has no more the provider that made a version.
    Provider,
    /// The credential that services use does not pass its test any more.
    Credential,
    /// An operator gave an order alone, by a role for emergencies.
    Emergency,
    /// A source shows wrong tokens or signatures again and again.
    SignIn,
    /// A sealed value does not open, or not for all of its readers.
    Sealing,
    /// The configuration was not reloaded: what was read before stays in force.
    Configuration,
    /// The audit log is in doubt or takes no entries, or the store does not know where it ends.
    Audit,
    /// Versions of a secret wait behind a number that was never written.
    Gap,
    /// The store has no more the value of a version that is in use, or it was written again.
    Value,
    /// A key of Rotacast itself that instances use and that does not count, or that signs and that instances do not trust.
    Key,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Leadership,
        Self::OutOfService,
        Self::Unresponsive,
        Self::Limit,
        Self::StrangeKey,
        Self::Pattern,
        Self::Import,
        Self::Certificate,
        Self::Store,
        Self::Bus,
        Self::Cluster,
        Self::Clock,
        Self::Replica,
        Self::Provider,
        Self::Credential,
        Self::Emergency,
        Self::SignIn,
        Self::Sealing,
        Self::Configuration,
        Self::Audit,
        Self::Gap,
        Self::Value,
        Self::Key,
    ];

    /// Those whose subject is a secret.
    const OF_A_SECRET: [Self; 9] = [
        Self::OutOfService,
        Self::Unresponsive,
        Self::Limit,
        Self::Clock,
        Self::Provider,
        Self::Credential,
        Self::Sealing,
        Self::Gap,
        Self::Value,
    ];

    /// The name, as label and as the subject that people read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leadership => "leadership",
            Self::OutOfService => "out_of_service",
            Self::Unresponsive => "unresponsive",
            Self::Limit => "limit",
            Self::StrangeKey => "strange_key",
            Self::Pattern => "pattern",
            Self::Import => "import",
            Self::Certificate => "certificate",
            Self::Store => "store",
            Self::Bus => "bus",
            Self::Cluster => "cluster",
            Self::Clock => "clock",
            Self::Replica => "replica",
            Self::Provider => "provider",
            Self::Credential => "credential",
            Self::Emergency => "emergency",
            Self::SignIn => "sign_in",
            Self::Sealing => "sealing",
            Self::Configuration => "configuration",
            Self::Audit => "audit",
            Self::Gap => "gap",
            Self::Value => "value",
            Self::Key => "key",
        }
    }

    fn words(self) -> String {
        self.as_str().replace('_', " ")
    }
}

/// One finding that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    pub topic: Topic,
    /// Which secret, key or server.
    pub subject: String,
    pub level: Level,
    pub text: String,
    pub fix: String,
    pub since: WallTime,
}

impl From<Standing> for FindingStatus {
    fn from(standing: Standing) -> Self {
        let Standing { topic, subject, level, text, fix, since } = standing;
        let level = if level == Level::Error { Severity::Error } else { Severity::Warning };
        Self { level, subject: format!("{} {subject}", topic.words()), text, fix, since }
    }
}

impl From<Standing> for Finding {
    fn from(standing: Standing) -> Self {
        let level = standing.level;
        let FindingStatus { subject, mut text, fix, since, .. } = standing.into();
        // A String takes everything.
        let _ = write!(text, " (since {since})");
        Self { level, subject, text, fix }
    }
}

/// The list. Clones are of the same one.
#[derive(Clone, Default, Debug)]
pub struct Findings(Arc<Mutex<List>>);

#[derive(Default, Debug)]
struct List {
    standing: BTreeMap<(Topic, String), Standing>,
    /// Raised while there was no room for its name, as the hash of its subject: raised again it is the same one, and it goes
    /// when it is cleared.
    left_out: BTreeMap<Topic, BTreeSet<u64>>,
    /// What comes and goes, as a client of the store can make a strange key do, must not flood the log.
    lines: BTreeMap<Topic, LogLimit>,
}

impl List {
    fn named(&self, topic: Topic) -> usize {
        self.standing.keys().filter(|(of, _)| *of == topic).count()
    }

    fn left_out(&self, topic: Topic) -> u64 {
        self.left_out.get(&topic).map_or(0, BTreeSet::len) as u64
    }

    /// Whether a line about a topic may be written, with how many were left out before it.
    fn line(&mut self, topic: Topic) -> Option<u64> {
        self.lines.entry(topic).or_insert_with(|| LogLimit::of(MAX_LINES)).admit()
    }

    fn leave_out(&mut self, topic: Topic, subject: &str) {
        let left_out = self.left_out.entry(topic).or_default();
        if left_out.len() < MAX_COUNTED && left_out.insert(hash_of(subject)) && left_out.len().is_power_of_two() {
            warn!(topic = topic.as_str(), left_out = left_out.len(), "more findings stand than are kept by name");
        }
    }

    fn no_longer_left_out(&mut self, topic: Topic, subject: &str) {
        if let Some(left_out) = self.left_out.get_mut(&topic) {
            left_out.remove(&hash_of(subject));
        }
    }
}

fn hash_of(subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    hasher.finish()
}

impl Findings {
    fn list(&self) -> MutexGuard<'_, List> {
        // Whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises a finding, or replaces its text. Logged when it is new or different.
    pub fn raise(&self, topic: Topic, subject: impl Into<String>, level: Level, text: String, fix: &str) {
        let subject = subject.into();
        let mut list = self.list();
        let key = (topic, subject.clone());
        let since = match list.standing.get_mut(&key) {
            Some(known) if known.text == text && known.level == level => {
                // What helps may change while the fault stays the same.
                fix.clone_into(&mut known.fix);
                return;
            }
            Some(known) => known.since,
            None => clock::wall(),
        };
        if !list.standing.contains_key(&key) {
            if list.named(topic) >= MAX_FINDINGS {
                return list.leave_out(topic, &subject);
            }
            list.no_longer_left_out(topic, &subject);
        }
        match (list.line(topic), level) {
            (None, _) => {}
            (Some(left_out), Level::Error) => error!(topic = topic.as_str(), subject, fix, left_out, "{text}"),
            (Some(left_out), _) => warn!(topic = topic.as_str(), subject, fix, left_out, "{text}"),
        }
        list.standing.insert(key, Standing { topic, subject, level, text, fix: fix.to_owned(), since });
    }

    /// Whether an error stands about this subject.
    #[must_use]
    pub fn has_error(&self, topic: Topic, subject: &str) -> bool {
        let list = self.list();
        list.standing.get(&(topic, subject.to_owned())).is_some_and(|standing| standing.level == Level::Error)
    }

    /// It is over.
    pub fn clear(&self, topic: Topic, subject: &str) {
        let mut list = self.list();
        list.no_longer_left_out(topic, subject);
        if list.standing.remove(&(topic, subject.to_owned())).is_some()
            && let Some(left_out) = list.line(topic)
        {
            info!(topic = topic.as_str(), subject, left_out, "a finding is over");
        }
    }

    /// What a topic's findings say of subjects other than these is over; those without a name are counted anew.
    pub fn keep_only(&self, topic: Topic, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = {
            let list = self.list();
            let of_topic = list.standing.keys().filter(|(of, _)| *of == topic);
            of_topic.map(|(_, subject)| subject.clone()).filter(|subject| !keep(subject)).collect()
        };
        gone.iter().for_each(|subject| self.clear(topic, subject));
        self.list().left_out.remove(&topic);
    }

    /// Everything about a topic is over: the task that raises it begins anew.
    pub fn clear_all(&self, topic: Topic) {
        let mut list = self.list();
        list.standing.retain(|(of, _), _| *of != topic);
        list.left_out.remove(&topic);
    }

    /// What stands, by topic and subject, and how many more of each topic.
    #[must_use]
    pub fn standing(&self) -> Vec<Standing> {
        self.list().standing.values().cloned().collect()
    }

    /// What stands about one secret.
    #[must_use]
    pub fn about(&self, secret: &SecretName) -> Vec<FindingStatus> {
        let list = self.list();
        let of = |topic: Topic| list.standing.get(&(topic, secret.to_string())).cloned();
        Topic::OF_A_SECRET.into_iter().filter_map(of).map(FindingStatus::from).collect()
    }

    /// What stands, as `doctor` shows it.
    #[must_use]
    pub fn told(&self) -> Vec<Finding> {
        let mut told: Vec<Finding> = self.standing().into_iter().map(Finding::from).collect();
        let list = self.list();
        for (topic, count) in Topic::ALL.map(|topic| (topic, list.left_out(topic))) {
            if count == 0 {
                continue;
            }
            told.push(Finding {
                level: Level::Warning,
                subject: topic.words(),
                text: format!("{count} more were found while {MAX_FINDINGS} stood; the log has the first of them"),
                fix: "repair those above; what is still wrong is found again".into(),
            });
        }
        told
    }

    /// How many stand, by severity. What is beyond the bound counts as warnings.
    #[must_use]
    pub fn severities(&self) -> FindingCounts {
        let list = self.list();
        let errors = list.standing.values().filter(|standing| standing.level == Level::Error).count() as u64;
        let left_out: u64 = Topic::ALL.map(|topic| list.left_out(topic)).iter().sum();
        FindingCounts { errors, warnings: list.standing.len() as u64 - errors + left_out }
    }

    /// How many stand, by topic.
    #[must_use]
    pub fn counts(&self) -> [(Topic, u64); Topic::ALL.len()] {
        let list = self.list();
        Topic::ALL.map(|topic| (topic, list.named(topic) as u64 + list.left_out(topic)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(findings: &Findings, subject: &str, text: &str) {
        findings.raise(Topic::Import, subject, Level::Warning, text.into(), "mend it");
    }

    #[test]
    fn a_finding_stands_once_keeps_its_beginning_and_goes_when_it_is_over() {
        let findings = Findings::default();
        raise(&findings, "a", "it is empty");
        let since = findings.standing()[0].since;
        raise(&findings, "a", "it is too large");
        let standing = findings.standing();
        assert_eq!((standing.len(), &*standing[0].text, standing[0].since), (1, "it is too large", since));
        let told = Finding::from(standing[0].clone());
        assert!(told.subject == "import a" && told.text.starts_with("it is too large (since "), "{told:?}");
        findings.clear(Topic::Limit, "a");
        assert_eq!(findings.standing().len(), 1, "of another topic");
        findings.clear(Topic::Import, "a");
        assert_eq!(findings.standing(), []);
    }

    #[test]
    fn beyond_the_bound_findings_are_counted() {
        let findings = Findings::default();
        for number in 0..MAX_FINDINGS + 3 {
            raise(&findings, &number.to_string(), "it is empty");
        }
        assert_eq!(findings.standing().len(), MAX_FINDINGS);
        let count = findings.counts().into_iter().find(|(topic, _)| *topic == Topic::Import).unwrap().1;
        assert_eq!(count, MAX_FINDINGS as u64 + 3);
        assert!(findings.told().last().unwrap().text.starts_with("3 more"));
        findings.clear_all(Topic::Import);
        assert!(findings.told().is_empty());
    }

    fn count(findings: &Findings, topic: Topic) -> u64 {
        findings.counts().into_iter().find(|(of, _)| *of == topic).unwrap().1
    }

    #[test]
    fn what_is_beyond_the_bound_counts_once_and_goes_when_it_is_over() {
        let findings = Findings::default();
        let all = || (0..MAX_FINDINGS + 3).map(|number| number.to_string());
        for _ in 0..5 {
            all().for_each(|subject| raise(&findings, &subject, "it is empty"));
        }
        assert_eq!(count(&findings, Topic::Import), MAX_FINDINGS as u64 + 3);
        all().for_each(|subject| findings.clear(Topic::Import, &subject));
        assert_eq!((count(&findings, Topic::Import), findings.told()), (0, Vec::new()));
    }

    #[test]
    fn one_topic_leaves_room_for_the_others() {
        let findings = Findings::default();
        for number in 0..=MAX_FINDINGS {
            raise(&findings, &number.to_string(), "it is empty");
        }
        findings.raise(Topic::Leadership, "campaign", Level::Error, "it is refused".into(), "mend it");
        assert!(findings.standing().iter().any(|it| it.topic == Topic::Leadership));
    }
}
