//! A Fetch gives a value once: a recording of it gives nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rotacast_protocol::message::FetchRequest;
use rotacast_protocol::{Incarnation, Nonce, ServiceName, WallTime};
use thiserror::Error;

/// How far the time that a Fetch was made may be from this broadcaster's: as for orders. Only so long is it remembered.
const WINDOW: Duration = Duration::from_secs(300);

/// Most Fetches of one incarnation that are remembered: all that it may use, 256 secrets, in three versions each, and some
/// that it asks for again. Beyond it further ones wait: forgetting one would let its recording in.
const MOST_OF_ONE: usize = 1024;

/// Most of all incarnations of one service: as many as start together. So a service that asks in a loop takes no room from
/// others. About 40 bytes each.
const MOST_OF_SERVICE: usize = 131_072;

/// Why a Fetch gives nothing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum Spent {
    #[error("it was answered already: a Fetch works once, make a new one")]
    Again,
    #[error(
        "it was made {} s {} this broadcaster's time, expected at most {} s: correct the clocks of the instance and of \
         the broadcaster", off.as_secs(), if *ahead { "after" } else { "before" }, WINDOW.as_secs()
    )]
    Time { off: Duration, ahead: bool },
    #[error("{what} has fetched {most} values in {} s; it can go on when some of them are older", WINDOW.as_secs())]
    TooMany { what: &'static str, most: usize },
}

/// What was answered within the last minutes.
#[derive(Default)]
pub(super) struct SingleUse {
    services: Mutex<HashMap<ServiceName, Remembered>>,
}

#[derive(Default)]
struct Remembered {
    /// Of all incarnations.
    count: usize,
    /// Each with the moment at which it is too old to be answered, in milliseconds.
    of: HashMap<Incarnation, HashMap<Nonce, u64>>,
}

impl Remembered {
    fn forget_old(&mut self, now: WallTime) {
        self.of.retain(|_, nonces| {
            nonces.retain(|_, over| *over >= now.0);
            !nonces.is_empty()
        });
        self.count = self.of.values().map(HashMap::len).sum();
    }
}

impl SingleUse {
    /// Takes a Fetch, whose sender was checked, for the first time.
    pub(super) fn take(&self, request: &FetchRequest, now: WallTime) -> Result<(), Spent> {
        let off = Duration::from_millis(request.issued.0.abs_diff(now.0));
        if off > WINDOW {
            return Err(Spent::Time { off, ahead: request.issued.0 > now.0 });
        }
        // Whole after every call on it.
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = services.entry(request.key.service.clone()).or_default();
        let of_one = |remembered: &Remembered| remembered.of.get(&request.key.incarnation).map_or(0, HashMap::len);
        if remembered.count >= MOST_OF_SERVICE || of_one(remembered) >= MOST_OF_ONE {
            remembered.forget_old(now);
        }
        let again = remembered.of.get(&request.key.incarnation).is_some_and(|it| it.contains_key(&request.nonce));
        if again {
            return Err(Spent::Again);
        }
        if of_one(remembered) >= MOST_OF_ONE {
            return Err(Spent::TooMany { what: "this incarnation", most: MOST_OF_ONE });
        }
        if remembered.count >= MOST_OF_SERVICE {
            return Err(Spent::TooMany { what: "this service", most: MOST_OF_SERVICE });
        }
        let over = request.issued.0.saturating_add(u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX));
        remembered.count += 1;
        remembered.of.entry(request.key.incarnation).or_default().insert(request.nonce, over);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::InstanceKey;

    use super::*;

    const NOW: WallTime = WallTime(1_795_392_000_000);

    fn request(incarnation: u128, nonce: u64, issued: WallTime) -> FetchRequest {
        let key = InstanceKey::new("api".parse().unwrap(), "api-0".parse().unwrap(), Incarnation(incarnation));
        FetchRequest { key, nonce: Nonce(nonce), issued, secret: "payments/db".parse().unwrap(), version: None }
    }

    #[test]
    fn a_fetch_is_taken_once_for_as_long_as_its_time_counts() {
        let taken = SingleUse::default();
        let later = |seconds: u64| WallTime(NOW.0 + seconds * 1000);
        assert_eq!(taken.take(&request(1, 7, NOW), NOW), Ok(()));
        assert_eq!(taken.take(&request(1, 7, NOW), later(300)), Err(Spent::Again));
        let old = Err(Spent::Time { off: Duration::from_secs(301), ahead: false });
        assert_eq!(taken.take(&request(1, 7, NOW), later(301)), old);
        assert_eq!(taken.take(&request(1, 8, NOW), NOW), Ok(()));
        assert_eq!(taken.take(&request(2, 7, NOW), NOW), Ok(()), "another incarnation draws its own nonces");
        let ahead = Err(Spent::Time { off: Duration::from_secs(301), ahead: true });
        assert_eq!(taken.take(&request(1, 9, later(301)), NOW), ahead);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_that_counts_is_forgotten() {
        let taken = SingleUse::default();
        for nonce in 0..MOST_OF_ONE as u64 {
            assert_eq!(taken.take(&request(1, nonce, NOW), NOW), Ok(()));
        }
        let full = Err(Spent::TooMany { what: "this incarnation", most: MOST_OF_ONE });
        assert_eq!(taken.take(&request(1, u64::MAX, NOW), NOW), full);
        assert_eq!(taken.take(&request(1, 0, NOW), NOW), Err(Spent::Again));
        assert_eq!(taken.take(&request(2, 0, NOW), NOW), Ok(()));
        let later = WallTime(NOW.0 + 301_000);
        assert_eq!(taken.take(&request(1, u64::MAX, later), later), Ok(()));
        for incarnation in 10..10 + (MOST_OF_SERVICE / MOST_OF_ONE) as u128 {
            for nonce in 0..MOST_OF_ONE as u64 {
                drop(taken.take(&request(incarnation, nonce, later), later));
            }
        }
        let full = Err(Spent::TooMany { what: "this service", most: MOST_OF_SERVICE });
        assert_eq!(taken.take(&request(9, 0, later), later), full);
    }
}
