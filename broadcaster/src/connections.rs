//! The one way in: accepts connections for gRPC, the dashboard, probes and metrics, and bounds what they may hold.
//!
//! A peer that has proved nothing holds nothing for long. Its first request must come within a deadline, TLS included;
//! without one in flight it gives way when a cap is reached. Caps keep file descriptors for the broadcaster's own work.

mod connection;
mod descriptors;
mod requests;
mod seats;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use rotacast_log_limit::LogLimit;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::ListenLimits;
use connection::Shared;
pub(crate) use descriptors::Descriptors;
pub(crate) use requests::{Door, DoorCounts, Requests};
pub(crate) use seats::{Caps, Counts, Full, Peer, Seats};

/// What a handshake uses: replaced when the certificate is renewed.
pub type Tls = watch::Receiver<Arc<ServerConfig>>;

/// How long open requests may take to end at a shutdown before they are cut off.
const DRAIN: Duration = Duration::from_secs(3);

/// Pauses after an error of accept that comes from this machine, such as no file descriptor: the first, and the longest.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Connections that have given way and are still being closed, while further ones are accepted: far fewer than the file
/// descriptors that are kept for the broadcaster's own work.
const MAX_CLOSING: usize = 8;

/// ALPN, in order of preference: gRPC needs HTTP/2, and simple monitors speak HTTP/1.1 only.
pub(crate) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How long a peer may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Deadlines {
    /// From the connection to the end of its first request's head, TLS handshake included.
    first_request: Duration,
    /// Without a request in flight.
    idle: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The peer closed it, or it broke.
    ByPeer,
    /// No request was in flight for too long.
    Idle,
    /// The broadcaster stops.
    Stopped,
    /// The TLS handshake was not complete in time.
    HandshakeTimeout,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// No request was complete in time.
    NoRequest,
    /// It had no request in flight when a cap was reached.
    GaveWay,
    /// Refused at once: a cap was reached.
    Refused(Full),
}

impl Full {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Peer => "peer",
        }
    }
}

impl Ended {
    pub(crate) const ALL: [Self; 9] = [
        Self::ByPeer,
        Self::Idle,
        Self::Stopped,
        Self::HandshakeTimeout,
        Self::HandshakeFailed,
        Self::NoRequest,
        Self::GaveWay,
        Self::Refused(Full::Total),
        Self::Refused(Full::Peer),
    ];

    /// As label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ByPeer => "by_peer",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::NoRequest => "no_request",
            Self::GaveWay => "gave_way",
            Self::Refused(Full::Total) => "refused_total",
            Self::Refused(Full::Peer) => "refused_peer",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|it| *it == self).expect("ALL has every one")
    }
}

/// The connections of one broadcaster, and what is counted of them. Clones are of the same ones.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seats: Seats,
    requests: Requests,
    deadlines: Deadlines,
    descriptors: Descriptors,
    ended: [AtomicU64; Ended::ALL.len()],
    accept_errors: AtomicU64,
}

impl Connections {
    /// With caps as configured, as far as the limit on open files allows.
    #[must_use]
    pub fn new(limits: &ListenLimits) -> Self {
        Self::within(limits, Descriptors::raise())
    }

    fn within(limits: &ListenLimits, descriptors: Descriptors) -> Self {
        let total = descriptors.cap(limits.connections);
        if let Some(wanted) = limits.connections.filter(|wanted| wanted.get() > total) {
            warn!(
                wanted,
                total,
                open_files = descriptors.0,
                "listen.max_connections is more than the limit on open files (nofile) allows; raise it, such as with \
                 LimitNOFILE= in the systemd unit"
            );
        }
        // One peer address never takes all of them.
        let per_peer = limits.connections_per_peer.get().min((total / 2).max(1));
        let caps = |total, per_peer: usize| Caps { total, per_peer: per_peer.min(total) };
        Self(Arc::new(Inner {
            seats: Seats::new(Caps { total, per_peer }),
            requests: Requests::new(
                caps(limits.instance_calls.get(), limits.instance_calls_per_peer.get()),
                caps(limits.calls.get(), limits.calls_per_peer.get()),
            ),
            deadlines: Deadlines { first_request: limits.first_request_timeout, idle: limits.idle_timeout },
            descriptors,
            ended: std::array::from_fn(|_| AtomicU64::new(0)),
            accept_errors: AtomicU64::new(0),
        }))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.seats.counts()
    }

    pub(crate) fn calls(&self, door: Door) -> DoorCounts {
        self.0.requests.counts(door)
    }

    /// How many connections ended so.
    pub(crate) fn ended(&self, how: Ended) -> u64 {
        self.0.ended[how.index()].load(Ordering::Relaxed)
    }

