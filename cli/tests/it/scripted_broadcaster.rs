//! A broadcaster whose state the test sets, behind the real API over real gRPC.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_broadcaster::api::{
    AcceptedLoss, Action, AdminFront, CommandReply, Control, Instances, OperatorCommand, Refusal,
};
use rotacast_broadcaster::audit::Entry;
use rotacast_broadcaster::operators::Operators;
use rotacast_broadcaster::orders::Desk;
use rotacast_broadcaster::viewers::Viewers;
use rotacast_proto::{SigningKey, v1};
use rotacast_protocol::coordinator::{ConditionName, StageCounts, Standing};
use rotacast_protocol::message::Stage;
use rotacast_protocol::record::Label;
use rotacast_protocol::status::{
    BlockerStatus, BroadcasterStatus, ConditionStatus, FindingCounts, FinishedStatus, GuardStatus, InstanceStatus,
    Leading, PhaseStatus, RotationStatus, SecretStatus, ServiceStatus, VersionStatus,
};
use rotacast_protocol::{
    ClusterName, Epoch, Generation, Incarnation, InstanceKey, OperatorName, Outcome, Phase, Revision, RotationNumber,
    SecretName, Version, WallTime,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::transport::Server;

pub(crate) const SECRET: &str = "payments/db";
/// The command that cuts off the instance that [`draining`] waits for.
pub(crate) const CUT_OFF: &str =
    "rotacast retire payments/db --version 1 --override --instance 'payments-api/pod-1#0a0a0a0a' --reason 'WHY'";
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Ages are shown in minutes and larger units: half of one is left for a slow machine.
const HALF: u64 = MINUTE / 2;
/// A command that takes longer than this hangs.
const HANGS: Duration = Duration::from_secs(120);

/// An order that the broadcaster has accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Order {
    pub(crate) operator: String,
    pub(crate) action: &'static str,
    pub(crate) secret: String,
    pub(crate) reason: String,
    pub(crate) value: Vec<u8>,
    pub(crate) instances: Vec<InstanceKey>,
    pub(crate) sessions: bool,
    pub(crate) version: u64,
}

pub(crate) struct Fake {
    pub(crate) secrets: watch::Sender<BTreeMap<SecretName, SecretStatus>>,
    pub(crate) instances: Mutex<Vec<InstanceStatus>>,
    pub(crate) unanswered: Mutex<Vec<SecretName>>,
    pub(crate) findings: Mutex<Vec<v1::Finding>>,
    pub(crate) orders: Mutex<Vec<Order>>,
    /// The refusal of the next order.
    pub(crate) refusal: Mutex<Option<Refusal>>,
    pub(crate) reply: Mutex<CommandReply>,
    pub(crate) asked_not_on: Mutex<Option<Version>>,
    pub(crate) standing: Mutex<FindingCounts>,
    /// The leader that it follows; none: it leads.
    pub(crate) follows: Mutex<Option<Leading>>,
    /// It accepts orders although it has just said that it follows.
    pub(crate) took_over: AtomicBool,
    /// The next order is recorded here, and never answered.
    pub(crate) swallowed: Mutex<Option<oneshot::Sender<()>>>,
}

#[async_trait]
impl Control for Fake {
    async fn status(&self, secret: Option<SecretName>) -> Result<BroadcasterStatus, Refusal> {
        let all = self.secrets.borrow().clone();
        let secrets = match secret {
            None => all.into_values().collect(),
            Some(name) => match all.get(&name) {
                Some(status) => vec![status.clone()],
                None => {
                    let fix = format!("did you mean {SECRET}?");
                    return Err(Refusal::NotFound { what: format!("secret {name}"), fix });
                }
            },
        };
        Ok(BroadcasterStatus { secrets, ..self.broadcaster().await })
    }

