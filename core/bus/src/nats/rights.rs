//! What each login needs at the server, and no more.

use rotacast_protocol::{ClusterName, SecretName, ServiceName};

use super::stream::Kind;
use super::subject::{Names, NatsParty};

/// Subjects that one login may publish to and subscribe to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsRights {
    /// Where it may publish.
    pub publish: Vec<String>,
    /// What it may subscribe to.
    pub subscribe: Vec<String>,
}

/// Secrets whose states a service may read.
#[derive(Clone, Copy, Debug)]
pub enum NatsSecrets<'s> {
    /// One.
    Named(&'s SecretName),
    /// All whose name begins like this.
    Beginning(&'s str),
}

impl NatsSecrets<'_> {
    /// The narrowest subject that covers them. A wildcard stands for whole segments of a name, so `payments/d` is covered by
    /// the subject of `payments/`.
    fn subject(self, names: &Names) -> String {
        match self {
            Self::Named(secret) => names.state(secret),
            Self::Beginning(beginning) => names.states_from(beginning),
        }
    }

    /// Whether the narrowest subject covers other secrets too.
    #[must_use]
    pub fn is_widened(self) -> bool {
        matches!(self, Self::Beginning(beginning) if !(beginning.is_empty() || beginning.ends_with('/')))
    }
}

impl NatsRights {
    /// What broadcasters need. Their login makes the streams and may do everything with them but delete them.
    #[must_use]
    pub fn broadcaster(cluster: &ClusterName) -> Self {
        let names = Names::new(cluster);
        let mut publish = vec![
            names.states(),
            names.registrations(),
            names.reports(),
            names.sync(&NatsParty::Broadcaster),
            names.inboxes(),
            "$JS.API.INFO".to_owned(),
        ];
        for kind in Kind::ALL {
            let stream = kind.stream(&names);
            for call in ["STREAM.INFO", "STREAM.CREATE"] {
                publish.push(format!("$JS.API.{call}.{stream}"));
            }
            match kind {
                Kind::State => publish.extend([
                    format!("$JS.API.STREAM.MSG.GET.{stream}"),
                    format!("$JS.API.DIRECT.GET.{stream}.{}", names.states()),
                ]),
                Kind::Registrations | Kind::Reports => publish.push(format!("$JS.API.STREAM.PURGE.{stream}")),
            }
            // The server names our consumers, so their filter is no part of the subject.
            publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
            publish.push(format!("$JS.API.CONSUMER.INFO.{stream}.*"));
        }
        publish.push("$JS.FC.>".to_owned());
        let subscribe = vec![
            names.syncs(),
            names.reads(),
            names.registered_of(None),
            format!("{}.>", names.inbox(&NatsParty::Broadcaster)),
        ];
        Self { publish, subscribe }
    }

    /// What the instances of a service need that may use these secrets. Nothing of it makes the server answer: it would answer
    /// wherever a client says, with rights of its own. The streams that a service publishes to acknowledge nothing, and
    /// what it asks is answered by broadcasters, which look where the answer goes.
    #[must_use]
    pub fn service<'s>(
        cluster: &ClusterName,
        service: &ServiceName,
        secrets: impl IntoIterator<Item = NatsSecrets<'s>>,
    ) -> Self {
        let names = Names::new(cluster);
        let party = NatsParty::Service(service.clone());
        let mut states: Vec<String> = secrets.into_iter().map(|secrets| secrets.subject(&names)).collect();
        states.sort();
        states.dedup();
        let mut publish = vec![names.registrations_of(service), names.reports_of(service), names.sync(&party)];
        publish.extend(states.iter().filter_map(|state| names.read(&party, state)));
        let mut subscribe = vec![format!("{}.>", names.inbox(&party)), names.registered_of(Some(service))];
        subscribe.extend(states);
        Self { publish, subscribe }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reaches_its_own_subjects_and_its_secrets_alone() {
        let (cluster, service) = (ClusterName::new("prod").unwrap(), ServiceName::new("pay.api").unwrap());
        let secret = SecretName::new("payments/db").unwrap();
        let secrets = [NatsSecrets::Named(&secret), NatsSecrets::Beginning("mail/"), NatsSecrets::Named(&secret)];
        let rights = NatsRights::service(&cluster, &service, secrets);
        assert_eq!(
            rights.publish,
            [
                "rotacast.prod.registrations.pay%2Eapi.*.*".to_owned(),
                "rotacast.prod.report.pay%2Eapi.*.*".to_owned(),
                "rotacast.prod.sync.pay%2Eapi".to_owned(),
                "rotacast.prod.read.pay%2Eapi.mail.>".to_owned(),
                "rotacast.prod.read.pay%2Eapi.payments.db".to_owned(),
            ]
        );
        assert_eq!(
            rights.subscribe,
            [
                "rotacast.prod.inbox.pay%2Eapi.>",
                "rotacast.prod.registered.pay%2Eapi.*.*",
                "rotacast.prod.state.mail.>",
                "rotacast.prod.state.payments.db"
            ]
        );
    }

    /// What JetStream answers, it answers wherever the client says.
    #[test]
    fn a_service_asks_jetstream_for_nothing() {
        let (cluster, service) = (ClusterName::new("prod").unwrap(), ServiceName::new("payments").unwrap());
        let rights = NatsRights::service(&cluster, &service, [NatsSecrets::Beginning("")]);
        assert!(rights.publish.iter().all(|subject| subject.starts_with("rotacast.prod.")), "{rights:?}");
    }

    #[test]
    fn only_a_beginning_within_a_segment_is_widened() {
        for (beginning, widened) in [("", false), ("payments/", false), ("pay", true), ("payments/d", true)] {
            assert_eq!(NatsSecrets::Beginning(beginning).is_widened(), widened, "{beginning}");
        }
    }

    #[test]
    fn no_right_is_for_everything() {
        let cluster = ClusterName::new("prod").unwrap();
        let NatsRights { publish, subscribe } = NatsRights::broadcaster(&cluster);
        let all: Vec<_> = publish.iter().chain(&subscribe).collect();
        assert!(all.iter().all(|subject| !matches!(subject.as_str(), ">" | "*" | "$JS.API.>")), "{all:?}");
        assert!(all.iter().all(|subject| !subject.contains("DELETE")), "{all:?}");
    }
}
