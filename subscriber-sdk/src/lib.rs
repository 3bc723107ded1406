//! Rotacast's subscriber SDK: three lines to a secret that is always right.
//!
//! A service holds a handle instead of a password. Rotacast moves the handle to new versions of the
//! secret while the service keeps running, and the old credential is retired only when every
//! instance has let go of it.
//!
//! ```no_run
//! # async fn example() -> Result<(), rotacast_subscriber::Error> {
//! use rotacast_subscriber::Subscriber;
//!
//! let rotacast = Subscriber::builder()
//!     .service("payments-api")
//!     .values_from_etcd(["http://localhost:2379"], "rotacast")
//!     .connect("nats://localhost:4222")
//!     .await?;
//! let db = rotacast.secret("payments/db").await?;
//! let credential = db.current()?;
//! # Ok(()) }
//! ```
//!
//! The service's private key and the broadcaster's public key come from `ROTACAST_IDENTITY` and
//! `ROTACAST_TRUST` (or [`Builder::identity_file`] and [`Builder::trust_file`]); see [`Builder`] for all
//! settings. Without a message bus, `connect("grpc://127.0.0.1:7400")` reaches a broadcaster directly.
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
//! Everything below runs against `testing::FakeCluster`, a bus, a broadcaster and a store in memory (this
//! crate's feature `testing`); your own tests can do the same.
//!
//! ## Use the secret
//!
//! Ask for it whenever work begins. It costs nanoseconds, takes no lock, and looks at the clock: what it
//! hands out may be used now. The [`Guard`] keeps the version's credential alive until it is dropped, so
//! keep it for the piece of work and no longer.
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
//! A guard taken before the switch goes on with the old version; the next `current()` is the new one. Only when
//! the last guard of the old version is gone does this instance report that it has let go.
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
//! cluster.put("payments/db", "two"); // somebody rotates
//! db.wait_for_change(before.version()).await?;
//!
//! assert_eq!(db.current()?.expose(), b"two");
//! assert_eq!(before.expose(), b"one"); // still valid, and held back from being retired
//! # Ok::<(), rotacast_subscriber::Error>(()) }).unwrap();
//! ```
//!
//! ## Take part: hooks
//!
//! A pool of connections must be built before it is used and closed before the old credential goes. Three hooks
//! do that: *prepare* may refuse a version that does not work, which rolls the rotation back before
//! anything has used it; *switch* moves new work; *release* closes what is left.
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
//! ## When something is away
//!
//! A lease says for how long a version may be used without hearing from anybody. Its length is the
//! broadcaster's policy: an hour while nothing rotates. Without a broadcaster the instance reads the store and goes on
//! for as long as that answers. With neither, `current()` fails with [`ErrorKind::Lapsed`] at the moment the lease ends,
//! and works again by itself.
//!
//! Work may outlast its lease by a few seconds ([`Guard::use_until`]); long-lived connections should end by then
//! ([`Guard::remaining`]).
//!
//! Tell the broadcaster about logins that fail with [`SecretHandle::report_auth_failure`]: enough of them
//! roll a rotation back.
//!
//! ## Shut down
//!
//! [`Subscriber::leave`] drops everything in order, so that no rotation waits for this process. A process that is
//! killed instead is waited for until its lease is over.
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
//! assert!(cluster.roster()[0].left);
//! assert!(db.current().is_err());
//! # Ok::<(), rotacast_subscriber::Error>(()) }).unwrap();
//! ```
//!
//! # Traces
//!
//! With the feature `otel`, what this instance does in a rotation becomes spans: `rotacast load`, `prepare`, `switch`, `drain`
//! and, below it, `release`. They join the rotation's trace, each below the phase that it acts on, by the trace context of the
//! broadcaster's message. The spans go to OpenTelemetry's global tracer provider, which is the service's own affair: without
//! one they cost next to nothing and go nowhere.
//!
//! While a hook runs, its span is the current context. What the hook calls therefore joins as well, also through `tracing` with
//! its OpenTelemetry layer; for anything else, `traceparent()` is the W3C header.
//!
//! # Rules for services
//!
//! - Values reach the process through this crate only. A copy kept elsewhere is not protected by anything.
//! - Ask `current()` per piece of work; do not keep guards for the life of the process.
//! - Every running copy has its own instance name, and says [`exclusive`](Builder::exclusive) only if no second
//!   process can run under it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod builder;
mod clock;
mod connect;
mod credential;
mod driver;
mod error;
mod handle;
mod hooks;
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
pub use source::{StoreSource, ValueSource};
pub use subscriber::{LEAVE_BOUND, Subscriber};
#[cfg(feature = "otel")]
pub use trace::traceparent;

#[cfg(feature = "nats")]
pub use rotacast_bus::NatsCredentials;
#[cfg(feature = "kafka")]
pub use rotacast_bus::{KafkaLogin, SaslMechanism};
pub use rotacast_proto::{SecretValue, SigningKey, VerifyingKey};
pub use rotacast_protocol::{Instant, Version};