    async fn broadcaster(&self) -> BroadcasterStatus {
        let follows = self.follows.lock().unwrap().clone();
        BroadcasterStatus {
            cluster: "prod".into(),
            // As when an order asks for it: the broadcaster that has taken over leads by then.
            epoch: (follows.is_none() || self.took_over.load(Ordering::Relaxed)).then_some(Epoch(7)),
            leader: follows.is_none(),
            store: "etcd 3.6.14 at 127.0.0.1:2379".into(),
            bus: "NATS 2.15.1 at 127.0.0.1:4222".into(),
            findings: *self.standing.lock().unwrap(),
            secrets: Vec::new(),
            replica: "b-1".into(),
            leading: Some(follows.unwrap_or(Leading { replica: "b-1".into(), address: None })),
        }
    }

    async fn term(&self) -> Result<Epoch, Refusal> {
        match &*self.follows.lock().unwrap() {
            Some(leader) if !self.took_over.load(Ordering::Relaxed) => {
                let address = leader.address.as_deref().unwrap_or("no address");
                Err(Refusal::NotLeader { problem: format!("{} leads, at {address}", leader.replica) })
            }
            _ => Ok(Epoch(7)),
        }
    }

    fn watch(&self, secret: Option<SecretName>) -> BoxStream<'static, Result<SecretStatus, Refusal>> {
        WatchStream::new(self.secrets.subscribe())
            .flat_map(move |all| {
                let wanted = secret.clone();
                let statuses = all
                    .into_values()
                    .filter(move |status| wanted.as_ref().is_none_or(|wanted| *wanted == status.secret));
                futures::stream::iter(statuses.map(Ok).collect::<Vec<_>>())
            })
            .boxed()
    }

    async fn instances(&self, _secret: Option<SecretName>, not_on: Option<Version>) -> Result<Instances, Refusal> {
        *self.asked_not_on.lock().unwrap() = not_on;
        let found = self.instances.lock().unwrap().clone();
        Ok(Instances { found, unanswered: self.unanswered.lock().unwrap().clone() })
    }

    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal> {
        if let Some(refusal) = self.refusal.lock().unwrap().take() {
            return Err(refusal);
        }
        let swallowed = self.swallowed.lock().unwrap().take();
        if let Some(told) = swallowed {
            told.send(()).unwrap();
            std::future::pending::<()>().await;
        }
        let mut order = Order {
            operator: operator.to_string(),
            action: command.action.name(),
            secret: command.secret.to_string(),
            reason: command.warrant.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
            value: Vec::new(),
            instances: Vec::new(),
            sessions: false,
            version: 0,
        };
        match command.action {
            Action::Put(value) => order.value = value.expose().to_vec(),
            Action::Order(given) => match given {
                rotacast_protocol::coordinator::Order::Override(cut) => {
                    order.version = cut.version().get();
                    order.instances = cut.instances().iter().cloned().collect();
                    order.sessions = cut.sessions();
                }
                rotacast_protocol::coordinator::Order::Excuse { instance }
                | rotacast_protocol::coordinator::Order::Gone { instance, .. } => order.instances = vec![instance],
                rotacast_protocol::coordinator::Order::Abandon { version, .. } => order.version = version.get(),
                _ => {}
            },
        }
        self.orders.lock().unwrap().push(order);
        Ok(*self.reply.lock().unwrap())
    }

    async fn put_on_record(&self, _entry: Entry) -> Result<(), Refusal> {
        Ok(())
    }

    async fn accept_audit_loss(&self, _operator: OperatorName, _loss: AcceptedLoss) -> Result<(), Refusal> {
        Err(Refusal::Invalid("it has no audit log".into()))
    }

    async fn doctor(&self) -> v1::DoctorReply {
        v1::DoctorReply { findings: self.findings.lock().unwrap().clone(), now_ms: rotacast_clock::wall().0 }
    }
}

/// A broadcaster that listens, and a folder with the operator's key in which commands run.
pub(crate) struct Rig {
    pub(crate) fake: Arc<Fake>,
    pub(crate) folder: TempDir,
    pub(crate) address: String,
    pub(crate) operators: Operators,
    /// Used by this broadcaster alone, so that all its connections end with it.
    server: Option<Runtime>,
}

