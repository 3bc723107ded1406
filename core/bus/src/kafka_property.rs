//! librdkafka's settings that only the bus may set, whether from a configuration file or from a service.
//!
//! One list for both. It is compiled without Kafka too, so that a program that lacks it can still judge a
//! configuration.

/// What every client of the bus sets itself, by all the names librdkafka knows it by. What is safe, or how soon a loss
/// is noticed, rests on each of them.
const OURS: [&str; 42] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "check.crcs",
    "client.id",
    // A replica nearby may be behind its leader: the end that it shows is not the end.
    "client.rack",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "linger.ms",
    "log.connection.close",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.nagle.disable",
    "socket.timeout.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.interval.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Why a property of librdkafka's may not be set, if so. `login`: user and password are given by other means; `tls`:
/// so is TLS. The value is never repeated: it may be a secret.
#[must_use]
pub fn refused_kafka_property(name: &str, value: &str, login: bool, tls: bool) -> Option<String> {
    let problem = match name {
        "bootstrap.servers" | "metadata.broker.list" => {
            "the brokers are given by [bus] brokers or the address; remove it"
        }
        "sasl.password" => {
            "a secret has no place here; put it into a file and name it in password_file, or give the SDK a login"
        }
        "ssl.key.password" | "ssl.keystore.password" | "ssl.key.pem" | "sasl.oauthbearer.client.secret" => {
            "a secret has no place here; use a key file without a password that only its process can read ([bus.tls] key)"
        }
        "enable.ssl.certificate.verification" if value != "true" => {
            "any server would be trusted; name the brokers' authority instead ([bus.tls] ca)"
        }
        "plugin.library.paths" => "libraries are not loaded into this process; remove it",
        "security.protocol" if login || tls => "it follows from the login and from TLS being asked for; remove it",
        "sasl.username" | "sasl.mechanism" | "sasl.mechanisms" if login => {
            "it is set by the login and its mechanism; remove it"
        }
        "ssl.ca.location" | "ssl.ca.pem" | "ssl.certificate.location" | "ssl.certificate.pem" | "ssl.key.location"
            if tls =>
        {
            "it is set by asking for TLS ([bus.tls]); remove it"
        }
        name if OURS.contains(&name) => {
            "Rotacast sets it itself, and what is safe or soon noticed rests on it; remove it"
        }
        _ => return None,
    };
    Some(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_safety_rests_on_is_refused_and_the_rest_is_not() {
        for name in OURS {
            assert!(refused_kafka_property(name, "1", false, false).is_some(), "{name}");
        }
        for (name, value) in [
            ("sasl.mechanism", "PLAIN"),
            ("ssl.ca.location", "/etc/ca.pem"),
            ("enable.ssl.certificate.verification", "true"),
            ("statistics.interval.ms", "1000"),
        ] {
            assert_eq!(refused_kafka_property(name, value, false, false), None, "{name}");
        }
        assert!(refused_kafka_property("sasl.mechanisms", "PLAIN", true, false).is_some());
        assert!(refused_kafka_property("ssl.ca.location", "x", false, true).is_some());
        assert!(refused_kafka_property("enable.ssl.certificate.verification", "false", false, false).is_some());
    }

    #[test]
    fn no_secret_is_repeated() {
        for name in ["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret"] {
            let problem = refused_kafka_property(name, "hunter2", false, false).unwrap();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
