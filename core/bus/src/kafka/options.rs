//! Where a Kafka cluster is, who we are to it, and how Syncs reach the leader.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rotacast_proto::{FILE_DEADLINE, LoginSecret};
use rotacast_protocol::ClusterName;

use super::access::Held;
use super::fault::meaning;
use crate::{BusError, GrpcOptions, refused_kafka_property};

/// Whether this connection sees to the topics.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum KafkaTopics {
    /// Creates missing ones and refuses ones that cannot work.
    #[default]
    Create,
    /// Uses what is there: for credentials that may not create topics.
    Use,
}

/// How a Sync reaches the leader: Kafka has no request and reply.
#[derive(Clone, Default)]
pub enum KafkaSync {
    /// To the server of Syncs on this handle or its clones: inside the broadcaster.
    #[default]
    Local,
    /// To broadcasters over gRPC, in turn until one leads; the one that answered is asked first next time.
    Grpc(Vec<GrpcOptions>),
}

/// How a password is proved to Kafka.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum SaslMechanism {
    /// Sent as it is.
    Plain,
    /// By challenge and response.
    ScramSha256,
    /// By challenge and response.
    #[default]
    ScramSha512,
}

impl SaslMechanism {
    /// As Kafka calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Who we are to the brokers.
#[derive(Clone, Debug)]
pub struct KafkaLogin {
    /// The user's name.
    pub user: String,
    /// Its password, read again when its file changes.
    pub password: LoginSecret,
    /// How the password is proved.
    pub mechanism: SaslMechanism,
}

/// Asks for TLS.
#[derive(Clone, Default, Debug)]
pub struct KafkaTls {
    /// The authorities to trust, a PEM file; none: the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its private key, PEM files, where the brokers ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where the bus is. No `Debug`: it may hold secrets.
#[derive(Clone)]
pub struct KafkaOptions {
    /// One or more brokers of one Kafka cluster, `host:port`.
    pub brokers: Vec<String>,
    /// Whose environment; part of every topic's name.
    pub cluster: ClusterName,
    /// Whether to see to the topics.
    pub topics: KafkaTopics,
    /// Copies of every topic; none: 3 with three brokers or more, otherwise 1. Only for topics created by us.
    pub replication: Option<u16>,
    /// How a Sync reaches the leader.
    pub sync: KafkaSync,
    /// Where brokers ask for a password.
    pub login: Option<KafkaLogin>,
    /// Where brokers speak TLS.
    pub tls: Option<KafkaTls>,
    /// librdkafka's further settings, passed through. Ones that the bus sets itself are refused by name.
    pub properties: BTreeMap<String, String>,
    /// What makes the publishers of one cluster fence each other; none: `rotacast.<cluster>`.
    pub transactional_id: Option<String>,
}

impl KafkaOptions {
    /// Defaults for these brokers and this cluster.
    #[must_use]
    pub fn new(brokers: Vec<String>, cluster: ClusterName) -> Self {
        Self {
            brokers,
            cluster,
            topics: KafkaTopics::default(),
            replication: None,
            sync: KafkaSync::default(),
            login: None,
            tls: None,
            properties: BTreeMap::new(),
            transactional_id: None,
        }
    }

    pub(super) fn endpoint(&self) -> String {
        self.brokers.join(",")
    }

    pub(super) fn transactional_id(&self) -> String {
        self.transactional_id.clone().unwrap_or_else(|| format!("rotacast.{}", self.cluster))
    }

    /// Refuses what cannot work, by name and with the remedy. Connecting does so too; nothing is asked of a broker.
    ///
    /// # Errors
    /// [`BusError::Misconfigured`].
    pub fn check(&self) -> Result<(), BusError> {
        let wrong = |problem: String| Err(BusError::Misconfigured { endpoint: self.endpoint(), problem });
        if self.brokers.is_empty() {
            return wrong("bus.brokers is empty, expected at least one host:port".into());
        }
        for broker in &self.brokers {
            if broker.contains('@') {
                // Not the address itself: it holds a secret.
                let problem = "bus.brokers holds a user or password; set bus.user and bus.password_file".into();
                return Err(BusError::Misconfigured { endpoint: "kafka".into(), problem });
            }
            let port = broker.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if broker.contains(',') || !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return wrong(format!("bus.brokers has {broker:?}, expected host:port"));
            }
        }
        if self.replication == Some(0) {
            return wrong("bus.replication is 0, expected at least 1".into());
        }
        for (name, value) in &self.properties {
            if let Some(problem) = refused_kafka_property(name, value, self.login.is_some(), self.tls.is_some()) {
                return wrong(format!("bus.properties {name}: {problem}"));
            }
        }
        self.check_features()?;
        let held = Held::read(self, FILE_DEADLINE)
            .map_err(|problem| BusError::Misconfigured { endpoint: self.endpoint(), problem })?;
        // Names and values that librdkafka does not know. It opens no file and asks no server.
        let known = self.client(&held).create_native_config();
        known.map(drop).map_err(|problem| meaning(&self.endpoint(), &problem))
    }

