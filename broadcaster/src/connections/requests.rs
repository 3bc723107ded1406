//! Requests in flight: caps in all and per peer address, for the door of instances and for that of people.
//!
//! A request is in flight until its answer is sent in full, so an open watch or event stream is one as long as it lasts.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, Response};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use rotacast_proto::v1::instances_server::SERVICE_NAME;
use tonic::Status;

use super::seats::{Caps, Full, Peer};
use crate::api::Refusal;

/// Who asks: their caps are apart, so that no flood of one keeps the other out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// Instances, over gRPC.
    Instances,
    /// Operators, the dashboard, monitors.
    People,
    /// What asks whether the process lives and is ready: a refusal would have it restarted.
    Probes,
}

/// The caps of [`Door::Probes`]. They answer at once, so that few are open at a time; a supervisor and a load balancer ask
/// from an address each.
const PROBES: Caps = Caps { total: 64, per_peer: 16 };

/// The paths of [`Door::Probes`].
const PROBE_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

impl Door {
    pub(crate) const ALL: [Self; 3] = [Self::Instances, Self::People, Self::Probes];

    /// As label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::People => "people",
            Self::Probes => "probes",
        }
    }

    fn of<B>(request: &Request<B>) -> Self {
        let mut parts = request.uri().path().split('/');
        match (parts.next(), parts.next()) {
            (Some(""), Some(SERVICE_NAME)) => Self::Instances,
            _ if PROBE_PATHS.contains(&request.uri().path()) => Self::Probes,
            _ => Self::People,
        }
    }
}

#[derive(Default, Debug)]
struct Open {
    total: usize,
    peers: HashMap<Peer, usize>,
    refused: u64,
}

#[derive(Debug)]
struct OfDoor {
    caps: Caps,
    open: Mutex<Open>,
}

impl OfDoor {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Whole after every call on it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, peer: Peer) -> Result<InFlight, Full> {
        let mut open = self.open();
        let here = open.peers.get(&peer).copied().unwrap_or_default();
        let full = match () {
            () if here >= self.caps.per_peer => Some(Full::Peer),
            () if open.total >= self.caps.total => Some(Full::Total),
            () => None,
        };
        if let Some(full) = full {
            open.refused += 1;
            return Err(full);
        }
        open.total += 1;
        open.peers.insert(peer, here + 1);
        Ok(InFlight { door: Arc::clone(self), peer })
    }
}

/// How many of a door there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DoorCounts {
    pub(crate) in_flight: usize,
    pub(crate) refused: u64,
    pub(crate) caps: Caps,
}

/// A request for which there is no place.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) door: Door,
    pub(crate) full: Full,
    pub(crate) answer: Response<Body>,
}

/// The requests in flight. Clones are of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    instances: Arc<OfDoor>,
    people: Arc<OfDoor>,
    probes: Arc<OfDoor>,
}

impl Requests {
    pub(crate) fn new(instances: Caps, people: Caps) -> Self {
        let door = |caps| Arc::new(OfDoor { caps, open: Mutex::default() });
        Self { instances: door(instances), people: door(people), probes: door(PROBES) }
    }

    fn door(&self, door: Door) -> &Arc<OfDoor> {
        match door {
            Door::Instances => &self.instances,
            Door::People => &self.people,
            Door::Probes => &self.probes,
        }
    }

    /// Takes a place for a request; what to answer where there is none.
    pub(crate) fn take<B>(&self, peer: Peer, request: &Request<B>) -> Result<InFlight, Box<Refused>> {
        let which = Door::of(request);
        let door = self.door(which);
        door.take(peer).map_err(|full| {
            let (cap, whose) = match full {
                Full::Peer => (door.caps.per_peer, "from this address"),
                Full::Total => (door.caps.total, "altogether"),
            };
            let problem = format!(
                "{cap} requests and streams are open {whose}, expected at most so many: close some, or raise it \
                 under [listen] in the broadcaster's configuration"
            );
            Box::new(Refused { door: which, full, answer: answer(request.headers(), Refusal::Busy(problem)) })
        })
    }

    pub(crate) fn counts(&self, door: Door) -> DoorCounts {
        let of_door = self.door(door);
        let open = of_door.open();
        DoorCounts { in_flight: open.total, refused: open.refused, caps: of_door.caps }
    }
}

/// A refusal in the words of who asks: gRPC's or HTTP's.
pub(super) fn answer(headers: &HeaderMap, refusal: Refusal) -> Response<Body> {
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    match grpc {
        true => Status::from(refusal).into_http(),
        false => refusal.into_response(),
    }
}

/// One request's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    door: Arc<OfDoor>,
    peer: Peer,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut open = self.door.open();
        open.total -= 1;
        if let Some(here) = open.peers.get_mut(&self.peer) {
            *here -= 1;
            if *here == 0 {
                open.peers.remove(&self.peer);
            }
        }
    }
}

/// An answer's body that holds something until it is sent or given up.
pub(super) struct Held<T> {
    body: Body,
    /// Dropped with the body.
    _held: T,
}

impl<T> Held<T> {
    pub(super) fn new(body: Body, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<T: Unpin> hyper::body::Body for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn to(path: &str) -> Request<()> {
        Request::post(path).header(CONTENT_TYPE, "application/grpc").body(()).unwrap()
    }

    #[test]
    fn each_door_has_its_own_caps() {
        let requests = Requests::new(Caps { total: 2, per_peer: 1 }, Caps { total: 2, per_peer: 2 });
        let peers = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| Peer::from(text.parse::<IpAddr>().unwrap()));
        let instances = to("/rotacast.v1.Instances/WatchStates");
        let taken = requests.take(peers[0], &instances).unwrap();
        let refused = |peer, request: &Request<()>| match requests.take(peer, request) {
            Ok(_) => panic!("there is a place"),
            Err(refused) => *refused,
        };
        let Refused { door, full, answer } = refused(peers[0], &instances);
        assert_eq!((door, full), (Door::Instances, Full::Peer));
        assert_eq!(answer.headers()["grpc-status"], "8", "resource exhausted");
        let other = requests.take(peers[1], &instances).unwrap();
        assert_eq!(refused(peers[2], &instances).full, Full::Total);
        // The other door is open all the same.
        let people = to("/rotacast.v1.Admin/Watch");
        let watches = [requests.take(peers[0], &people).unwrap(), requests.take(peers[0], &people).unwrap()];
        assert_eq!(refused(peers[0], &people).full, Full::Peer);
        requests.take(peers[0], &to("/livez")).unwrap();
        let counts = requests.counts(Door::Instances);
        assert_eq!((counts.in_flight, counts.refused), (2, 2));
        drop((taken, other, watches));
        for door in Door::ALL {
            assert_eq!(requests.counts(door).in_flight, 0);
        }
        requests.take(peers[0], &instances).unwrap();
    }

    #[test]
    fn only_the_service_for_instances_is_their_door() {
        for (path, door) in [
            ("/rotacast.v1.Instances/Sync", Door::Instances),
            ("/rotacast.v1.InstancesX/Sync", Door::People),
            ("/metrics", Door::People),
            ("/readyz", Door::Probes),
            ("/readyz/", Door::People),
            ("/", Door::People),
        ] {
            assert_eq!(Door::of(&to(path)), door, "{path}");
        }
    }
}
