//! The clients of librdkafka that the bus uses, and every setting of theirs. All of them are refused as properties:
//! see [`refused_kafka_property`](crate::refused_kafka_property).

use rdkafka::ClientConfig;

use super::access::{Access, Held};
use super::options::KafkaOptions;

/// What a reader may fetch ahead, in KiB; the replica takes it as fast as it comes.
const FETCH_AHEAD_KIB: &str = "8192";
/// How long a broker waits for a message before it says that there is none, in milliseconds. Also how long
/// being caught up takes at most; four requests a second to each broker cost it next to nothing.
const FETCH_WAIT_MS: &str = "250";
/// Messages waiting to be sent; beyond it callers get an error.
const QUEUE: &str = "10000";
/// The same in KiB.
const QUEUE_KIB: &str = "65536";
/// When a message that could not be sent is given up, in milliseconds: before its caller gives up, so that
/// nothing arrives after the caller got an error that says it may not have.
const MESSAGE_MS: &str = "4500";
/// The same within a transaction, which is ended within its caller's time as well.
const DECISION_MS: &str = "4000";
/// When a broker gives an abandoned transaction up, in milliseconds: until then readers do not get past it.
const TRANSACTION_MS: &str = "10000";

impl Access {
    /// What every client of ours has in common, as the files are now.
    pub(super) fn client(&self) -> ClientConfig {
        self.options.client(&self.held())
    }
}

impl KafkaOptions {
    /// What every client of ours has in common.
    pub(super) fn client(&self, held: &Held) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in self.security() {
            config.set(name, value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        // Not the files: what they hold may be another pair by the time that a client reads them.
        let (chain, key) = held.identity.as_ref().map(|(chain, key)| (chain, key)).unzip();
        let secrets = [
            ("sasl.password", held.password.as_ref()),
            ("ssl.ca.pem", held.authorities.as_ref()),
            ("ssl.certificate.pem", chain),
            ("ssl.key.pem", key),
        ];
        for (name, held) in secrets {
            if let Some(held) = held {
                config.set(name, held.as_str());
            }
        }
        config
            .set("bootstrap.servers", self.endpoint())
            .set("client.id", "rotacast")
            .set("allow.auto.create.topics", "false")
            // A call has 5 s in all: an attempt must leave room for another.
            .set("socket.timeout.ms", "3000")
            .set("socket.connection.setup.timeout.ms", "2000")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            .set("retry.backoff.ms", "20")
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("topic.metadata.propagation.max.ms", "1000")
            // Told through the error callback, and once.
            .set("log.connection.close", "false");
        config
    }

    /// A reader of a whole topic. `decisions`: only what the leader has committed.
    pub(super) fn reading(&self, held: &Held, decisions: bool) -> ClientConfig {
        let mut config = self.client(held);
        config
            .set("group.id", format!("rotacast.{}", self.cluster))
            .set("isolation.level", if decisions { "read_committed" } else { "read_uncommitted" })
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("queued.max.messages.kbytes", FETCH_AHEAD_KIB)
            .set("fetch.wait.max.ms", FETCH_WAIT_MS)
            .set("fetch.error.backoff.ms", "100")
            .set("check.crcs", "true");
        config
    }

    /// A publisher without a transaction.
    pub(super) fn writing(&self, held: &Held) -> ClientConfig {
        let mut config = self.client(held);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", QUEUE)
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            .set("message.timeout.ms", MESSAGE_MS);
        config
    }

    /// The leader's publisher.
    pub(super) fn deciding(&self, held: &Held) -> ClientConfig {
        let mut config = self.client(held);
        config
            .set("transactional.id", self.transactional_id())
            .set("transaction.timeout.ms", TRANSACTION_MS)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .set("message.timeout.ms", DECISION_MS);
        config
    }
}

#[cfg(test)]
mod tests {
    use rotacast_proto::FILE_DEADLINE;
    use rotacast_protocol::ClusterName;

    use super::*;
    use crate::refused_kafka_property;

    /// What a property would only seem to change.
    #[test]
    fn whatever_a_client_sets_is_refused_as_a_property() {
        let options = KafkaOptions::new(vec!["localhost:9092".into()], ClusterName::new("dev").unwrap());
        let held = Held::read(&options, FILE_DEADLINE).unwrap();
        let clients =
            [options.client(&held), options.reading(&held, true), options.writing(&held), options.deciding(&held)];
        for config in clients {
            for name in config.config_map().keys() {
                assert!(refused_kafka_property(name, "1", false, false).is_some(), "{name}");
            }
        }
    }
}
