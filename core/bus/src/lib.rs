//! How Rotacast's broadcaster and instances reach each other.
//!
//! Two sides, one trait each: [`InstanceBus`] for the SDK and, behind the feature `leader`, `LeaderBus` for the
//! broadcaster. Both carry signed [`Envelope`]s they do not look into. Safety never rests on a bus: it may lose,
//! double, reorder and replay, and costs time only.
//!
//! Implementations: NATS and Kafka (both sides), embedded (both sides, in one process), and gRPC (the
//! instance's side, against a broadcaster that serves any [`InstanceBus`] through `Gateway`, of feature `leader`).
//!
//! [`Envelope`]: rotacast_proto::Envelope

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
#[cfg(any(feature = "grpc", feature = "kafka", feature = "nats"))]
mod feed;
#[cfg(all(feature = "grpc", feature = "leader"))]
mod gateway;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "kafka")]
mod kafka;
mod kafka_property;
#[cfg(feature = "leader")]
mod leader;
#[cfg(feature = "nats")]
mod nats;
#[cfg(any(feature = "kafka", feature = "nats"))]
mod restarts;
#[cfg(feature = "grpc")]
mod status;
#[cfg(feature = "leader")]
mod strays;

pub use bus::{BusEvent, CALL_TIMEOUT, InstanceBus, MAX_MESSAGE_BYTES, MAX_REGISTRATION_BYTES};
#[cfg(feature = "embedded")]
pub use embedded::EmbeddedBus;
pub use error::BusError;
#[cfg(all(feature = "grpc", feature = "leader"))]
pub use gateway::{Admission, Gateway, ValueSource};
#[cfg(feature = "grpc")]
pub use grpc::{ClientCertificate, GrpcBus, GrpcOptions};
#[cfg(feature = "kafka")]
pub use kafka::{KafkaBus, KafkaLogin, KafkaOptions, KafkaSync, KafkaTls, KafkaTopics, SaslMechanism};
pub use kafka_property::refused_kafka_property;
#[cfg(feature = "leader")]
pub use leader::{CLAIM, LeaderBus, LogFill, Replier, SyncCall};
#[cfg(feature = "nats")]
pub use nats::{NatsBus, NatsCredentials, NatsOptions, NatsParty, StreamLimits};
#[cfg(all(feature = "nats", feature = "leader"))]
pub use nats::{NatsRights, NatsSecrets};
pub use rotacast_proto::{Finding, Level, LoginSecret, ServerFault};
#[cfg(feature = "leader")]
pub use strays::Stray;
