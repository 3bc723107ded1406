//! What the gateway refuses, and how that reaches the caller.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use rotacast_bus::{
    Admission, BusError, BusEvent, EmbeddedBus, Gateway, GrpcBus, GrpcOptions, InstanceBus as _, LeaderBus as _,
    ValueSource,
};
use rotacast_proto::{Envelope, Kind, SigningKey, v1};
use rotacast_protocol::{ClusterName, Incarnation, InstanceKey, InstanceName, SecretName, ServiceName, WallTime};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A wait that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(60);

struct Values;

#[async_trait]
impl ValueSource for Values {
    async fn fetch(&self, request: Envelope) -> Result<v1::FetchReply, Status> {
        match &request.payload[..] {
            b"mine" => Ok(v1::FetchReply { nonce: 7, state: None, value: "value".into() }),
            _ => Err(Status::permission_denied("not yours")),
        }
    }
}

struct OnlyPayments;

impl Admission for OnlyPayments {
    fn admit(&self, message: &Envelope) -> Result<(), Status> {
        if message.subject.starts_with("payments/") { Ok(()) } else { Err(Status::permission_denied("unknown key")) }
    }
}

struct Served {
    _folder: tempfile::TempDir,
    bus: EmbeddedBus,
    client: GrpcBus,
    url: String,
    stopping: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

async fn serve() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(&folder.path().join("bus.db")).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stopping = CancellationToken::new();
    let gateway = Gateway::new(Arc::new(bus.clone()), Arc::new(Values))
        .with_admission(Arc::new(OnlyPayments))
        .with_shutdown(stopping.clone());
    let stopped = stopping.clone().cancelled_owned();
    let server = tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(gateway.into_service())
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
            .await
            .unwrap();
    });
    let client = GrpcBus::connect(GrpcOptions { url: url.clone(), ..GrpcOptions::default() }).await.unwrap();
    Served { _folder: folder, bus, client, url, stopping, server }
}

