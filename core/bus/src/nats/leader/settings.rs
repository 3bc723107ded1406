//! How the streams should be, and what is wrong with the ones that are there.

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, Republish, RetentionPolicy, StorageType};

use crate::nats::StreamLimits;
use crate::nats::stream::{Kind, SERVER_HEADERS};
use crate::nats::subject::Names;
use crate::{Finding, Level, MAX_MESSAGE_BYTES, MAX_REGISTRATION_BYTES};

/// Most messages of one stream: one per secret or incarnation.
const MAX_MESSAGES: i64 = 1_000_000;

impl Kind {
    pub(in crate::nats) fn subjects(self, names: &Names) -> String {
        match self {
            Kind::State => names.states(),
            Kind::Registrations => names.registrations(),
            Kind::Reports => names.reports(),
        }
    }

    /// Whether it is kept in files.
    pub(in crate::nats) fn is_durable(self) -> bool {
        self != Kind::Reports
    }

    /// Its contents, as metrics name them.
    pub(in crate::nats) fn log(self) -> &'static str {
        match self {
            Kind::State => "states",
            Kind::Registrations => "registrations",
            Kind::Reports => "reports",
        }
    }

    /// Largest message it takes, without what only the server sees.
    fn message_bytes(self) -> usize {
        match self {
            Kind::State | Kind::Reports => MAX_MESSAGE_BYTES,
            Kind::Registrations => MAX_REGISTRATION_BYTES,
        }
    }

    /// How large one copy of it may become.
    pub(in crate::nats) fn bytes(self, limits: StreamLimits) -> u64 {
        match self {
            Kind::State => limits.state_bytes,
            Kind::Registrations => limits.registration_bytes,
            Kind::Reports => limits.report_bytes,
        }
    }

    /// Whether it acknowledges what is published to it. The server acknowledges wherever the publisher says, with rights of
    /// its own, so a stream that services publish to does not.
    fn acknowledges(self) -> bool {
        self == Kind::State
    }

    /// What it announces of what it has stored, and where.
    fn republish(self, names: &Names) -> Option<Republish> {
        (self == Kind::Registrations).then(|| Republish {
            source: names.registrations(),
            destination: names.registered_pattern(),
            headers_only: true,
        })
    }

    /// How we create it.
    pub(in crate::nats) fn config(self, names: &Names, limits: StreamLimits, replicas: usize) -> Config {
        let what = match self {
            Kind::State => "Rotacast: the desired state of every secret",
            Kind::Registrations => "Rotacast: every incarnation's registration, or its leave",
            Kind::Reports => "Rotacast: the last report of every incarnation",
        };
        Config {
            name: self.stream(names),
            description: Some(what.into()),
            subjects: vec![self.subjects(names)],
            retention: RetentionPolicy::Limits,
            storage: if self.is_durable() { StorageType::File } else { StorageType::Memory },
            num_replicas: replicas,
            max_messages_per_subject: 1,
            max_messages: MAX_MESSAGES,
            max_bytes: i64::try_from(self.bytes(limits)).unwrap_or(i64::MAX),
            max_message_size: i32::try_from(self.message_bytes() + SERVER_HEADERS).unwrap_or(i32::MAX),
            // A full log of states must refuse by name rather than forget one. Registrations and reports come again: a
            // client that floods its own subjects keeps no other instance from registering.
            discard: if self == Kind::State { DiscardPolicy::New } else { DiscardPolicy::Old },
            deny_delete: true,
            // The broadcaster prunes registrations and reports of incarnations that are over.
            deny_purge: self == Kind::State,
            allow_direct: true,
            no_ack: !self.acknowledges(),
            republish: self.republish(names),
            ..Config::default()
        }
    }

    /// Compares a stream with what it must be and should be, field by field: servers drop options they do
    /// not know without a word, and another program may have made it.
    pub(in crate::nats) fn audit(self, names: &Names, found: &Config) -> Vec<Finding> {
        let mut audit = Audit { subject: format!("stream {}", found.name), findings: Vec::new() };
        let ours = self.subjects(names);
        if !found.subjects.contains(&ours) {
            let text = format!("takes subjects {:?}, expected [{ours:?}]", found.subjects);
            audit.error(text, "nats stream edit --subjects, or remove it: it is created anew");
        } else if found.subjects.len() > 1 {
            audit.warn(format!("takes more subjects than {ours:?}: {:?}", found.subjects), "remove the others");
        }
        audit.error_if(found.retention != RetentionPolicy::Limits, || {
            format!("retention is {:?}: reading would remove messages; expected Limits", found.retention)
        });
        audit.error_if(found.sealed, || "it is sealed: nothing can be published".into());
        audit.error_if(self.acknowledges() && found.no_ack, || {
            "no_ack is on: no broadcaster would learn whether a state is durable".into()
        });
        audit.error_if(!self.acknowledges() && !found.no_ack, || {
            "no_ack is off: a service's login could have the server publish for it, under any subject".into()
        });
        let (announces, expected) = (&found.republish, self.republish(names));
        audit.error_if(expected.is_some() && *announces != expected, || {
            "republish is not as Rotacast sets it: no instance would learn whether its registration is stored".into()
        });
        audit.warn_if(expected.is_none() && announces.is_some(), "republishes what it stores", "set republish to none");
        audit.error_if(found.mirror.is_some(), || "it is a mirror: nothing can be published to it here".into());
        audit.error_if(found.subject_transform.is_some(), || {
            "it transforms subjects: readers would not find their messages".into()
        });
        audit.error_if(found.discard_new_per_subject, || {
            "discard_new_per_subject is on: a newer message of a key would be refused".into()
        });
        if found.max_messages_per_subject != 1 {
            let kept = found.max_messages_per_subject;
            audit.warn(format!("keeps {kept} messages per subject, expected 1: it grows for nothing"), "set it to 1");
        }
        if !found.max_age.is_zero() {
            let text = format!("forgets messages after {:?}", found.max_age);
            match self {
                Kind::Registrations => audit.warn(
                    format!("{text}: an instance that registers while no broadcaster leads may have to register again"),
                    "set max age to 0",
                ),
                Kind::State => {
                    audit.warn(format!("{text}: instances that start later learn nothing"), "set max age to 0")
                }
                Kind::Reports => {}
            }
        }
        if self.is_durable() {
            audit.warn_if(
                found.storage == StorageType::Memory,
                "is kept in memory: lost when its server restarts",
                "create it in file storage",
            );
            audit.warn_if(
                found.num_replicas < 2,
                "has one replica: its server's outage stops rotations, its disk's loss forgets the log",
                "3 replicas in a NATS cluster of 3",
            );
            audit.warn_if(
                found.persist_mode == Some(PersistenceMode::Async),
                "acknowledges before writing",
                "set persist mode to default",
            );
        } else {
            audit.warn_if(
                found.storage == StorageType::File,
                "is kept on disk: slower, for messages that need none",
                "create it in memory storage",
            );
        }
        if self == Kind::State {
            audit.warn_if(
                found.discard == DiscardPolicy::Old,
                "discards old messages when full: states would be forgotten",
                "set discard to New",
            );
        } else {
            audit.warn_if(found.discard == DiscardPolicy::New, "refuses new messages when full", "set discard to Old");
        }
        audit.warn_if(found.max_bytes <= 0, "has no limit in bytes", "set max bytes");
        audit.warn_if(found.max_messages <= 0, "has no limit in messages", "set max messages");
        audit.warn_if(
            found.max_consumers > 0,
            "limits its consumers: each broadcaster, and each instance that is connected to one, needs one",
            "set max consumers to -1",
        );
        audit.warn_if(
            found.allow_rollup,
            "allows rollups: one publish could remove every other key",
            "set allow rollup to false",
        );
        audit.warn_if(
            self == Kind::Registrations && found.deny_purge,
            "denies purge: incarnations that are over cannot be pruned",
            "create it with purge allowed",
        );
        let (needed, most) = (self.message_bytes(), self.message_bytes() + SERVER_HEADERS);
        let taken = usize::try_from(found.max_message_size).ok().filter(|bytes| *bytes > 0);
        if taken.is_some_and(|bytes| bytes <= needed) {
            let text = format!("takes messages of {} bytes, expected more than {needed}", found.max_message_size);
            audit.warn(text, &format!("set max message size to {most}"));
        } else if taken.is_none_or(|bytes| bytes > most) {
            let text = format!("takes messages of {} bytes, expected at most {most}", found.max_message_size);
            audit.warn(
                format!("{text}: a login without a signing key fills it sooner"),
                &format!("set max message size to {most}"),
            );
        }
        audit.error_if(self == Kind::State && !found.allow_direct, || {
            "does not allow direct access: broadcasters could not read states for instances".into()
        });
        if audit.findings.is_empty() {
            audit.add(Level::Ok, "as it should be".into(), "");
        }
        audit.findings
    }
}