    /// How many connections and requests found no room, or had to make it.
    pub(crate) fn turned_away(&self) -> u64 {
        let connections = [Ended::GaveWay, Ended::Refused(Full::Total), Ended::Refused(Full::Peer)];
        let connections: u64 = connections.into_iter().map(|how| self.ended(how)).sum();
        let calls: u64 = Door::ALL.into_iter().map(|door| self.calls(door).refused).sum();
        connections + calls + self.accept_errors()
    }

    pub(crate) fn accept_errors(&self) -> u64 {
        self.0.accept_errors.load(Ordering::Relaxed)
    }

    /// How many files this process may have open.
    pub(crate) fn open_files(&self) -> usize {
        self.0.descriptors.0
    }

    fn note(&self, ended: Ended) {
        self.0.ended[ended.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Serves until `stop`, and then for up to 3 seconds until open requests have ended.
    ///
    /// # Errors
    /// The listener has no address.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Tls>,
        router: Router,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let address = listener.local_addr().context("the listener's address")?;
        let Caps { total, per_peer } = self.counts().caps;
        info!(%address, max_connections = total, per_peer, open_files = self.open_files(), "listening");
        let Inner { requests, deadlines, .. } = &*self.0;
        let shared = Arc::new(Shared { router, requests: requests.clone(), deadlines: *deadlines, stop: stop.clone() });
        let mut open = JoinSet::new();
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let Counts { proved, unproved, .. } = self.counts();
            let closing = open.len().saturating_sub(proved + unproved);
            let accepted = tokio::select! {
                accepted = listener.accept(), if closing < MAX_CLOSING => accepted,
                Some(ended) = open.join_next() => {
                    self.note_end(ended);
                    continue;
                }
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    pause = ACCEPT_PAUSE.0;
                    match self.0.seats.take(Peer::from(address.ip())) {
                        Ok(seat) => {
                            open.spawn(Arc::clone(&shared).serve(stream, address, seat, tls.clone()));
                        }
                        Err(full) => self.refuse(Peer::from(address.ip()), full),
                    }
                }
                // The peer's, which has gone meanwhile.
                Err(problem) if matches!(problem.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {
                    debug!(%problem, "accept");
                }
                Err(problem) => {
                    self.0.accept_errors.fetch_add(1, Ordering::Relaxed);
                    let gave_way = self.0.seats.make_room();
                    static LIMIT: LogLimit = LogLimit::new();
                    if let Some(left_out) = LIMIT.admit() {
                        warn!(
                            %problem,
                            open_files = self.open_files(),
                            left_out,
                            "cannot accept a connection; trying again. If file descriptors are short, raise the limit on \
                             open files (nofile), such as with LimitNOFILE= in the systemd unit"
                        );
                    }
                    // What gives way closes within the pause.
                    let rest = if gave_way { ACCEPT_PAUSE.0 } else { pause };
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                    tokio::select! {
                        () = tokio::time::sleep(rest) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        drop(listener);
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(ended) = open.join_next().await {
                self.note_end(ended);
            }
        });
        if drained.await.is_err() {
            // Streams that do not end by themselves are cut off; their clients reconnect elsewhere.
            info!(open = open.len(), "connections are cut off");
            open.shutdown().await;
        }
        Ok(())
    }

    fn note_end(&self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(ended) => {
                self.note(ended);
                let said = match ended {
                    Ended::GaveWay => {
                        "silent connections are closed to make room: a cap on connections is reached, of [listen] or of the \
                         limit on open files"
                    }
                    Ended::HandshakeTimeout => "connections are closed: their TLS handshake was not complete in time",
                    Ended::NoRequest => "connections are closed: no request came in time",
                    Ended::ByPeer | Ended::Idle | Ended::Stopped | Ended::HandshakeFailed | Ended::Refused(_) => return,
                };
                self.say(said);
            }
            Err(problem) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    tracing::error!(%problem, left_out, "the task of a connection panicked; please report it");
                }
            }
        }
    }

    fn say(&self, said: &str) {
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            let Counts { proved, unproved, caps, .. } = self.counts();
            let (max, per_peer, open_files) = (caps.total, caps.per_peer, self.open_files());
            warn!(open = proved + unproved, unproved, max, per_peer, open_files, left_out, "{said}");
        }
    }

    fn refuse(&self, peer: Peer, full: Full) {
        self.note(Ended::Refused(full));
        static LIMIT: LogLimit = LogLimit::new();
        let Some(left_out) = LIMIT.admit() else { return };
        let Counts { proved, caps, .. } = self.counts();
        match full {
            Full::Peer => warn!(
                %peer,
                max_connections_per_peer = caps.per_peer,
                left_out,
                "a connection is refused: this peer address has as many as it may; if it is a proxy, raise \
                 listen.max_connections_per_peer"
            ),
            Full::Total => warn!(
                %peer,
                open = proved,
                max_connections = caps.total,
                open_files = self.open_files(),
                left_out,
                "a connection is refused: there are as many as listen.max_connections and the limit on open files \
                 (nofile) allow"
            ),
        }
    }
}
