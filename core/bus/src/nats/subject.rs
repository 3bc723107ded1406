//! Subjects and stream names of one cluster.

use rotacast_protocol::{ClusterName, InstanceKey, SecretName, ServiceName};

#[cfg(feature = "leader")]
use crate::CLAIM;

/// The broadcasters in a subject, where services have their names. No service has this name.
#[cfg(feature = "leader")]
const BROADCASTER: &str = "~broadcaster";

/// Whose login a connection uses. It names the inbox, the subjects of requests, and what the connection may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NatsParty {
    /// A broadcaster: it makes the streams, leads, and passes on what instances send over gRPC.
    #[cfg(feature = "leader")]
    Broadcaster,
    /// An instance of this service: it publishes to the streams that are there, and asks broadcasters alone.
    Service(ServiceName),
}

impl NatsParty {
    /// As one token of a subject.
    fn token(&self) -> String {
        match self {
            #[cfg(feature = "leader")]
            Self::Broadcaster => BROADCASTER.to_owned(),
            Self::Service(service) => token(service.as_str()),
        }
    }
}

/// The subjects and streams of one cluster, so that environments can share a server.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    stream_suffix: String,
}

impl Names {
    pub(super) fn new(cluster: &ClusterName) -> Self {
        let token = token(cluster.as_str());
        // Names are lower case, so that upper case loses nothing.
        Self { prefix: format!("rotacast.{token}"), stream_suffix: token.to_ascii_uppercase() }
    }

    pub(super) fn state(&self, secret: &SecretName) -> String {
        format!("{}.state.{}", self.prefix, tokens(secret.as_str()))
    }

    /// The narrowest filter over the states of all secrets whose name begins like this. Wildcards stand for whole
    /// segments of a name, so it may cover more.
    #[cfg(feature = "leader")]
    pub(super) fn states_from(&self, beginning: &str) -> String {
        match beginning.rsplit_once('/') {
            Some((segments, _)) => format!("{}.state.{}.>", self.prefix, tokens(segments)),
            None => self.states(),
        }
    }

    #[cfg(feature = "leader")]
    pub(super) fn claim(&self) -> String {
        format!("{}.state.{CLAIM}", self.prefix)
    }

    #[cfg(feature = "leader")]
    pub(super) fn states(&self) -> String {
        format!("{}.state.>", self.prefix)
    }

    pub(super) fn registration(&self, key: &InstanceKey) -> String {
        format!("{}.registrations.{}", self.prefix, instance(key))
    }

    #[cfg(feature = "leader")]
    pub(super) fn registrations(&self) -> String {
        format!("{}.registrations.*.*.*", self.prefix)
    }

    pub(super) fn report(&self, key: &InstanceKey) -> String {
        format!("{}.report.{}", self.prefix, instance(key))
    }

    #[cfg(feature = "leader")]
    pub(super) fn reports(&self) -> String {
        format!("{}.report.*.*.*", self.prefix)
    }

    /// Every incarnation of a service.
    #[cfg(feature = "leader")]
    pub(super) fn registrations_of(&self, service: &ServiceName) -> String {
        format!("{}.registrations.{}.*.*", self.prefix, token(service.as_str()))
    }

    /// Every incarnation of a service.
    #[cfg(feature = "leader")]
    pub(super) fn reports_of(&self, service: &ServiceName) -> String {
        format!("{}.report.{}.*.*", self.prefix, token(service.as_str()))
    }

    /// Where the stream of registrations announces that it has stored one.
    pub(super) fn registered(&self, key: &InstanceKey) -> String {
        format!("{}.registered.{}", self.prefix, instance(key))
    }

    /// The same as a pattern of NATS over [`Self::registrations`].
    #[cfg(feature = "leader")]
    pub(super) fn registered_pattern(&self) -> String {
        format!("{}.registered.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}", self.prefix)
    }