struct Audit {
    subject: String,
    findings: Vec<Finding>,
}

impl Audit {
    fn add(&mut self, level: Level, text: String, fix: &str) {
        self.findings.push(Finding { level, subject: self.subject.clone(), text, fix: fix.to_owned() });
    }

    fn error(&mut self, text: String, fix: &str) {
        self.add(Level::Error, text, fix);
    }

    fn error_if(&mut self, wrong: bool, text: impl FnOnce() -> String) {
        if wrong {
            self.error(text(), "remove the stream: it is created anew as it should be");
        }
    }

    fn warn(&mut self, text: String, fix: &str) {
        self.add(Level::Warning, text, fix);
    }

    fn warn_if(&mut self, weak: bool, text: &str, fix: &str) {
        if weak {
            self.warn(text.to_owned(), fix);
        }
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::ClusterName;

    use super::*;

    /// The worst level of a finding about a stream changed by `change`.
    fn worst(kind: Kind, change: impl FnOnce(&mut Config)) -> Level {
        let names = Names::new(&ClusterName::new("dev").unwrap());
        let mut config = kind.config(&names, StreamLimits::default(), 3);
        change(&mut config);
        kind.audit(&names, &config).into_iter().map(|finding| finding.level).max().unwrap()
    }

    #[test]
    fn our_own_streams_pass_and_every_change_for_the_worse_is_told() {
        for kind in Kind::ALL {
            assert_eq!(worst(kind, |_| {}), Level::Ok, "{kind:?}");
            assert_eq!(worst(kind, |c| c.subjects = vec!["other.>".into()]), Level::Error);
            assert_eq!(worst(kind, |c| c.retention = RetentionPolicy::WorkQueue), Level::Error);
            assert_eq!(worst(kind, |c| c.retention = RetentionPolicy::Interest), Level::Error);
            assert_eq!(worst(kind, |c| c.no_ack = !c.no_ack), Level::Error);
            let elsewhere = Republish { source: ">".into(), destination: "elsewhere.>".into(), headers_only: false };
            assert!(worst(kind, |c| c.republish = Some(elsewhere)) >= Level::Warning);
            assert_eq!(worst(kind, |c| c.sealed = true), Level::Error);
            assert_eq!(worst(kind, |c| c.discard_new_per_subject = true), Level::Error);
            assert_eq!(worst(kind, |c| c.max_messages_per_subject = -1), Level::Warning);
            assert_eq!(worst(kind, |c| c.max_bytes = -1), Level::Warning);
            assert_eq!(worst(kind, |c| c.max_message_size = 1024), Level::Warning);
            assert_eq!(worst(kind, |c| c.max_message_size = -1), Level::Warning);
            assert_eq!(worst(kind, |c| c.allow_rollup = true), Level::Warning);
        }
        let day = std::time::Duration::from_secs(86_400);
        assert_eq!(worst(Kind::Registrations, |c| c.max_age = day), Level::Warning);
        assert_eq!(worst(Kind::State, |c| c.max_age = day), Level::Warning);
        assert_eq!(worst(Kind::Reports, |c| c.max_age = day), Level::Ok);
        for kind in [Kind::State, Kind::Registrations] {
            assert_eq!(worst(kind, |c| c.num_replicas = 1), Level::Warning);
            assert_eq!(worst(kind, |c| c.storage = StorageType::Memory), Level::Warning);
            assert_eq!(worst(kind, |c| c.persist_mode = Some(PersistenceMode::Async)), Level::Warning);
        }
        assert_eq!(worst(Kind::Registrations, |c| c.republish = None), Level::Error);
        assert_eq!(worst(Kind::State, |c| c.discard = DiscardPolicy::Old), Level::Warning);
        assert_eq!(worst(Kind::State, |c| c.allow_direct = false), Level::Error);
        for kind in [Kind::Registrations, Kind::Reports] {
            assert_eq!(worst(kind, |c| c.discard = DiscardPolicy::New), Level::Warning);
        }
        assert_eq!(worst(Kind::Registrations, |c| c.deny_purge = true), Level::Warning);
    }
}
