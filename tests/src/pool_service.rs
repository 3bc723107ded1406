//! A sample service for end-to-end tests: a pool of PostgreSQL connections that is busy all the time.
//!
//! It takes its credential from the SDK, runs queries from several workers without a pause, and writes
//! one [`Status`] a second as a line of JSON to its standard output. SIGTERM makes it leave and end.
//! [`Misbehaviour`] makes it a service with one of the faults that an operator has to deal with.

mod pools;
mod status;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use rotacast_subscriber::{Hooks, Refusal, Subscriber};
use tokio::signal::unix::{SignalKind, signal};

use pools::Pools;
use status::Counts;
pub use status::Status;

/// How often a status line is written, besides the first and the last one.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// How often the service checks for a file that it waits for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the service runs, from arguments or `POOL_SERVICE_…` variables.
#[derive(Debug, Clone, Parser)]
#[command(name = "pool-service", about = "A sample service with a pool of PostgreSQL connections")]
pub struct Settings {
    /// The service's name.
    #[arg(long, env = "POOL_SERVICE_NAME", default_value = "payments-api")]
    pub service: String,
    /// This copy's name.
    #[arg(long, env = "POOL_SERVICE_INSTANCE", default_value = "one")]
    pub instance: String,
    /// At most one process at a time has this instance name.
    #[arg(long, env = "POOL_SERVICE_EXCLUSIVE")]
    pub exclusive: bool,
    /// The secret with the database credential.
    #[arg(long, env = "POOL_SERVICE_SECRET", default_value = "payments/db")]
    pub secret: String,
    /// Bus or broadcaster: nats://host:port, kafka://host:port or grpc://host:port.
    #[arg(long, env = "POOL_SERVICE_URL")]
    pub url: String,
    /// The cluster's name.
    #[arg(long, env = "POOL_SERVICE_CLUSTER")]
    pub cluster: String,
    /// File with this service's private key.
    #[arg(long, env = "POOL_SERVICE_IDENTITY")]
    pub identity: PathBuf,
    /// File with a broadcaster's public key; may be given several times.
    #[arg(long = "trust", env = "POOL_SERVICE_TRUST", required = true, value_delimiter = ':')]
    pub trust: Vec<PathBuf>,
    /// Read values from this etcd; otherwise from the broadcasters.
    #[arg(long, env = "POOL_SERVICE_ETCD")]
    pub etcd: Option<String>,
    /// Read values from this Consul.
    #[arg(long, env = "POOL_SERVICE_CONSUL", conflicts_with = "etcd")]
    pub consul: Option<String>,
    /// The prefix of Rotacast's keys in etcd or Consul.
    #[arg(long, env = "POOL_SERVICE_PREFIX", default_value = "rotacast")]
    pub prefix: String,
    /// Where a broadcaster listens; may be given several times. Syncs beside Kafka go there, and values come from there
    /// without a store.
    #[arg(long = "broadcaster", env = "ROTACAST_BROADCASTERS", value_delimiter = ',')]
    pub broadcasters: Vec<String>,
    /// Workers that query at the same time, and connections per version.
    #[arg(long, env = "POOL_SERVICE_WORKERS", default_value_t = 4)]
    pub workers: usize,
    /// How long each query takes in the database, in milliseconds.
    #[arg(long, env = "POOL_SERVICE_QUERY_MS", default_value_t = 50)]
    pub query_ms: u32,
    /// The fault of the service.
    #[command(flatten)]
    pub misbehaviour: Misbehaviour,
}

/// The faults that a service can have.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Misbehaviour {
    /// Keep one connection of every version open for ever, and still report the version as released.
    #[arg(long, env = "POOL_SERVICE_LEAK")]
    pub leak: bool,
    /// Use the first version for all work, and keep it.
    #[arg(long, env = "POOL_SERVICE_IGNORE_RELOAD")]
    pub ignore_reload: bool,
    /// Switch to another version than the first only once this file exists.
    #[arg(long, env = "POOL_SERVICE_SWITCH_WHEN")]
    pub switch_when: Option<PathBuf>,
    /// Refuse every version after the first when asked to prepare it.
    #[arg(long, env = "POOL_SERVICE_REFUSE_PREPARE")]
    pub refuse_prepare: bool,
}

/// Runs the service until SIGTERM or SIGINT, then leaves. Status lines go to standard output.
///
/// # Errors
/// What kept it from starting or from leaving.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let subscriber = connect(&settings).await?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(&settings, subscriber, stop, |status| {
        status.write_line(&mut std::io::stdout().lock()).context("cannot write a status line")
    })
    .await
}

/// Runs the service with this subscriber until `stop`, then leaves. `say` is given every status.
///
/// # Errors
/// What kept it from starting or from leaving, and what `say` returns.
pub async fn serve(
    settings: &Settings,
    subscriber: Subscriber,
    stop: impl Future<Output = ()>,
    mut say: impl FnMut(Status) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let pools = Arc::new(Pools::new(settings.workers, settings.misbehaviour.leak));
    let counts = Arc::new(Counts::default());
    let secret = subscriber.secret_with(&settings.secret, hooks(settings, &pools)).await?;
    let status = |left| counts.status(settings, secret.version(), pools.oldest(), left);
    let workers = workers::start(settings, &secret, &pools, &counts);

    let mut tick = tokio::time::interval(STATUS_EVERY);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            _ = tick.tick() => say(status(false))?,
            () = &mut stop => break,
        }
    }
    workers.stop().await;
    subscriber.leave().await.context("cannot leave")?;
    say(status(true))
}

async fn connect(settings: &Settings) -> anyhow::Result<Subscriber> {
    let mut builder = Subscriber::builder()
        .service(&settings.service)
        .instance(&settings.instance)
        .exclusive(settings.exclusive)
        .cluster(&settings.cluster)
        .identity_file(&settings.identity);
    for file in &settings.trust {
        builder = builder.trust_file(file);
    }
    if let Some(endpoint) = &settings.etcd {
        builder = builder.values_from_etcd([endpoint], &settings.prefix);
    }
    if let Some(address) = &settings.consul {
        builder = builder.values_from_consul(address, &settings.prefix);
    }
    builder = builder.broadcasters(&settings.broadcasters);
    builder.connect(&settings.url).await.with_context(|| format!("cannot connect to {}", settings.url))
}

/// A pool for each version: opened and tried before it is needed, closed when its last query has ended.
fn hooks(settings: &Settings, pools: &Arc<Pools>) -> Hooks {
    let refuse = settings.misbehaviour.refuse_prepare;
    let awaited = settings.misbehaviour.switch_when.clone();
    let (prepare, switch, release) = (Arc::clone(pools), Arc::clone(pools), Arc::clone(pools));
    Hooks::new()
        .on_prepare(move |credential| {
            let pools = Arc::clone(&prepare);
            async move {
                if refuse && !pools.is_empty() {
                    return Err(Refusal::new("this service was told to refuse"));
                }
                pools.open(&credential).await
            }
        })
        .on_switch(move |credential| {
            let (pools, awaited) = (Arc::clone(&switch), awaited.clone());
            async move {
                let first = pools.oldest() == Some(credential.version());
                while !first && awaited.as_ref().is_some_and(|file| !file.exists()) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                pools.open(&credential).await
            }
        })
        .on_release(move |credential| {
            let pools = Arc::clone(&release);
            async move { pools.close(credential.version()).await }
        })
}
