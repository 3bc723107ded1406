//! Kafka as configured.

use rotacast_bus::KafkaOptions;
use rotacast_protocol::ClusterName;
use tracing::warn;

use super::backend::secret;
use crate::config::{BusConfig, SaslMechanism};

/// What the Kafka bus is told. Syncs are served on our own gRPC listener, which every broadcaster has.
pub(super) fn options(config: &BusConfig, cluster: &ClusterName) -> anyhow::Result<KafkaOptions> {
    let BusConfig::Kafka { brokers, replication, login, mechanism, tls, properties } = config else {
        unreachable!("called for this kind only");
    };
    let mut options = KafkaOptions::new(brokers.clone(), cluster.clone());
    options.replication = *replication;
    options.properties = properties.clone();
    let mut set = |name: &str, value: String| options.properties.insert(name.into(), value);
    if let Some(protocol) = match (login.is_some(), tls.is_some()) {
        (false, false) => None,
        (false, true) => Some("ssl"),
        (true, false) => Some("sasl_plaintext"),
        (true, true) => Some("sasl_ssl"),
    } {
        set("security.protocol", protocol.into());
    }
    if let Some(tls) = tls {
        set("ssl.ca.location", tls.ca.display().to_string());
        if let Some((cert, key)) = &tls.identity {
            set("ssl.certificate.location", cert.display().to_string());
            set("ssl.key.location", key.display().to_string());
        }
    }
    if let Some(login) = login {
        let mechanism = mechanism.unwrap_or(SaslMechanism::ScramSha512);
        if mechanism == SaslMechanism::Plain && tls.is_none() {
            warn!("bus.mechanism \"PLAIN\" sends the password of bus.user unencrypted; set [bus.tls] ca");
        }
        set("sasl.username", login.user.clone());
        set("sasl.mechanism", mechanism.as_str().into());
        options.password = Some(secret("bus.password_file", &login.password_file)?);
    }
    Ok(options)
}