/// How a command ended.
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    #[track_caller]
    pub(crate) fn exits(self, expected: i32) -> Self {
        assert_eq!(self.exit, expected, "out: {}\nerr: {}", self.out, self.err);
        self
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(SigningKey::generate()).await
    }

    /// A broadcaster that accepts this key.
    pub(crate) async fn start_with(key: SigningKey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        key.create_file(folder.path().join("ada.key")).unwrap();
        let operators = BTreeMap::from([(OperatorName::new("ada").unwrap(), key.public().clone())]);
        let fake = Arc::new(Fake {
            secrets: watch::Sender::new(BTreeMap::new()),
            instances: Mutex::default(),
            unanswered: Mutex::default(),
            findings: Mutex::default(),
            orders: Mutex::default(),
            refusal: Mutex::default(),
            reply: Mutex::new(CommandReply {
                version: Some(Version::new(2).unwrap()),
                number: Some(RotationNumber(4)),
            }),
            asked_not_on: Mutex::default(),
            standing: Mutex::default(),
            follows: Mutex::default(),
            took_over: AtomicBool::new(false),
            swallowed: Mutex::default(),
        });
        let mut rig = Self {
            fake,
            folder,
            address: "127.0.0.1:0".into(),
            operators: Operators::with_keys(operators),
            server: None,
        };
        rig.serve().await;
        rig
    }

    /// Listens, at the same address as before if it did.
    pub(crate) async fn serve(&mut self) {
        let operators = watch::Sender::new(Arc::new(self.operators.clone()));
        let cluster = ClusterName::new("prod").unwrap();
        let control = Arc::clone(&self.fake) as Arc<dyn Control>;
        let readers = Viewers::new(operators.subscribe(), true);
        let desk = Arc::new(Desk::new(Arc::clone(&control), operators.subscribe()));
        let front = AdminFront::new(control, desk, cluster, readers);
        let server = Runtime::new().unwrap();
        let address = self.address.clone();
        let bind = server.spawn(async move {
            loop {
                match TcpListener::bind(&address).await {
                    // The listener before it may not be closed yet.
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
                    bound => return bound.unwrap(),
                }
            }
        });
        let listener = tokio::time::timeout(HANGS, bind).await.expect("the port is not freed").unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        let router = Server::builder().add_service(front.into_service());
        server.spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
            drop(operators);
        });
        self.server = Some(server);
    }

    /// Ends at once, with every connection.
    pub(crate) fn crash(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    pub(crate) fn set(&self, status: SecretStatus) {
        self.fake.secrets.send_modify(|all| {
            all.insert(status.secret.clone(), status);
        });
    }

    pub(crate) fn orders(&self) -> Vec<Order> {
        self.fake.orders.lock().unwrap().clone()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.folder.path().to_owned(), arguments);
        command
            .env("ROTACAST_SERVER", &self.address)
            .env("ROTACAST_OPERATOR", "ada")
            .env("ROTACAST_OPERATOR_KEY", self.folder.path().join("ada.key"));
        command
    }

    /// Starts a command whose output is read while it runs.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdin(Stdio::null()).spawn().unwrap()
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"").await
    }

    pub(crate) async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        run(self.command(arguments), input).await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.crash();
    }
}

/// The program, without variables of the test's own environment that could change what it does.
pub(crate) fn program(folder: PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rotacast"));
    command.args(arguments).current_dir(folder).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) async fn run(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read its input may end before all of it is written.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    ended(child).await
}

