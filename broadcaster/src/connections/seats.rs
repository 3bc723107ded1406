//! Who is connected: caps in all and per peer address, and who gives way when one is reached.
//!
//! A connection proves itself by its first request. Where a cap is reached, one that rests gives way to the next one: first
//! those that have proved nothing, the oldest first, then the one that has been without a request for longest. A flood of
//! silent connections locks no peer out that speaks, and neither do connections that once asked for something.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Whom a cap counts: an IPv4 address, or the /64 network of an IPv6 address, which one host has to itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address => Self(address),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(address) if !address.is_loopback() => write!(f, "{address}/64"),
            address => address.fmt(f),
        }
    }
}

/// How many at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Caps {
    pub(crate) total: usize,
    pub(crate) per_peer: usize,
}

/// Which cap is reached, by connections that all have a request in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// Of all peers together.
    Total,
    /// Of this peer address.
    Peer,
}

#[derive(Debug)]
struct Place {
    peer: Peer,
    proved: bool,
    /// How it rests; none: it has a request in flight.
    rest: Option<Rest>,
    give_way: CancellationToken,
}

/// A connection without a request in flight. The lowest one gives way first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rest {
    proved: bool,
    /// Counts up from rest to rest, so that the lowest one is the oldest.
    since: u64,
    number: u64,
}

#[derive(Default, Debug)]
struct OfPeer {
    open: usize,
    resting: BTreeSet<Rest>,
}

#[derive(Default, Debug)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Place>,
    peers: HashMap<Peer, OfPeer>,
    resting: BTreeSet<Rest>,
    unproved: usize,
    given_way: u64,
}

impl Table {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remove(&mut self, number: u64) -> Option<Place> {
        self.set_rest(number, false);
        let place = self.open.remove(&number)?;
        self.unproved -= usize::from(!place.proved);
        if let Some(of_peer) = self.peers.get_mut(&place.peer) {
            of_peer.open -= 1;
            if of_peer.open == 0 {
                self.peers.remove(&place.peer);
            }
        }
        Some(place)
    }

    /// Whether a connection rests from now on.
    fn set_rest(&mut self, number: u64, rests: bool) {
        let since = self.number();
        let Some(place) = self.open.get_mut(&number) else { return };
        let new = rests.then_some(Rest { proved: place.proved, since, number });
        let old = std::mem::replace(&mut place.rest, new);
        let of_peer = self.peers.entry(place.peer).or_default();
        if let Some(old) = old {
            self.resting.remove(&old);
            of_peer.resting.remove(&old);
        }
        if let Some(new) = new {
            self.resting.insert(new);
            of_peer.resting.insert(new);
        }
    }

    fn give_way(&mut self, rest: Option<Rest>) -> bool {
        let place = rest.and_then(|rest| self.remove(rest.number));
        if let Some(place) = &place {
            place.give_way.cancel();
            self.given_way += 1;
        }
        place.is_some()
    }
}

/// The connections that are open. Clones are of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    caps: Caps,
    table: Arc<Mutex<Table>>,
}

impl Seats {
    pub(crate) fn new(caps: Caps) -> Self {
        Self { caps, table: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Whole after every call on it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat. Where a cap is reached, a connection under it that rests gives way.
    pub(crate) fn take(&self, peer: Peer) -> Result<Seat, Full> {
        let mut table = self.table();
        let of_peer = table.peers.get(&peer);
        if of_peer.is_some_and(|it| it.open >= self.caps.per_peer) {
            let first = of_peer.and_then(|it| it.resting.first().copied());
            if !table.give_way(first) {
                return Err(Full::Peer);
            }
        }
        if table.open.len() >= self.caps.total {
            let first = table.resting.first().copied();
            if !table.give_way(first) {
                return Err(Full::Total);
            }
        }
        let number = table.number();
        let give_way = CancellationToken::new();
        table.open.insert(number, Place { peer, proved: false, rest: None, give_way: give_way.clone() });
        table.unproved += 1;
        table.peers.entry(peer).or_default().open += 1;
        table.set_rest(number, true);
        Ok(Seat { seats: self.clone(), number, give_way })
    }

    /// A connection that rests gives way: file descriptors are short.
    pub(crate) fn make_room(&self) -> bool {
        let mut table = self.table();
        let first = table.resting.first().copied();
        table.give_way(first)
    }

    pub(crate) fn counts(&self) -> Counts {
        let table = self.table();
        let unproved = table.unproved;
        Counts { proved: table.open.len() - unproved, unproved, given_way: table.given_way, caps: self.caps }
    }
}

/// How many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) proved: usize,
    pub(crate) unproved: usize,
    /// How many have given way so far.
    pub(crate) given_way: u64,
    pub(crate) caps: Caps,
}

/// One connection's; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    number: u64,
    give_way: CancellationToken,
}