    /// The announcements about every incarnation of a service; none: of any.
    #[cfg(feature = "leader")]
    pub(super) fn registered_of(&self, service: Option<&ServiceName>) -> String {
        let service = service.map_or("*".to_owned(), |service| token(service.as_str()));
        format!("{}.registered.{service}.*.*", self.prefix)
    }

    /// Where this login asks a broadcaster to read the last state on this subject.
    pub(super) fn read(&self, party: &NatsParty, state: &str) -> Option<String> {
        let secret = state.strip_prefix(&self.prefix)?.strip_prefix(".state.")?;
        Some(format!("{}.read.{}.{secret}", self.prefix, party.token()))
    }

    /// What every login asks to read.
    #[cfg(feature = "leader")]
    pub(super) fn reads(&self) -> String {
        format!("{}.read.>", self.prefix)
    }

    /// Which login asks to read, and the subject of which state. Only that login may publish there.
    #[cfg(feature = "leader")]
    pub(super) fn read_of<'s>(&self, subject: &'s str) -> Option<(Sender<'s>, String)> {
        let (token, secret) = subject.strip_prefix(&self.prefix)?.strip_prefix(".read.")?.split_once('.')?;
        Some((Sender::of(token), format!("{}.state.{secret}", self.prefix)))
    }

    /// Whether a message on this subject may be about what its envelope says: an instance's messages are on that
    /// instance's subject.
    #[cfg(feature = "leader")]
    pub(super) fn may_be_about(&self, subject: &str, about: &str) -> bool {
        let Some(rest) = subject.strip_prefix(&self.prefix) else { return false };
        let Some(rest) = rest.strip_prefix(".registrations.").or_else(|| rest.strip_prefix(".report.")) else {
            // States and the claim: broadcasters alone may publish there.
            return true;
        };
        InstanceKey::of_full_name(about).is_some_and(|key| instance(&key) == rest)
    }

    /// Where this login sends Syncs.
    pub(super) fn sync(&self, party: &NatsParty) -> String {
        format!("{}.sync.{}", self.prefix, party.token())
    }

    /// The Syncs of every login.
    #[cfg(feature = "leader")]
    pub(super) fn syncs(&self) -> String {
        format!("{}.sync.*", self.prefix)
    }

    /// Where replies to this login arrive.
    pub(super) fn inbox(&self, party: &NatsParty) -> String {
        format!("{}.inbox.{}", self.prefix, party.token())
    }

    /// The inboxes of every login.
    #[cfg(feature = "leader")]
    pub(super) fn inboxes(&self) -> String {
        format!("{}.inbox.>", self.prefix)
    }

    /// Which login sent a Sync: only that login may publish to the subject.
    #[cfg(feature = "leader")]
    pub(super) fn sync_sender<'s>(&self, subject: &'s str) -> Option<Sender<'s>> {
        let token = subject.strip_prefix(&self.prefix)?.strip_prefix(".sync.")?;
        Some(Sender::of(token))
    }

    pub(super) fn stream(&self, base: &str) -> String {
        format!("ROTACAST_{base}_{}", self.stream_suffix)
    }
}

/// Who sent a request, by its subject.
#[cfg(feature = "leader")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender<'s> {
    /// A broadcaster, which passes on what an instance of any service asks.
    Broadcaster,
    /// An instance of the service with this token.
    Service { token: &'s str },
}

#[cfg(feature = "leader")]
impl<'s> Sender<'s> {
    fn of(token: &'s str) -> Self {
        if token == BROADCASTER { Self::Broadcaster } else { Self::Service { token } }
    }

    /// Whether it may send a Sync that is about this instance.
    pub(super) fn speaks_for(self, key: &InstanceKey) -> bool {
        match self {
            Self::Broadcaster => true,
            Self::Service { token: sender } => sender == token(key.service.as_str()),
        }
    }

