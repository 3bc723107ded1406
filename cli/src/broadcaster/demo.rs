//! `rotacast dev --demo`: three sample services use a secret without pause while it is rotated under them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prost::Message as _;
use rotacast_admin::parse_duration;
use rotacast_broadcaster::dev::{CLUSTER, Dev, Folder};
use rotacast_clock as clock;
use rotacast_proto::v1::admin_client::AdminClient;
use rotacast_proto::v1::operator_command::Action;
use rotacast_proto::{Envelope, Kind, v1};
use rotacast_protocol::{ClusterName, Phase};
use rotacast_subscriber::Subscriber;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The secret the demo rotates.
const SECRET: &str = "demo/token";
/// The sample services and how many instances each runs.
const SERVICES: [(&str, usize); 3] = [("payments-api", 2), ("ledger", 1), ("mailer", 1)];
/// How long one sample use of the secret takes.
const USE: Duration = Duration::from_millis(5);
/// How long the demo waits for its own parts to come up; they are in this very process.
const START: Duration = Duration::from_secs(30);
/// How long one rotation may take before the demo says that it failed.
const ROTATION: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Also run sample services and rotate a secret under them.
    #[arg(long)]
    pub(crate) demo: bool,
    /// Stop the demo after this many finished rotations.
    #[arg(long, value_name = "NUMBER", requires = "demo", value_parser = clap::value_parser!(u64).range(1..))]
    rotations: Option<u64>,
    /// How long the demo rests between two rotations.
    #[arg(long, value_name = "DURATION", requires = "demo", value_parser = parse_duration, default_value = "5s")]
    every: Duration,
}

/// What the sample services have counted.
#[derive(Default)]
struct Counters {
    uses: AtomicU64,
    failed: AtomicU64,
}

/// Runs the broadcaster, and the sample services beside it.
pub(crate) async fn run(dev: Dev, args: &DemoArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let (address, folder) = (dev.address(), dev.folder().clone());
    let demo = beside(args, address, &folder, stop.clone());
    let serving = dev.run(stop.clone());
    tokio::pin!(demo, serving);
    tokio::select! {
        ended = &mut demo => {
            stop.cancel();
            serving.await.and(ended)
        }
        ended = &mut serving => {
            stop.cancel();
            ended
        }
    }
}

/// Rotates until `stop` or the wanted number of rotations.
async fn beside(args: &DemoArgs, address: SocketAddr, folder: &Folder, stop: CancellationToken) -> anyhow::Result<()> {
    let url = format!("http://{address}");
    let client = within("the broadcaster's start", START, &stop, async || {
        let mut client = AdminClient::connect(url.clone()).await.ok()?;
        let status = client.status(v1::StatusRequest::default()).await.ok()?.into_inner();
        status.leader.then_some(client)
    })
    .await?;
    let mut demo = Demo { client, operator: folder.operator().clone(), counters: Arc::default() };
    say(format_args!(
        "Rotacast runs on {address}; the demo rotates {SECRET} every {:?}. Stop with Ctrl-C.",
        args.every
    ));
    if demo.status().await?.is_none() {
        let value = format!("first-{:016x}", rand::random::<u64>());
        demo.order(Action::Put(v1::Put { value: value.into_bytes().into() })).await?;
    }
    within("the first version", START, &stop, async || {
        let status = demo
            .clone_client()
            .status(v1::StatusRequest { secret: SECRET.into(), brief: false })
            .await
            .ok()?
            .into_inner();
        status.secrets.into_iter().find(|secret| secret.current > 0)
    })
    .await?;

    let services = CancellationToken::new();
    let mut instances = JoinSet::new();
    for (service, count) in SERVICES {
        for number in 1..=count {
            let subscriber = Subscriber::builder()
                .service(service)
                .instance(format!("{service}-{number}"))
                .cluster(CLUSTER)
                .identity(folder.identity().clone())
                .trust(folder.broadcaster().public().clone())
                .connect(&format!("grpc://{address}"))
                .await
                .with_context(|| format!("connecting the sample service {service}"))?;
            instances.spawn(sample(subscriber, Arc::clone(&demo.counters), services.clone()));
        }
    }
    let outcome = tokio::select! {
        outcome = demo.rotations(args) => outcome,
        () = stop.cancelled() => Ok(()),
        Some(ended) = instances.join_next() => Err(match ended {
            Ok(Err(problem)) => problem.context("a sample service failed"),
            Ok(Ok(())) => anyhow::anyhow!("a sample service ended by itself"),
            Err(problem) => anyhow::anyhow!("a sample service broke off: {problem}"),
        }),
    };
    services.cancel();
    while instances.join_next().await.is_some() {}
    let (uses, failed) = demo.counted();
    say(format_args!("The sample services used {SECRET} {uses} times; {failed} uses failed."));
    anyhow::ensure!(failed == 0, "{failed} uses failed");
    outcome
}

