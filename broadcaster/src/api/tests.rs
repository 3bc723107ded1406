//! The API over real gRPC on loopback, with a [`Control`] that records the calls to it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use rotacast_admin::limits::MAX_PUT_BYTES;
use rotacast_admin::{RefusalKind, fix_of};
use rotacast_proto::v1::admin_client::AdminClient;
use rotacast_proto::v1::operator_command::Action as Wire;
use rotacast_proto::{Envelope, Kind, SigningKey, v1};
use rotacast_protocol::coordinator::{Order, Standing};
use rotacast_protocol::status::{BroadcasterStatus, FindingCounts, InstanceStatus, SecretStatus};
use rotacast_protocol::{
    ClusterName, Epoch, Incarnation, InstanceKey, OperatorName, Revision, RotationNumber, SecretName, Version, WallTime,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};

use crate::audit::Entry;
use crate::operators::Operators;
use crate::orders::Desk;
use crate::sign_ins::PER_SOURCE;
use crate::viewers::Viewers;

use super::control::{AcceptedLoss, Action, CommandReply, Control, Instances, OperatorCommand};
use super::{AdminFront, FRESHNESS, Gate, Refusal, health, reflection};

const SECRET: &str = "payments/db";
const TERM: Epoch = Epoch(3);

#[derive(Default)]
struct Notebook {
    commands: Mutex<Vec<String>>,
    values: Mutex<Vec<Vec<u8>>>,
}

#[async_trait]
impl Control for Notebook {
    async fn status(&self, secret: Option<SecretName>) -> Result<BroadcasterStatus, Refusal> {
        match secret {
            Some(name) if name.as_str() != SECRET => {
                Err(Refusal::NotFound { what: format!("secret {name}"), fix: format!("did you mean {SECRET}?") })
            }
            _ => Ok(self.broadcaster().await),
        }
    }

    async fn broadcaster(&self) -> BroadcasterStatus {
        BroadcasterStatus {
            cluster: "prod".into(),
            epoch: Some(TERM),
            leader: true,
            store: "etcd".into(),
            bus: "NATS".into(),
            replica: "b-1".into(),
            leading: None,
            findings: FindingCounts::default(),
            secrets: Vec::new(),
        }
    }

    async fn term(&self) -> Result<Epoch, Refusal> {
        Ok(TERM)
    }

    fn watch(&self, secret: Option<SecretName>) -> BoxStream<'static, Result<SecretStatus, Refusal>> {
        let secret = secret.unwrap_or_else(|| SECRET.parse().unwrap());
        let change = |revision| SecretStatus { revision: Revision(revision), ..SecretStatus::new(secret.clone()) };
        let gone = Refusal::NotLeader { problem: "another took over".into() };
        futures::stream::iter([Ok(change(1)), Ok(change(2)), Err(gone)]).boxed()
    }

    async fn instances(&self, _secret: Option<SecretName>, not_on: Option<Version>) -> Result<Instances, Refusal> {
        let found = vec![InstanceStatus {
            key: InstanceKey::new("payments-api".parse().unwrap(), "pod-1".parse().unwrap(), Incarnation(1)),
            secret: SECRET.parse().unwrap(),
            version: not_on,
            stage: None,
            held: Vec::new(),
            standing: Standing::Registered,
            silent_for_ms: None,
            lease_left_ms: 0,
            last_failure: None,
        }];
        Ok(Instances { found, unanswered: vec!["billing/db".parse().unwrap()] })
    }

    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal> {
        let OperatorCommand { secret, action, .. } = command;
        let reason = match &action {
            Action::Order(order) => order.reason().map(|reason| format!(": {reason}")).unwrap_or_default(),
            Action::Put(_) => String::new(),
        };
        self.commands.lock().unwrap().push(format!("{operator} {} {secret}{reason}", action.name()));
        match action {
            Action::Put(value) => self.values.lock().unwrap().push(value.expose().to_vec()),
            Action::Order(Order::Rollback { .. }) => {
                return Err(Refusal::Conflict { problem: "no rotation in flight".into(), fix: "nothing to do".into() });
            }
            _ => {}
        }
        Ok(CommandReply { version: Some(Version::FIRST), number: Some(RotationNumber(7)) })
    }

    async fn put_on_record(&self, _entry: Entry) -> Result<(), Refusal> {
        Ok(())
    }

    async fn accept_audit_loss(&self, _operator: OperatorName, _loss: AcceptedLoss) -> Result<(), Refusal> {
        Err(Refusal::Invalid("it has no audit log".into()))
    }

    async fn doctor(&self) -> v1::DoctorReply {
        v1::DoctorReply::default()
    }
}