pub(crate) async fn ended(child: Child) -> Ran {
    let output = tokio::time::timeout(HANGS, child.wait_with_output()).await.expect("the command hangs").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { exit: output.status.code().expect("not killed"), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn secret() -> SecretName {
    SECRET.parse().unwrap()
}

pub(crate) fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn before(now: WallTime, millis: u64) -> WallTime {
    WallTime(now.0 - millis)
}

/// A draining rotation 1 → 2 that waits for one of three instances.
pub(crate) fn draining() -> SecretStatus {
    let now = rotacast_clock::wall();
    let started_at = before(now, 4 * HOUR);
    let phase_since = before(now, 3 * HOUR + 5 * MINUTE + HALF);
    let condition = |name, met, evidence: &str| ConditionStatus { name, met, evidence: evidence.into() };
    SecretStatus {
        provider: "postgres main".into(),
        revision: Revision(12),
        generation: Generation(4),
        current: Some(v(2)),
        versions: vec![version(1, Label::Previous, true), version(2, Label::Current, false)],
        rotation: Some(RotationStatus {
            number: RotationNumber(4),
            phase: Phase::Draining,
            old: Some(v(1)),
            new: v(2),
            started_at,
            phase_since,
            trigger: "ada".into(),
            rollback_reason: None,
            phases: vec![
                PhaseStatus { phase: Phase::Verifying, since: started_at },
                PhaseStatus { phase: Phase::Draining, since: phase_since },
            ],
        }),
        services: vec![ServiceStatus {
            service: "payments-api".parse().unwrap(),
            counts: StageCounts { members: 3, seen: 3, prepared: 3, switched: 3, released: 2, fenced: 0 },
        }],
        blockers: vec![BlockerStatus {
            condition: ConditionName::MembersReleased,
            who: Some("payments-api/pod-1#0a0a0a0a".into()),
            why: "still holds version 1".into(),
            since: Some(before(now, 2 * HOUR + 30 * MINUTE + HALF)),
            next: "the instance releases the version when its last use ends".into(),
            command: Some(CUT_OFF.into()),
        }],
        guards: vec![GuardStatus {
            version: v(1),
            conditions: vec![
                condition(ConditionName::Leads, true, "epoch 7"),
                condition(ConditionName::MembersReleased, false, "1 of 3 members may still use version 1"),
            ],
        }],
        history: vec![finished(2, Outcome::Retired, None, 1, "")],
        ..SecretStatus::new(secret())
    }
}

/// The same secret after its rotation.
pub(crate) fn over(outcome: Outcome, reason: &str) -> SecretStatus {
    let mut status = draining();
    status.revision = Revision(status.revision.0 + 5);
    status.rotation = None;
    status.blockers.clear();
    status.guards.clear();
    status.history.insert(0, finished(4, outcome, Some(v(1)), 2, reason));
    if outcome == Outcome::RolledBack {
        status.current = Some(v(1));
        status.generation = Generation(5);
        status.versions = vec![version(1, Label::Current, false), version(2, Label::Rejected, true)];
    } else {
        status.versions = vec![version(1, Label::Retired, true), version(2, Label::Current, false)];
    }
    status
}

pub(crate) fn version(number: u64, label: Label, sealed: bool) -> VersionStatus {
    VersionStatus { version: v(number), label, sealed, seen_at: WallTime(1_795_392_000_000) }
}

pub(crate) fn finished(number: u64, outcome: Outcome, old: Option<Version>, new: u64, reason: &str) -> FinishedStatus {
    let ended_at = before(rotacast_clock::wall(), 27 * HOUR + 30 * MINUTE);
    FinishedStatus {
        number: RotationNumber(number),
        outcome,
        old,
        new: v(new),
        started_at: before(ended_at, 12_000),
        ended_at,
        took_ms: Some(12_000),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        phases: Vec::new(),
    }
}

pub(crate) fn instance(service: &str, name: &str, incarnation: u8, standing: Standing) -> InstanceStatus {
    InstanceStatus {
        key: InstanceKey::new(
            service.parse().unwrap(),
            name.parse().unwrap(),
            Incarnation(u128::from_be_bytes([incarnation; 16])),
        ),
        secret: secret(),
        version: Some(v(2)),
        stage: Some(Stage::Switched),
        held: vec![v(1), v(2)],
        standing,
        silent_for_ms: Some(3_000),
        lease_left_ms: 27_000,
        last_failure: None,
    }
}
