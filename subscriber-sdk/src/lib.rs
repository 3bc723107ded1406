//! Rotacast's subscriber SDK: a handle to a secret that follows its rotations.
//!
//! A service holds a handle instead of a password. Rotacast moves the handle to new versions of the secret while the
//! service runs. It retires the old credential only when every instance has released it.
//!
//! ```no_run
//! # async fn example() -> Result<(), rotacast_subscriber::Error> {
//! use rotacast_subscriber::Subscriber;
//!
//! let rotacast = Subscriber::builder()
//!     .service("payments-api")
//!     .cluster("production")
//!     .values_from_etcd(["http://localhost:2379"], "rotacast")
//!     .connect("nats://localhost:4222")
//!     .await?;
//! let db = rotacast.secret("payments/db").await?;
//! let credential = db.current()?;
//! # Ok(()) }
//! ```
//!
//! The example needs two files, whose names come from the environment: the service's private key in `ROTACAST_IDENTITY`
//! and the broadcaster's public key in `ROTACAST_TRUST`. [`Builder`] lists all settings.
//!
//! NATS and Kafka carry no values. So a service names a **transport** (`connect`) and a **source of values**:
//! [`values_from_etcd`](Builder::values_from_etcd), `values_from_consul`, or [`broadcasters`](Builder::broadcasters). A
//! broadcaster's gRPC is both, so this needs no bus and no store:
//!
//! ```no_run
//! # async fn example() -> Result<(), rotacast_subscriber::Error> {
//! # use rotacast_subscriber::Subscriber;
//! let rotacast = Subscriber::builder().service("payments-api").cluster("dev").connect("grpc://127.0.0.1:7400").await?;
//! # Ok(()) }
//! ```
//!
//! The crate is not published to crates.io. In a service beside a clone of the repository:
//! `cargo add rotacast-subscriber --path ../rotacast/subscriber-sdk`.
//!
//! # Features
//!
//! A service compiles only what it uses. What each adds in crates and build time: `docs/use/sdk-features.md`.
//!
//! | feature | brings | default |
//! |---|---|---|
//! | `nats` | `connect("nats://…")` | yes |
//! | `grpc` | `connect("grpc://…")`, values from [`broadcasters`](Builder::broadcasters) | yes |
//! | `etcd` | values from etcd | yes |
//! | `consul` | values from Consul | no |
//! | `kafka` | `connect("kafka://…")`; compiles librdkafka | no |
//! | `kafka-tls` | `connect("kafkas://…")` and SCRAM; compiles an OpenSSL too | no |
//! | `otel` | spans that join the rotation's trace; see [Traces](#traces) | no |
//! | `testing` | `testing::FakeCluster` | no |
//!
//! # Tutorial
//!
//! All examples below run against `testing::FakeCluster`: a bus, a broadcaster and a store in memory (this crate's feature
//! `testing`). Your own tests can use it too.
//!
//! ## Use the secret
//!
//! Call `current()` for each piece of work. It takes nanoseconds and no lock, and it checks the clock: you may use now what it
//! returns. The [`Guard`] keeps the credential of its version alive until you drop it. So keep it for the piece of work
//! and no longer.
//!
//! ```
//! # use rotacast_subscriber::testing::FakeCluster;
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # runtime.block_on(async {
//! let cluster = FakeCluster::new();
//! cluster.put("payments/db", r#"{"host":"db","port":5432,"username":"app_v1","password":"hunter2"}"#);
//!
//! let rotacast = cluster.subscriber("payments-api")?;
//! let db = rotacast.secret("payments/db").await?;
//!
//! let credential = db.current()?;
//! let login = credential.database()?; // or .json::<YourType>(), or the bytes with .expose()
//! assert_eq!((login.username.as_str(), login.port), ("app_v1", 5432));
//! drop(credential); // the query is done
//! # Ok::<(), rotacast_subscriber::Error>(()) }).unwrap();
//! ```
//!
//! ## A rotation
//!
//! A guard from before the switch keeps the old version. The next `current()` returns the new one. The instance reports the
//! old version as released when its last guard is dropped.
//!
//! ```
//! # use rotacast_subscriber::testing::FakeCluster;
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # runtime.block_on(async {
//! # let cluster = FakeCluster::new();
//! # cluster.put("payments/db", "one");
//! # let rotacast = cluster.subscriber("payments-api")?;
//! # let db = rotacast.secret("payments/db").await?;
//! let before = db.current()?;
//! cluster.put("payments/db", "two"); // a rotation begins
//! db.wait_for_change(before.version()).await?;
//!
//! assert_eq!(db.current()?.expose(), b"two");
//! assert_eq!(before.expose(), b"one"); // still valid: the guard holds the retire back
//! # Ok::<(), rotacast_subscriber::Error>(()) }).unwrap();
//! ```
//!
//! ## Take part: hooks
//!
//! A pool of connections must be built before its first use, and closed before the old credential ends. Three hooks do
//! that. *Prepare* may refuse a version that does not work: the rotation then rolls back before any instance uses it.
//! *Switch* moves new work to the version. *Release* closes what is left of the old one.
//!
//! ```
//! # use rotacast_subscriber::testing::FakeCluster;
//! use rotacast_subscriber::{Hooks, Refusal};
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # runtime.block_on(async {
//! # let cluster = FakeCluster::new();
//! # cluster.put("payments/db", "good");
//! # let rotacast = cluster.subscriber("payments-api")?;
//! let hooks = Hooks::new()
//!     .on_prepare(|new| async move {
//!         if new.expose() == b"bad" { Err(Refusal::new("login failed")) } else { Ok(()) }
//!     })
//!     .on_switch(|_new| async { /* put the new pool in place */ })
//!     .on_release(|_old| async { /* close the old pool, wait for its last connection */ });
//! let db = rotacast.secret_with("payments/db", hooks).await?;
//!
//! cluster.propose("payments/db", "bad");
//! let refused = loop {
//!     let failure = cluster.reports()[0].secrets.values().next().unwrap().failure.clone();
//!     if let Some(failure) = failure { break failure }
//!     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
//! };
//! assert_eq!(refused.text, "login failed");
//! assert_eq!(db.current()?.expose(), b"good");
//! # Ok::<(), rotacast_subscriber::Error>(()) }).unwrap();
//! ```
//!
//! `examples/pooled_postgres.rs` is a whole service of this kind.
//!
//! ## During an outage
//!
//! A lease allows the use of a version for a time without any contact. The broadcaster's policy sets that time. By default
//! it is one hour while nothing rotates, and eleven minutes while the secret rotates. If no broadcaster answers, the
//! instance reads the store, and continues while the store answers. If neither answers, `current()` fails with
//! [`ErrorKind::Lapsed`] from the moment the lease ends. It works again when one of them answers.
//!
//! Work may outlast its lease by a few seconds ([`Guard::use_until`]). End long-lived connections by then
//! ([`Guard::remaining`]).
//!
//! Report logins that fail with [`SecretHandle::report_auth_failure`]. Too many of them roll the rotation back.
//!
//! ## Shut down
//!
//! [`Subscriber::leave`] releases everything in order, so that no rotation waits for this process. If the process is killed
//! instead, rotations wait until its lease has expired. A start that fails leaves by itself.
//!
//! ```
//! # use rotacast_subscriber::testing::FakeCluster;
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # runtime.block_on(async {
//! # let cluster = FakeCluster::new();
//! # cluster.put("payments/db", "one");
//! # let rotacast = cluster.subscriber("payments-api")?;
//! # let db = rotacast.secret("payments/db").await?;
//! rotacast.leave().await?;
//! assert!(cluster.registrations()[0].left);
//! assert!(db.current().is_err());
//! # Ok::<(), rotacast_subscriber::Error>(()) }).unwrap();
//! ```
//!
//! # Traces
//!
//! With the feature `otel`, each step of this instance in a rotation is a span: `rotacast load`, `prepare`, `switch`, `drain`,
//! and below it `release`. The spans join the rotation's trace, each below its phase, through the trace context of the
//! broadcaster's message. They go to OpenTelemetry's global tracer provider, which the service sets. Without one, they
//! cost next to nothing and go nowhere.
//!
//! While a hook runs, its span is the current context. So what the hook calls joins the trace too, also through `tracing` with
//! its OpenTelemetry layer. For other clients, `traceparent()` returns the W3C header.
//!
//! # Rules for services
//!
//! - Get values from this crate only. Nothing protects a copy that you keep elsewhere.
//! - Call `current()` for each piece of work. Do not keep a guard for as long as the process runs.
//! - Give every running copy its own instance name. Set [`exclusive`](Builder::exclusive) only if no second process can run
//!   under that name.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod builder;
mod clock;
mod connect;
mod credential;
mod driver;
mod error;
mod handle;
mod hooks;
mod incarnations;
mod live;
mod source;
mod subscriber;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
mod trust;

pub use builder::{Builder, START_TIMEOUT};
pub use clock::Clock;
pub use credential::{CredentialView, DatabaseCredential};
pub use error::{Error, ErrorKind};
pub use handle::{Changes, SecretHandle};
pub use hooks::{HOOK_TIMEOUT, HookOutcome, Hooks, Refusal};
pub use live::Guard;
#[cfg(feature = "grpc")]
pub use source::FetchSource;
#[cfg(any(feature = "consul", feature = "etcd"))]
pub use source::StoreSource;
pub use source::ValueSource;
pub use subscriber::{LEAVE_BOUND, Subscriber};
#[cfg(feature = "otel")]
pub use trace::traceparent;

#[cfg(feature = "nats")]
pub use rotacast_bus::NatsCredentials;
#[cfg(feature = "kafka")]
pub use rotacast_bus::{KafkaLogin, SaslMechanism};
pub use rotacast_proto::{LoginSecret, SecretValue, SigningKey, VerifyingKey};
pub use rotacast_protocol::{Instant, Version};
#[cfg(any(feature = "consul", feature = "etcd"))]
pub use rotacast_seal::{SealingKey, SealingKeys};