    /// Whether a reply may go there: to the sender's own inbox, and to no other subject, since the leader may publish
    /// where the sender may not.
    pub(super) fn owns(self, names: &Names, reply: &str) -> bool {
        let token = match self {
            Self::Broadcaster => BROADCASTER,
            Self::Service { token } => token,
        };
        let inbox = |reply: &str| -> Option<bool> {
            let rest = reply.strip_prefix(&names.prefix)?.strip_prefix(".inbox.")?.strip_prefix(token)?;
            Some(rest.starts_with('.') && !rest.contains(['*', '>', ' ']))
        };
        inbox(reply).unwrap_or(false)
    }
}

fn instance(key: &InstanceKey) -> String {
    format!("{}.{}.{}", token(key.service.as_str()), token(key.instance.as_str()), key.incarnation)
}

/// A name as one token: NATS parts tokens at '.', and no name of ours contains '%'.
fn token(name: &str) -> String {
    name.replace('.', "%2E")
}

/// A name of segments, each as one token.
fn tokens(name: &str) -> String {
    token(name).replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_dots_is_one_token_and_no_two_names_share_one() {
        let names = Names::new(&ClusterName::new("eu.prod").unwrap());
        assert_eq!(names.state(&SecretName::new("pay.ments/db").unwrap()), "rotacast.eu%2Eprod.state.pay%2Ements.db");
        assert_eq!(names.stream("STATE"), "ROTACAST_STATE_EU%2EPROD");
        let all = ["a.b", "a/b", "a-b", "a_b", "ab", "a.2eb"].map(|name| names.state(&SecretName::new(name).unwrap()));
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[cfg(feature = "leader")]
    #[test]
    fn a_beginning_of_names_is_covered_by_whole_segments() {
        let names = Names::new(&ClusterName::new("dev").unwrap());
        for (beginning, filter) in [
            ("", "rotacast.dev.state.>"),
            ("pay", "rotacast.dev.state.>"),
            ("payments/", "rotacast.dev.state.payments.>"),
            ("payments/d", "rotacast.dev.state.payments.>"),
            ("pay.ments/eu/", "rotacast.dev.state.pay%2Ements.eu.>"),
        ] {
            assert_eq!(names.states_from(beginning), filter, "{beginning}");
        }
    }

    #[cfg(feature = "leader")]
    #[test]
    fn a_sync_speaks_for_its_own_service_and_is_answered_in_its_own_inbox() {
        let names = Names::new(&ClusterName::new("dev").unwrap());
        let key = |service: &str| {
            InstanceKey::new(service.parse().unwrap(), "pod".parse().unwrap(), rotacast_protocol::Incarnation(1))
        };
        let party = NatsParty::Service("pay.ments".parse().unwrap());
        let subject = names.sync(&party);
        let sender = names.sync_sender(&subject).unwrap();
        assert!(sender.speaks_for(&key("pay.ments")) && !sender.speaks_for(&key("pay")));
        assert!(sender.owns(&names, &format!("{}.abc.1", names.inbox(&party))));
        for reply in [
            "rotacast.dev.inbox.pay%2Ements",
            "rotacast.dev.inbox.pay%2Ements2.abc",
            "rotacast.dev.inbox.~broadcaster.abc",
            "rotacast.dev.inbox.pay%2Ements.>",
            "rotacast.dev.state.payments.db",
            "$JS.API.STREAM.DELETE.ROTACAST_STATE_DEV",
            "_INBOX.abc",
        ] {
            assert!(!sender.owns(&names, reply), "{reply}");
        }
        let subject = names.sync(&NatsParty::Broadcaster);
        let sender = names.sync_sender(&subject).unwrap();
        assert!(sender.speaks_for(&key("any")) && sender.owns(&names, "rotacast.dev.inbox.~broadcaster.abc"));
        assert!(!sender.owns(&names, "rotacast.dev.inbox.pay%2Ements.abc"));
        assert_eq!(names.sync_sender("rotacast.dev.report.a.b.c"), None);
    }
}