struct Rig {
    control: Arc<Notebook>,
    channel: Channel,
    operators: watch::Sender<Arc<Operators>>,
    ada: SigningKey,
}

impl Rig {
    async fn start() -> Self {
        let ada = SigningKey::generate();
        let control = Arc::new(Notebook::default());
        let (operators, read) = watch::channel(Arc::new(operators(&[("ada", &ada)])));
        let viewers = Viewers::new(read.clone(), true);
        let desk = Arc::new(Desk::new(Arc::clone(&control) as Arc<dyn Control>, read));
        let front = AdminFront::new(Arc::clone(&control) as Arc<dyn Control>, desk, cluster(), viewers).into_service();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, health) = health();
        let router = Server::builder().add_service(front).add_service(health).add_service(reflection());
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { control, channel, operators, ada }
    }

    fn client(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    async fn send(&self, envelope: Envelope) -> Result<v1::CommandReply, Status> {
        Ok(self.client().command(v1::Envelope::from(envelope)).await?.into_inner())
    }

    async fn refused(&self, envelope: Envelope) -> (Code, String) {
        let status = self.send(envelope).await.unwrap_err();
        (status.code(), status.message().to_owned())
    }

    fn taken(&self) -> Vec<String> {
        self.control.commands.lock().unwrap().clone()
    }
}

fn cluster() -> ClusterName {
    ClusterName::new("prod").unwrap()
}

fn operators(known: &[(&str, &SigningKey)]) -> Operators {
    Operators::with_keys(known.iter().map(|(name, key)| (OperatorName::new(*name).unwrap(), key.public().clone())))
}

fn command(action: Wire) -> v1::OperatorCommand {
    v1::OperatorCommand {
        operator: "ada".into(),
        secret: SECRET.into(),
        reason: "because".into(),
        nonce: rand::random(),
        issued_ms: rotacast_clock::wall().0,
        epoch: TERM.0,
        emergency: false,
        action: Some(action),
    }
}

fn sign(command: &v1::OperatorCommand, key: &SigningKey) -> Envelope {
    let payload = Bytes::from(command.encode_to_vec());
    let time = WallTime(command.issued_ms);
    Envelope::sign(key, Kind::OperatorCommand, &cluster(), command.secret.as_str(), "id", time, payload)
}

#[tokio::test]
async fn a_signed_command_reaches_the_broadcaster_with_its_operator_and_its_answer_comes_back() {
    let rig = Rig::start().await;
    let reply = rig.send(sign(&command(Wire::Rotate(v1::Rotate {})), &rig.ada)).await.unwrap();
    assert_eq!((reply.version, reply.number), (1, 7));
    let put = command(Wire::Put(v1::Put { value: Bytes::from_static(b"\0any bytes\n") }));
    rig.send(sign(&put, &rig.ada)).await.unwrap();
    assert_eq!(rig.taken(), ["ada rotate payments/db", "ada put payments/db"]);
    assert_eq!(*rig.control.values.lock().unwrap(), [b"\0any bytes\n"]);
}

