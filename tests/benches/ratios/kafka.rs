//! Over Kafka: every instance has clients that it shares with none, as every process would.
//!
//! librdkafka starts several threads for each client, and the floors need clients too: about twenty threads for every
//! instance. So there are fewer instances than over NATS.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use rotacast_bus::{InstanceBus, KafkaBus, KafkaOptions, KafkaTopics, LeaderBus};
use rotacast_tests::servers::{Kafka, KafkaConfig};

use super::carrier::{Carrier, Link, cluster};

/// Partitions of the floor's topics. Rotacast's have three, for three brokers.
const PARTITIONS: i32 = 1;

pub(super) struct OverKafka {
    server: Kafka,
}

impl OverKafka {
    fn options(&self) -> KafkaOptions {
        KafkaOptions::new(vec![self.server.broker()], cluster())
    }

    /// Settings that the floor's clients share with Rotacast's: they shorten delays and the set-up of the connection.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.server.broker()).set("socket.nagle.disable", "true");
        config
    }

    async fn create(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topic = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        for outcome in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
            assert!(matches!(outcome, Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))), "{outcome:?}");
        }
    }
}

impl Carrier for OverKafka {
    const NAME: &'static str = "Kafka";
    const INSTANCES: usize = 100;
    type Link = KafkaLink;

    async fn start() -> Option<Self> {
        // Tests leave these out for a quick start: the second compiler, and memory for this many connections.
        let jvm = &["-XX:TieredStopAtLevel=4", "-Xmx1g"];
        Some(Self { server: Kafka::start_with(KafkaConfig { jvm, ..KafkaConfig::default() }).await? })
    }

    async fn leader(&self) -> Arc<dyn LeaderBus> {
        Arc::new(KafkaBus::connect(self.options()).await.unwrap())
    }

    async fn instance(&self) -> Arc<dyn InstanceBus> {
        let options = KafkaOptions { topics: KafkaTopics::Use, ..self.options() };
        Arc::new(KafkaBus::connect(options).await.unwrap())
    }

    async fn link(&self, reads: &str, writes: &str) -> KafkaLink {
        self.create(reads).await;
        self.create(writes).await;
        let mut config = self.client();
        // Only a name: no client joins the group, and nothing is committed.
        config.set("group.id", "raw").set("enable.auto.commit", "false");
        let consumer: StreamConsumer = config.create().unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(reads, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        let mut config = self.client();
        config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "0");
        KafkaLink { consumer, producer: config.create().unwrap(), writes: writes.to_owned() }
    }
}

/// A consumer without a group, and an idempotent producer.
pub(super) struct KafkaLink {
    consumer: StreamConsumer,
    producer: FutureProducer,
    writes: String,
}

impl Link for KafkaLink {
    /// Does not wait for the acknowledgement, as reports do not.
    async fn publish(&mut self, message: Bytes) {
        let record = FutureRecord::<(), [u8]>::to(&self.writes).payload(&message);
        drop(self.producer.send_result(record).unwrap());
    }

    async fn next(&mut self) -> Bytes {
        let message = self.consumer.recv().await.unwrap();
        Bytes::copy_from_slice(message.payload().unwrap())
    }
}
