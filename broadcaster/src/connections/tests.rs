//! Real sockets: what silent, slow and greedy peers get, and what other peers get meanwhile.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures::StreamExt as _;
use rotacast_test_servers::make_certificates;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;

/// A wait that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(60);
/// A deadline that does not pass in a test.
const LONG: Duration = Duration::from_secs(600);
/// A deadline that passes in a test.
const SHORT: Duration = Duration::from_millis(200);

struct Served {
    address: SocketAddr,
    connections: Connections,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn limits() -> ListenLimits {
    ListenLimits { first_request_timeout: LONG, idle_timeout: LONG, ..ListenLimits::default() }
}

/// `/` answers at once. `/stream` begins an answer that never ends.
fn router() -> Router {
    let endless = || {
        let first = futures::stream::iter([Ok::<_, Infallible>("begun")]);
        Body::from_stream(first.chain(futures::stream::pending()))
    };
    Router::new().route("/", get("hello")).route("/stream", get(async move || endless()))
}

async fn serve(limits: &ListenLimits, descriptors: usize, tls: Option<Arc<ServerConfig>>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::within(limits, Descriptors(descriptors));
    let stop = CancellationToken::new();
    let tls = tls.map(|config| watch::Sender::new(config).subscribe());
    let serving = tokio::spawn(connections.clone().serve(listener, tls, router(), stop.clone()));
    Served { address, connections, stop, serving }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Connections) -> bool) {
        let wait = async {
            while !holds(&self.connections) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANG, wait).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.connections));
    }

    async fn ended(&self, how: Ended, times: u64) {
        self.until(how.as_str(), |connections| connections.ended(how) >= times).await;
    }

    async fn shut_down(self) {
        self.stop.cancel();
        tokio::time::timeout(HANG, self.serving).await.expect("the shutdown hangs").unwrap().unwrap();
    }
}

/// The head of the answer, and what has arrived of its body.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains("hello") && !text.contains("begun") && !text.contains('}') {
        let mut piece = [0; 1024];
        let length = tokio::time::timeout(HANG, stream.read(&mut piece)).await.expect("no answer").unwrap();
        assert_ne!(length, 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
    text
}