#[tokio::test]
async fn unsigned_messages_and_those_signed_for_another_are_refused() {
    let rig = Rig::start().await;
    let rotate = command(Wire::Rotate(v1::Rotate {}));
    let stranger = SigningKey::generate();

    let (code, told) = rig.refused(sign(&rotate, &stranger)).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(told.contains("which is not configured for"), "{told}");

    let mut claimed = sign(&rotate, &stranger);
    claimed.key_id = rig.ada.public().id().to_string();
    let (code, told) = rig.refused(claimed).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(told.contains("does not match"), "{told}");

    let eve = v1::OperatorCommand { operator: "eve".into(), ..rotate.clone() };
    let (code, told) = rig.refused(sign(&eve, &rig.ada)).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(told.contains("the key that signed it belongs to ada"), "{told}");

    let payload = Bytes::from(rotate.encode_to_vec());
    let moved =
        Envelope::sign(&rig.ada, Kind::OperatorCommand, &cluster(), "other/secret", "id", WallTime(0), payload.clone());
    let (code, told) = rig.refused(moved).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(told.contains("in an envelope about \"other/secret\""), "{told}");

    let staging = ClusterName::new("staging").unwrap();
    let elsewhere =
        Envelope::sign(&rig.ada, Kind::OperatorCommand, &staging, SECRET, "id", WallTime(0), payload.clone());
    let (code, told) = rig.refused(elsewhere).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(told.contains("message of cluster \"staging\""), "{told}");

    // A message of an instance's kind is no operator's command.
    let report = Envelope::sign(&rig.ada, Kind::InstanceReport, &cluster(), SECRET, "id", WallTime(0), payload);
    assert_eq!(rig.refused(report).await.0, Code::Unauthenticated);
    assert_eq!(rig.taken(), Vec::<String>::new());
}

#[tokio::test]
async fn signatures_that_do_not_hold_are_limited_and_counted_and_those_that_come_late_are_no_failed_sign_in() {
    let rig = Rig::start().await;
    let late = v1::OperatorCommand { issued_ms: 0, ..command(Wire::Rotate(v1::Rotate {})) };
    for _ in 0..2 * PER_SOURCE {
        assert_eq!(rig.refused(sign(&late, &rig.ada)).await.0, Code::Unauthenticated);
    }
    let stranger = SigningKey::generate();
    for _ in 0..PER_SOURCE {
        let refused = rig.refused(sign(&command(Wire::Rotate(v1::Rotate {})), &stranger)).await;
        assert_eq!(refused.0, Code::Unauthenticated);
    }
    let (code, told) = rig.refused(sign(&command(Wire::Rotate(v1::Rotate {})), &stranger)).await;
    assert_eq!(code, Code::ResourceExhausted, "{told}");
    // From the same address, of an operator who has given no order yet.
    rig.send(sign(&command(Wire::Rotate(v1::Rotate {})), &rig.ada)).await.unwrap();
}

#[tokio::test]
async fn a_command_with_more_in_it_than_is_read_is_refused() {
    let rig = Rig::start().await;
    let mut payload = command(Wire::Rotate(v1::Rotate {})).encode_to_vec();
    // A field that the contract does not have: number 1000, two bytes.
    payload.extend([0xc2, 0x3e, 2, b'x', b'x']);
    let padded = Envelope::sign(&rig.ada, Kind::OperatorCommand, &cluster(), SECRET, "id", WallTime(0), payload.into());
    let (code, told) = rig.refused(padded).await;
    assert!(code == Code::InvalidArgument && told.contains("expected"), "{told}");
    assert_eq!(rig.taken(), Vec::<String>::new());
}

