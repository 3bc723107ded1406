//! Addresses and settings that are refused before the SDK connects, and the errors.

#[cfg(all(feature = "grpc", any(feature = "etcd", feature = "consul")))]
use std::time::Duration;

use rotacast_subscriber::{Builder, Error, ErrorKind, SigningKey, Subscriber};

fn builder() -> Builder {
    let key = SigningKey::generate();
    Subscriber::builder()
        .service("payments-api")
        .cluster("test")
        .instance("one")
        .trust(key.public().clone())
        .identity(key)
}

async fn refused(builder: Builder, url: &str) -> Error {
    match builder.connect(url).await {
        Ok(_) => panic!("{url} is accepted"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            error
        }
    }
}

#[tokio::test]
async fn an_unknown_transport_is_refused_with_those_of_this_build() {
    for url in ["amqp://127.0.0.1", "127.0.0.1:4222", "", "nats:127.0.0.1"] {
        let told = refused(builder(), url).await.to_string();
        assert!(told.contains("is not known to this build") && told.contains("kafka://host:port"), "{told}");
    }
}

#[cfg(not(feature = "kafka"))]
#[tokio::test]
async fn a_build_without_kafka_names_the_feature() {
    let told = refused(builder(), "kafka://127.0.0.1:9092").await.to_string();
    assert!(told.contains("feature `kafka`"), "{told}");
}

#[cfg(feature = "nats")]
#[tokio::test]
async fn a_bus_without_a_source_of_values_names_the_ways() {
    let told = refused(builder(), "nats://user:canary@127.0.0.1:4222").await.to_string();
    assert!(told.contains("nats://127.0.0.1:4222") && !told.contains("canary"), "{told}");
    for way in [".values_from_etcd(", ".values_from_consul(", ".broadcasters("] {
        assert!(told.contains(way), "{told}");
    }
}

/// A user of NATS that has only a service's rights, may create no stream, and whose password a URL must encode.
#[cfg(feature = "nats")]
#[tokio::test]
async fn a_login_in_the_address_is_used() {
    use rotacast_test_servers::{Nats, NatsConfig};

    let users = r#"authorization { users: [
        { user: broadcaster, password: one },
        { user: payments, password: "p@ss/word", permissions: {
            publish: ["rotacast.default.>", "$JS.API.CONSUMER.CREATE.ROTACAST_STATE_DEFAULT.>", "$JS.FC.>"],
            subscribe: ["_INBOX.>"] } } ] }"#;
    let Some(server) = Nats::start_with(NatsConfig { top: users, jetstream: "" }).await else { return };
    let address = |login: &str| server.url().replace("nats://", &format!("nats://{login}@"));
    let values = || builder().broadcasters(["http://127.0.0.1:7400"]);
    values().connect(&address("payments:p%40ss%2Fword")).await.map(drop).unwrap();
    let error = values().connect(&address("payments:canary")).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[cfg(feature = "kafka")]
mod kafka {
    use rotacast_subscriber::{KafkaLogin, SaslMechanism};

    use super::*;

    #[tokio::test]
    async fn kafka_without_a_broadcaster_is_refused_with_where_syncs_go() {
        let told = refused(builder(), "kafka://127.0.0.1:9092").await.to_string();
        assert!(told.contains(".broadcasters("), "{told}");
    }

    #[tokio::test]
    async fn brokers_and_properties_that_cannot_work_are_named() {
        let builder = || builder().broadcasters(["http://127.0.0.1:7400"]);
        for url in ["kafka://", "kafka://broker", "kafka://a:1,,b:2", "kafka://a:x"] {
            let told = refused(builder(), url).await.to_string();
            assert!(told.contains("expected host:port"), "{url}: {told}");
        }
        let told = refused(builder().kafka_property("group.id", "mine"), "kafka://127.0.0.1:9092").await.to_string();
        assert!(told.contains("group.id"), "{told}");
    }

    #[tokio::test]
    async fn a_password_is_not_sent_as_it_is_beyond_the_loopback() {
        let login = |mechanism| KafkaLogin { user: "u".into(), password: "canary".into(), mechanism };
        let builder = builder().broadcasters(["http://127.0.0.1:7400"]).kafka_login(login(SaslMechanism::Plain));
        let told = refused(builder, "kafka://127.0.0.1:9092,kafka-2:9092").await.to_string();
        assert_eq!(
            told,
            format!(
                "Kafka: \"kafka-2:9092\" {NOT_HERE}: the password, which PLAIN sends as it is, would cross the network in \
                 the clear; use kafkas:// or SCRAM, {ALLOW}"
            )
        );
    }
}