/// Waits until the server has closed it.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(HANG, stream.read_to_end(&mut rest)).await.expect("it stays open");
    // A socket that is closed with unread bytes is reset.
    assert!(read.is_ok() || read.is_err_and(|problem| problem.kind() == ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_flood_of_silent_connections_keeps_nothing_from_others() {
    // 16 connections, 8 of them from one peer. No deadline frees a place.
    let served = serve(&limits(), 80, None).await;
    let mut before = served.connect().await;
    ask(&mut before, "/").await;
    let mut streaming = served.connect().await;
    assert!(ask(&mut streaming, "/stream").await.contains("begun"));
    let mut silent = Vec::new();
    for _ in 0..150 {
        silent.push(served.connect().await);
    }
    served.until("the flood has come", |it| it.counts().given_way >= 144).await;
    assert_eq!(served.connections.counts().unproved, 6, "the rest of one peer's eight");
    for _ in 0..20 {
        let mut next = served.connect().await;
        assert!(ask(&mut next, "/").await.starts_with("HTTP/1.1 200"));
    }
    assert!(ask(&mut before, "/").await.starts_with("HTTP/1.1 200"), "it was there before the flood");
    let mut piece = [0; 1];
    let quiet = tokio::time::timeout(SHORT, streaming.read(&mut piece)).await;
    assert!(quiet.is_err(), "the stream goes on: {quiet:?}");
    closed(&mut silent[0]).await;
    served.shut_down().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_is_slow_with_its_first_request_is_closed() {
    let limits = ListenLimits { first_request_timeout: SHORT, ..limits() };
    let served = serve(&limits, 1024, None).await;
    let http2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    for said in [b"".as_slice(), b"PRI * HT", b"GET / HTTP/1.1\r\nHost: lo", &http2] {
        let mut slow = served.connect().await;
        slow.write_all(said).await.unwrap();
        closed(&mut slow).await;
    }
    served.ended(Ended::NoRequest, 4).await;
    // Sending a byte now and then extends no deadline.
    let (mut reader, mut writer) = served.connect().await.into_split();
    let dribble = tokio::spawn(async move {
        while writer.write_all(b"G").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    closed(&mut reader).await;
    served.ended(Ended::NoRequest, 5).await;
    dribble.await.unwrap();
    served.shut_down().await;
}

#[tokio::test]
async fn only_a_connection_without_a_request_in_flight_is_idle() {
    let limits = ListenLimits { idle_timeout: SHORT, ..limits() };
    let served = serve(&limits, 1024, None).await;
    let mut streaming = served.connect().await;
    ask(&mut streaming, "/stream").await;
    let mut resting = served.connect().await;
    ask(&mut resting, "/").await;
    closed(&mut resting).await;
    // The stream was there before, and stays open.
    assert_eq!(served.connections.calls(Door::People).in_flight, 1);
    drop(streaming);
    served.until("its end is noticed", |it| it.calls(Door::People).in_flight == 0).await;
    served.shut_down().await;
}

#[tokio::test]
async fn one_peer_has_its_part_of_the_connections_and_of_the_streams() {
    let limits = ListenLimits { connections_per_peer: count(3), calls_per_peer: count(2), ..limits() };
    let served = serve(&limits, 1024, None).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = served.connect().await;
        ask(&mut stream, "/stream").await;
        open.push(stream);
    }
    let mut third = served.connect().await;
    let refused = ask(&mut third, "/stream").await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("under [listen]"), "{refused}");
    assert_eq!(served.connections.calls(Door::People).refused, 1);
    // An idle connection is closed to make room.
    let mut fourth = served.connect().await;
    closed(&mut third).await;
    // A connection that ends makes room.
    open.pop();
    served.until("its place is free", |it| it.calls(Door::People).in_flight == 1).await;
    assert!(ask(&mut fourth, "/stream").await.contains("begun"));
    served.shut_down().await;
}

#[tokio::test]
async fn where_all_connections_of_a_peer_have_requests_open_the_next_is_refused() {
    let limits = ListenLimits { connections_per_peer: count(1), ..limits() };
    let served = serve(&limits, 1024, None).await;
    let mut streaming = served.connect().await;
    ask(&mut streaming, "/stream").await;
    let mut next = served.connect().await;
    closed(&mut next).await;
    served.ended(Ended::Refused(Full::Peer), 1).await;
    served.shut_down().await;
}

/// A server's configuration with the broadcaster's ALPN, and its authority; `None` without openssl.
async fn certified() -> Option<(Arc<ServerConfig>, RootCertStore)> {
    let folder = tempfile::tempdir().unwrap();
    if !make_certificates(folder.path(), &["server"]).await {
        return None;
    }
    let file = |name: &str| folder.path().join(name);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    Some((Arc::new(config), roots))
}

fn client(roots: &RootCertStore, protocols: &[&[u8]]) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn a_handshake_that_is_never_complete_ends_and_one_that_fails_too() {
    let Some((config, _)) = certified().await else { return };
    let limits = ListenLimits { first_request_timeout: SHORT, ..limits() };
    let served = serve(&limits, 1024, Some(config)).await;
    // No byte, and the first bytes of a handshake record that never ends.
    for said in [b"".as_slice(), &[22, 3, 1, 2, 0, 1]] {
        let mut half_open = served.connect().await;
        half_open.write_all(said).await.unwrap();
        closed(&mut half_open).await;
    }
    served.ended(Ended::HandshakeTimeout, 2).await;
    let mut plain = served.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut plain).await;
    served.ended(Ended::HandshakeFailed, 1).await;
    assert_eq!(served.connections.counts().unproved, 0);
    served.shut_down().await;
}

#[tokio::test]
async fn https_speaks_http2_and_http1_as_the_client_offers() {
    let Some((config, roots)) = certified().await else { return };
    let served = serve(&limits(), 1024, Some(config)).await;
    let name = ServerName::try_from("localhost").unwrap();
    for (offered, agreed) in [
        ([b"http/1.1".as_slice()].as_slice(), Some(b"http/1.1".as_slice())),
        (&[b"h2", b"http/1.1"], Some(b"h2")),
        (&[b"h2"], Some(b"h2")),
        (&[], None),
    ] {
        let stream = client(&roots, offered).connect(name.clone(), served.connect().await).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        let mut stream = stream;
        if agreed != Some(b"h2") {
            assert!(ask(&mut stream, "/").await.starts_with("HTTP/1.1 200"));
            continue;
        }
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = axum::http::Request::get("https://localhost/").body(Body::empty()).unwrap();
        let answer = tokio::time::timeout(HANG, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, axum::http::Version::HTTP_2));
        drop(sender);
        connection.abort();
    }
    served.shut_down().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_no_connection_that_has_proved_nothing() {
    let served = serve(&limits(), 1024, None).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(served.connect().await);
    }
    served.until("they are all in", |it| it.counts().unproved == 50).await;
    let connections = served.connections.clone();
    served.shut_down().await;
    assert_eq!(connections.ended(Ended::Stopped), 50, "none was cut off after the drain");
}