    /// Login and TLS in librdkafka's words, but for what files hold.
    pub(super) fn security(&self) -> BTreeMap<&'static str, String> {
        let mut settings = BTreeMap::new();
        let protocol = match (&self.login, &self.tls) {
            (None, None) => return settings,
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        settings.insert("security.protocol", protocol.to_owned());
        if let Some(login) = &self.login {
            settings.insert("sasl.mechanism", login.mechanism.as_str().to_owned());
            settings.insert("sasl.username", login.user.clone());
        }
        settings
    }

    /// TLS and SCRAM need an OpenSSL, which only some builds have.
    fn check_features(&self) -> Result<(), BusError> {
        if cfg!(feature = "kafka-tls") {
            return Ok(());
        }
        let security = self.security();
        let further = self.properties.iter().map(|(name, value)| (name.as_str(), value));
        let needs = security.iter().map(|(name, value)| (*name, value)).chain(further).find(|(name, value)| {
            let value = value.to_ascii_uppercase();
            name.starts_with("ssl.")
                || (*name == "security.protocol" && value.contains("SSL"))
                || (name.starts_with("sasl.mechanism") && (value.starts_with("SCRAM") || value == "OAUTHBEARER"))
        });
        match needs {
            None => Ok(()),
            Some((name, _)) => Err(BusError::Misconfigured {
                endpoint: self.endpoint(),
                problem: format!("{name} needs TLS, which this build lacks; build it with the feature `kafka-tls`"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut KafkaOptions)) -> Option<String> {
        let mut options = KafkaOptions::new(vec!["localhost:9092".into()], ClusterName::new("dev").unwrap());
        change(&mut options);
        options.check().err().map(|problem| problem.to_string())
    }

    fn with(name: &str, value: &str) -> Option<String> {
        problem(|options| drop(options.properties.insert(name.into(), value.into())))
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert_eq!(problem(|_| {}), None);
        for brokers in [vec![], vec!["localhost"], vec![":9092"], vec!["a:1,b:2"], vec!["a:0"], vec!["a:x"]] {
            let text = problem(|options| options.brokers = brokers.iter().map(ToString::to_string).collect());
            assert!(text.is_some_and(|text| text.contains("bus.brokers")), "{brokers:?}");
        }
        let text = problem(|options| options.brokers = vec!["alice:s3cret@localhost:9092".into()]).unwrap();
        assert!(text.contains("bus.password_file") && !text.contains("s3cret"), "{text}");
        assert!(with("client.rack", "a").unwrap().contains("client.rack"));
        assert!(problem(|options| options.replication = Some(0)).unwrap().contains("bus.replication"));
        assert!(with("isolation.level", "read_uncommitted").unwrap().contains("isolation.level"));
        let text = with("sasl.password", "the-password").unwrap();
        assert!(text.contains("password_file") && !text.contains("the-password"), "{text}");
        assert_eq!(with("sasl.mechanism", "PLAIN"), None);
        assert!(with("statistics.intervall.ms", "1").unwrap().contains("bus.properties statistics.intervall.ms"));
        assert!(with("statistics.interval.ms", "often").unwrap().contains("bus.properties statistics.interval.ms"));
        let text = problem(|options| {
            let password = "the-password".into();
            options.login = Some(KafkaLogin { user: "u".into(), password, mechanism: SaslMechanism::Plain });
            options.properties.insert("security.protocol".into(), "plaintext".into());
        })
        .unwrap();
        assert!(text.contains("security.protocol") && !text.contains("the-password"), "{text}");
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn a_build_without_tls_names_the_feature() {
        for (name, value) in [
            ("security.protocol", "SASL_SSL"),
            ("security.protocol", "ssl"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.mechanisms", "scram-sha-512"),
            ("ssl.ca.location", "/etc/ca.pem"),
        ] {
            let text = with(name, value).unwrap();
            assert!(text.contains("kafka-tls") && text.contains(name), "{text}");
        }
        let text = problem(|options| options.tls = Some(KafkaTls::default())).unwrap();
        assert!(text.contains("kafka-tls"), "{text}");
        let scram = KafkaLogin { user: "u".into(), password: "p".into(), mechanism: SaslMechanism::default() };
        let text = problem(|options| options.login = Some(scram)).unwrap();
        assert!(text.contains("kafka-tls") && text.contains("sasl.mechanism"), "{text}");
    }
}