#[cfg(all(feature = "consul", feature = "grpc"))]
#[tokio::test]
async fn a_consul_that_speaks_tls_needs_an_authority() {
    let builder = builder().values_from_consul("https://127.0.0.1:8501", "rotacast");
    let told = refused(builder, "grpc://127.0.0.1:7400").await.to_string();
    assert!(told.contains(".ca_file(") && told.contains("https://127.0.0.1:8501"), "{told}");
}

/// How a refusal ends.
#[cfg(all(feature = "grpc", any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul")))]
const ALLOW: &str = "or call .in_the_clear(true) on the builder or set ROTACAST_IN_THE_CLEAR=true if something else \
                     protects the way there";
#[cfg(all(feature = "grpc", any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul")))]
const NOT_HERE: &str = "is not encrypted and not on this machine";

#[cfg(all(feature = "consul", feature = "grpc"))]
#[tokio::test]
async fn a_consul_beyond_the_loopback_must_speak_tls() {
    let builder = builder().values_from_consul("http://10.0.0.1:8500", "rotacast");
    let told = refused(builder.clone(), "grpc://127.0.0.1:7400").await.to_string();
    assert_eq!(
        told,
        format!(
            "Consul: \"http://10.0.0.1:8500\" {NOT_HERE}: the values of secrets and the token would cross the network in \
             the clear; use https:// with .ca_file(…) or ROTACAST_CA, {ALLOW}"
        )
    );
    let allowed = builder.in_the_clear(true).start_timeout(Duration::ZERO).connect("grpc://127.0.0.1:1").await;
    assert_ne!(allowed.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Config));
}

#[cfg(all(feature = "etcd", feature = "grpc"))]
#[tokio::test]
async fn an_etcd_beyond_the_loopback_must_speak_tls() {
    let endpoints = ["http://127.0.0.1:2379", "http://etcd-2:2379"];
    let builder = builder().values_from_etcd(endpoints, "rotacast").etcd_user("u", "canary".to_owned());
    let told = refused(builder.clone(), "grpc://127.0.0.1:7400").await.to_string();
    assert_eq!(
        told,
        format!(
            "etcd: \"http://etcd-2:2379\" {NOT_HERE}: the values of secrets and the login would cross the network in the \
             clear; use https:// with .ca_file(…) or ROTACAST_CA, {ALLOW}"
        )
    );
    let allowed = builder.in_the_clear(true).start_timeout(Duration::ZERO).connect("grpc://127.0.0.1:1").await;
    assert_ne!(allowed.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Config));
}

#[cfg(all(feature = "nats", feature = "grpc"))]
#[tokio::test]
async fn a_nats_beyond_the_loopback_must_speak_tls() {
    let builder = builder().broadcasters(["http://127.0.0.1:7400"]);
    let told = refused(builder, "nats://127.0.0.1:4222, nats://user:canary@10.0.0.1:4222").await.to_string();
    assert_eq!(
        told,
        format!(
            "NATS: \"nats://10.0.0.1:4222\" {NOT_HERE}: this instance's login, states and reports would cross the network \
             in the clear; use tls://, {ALLOW}"
        )
    );
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn a_broadcaster_beyond_the_loopback_must_speak_tls() {
    let builder = builder().broadcasters(["http://127.0.0.1:7400", "http://10.0.0.1:7400"]);
    let told = refused(builder, "grpc://127.0.0.1:7400").await.to_string();
    assert!(told.contains("http://10.0.0.1:7400") && told.contains("in the clear"), "{told}");
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn each_of_several_broadcasters_must_speak_tls_beyond_the_loopback() {
    let told = refused(builder(), "grpc://127.0.0.1:7400,10.0.0.1:7400").await.to_string();
    assert!(told.contains("http://10.0.0.1:7400") && told.contains("in the clear"), "{told}");
    let told = refused(builder(), "grpc://127.0.0.1:7400,").await.to_string();
    assert!(told.contains("not an address"), "{told}");
}
