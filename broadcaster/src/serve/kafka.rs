//! Kafka as configured.

use anyhow::anyhow;
use rotacast_bus::{KafkaLogin, KafkaOptions, KafkaTls, LoginSecret, SaslMechanism as Mechanism};
use rotacast_proto::FILE_DEADLINE;
use rotacast_protocol::ClusterName;
use tracing::warn;

use crate::config::{BusConfig, SaslMechanism};

/// The options of the Kafka bus. Syncs are served on our own gRPC listener, which every broadcaster has.
pub(super) fn options(config: &BusConfig, cluster: &ClusterName) -> anyhow::Result<KafkaOptions> {
    let BusConfig::Kafka { brokers, replication, login, mechanism, tls, properties } = config else {
        unreachable!("called for this kind only");
    };
    let mut options = KafkaOptions::new(brokers.clone(), cluster.clone());
    options.replication = *replication;
    options.properties = properties.clone();
    options.tls = tls.as_ref().map(|tls| KafkaTls { ca: Some(tls.ca.clone()), identity: tls.identity.clone() });
    if let Some(login) = login {
        let mechanism = match mechanism {
            Some(SaslMechanism::Plain) => Mechanism::Plain,
            Some(SaslMechanism::ScramSha256) => Mechanism::ScramSha256,
            Some(SaslMechanism::ScramSha512) | None => Mechanism::ScramSha512,
        };
        if mechanism == Mechanism::Plain && tls.is_none() {
            warn!("bus.mechanism \"PLAIN\" sends the password of bus.user unencrypted; set [bus.tls] ca");
        }
        let password = LoginSecret::File(login.password_file.clone());
        password.read(FILE_DEADLINE).map_err(|problem| anyhow!("bus.password_file: {problem}"))?;
        options.login = Some(KafkaLogin { user: login.user.clone(), password, mechanism });
    }
    Ok(options)
}
