//! One connection: deadlines until its first request, then for as long as no request is in flight.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rotacast_log_limit::LogLimit;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::requests::{Held, InFlight, Refused, Requests, answer};
use super::seats::{Peer, Seat};
use super::{Deadlines, Ended, Tls};
use crate::api::Refusal;

/// How often an idle HTTP/2 connection is probed, and how long an answer may take: a peer that is gone is noticed within
/// half a minute, and its streams are freed. It also ends a request head that never becomes complete.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// How long a request may take until its answer begins: twice what the slowest order may, and its body must have come.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Most bytes of a request head over HTTP/1.1: hyper's least is 8 KiB, browsers and proxies send up to that.
const MAX_HEAD: usize = 64 * 1024;

/// Requests and streams of one HTTP/2 connection at once: a browser's or a service's are a few.
const MAX_STREAMS: u32 = 200;

/// What every connection needs.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) requests: Requests,
    pub(super) deadlines: Deadlines,
    pub(super) stop: CancellationToken,
}

/// What goes on on a connection.
#[derive(Debug)]
struct Activity {
    seat: Seat,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    proved: bool,
    in_flight: usize,
    /// Since when none is in flight.
    idle_since: Instant,
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every call on it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it ends unless something happens.
    fn due(&self, accepted: Instant, deadlines: Deadlines) -> Instant {
        let state = self.state();
        match (state.proved, state.in_flight) {
            (false, _) => accepted + deadlines.first_request,
            (true, 0) => state.idle_since + deadlines.idle,
            (true, _) => Instant::now() + deadlines.idle,
        }
    }
}

/// A request that is in flight on its connection.
struct Active(Arc<Activity>);

impl Active {
    fn begin(activity: &Arc<Activity>) -> Self {
        let mut state = activity.state();
        state.in_flight += 1;
        state.proved = true;
        if state.in_flight == 1 {
            activity.seat.works();
        }
        drop(state);
        Self(Arc::clone(activity))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        state.idle_since = Instant::now();
        if state.in_flight == 0 {
            self.0.seat.rests();
        }
    }
}

impl Shared {
    /// Serves one connection to its end.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        seat: Seat,
        tls: Option<Tls>,
    ) -> Ended {
        let accepted = Instant::now();
        let local = stream.local_addr().ok();
        // Without it small answers wait for the peer's acknowledgement; a socket that refuses it is only slower.
        if let Err(problem) = stream.set_nodelay(true) {
            debug!(%problem, "TCP_NODELAY");
        }
        let info = TcpConnectInfo { local_addr: local, remote_addr: Some(address) };
        let Some(tls) = tls else { return self.speak(stream, info, address, seat, accepted).await };
        let config = Arc::clone(&tls.borrow());
        let give_way = seat.give_way().clone();
        let secured = tokio::select! {
            secured = TlsAcceptor::from(config).accept(stream) => secured,
            () = tokio::time::sleep_until(accepted + self.deadlines.first_request) => return Ended::HandshakeTimeout,
            () = give_way.cancelled() => return Ended::GaveWay,
            () = self.stop.cancelled() => return Ended::Stopped,
        };
        match secured {
            Ok(stream) => self.speak(stream, info, address, seat, accepted).await,
            Err(problem) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    warn!(peer = %address.ip(), %problem, left_out, "a TLS handshake failed");
                }
                Ended::HandshakeFailed
            }
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: &Arc<Self>,
        stream: S,
        info: TcpConnectInfo,
        address: SocketAddr,
        seat: Seat,
        accepted: Instant,
    ) -> Ended {
        let peer = Peer::from(address.ip());
        let give_way = seat.give_way().clone();
        let state = State { proved: false, in_flight: 0, idle_since: accepted };
        let activity = Arc::new(Activity { seat, state: Mutex::new(state) });
        let service = service_fn(|mut request: Request<Incoming>| {
            let active = Active::begin(&activity);
            request.extensions_mut().insert(info.clone());
            let shared = Arc::clone(self);
            async move { Ok::<_, Infallible>(shared.answer(request, peer, active).await) }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // Also the longest rest between two requests: see `serve` for the first.
            .header_read_timeout(self.deadlines.idle)
            .max_buf_size(MAX_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut ending = None;
        // When it is cut off, once it ends in good order.
        let mut last = None;
        loop {
            let due = last.unwrap_or_else(|| activity.due(accepted, self.deadlines));
            tokio::select! {
                ended = &mut connection => {
                    if let Err(problem) = ended {
                        // A peer's mistake, or its network's: nothing that an operator could mend.
                        debug!(peer = %address.ip(), %problem, "a connection broke off");
                    }
                    return ending.unwrap_or(Ended::ByPeer);
                }
                () = tokio::time::sleep_until(due), if ending != Some(Ended::Stopped) => {
                    if let Some(ended) = ending {
                        return ended;
                    }
                    let (proved, idle) = {
                        let state = activity.state();
                        (state.proved, state.in_flight == 0 && state.idle_since + self.deadlines.idle <= Instant::now())
                    };
                    match (proved, idle) {
                        (false, _) => return Ended::NoRequest,
                        (true, true) => {
                            ending = Some(Ended::Idle);
                            last = Some(Instant::now() + self.deadlines.first_request);
                            connection.as_mut().graceful_shutdown();
                        }
                        (true, false) => {}
                    }
                }
                () = give_way.cancelled() => return Ended::GaveWay,
                () = self.stop.cancelled(), if ending != Some(Ended::Stopped) => {
                    if !activity.state().proved {
                        return Ended::Stopped;
                    }
                    ending = Some(Ended::Stopped);
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer, active: Active) -> Response<Body> {
        let in_flight = match self.requests.take(peer, &request) {
            Ok(in_flight) => in_flight,
            Err(refused) => {
                let Refused { door, full, answer } = *refused;
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    let (door, full) = (door.as_str(), full.as_str());
                    warn!(%peer, door, full, left_out, "a request is refused: too many are open");
                }
                return answer;
            }
        };
        let headers = request.headers().clone();
        let answered = tokio::time::timeout(ANSWER_LIMIT, self.router.clone().oneshot(request)).await;
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let problem = format!("no answer within {} s; was the request's body sent?", ANSWER_LIMIT.as_secs());
                answer(&headers, Refusal::Unavailable { problem, fix: String::new() })
            }
        };
        response.map(|body| Body::new(Held::<(InFlight, Active)>::new(body, (in_flight, active))))
    }
}