/// One instance: takes the credential, "uses" it for a moment, lets it go, and again.
async fn sample(subscriber: Subscriber, counters: Arc<Counters>, stop: CancellationToken) -> anyhow::Result<()> {
    let secret = subscriber.secret(SECRET).await?;
    while !stop.is_cancelled() {
        match secret.current() {
            Ok(credential) => {
                anyhow::ensure!(!credential.expose().is_empty(), "an empty credential was handed out");
                tokio::time::sleep(USE).await;
                counters.uses.fetch_add(1, Ordering::Relaxed);
            }
            Err(problem) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                say(format_args!("a use failed: {problem}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    subscriber.leave().await?;
    Ok(())
}

struct Demo {
    client: AdminClient<Channel>,
    operator: rotacast_proto::SigningKey,
    counters: Arc<Counters>,
}

impl Demo {
    fn clone_client(&self) -> AdminClient<Channel> {
        self.client.clone()
    }

    fn counted(&self) -> (u64, u64) {
        (self.counters.uses.load(Ordering::Relaxed), self.counters.failed.load(Ordering::Relaxed))
    }

    async fn status(&mut self) -> anyhow::Result<Option<v1::SecretStatus>> {
        let status = self.client.status(v1::StatusRequest::default()).await?.into_inner();
        Ok(status.secrets.into_iter().find(|secret| secret.secret == SECRET))
    }

    async fn order(&mut self, action: Action) -> anyhow::Result<v1::CommandReply> {
        let about = v1::StatusRequest { secret: String::new(), brief: true };
        let epoch = self.client.status(about).await?.into_inner().epoch;
        let command = v1::OperatorCommand {
            operator: "operator".into(),
            secret: SECRET.into(),
            reason: "demo".into(),
            nonce: rand::random(),
            issued_ms: clock::wall().0,
            epoch,
            emergency: false,
            action: Some(action),
        };
        let payload = command.encode_to_vec().into();
        let cluster = ClusterName::new(CLUSTER)?;
        let id = format!("demo:{}", command.nonce);
        let envelope =
            Envelope::sign(&self.operator, Kind::OperatorCommand, &cluster, SECRET, id, clock::wall(), payload);
        Ok(self.client.command(v1::Envelope::from(envelope)).await?.into_inner())
    }

    async fn rotations(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        let mut done = 0_u64;
        while args.rotations.is_none_or(|wanted| done < wanted) {
            // A person may try commands out while the demo runs: it continues when they are done.
            match self.rotate().await {
                Ok(()) => done += 1,
                Err(problem) => match problem.downcast_ref::<tonic::Status>() {
                    Some(status) if status.code() == tonic::Code::FailedPrecondition => {
                        say(format_args!("  not now: {}", status.message()));
                    }
                    _ => return Err(problem),
                },
            }
            if args.rotations != Some(done) {
                tokio::time::sleep(args.every).await;
            }
        }
        Ok(())
    }

    /// One rotation, told as it goes.
    async fn rotate(&mut self) -> anyhow::Result<()> {
        let mut watch = self.client.watch(v1::WatchRequest { secret: SECRET.into() }).await?.into_inner();
        let number = self.order(Action::Rotate(v1::Rotate {})).await?.number;
        let mut told = String::new();
        let ended = async {
            while let Some(status) = watch.message().await? {
                if let Some(rotation) = status.rotation.as_ref().filter(|rotation| rotation.number == number) {
                    let line = describe(&status, rotation);
                    if line != told {
                        say(format_args!("{line}"));
                        told = line;
                    }
                } else if let Some(ended) = status.history.iter().find(|ended| ended.number == number) {
                    return Ok(ended.clone());
                }
            }
            anyhow::bail!("the broadcaster ended the watch")
        };
        let ended =
            tokio::time::timeout(ROTATION, ended).await.with_context(|| format!("no end within {ROTATION:?}"))??;
        let (uses, failed) = self.counted();
        let took = Duration::from_millis(ended.ended_ms.saturating_sub(ended.started_ms));
        say(format_args!(
            "  v{} → v{}  {:<12} in {took:.1?}: no instance uses v{} any more; {uses} uses so far, {failed} failed",
            ended.old, ended.new, ended.outcome, ended.old
        ));
        anyhow::ensure!(ended.outcome == "retired", "the rotation ended {}: {}", ended.outcome, ended.reason);
        Ok(())
    }
}

fn describe(status: &v1::SecretStatus, rotation: &v1::RotationInfo) -> String {
    let phase = rotation.phase().known().map_or("unknown", Phase::words);
    if rotation.phase() == v1::Phase::Verifying {
        return format!("  v{} → v{}  {phase:<12} the new credential is made and tested", rotation.old, rotation.new);
    }
    let services = status.services.iter().map(|counts| {
        let (reached, stage) = match rotation.phase() {
            v1::Phase::Preparing => (counts.prepared, "prepared"),
            v1::Phase::Activating => (counts.switched, "switched"),
            _ => (counts.released, "released"),
        };
        format!("{} {reached}/{} {stage}", counts.service, counts.members)
    });
    let services: Vec<String> = services.collect();
    format!("  v{} → v{}  {phase:<12} {}", rotation.old, rotation.new, services.join(" · "))
}

/// A line for the person who watches; a closed terminal is no error.
fn say(line: std::fmt::Arguments<'_>) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Waits for something that must happen soon after the start.
async fn within<T>(
    what: &str,
    limit: Duration,
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Option<T>,
) -> anyhow::Result<T> {
    let tries = async {
        loop {
            if let Some(done) = attempt().await {
                return done;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        done = tokio::time::timeout(limit, tries) => done.with_context(|| format!("{what} took longer than {limit:?}")),
        () = stop.cancelled() => anyhow::bail!("stopped"),
    }
}