fn message(kind: Kind, subject: &str, payload: &'static str) -> Envelope {
    let (key, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
    Envelope::sign(&key, kind, &cluster, subject, "1", WallTime(0), payload.into())
}

fn key(service: &str) -> InstanceKey {
    InstanceKey::new(ServiceName::new(service).unwrap(), InstanceName::new("pod").unwrap(), Incarnation(1))
}

/// The registrations that a watch finds which begins now.
async fn registrations_of(bus: &EmbeddedBus) -> Vec<Envelope> {
    let mut events = bus.watch_registrations();
    let mut found = Vec::new();
    while let BusEvent::Message(registration) = events.next().await.unwrap().unwrap() {
        found.push(registration);
    }
    found
}

#[tokio::test]
async fn what_is_not_admitted_never_reaches_the_bus() {
    let served = serve().await;
    let life = Incarnation(1);
    let foreign = message(Kind::Registration, &format!("mail/pod/{life}"), "x");
    let outcome = served.client.register(&key("mail"), &foreign).await;
    assert!(matches!(outcome, Err(BusError::Denied { .. })), "{outcome:?}");
    for subject in ["payments/pod", "payments/pod/1", "payments/pod/../x"] {
        let outcome = served.client.register(&key("payments"), &message(Kind::Registration, subject, "x")).await;
        assert!(matches!(outcome, Err(BusError::Denied { .. })), "{subject}: {outcome:?}");
    }
    assert!(registrations_of(&served.bus).await.is_empty());
    let own = message(Kind::Registration, &format!("payments/pod/{life}"), "x");
    served.client.register(&key("payments"), &own).await.unwrap();
    assert_eq!(registrations_of(&served.bus).await, [own]);
}

/// The bus keeps the last message of each key, so a report under a registration's key would hide the instance.
#[tokio::test]
async fn each_call_takes_its_own_kind_of_message_alone() {
    let served = serve().await;
    let (key, subject) = (key("payments"), format!("payments/pod/{}", Incarnation(1)));
    let own = message(Kind::Registration, &subject, "x");
    served.client.register(&key, &own).await.unwrap();
    let others = |own: Kind| Kind::ALL.into_iter().filter(move |kind| *kind != own);
    for kind in others(Kind::Registration) {
        let outcome = served.client.register(&key, &message(kind, &subject, "x")).await;
        let named = matches!(&outcome, Err(problem) if problem.to_string().contains("expected a message of type"));
        assert!(named, "{kind}: {outcome:?}");
    }
    for kind in others(Kind::InstanceReport) {
        let outcome = served.client.report(&key, &message(kind, &subject, "x")).await;
        assert!(matches!(outcome, Err(BusError::Denied { .. })), "{kind}: {outcome:?}");
    }
    for kind in others(Kind::SyncRequest) {
        let outcome = served.client.sync(&message(kind, &subject, "x"), Duration::from_secs(2)).await;
        assert!(matches!(outcome, Err(BusError::Denied { .. })), "{kind}: {outcome:?}");
    }
    assert_eq!(registrations_of(&served.bus).await, [own]);
}

#[tokio::test]
async fn a_value_comes_through_fetch_and_a_refusal_is_final() {
    let served = serve().await;
    let reply = served.client.fetch(&message(Kind::FetchRequest, "payments/pod/1", "mine")).await.unwrap();
    assert_eq!((reply.nonce, &reply.value[..]), (7, &b"value"[..]));
    let outcome = served.client.fetch(&message(Kind::FetchRequest, "payments/pod/1", "theirs")).await.map(drop);
    assert!(matches!(outcome, Err(BusError::Denied { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_watch_names_no_more_secrets_than_an_instance_may_have() {
    let served = serve().await;
    let many: Vec<_> = (0..257).map(|number| SecretName::new(format!("s{number}")).unwrap()).collect();
    let outcome = served.client.watch_states(&many).next().await.unwrap();
    assert!(matches!(&outcome, Err(BusError::Denied { problem, .. }) if problem.contains("257")), "{outcome:?}");
}

#[tokio::test]
async fn a_shutdown_ends_open_watches() {
    let served = serve().await;
    let mut watch = served.client.watch_states(&[SecretName::new("db").unwrap()]);
    assert_eq!(watch.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    served.stopping.cancel();
    // A graceful shutdown waits for every open stream, so it ends only if the gateway ends the streams.
    tokio::time::timeout(HANG, served.server).await.expect("the shutdown hangs").unwrap();
    drop(watch);
}

/// A client of several broadcasters.
async fn client_of(urls: &[&str]) -> GrpcBus {
    let options = urls.iter().map(|url| GrpcOptions { url: (*url).to_owned(), ..GrpcOptions::default() });
    GrpcBus::connect_any(options.collect()).await.unwrap()
}

/// Answers every Sync, as a leader does, until it is dropped.
fn lead(bus: &EmbeddedBus) -> tokio::task::JoinHandle<()> {
    let mut calls = bus.serve_sync();
    tokio::spawn(async move {
        while let Some(Ok(call)) = calls.next().await {
            call.reply.send(message(Kind::SyncReply, "payments/pod/1", "granted"));
        }
    })
}

#[tokio::test]
async fn of_several_broadcasters_the_one_that_leads_answers_and_is_asked_first_from_then_on() {
    let (follower, leader) = (serve().await, serve().await);
    let _leading = lead(&leader.bus);
    // The port accepts connections, but no gateway answers.
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = format!("http://{}", hanging.local_addr().unwrap());
    let client = client_of(&[&hanging, "http://127.0.0.1:1", &follower.url, &leader.url]).await;
    let reply =
        client.sync(&message(Kind::SyncRequest, "payments/pod/1", "report"), Duration::from_secs(2)).await.unwrap();
    assert_eq!(&reply.payload[..], b"granted");
    client
        .register(&key("payments"), &message(Kind::Registration, &format!("payments/pod/{}", Incarnation(1)), "x"))
        .await
        .unwrap();
    assert_eq!((registrations_of(&follower.bus).await.len(), registrations_of(&leader.bus).await.len()), (0, 1));
    // Another broadcaster may grant what this one refuses. Here none does, and the error keeps the refusal.
    let outcome = client.fetch(&message(Kind::FetchRequest, "payments/pod/1", "theirs")).await.map(drop);
    assert!(matches!(outcome, Err(BusError::Denied { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_watch_and_every_call_move_on_to_another_broadcaster() {
    let (first, second) = (serve().await, serve().await);
    let client = client_of(&[&first.url, "http://127.0.0.1:1", &second.url]).await;
    let mut watch = client.watch_states(&[SecretName::new("db").unwrap()]);
    assert_eq!(watch.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    first.stopping.cancel();
    tokio::time::timeout(HANG, first.server).await.expect("the shutdown hangs").unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), BusEvent::Resync);
    assert_eq!(watch.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    let reply = client.fetch(&message(Kind::FetchRequest, "payments/pod/1", "mine")).await.unwrap();
    assert_eq!(&reply.value[..], b"value");
}

#[tokio::test]
async fn where_no_broadcaster_leads_that_is_said_rather_than_which_one_is_absent() {
    let follower = serve().await;
    let client = client_of(&["http://127.0.0.1:1", &follower.url, "http://127.0.0.1:2"]).await;
    let outcome = client.sync(&message(Kind::SyncRequest, "payments/pod/1", "report"), Duration::from_secs(2)).await;
    assert!(matches!(outcome, Err(BusError::NoLeader { .. })), "{outcome:?}");
    assert!(matches!(GrpcBus::connect_any(vec![]).await.map(drop), Err(BusError::Misconfigured { .. })));
}

#[tokio::test]
async fn a_sync_that_is_not_answered_in_time_has_found_no_leader() {
    let broadcaster = serve().await;
    // The gateway accepts every call and answers none.
    let mut calls = broadcaster.bus.serve_sync();
    let request = message(Kind::SyncRequest, "payments/pod/1", "report");
    let asked = broadcaster.client.sync(&request, Duration::from_millis(300));
    let (outcome, call) = tokio::join!(asked, calls.next());
    assert!(matches!(outcome, Err(BusError::NoLeader { .. })), "{outcome:?}");
    drop(call);
}