impl Seat {
    /// A request has come.
    pub(crate) fn works(&self) {
        let mut table = self.seats.table();
        let Some(place) = table.open.get_mut(&self.number) else { return };
        let first = !std::mem::replace(&mut place.proved, true);
        table.unproved -= usize::from(first);
        table.set_rest(self.number, false);
    }

    /// No request is in flight any more.
    pub(crate) fn rests(&self) {
        self.seats.table().set_rest(self.number, true);
    }

    /// Cancelled when it gives way to another.
    pub(crate) fn give_way(&self) -> &CancellationToken {
        &self.give_way
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.table().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn seats(total: usize, per_peer: usize) -> Seats {
        Seats::new(Caps { total, per_peer })
    }

    #[test]
    fn the_oldest_that_has_proved_nothing_gives_way() {
        let seats = seats(10, 3);
        let (one, two) = (peer("10.0.0.1"), peer("10.0.0.2"));
        let other = seats.take(two).unwrap();
        let first = seats.take(one).unwrap();
        first.works();
        let (second, third) = (seats.take(one).unwrap(), seats.take(one).unwrap());
        let fourth = seats.take(one).unwrap();
        let gone = |seat: &Seat| seat.give_way().is_cancelled();
        assert_eq!([&other, &first, &second, &third, &fourth].map(gone), [false, false, true, false, false]);
        drop(second);
        let counts = seats.counts();
        assert_eq!((counts.proved, counts.unproved, counts.given_way), (1, 3, 1), "given back once");
    }

    #[test]
    fn one_that_has_asked_for_something_gives_way_once_it_rests_for_longest() {
        let seats = seats(3, 3);
        let taken = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|from| seats.take(peer(from)).unwrap());
        taken.iter().for_each(Seat::works);
        taken[1].rests();
        taken[0].rests();
        taken[1].works();
        taken[1].rests();
        let next = seats.take(peer("10.0.0.4")).unwrap();
        let gone = |seat: &Seat| seat.give_way().is_cancelled();
        assert_eq!(taken.each_ref().map(gone), [true, false, false]);
        // One that has proved nothing gives way before any that has.
        let last = seats.take(peer("10.0.0.5")).unwrap();
        assert_eq!((gone(&next), gone(&taken[1])), (true, false));
        assert_eq!(seats.counts().unproved, 1);
        drop((taken, next, last));
        assert_eq!((seats.counts().proved, seats.counts().unproved), (0, 0));
    }

    #[test]
    fn those_that_have_a_request_in_flight_stay() {
        let seats = seats(3, 2);
        let taken: Vec<Seat> =
            ["10.0.0.1", "10.0.0.1", "10.0.0.2"].map(|from| seats.take(peer(from)).unwrap()).into_iter().collect();
        taken.iter().for_each(Seat::works);
        assert_eq!(seats.take(peer("10.0.0.1")).unwrap_err(), Full::Peer);
        assert_eq!(seats.take(peer("10.0.0.3")).unwrap_err(), Full::Total);
        assert!(!seats.make_room());
        drop(taken);
        seats.take(peer("10.0.0.1")).unwrap();
        assert_eq!(seats.counts().proved + seats.counts().unproved, 0);
    }

    #[test]
    fn one_host_is_one_peer() {
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!(peer("::1").to_string(), "::1");
    }
}