#[tokio::test]
async fn a_command_is_taken_once_and_not_when_it_is_old_or_from_the_future() {
    let rig = Rig::start().await;
    let rotate = command(Wire::Rotate(v1::Rotate {}));
    let envelope = sign(&rotate, &rig.ada);
    rig.send(envelope.clone()).await.unwrap();
    let (code, told) = rig.refused(envelope).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(told.contains("was taken before"), "{told}");

    let limit = u64::try_from(FRESHNESS.as_millis()).unwrap() + 60_000;
    for issued_ms in [rotate.issued_ms - limit, rotate.issued_ms + limit, 0, u64::MAX] {
        let other = v1::OperatorCommand { issued_ms, nonce: rand::random(), ..rotate.clone() };
        let (code, told) = rig.refused(sign(&other, &rig.ada)).await;
        assert_eq!(code, Code::Unauthenticated);
        assert!(told.contains("at most 5 minutes apart"), "{told}");
    }
    // A command of another term is refused: that term's leader may have carried it out, and this one does not know.
    for epoch in [0, TERM.0 - 1, TERM.0 + 1] {
        let other = v1::OperatorCommand { epoch, nonce: rand::random(), ..rotate.clone() };
        let (code, told) = rig.refused(sign(&other, &rig.ada)).await;
        assert_eq!(code, Code::Unauthenticated);
        assert!(told.contains(&format!("given in term {epoch}, but this is term 3")), "{told}");
    }
    assert_eq!(rig.taken().len(), 1);
}

#[test]
fn a_command_is_remembered_for_as_long_as_it_could_be_replayed_and_then_forgotten() {
    let ada = SigningKey::generate();
    let known = operators(&[("ada", &ada)]);
    let start = WallTime(1_000_000_000);
    let gate = Gate::new(cluster());
    let at = |millis: u64| WallTime(start.0 + millis);
    let limit = u64::try_from(FRESHNESS.as_millis()).unwrap();
    // Issued by a clock that is five minutes fast: valid for ten minutes.
    let ahead = v1::OperatorCommand { issued_ms: start.0 + limit, ..command(Wire::Pause(v1::Pause {})) };
    let envelope = v1::Envelope::from(sign(&ahead, &ada));
    assert!(gate.admit(envelope.clone(), &known, TERM, start).is_ok());
    for later in [0, limit, 2 * limit] {
        let refusal = gate.admit(envelope.clone(), &known, TERM, at(later)).err().unwrap();
        assert!(refusal.to_string().contains("was taken before"), "after {later} ms: {refusal}");
    }
    let refusal = gate.admit(envelope, &known, TERM, at(2 * limit + 1)).err().unwrap();
    assert!(refusal.to_string().contains("at most 5 minutes apart"), "{refusal}");
}

#[tokio::test]
async fn commands_that_make_no_sense_are_refused_before_they_reach_the_broadcaster() {
    let rig = Rig::start().await;
    let key =
        v1::InstanceKey { service: "api".into(), instance: "a".into(), incarnation: Bytes::from_static(&[1; 16]) };
    let cut = |version, instances, sessions| Wire::Override(v1::Override { version, instances, sessions });
    let short = v1::InstanceKey { incarnation: Bytes::from_static(&[1; 4]), ..key.clone() };
    let cases = [
        (command(Wire::Put(v1::Put { value: Bytes::new() })), "value of 0 bytes"),
        (command(Wire::Put(v1::Put { value: vec![b'x'; MAX_PUT_BYTES + 1].into() })), "expected 1 to 261120"),
        (command(cut(0, vec![key.clone()], false)), "field version: 0 is no version"),
        (command(cut(1, vec![], false)), "name who is cut off"),
        (command(cut(1, vec![short], false)), "field incarnation: 4 bytes, expected 16"),
        (v1::OperatorCommand { reason: " ".into(), ..command(cut(1, vec![key], false)) }, "the reason is empty"),
        (v1::OperatorCommand { reason: String::new(), ..command(Wire::Pause(v1::Pause {})) }, "the reason is empty"),
        (
            v1::OperatorCommand { reason: "\t".into(), ..command(Wire::RollBack(v1::RollBack {})) },
            "the reason is empty",
        ),
        (command(Wire::Excuse(v1::Excuse { instance: None })), "field instance: is missing"),
        (command(Wire::Gone(v1::Gone { instance: None })), "field instance: is missing"),
        (command(Wire::Abandon(v1::Abandon { version: 0 })), "field version: 0 is no version"),
        (
            v1::OperatorCommand { reason: String::new(), ..command(Wire::LeaveSafeMode(v1::LeaveSafeMode {})) },
            "leave_safe_mode: the reason is empty",
        ),
        (v1::OperatorCommand { action: None, ..command(Wire::Pause(v1::Pause {})) }, "no action this build knows"),
        (v1::OperatorCommand { secret: "No Name".into(), ..command(Wire::Pause(v1::Pause {})) }, "is not valid"),
        (
            v1::OperatorCommand { reason: "x".repeat(1025), ..command(Wire::Pause(v1::Pause {})) },
            "the reason has 1025 bytes",
        ),
    ];
    for (case, expected) in cases {
        let (code, told) = rig.refused(sign(&case, &rig.ada)).await;
        assert_eq!(code, Code::InvalidArgument, "{told}");
        assert!(told.contains(expected), "{told}; expected {expected}");
    }
    assert_eq!(rig.taken(), Vec::<String>::new());
    let largest = command(Wire::Put(v1::Put { value: vec![b'x'; MAX_PUT_BYTES].into() }));
    rig.send(sign(&largest, &rig.ada)).await.unwrap();
    let longest = v1::OperatorCommand { reason: "x".repeat(1024), ..command(Wire::Pause(v1::Pause {})) };
    rig.send(sign(&longest, &rig.ada)).await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_what_kind_it_is_and_what_to_do() {
    let rig = Rig::start().await;
    let status = rig.send(sign(&command(Wire::RollBack(v1::RollBack {})), &rig.ada)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        (RefusalKind::of(&status), fix_of(&status).as_deref()),
        (Some(RefusalKind::Conflict), Some("nothing to do"))
    );
    let status =
        rig.client().status(v1::StatusRequest { secret: "payments/d".into(), brief: false }).await.unwrap_err();
    assert_eq!((status.code(), fix_of(&status).as_deref()), (Code::NotFound, Some("did you mean payments/db?")));
}

#[tokio::test]
async fn whom_it_obeys_changes_without_a_restart() {
    let rig = Rig::start().await;
    let bob = SigningKey::generate();
    rig.operators.send_replace(Arc::new(operators(&[("bob", &bob)])));
    assert_eq!(rig.refused(sign(&command(Wire::Pause(v1::Pause {})), &rig.ada)).await.0, Code::Unauthenticated);
    let of_bob = v1::OperatorCommand { operator: "bob".into(), ..command(Wire::Pause(v1::Pause {})) };
    rig.send(sign(&of_bob, &bob)).await.unwrap();
    assert_eq!(rig.taken(), ["bob pause payments/db: because"]);
}

#[tokio::test]
async fn reads_need_no_signature_and_watch_tells_how_it_ended() {
    let rig = Rig::start().await;
    let mut client = rig.client();
    assert_eq!(client.status(v1::StatusRequest::default()).await.unwrap().into_inner().cluster, "prod");
    let bad = client.status(v1::StatusRequest { secret: "/".into(), brief: false }).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let asked = v1::InstancesRequest { secret: String::new(), not_on: 3 };
    let found = client.instances(asked).await.unwrap().into_inner();
    assert_eq!((found.instances[0].version, &*found.unanswered), (3, &["billing/db".to_owned()][..]));
    client.doctor(v1::DoctorRequest {}).await.unwrap();

    let mut changes = client.watch(v1::WatchRequest { secret: SECRET.into() }).await.unwrap().into_inner();
    assert_eq!(changes.message().await.unwrap().unwrap().revision, 1);
    assert_eq!(changes.message().await.unwrap().unwrap().revision, 2);
    let end = changes.message().await.unwrap_err();
    assert_eq!((end.code(), RefusalKind::of(&end)), (Code::Unavailable, Some(RefusalKind::NotLeader)));
}

#[tokio::test]
async fn reflection_lists_the_contract() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let rig = Rig::start().await;
    let mut client = ServerReflectionClient::new(rig.channel.clone());
    let asked = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for expected in ["rotacast.v1.Admin", "rotacast.v1.Instances", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|name| name == expected), "{names:?}");
    }
}
