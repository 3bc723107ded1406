//! How many of a term's tasks write to store and bus at once, when all of them have something to write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rotacast_protocol::record::ProviderId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of each kind. When many secrets have something to write, such as at the beginning of a term, more writes at
/// once than a store answers within its time limit would only be repeated, and keep the renewals of the leadership waiting.
pub(super) const PLACES: usize = 32;

/// A provider's kind and system.
type System = (String, String);

/// The places of one term. Each kind has its own: a secret that was saved early must not wait for the saves of all others
/// before it is published, and a task that begins holds its place while it saves.
#[derive(Clone)]
pub(super) struct Turns {
    beginnings: Arc<Semaphore>,
    saves: Arc<Semaphore>,
    publications: Arc<Semaphore>,
    checks: Arc<Mutex<BTreeMap<System, Arc<Semaphore>>>>,
}

impl Default for Turns {
    fn default() -> Self {
        let places = || Arc::new(Semaphore::new(PLACES));
        Self { beginnings: places(), saves: places(), publications: places(), checks: Arc::default() }
    }
}

impl Turns {
    /// Waits for the place of a task that looks at the bus and makes its record this term's.
    pub(super) fn beginning(&self) -> Turn {
        turn(&self.beginnings)
    }

    /// Waits for the place of one attempt to save a record.
    pub(super) fn save(&self) -> Turn {
        turn(&self.saves)
    }

    /// Waits for the place of the check of a credential that is in use. A provider has one: the connections that it may open are
    /// for rotations. There are as many as the configuration has providers.
    pub(super) fn check(&self, provider: &ProviderId) -> Turn {
        // A map is whole after every call on it.
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let place = checks.entry((provider.kind.clone(), provider.system.clone()));
        turn(place.or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// Waits for the place of a publication.
    pub(super) fn publication(&self) -> Turn {
        turn(&self.publications)
    }
}

/// Ends with a place. Places are given in the order in which turns were asked for, not first polled.
pub(super) type Turn = BoxFuture<'static, OwnedSemaphorePermit>;

fn turn(places: &Arc<Semaphore>) -> Turn {
    let mut place = Arc::clone(places).acquire_owned().boxed();
    // Polled once, it is in the queue.
    let first = (&mut place).now_or_never();
    async move {
        match first {
            Some(place) => place,
            None => place.await,
        }
        .expect("the semaphore is never closed")
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_given_in_the_order_they_were_asked_for() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..PLACES {
            taken.push(turns.save().await);
        }
        let (first, second) = (turns.save(), turns.save());
        tokio::pin!(first, second);
        assert!((&mut second).now_or_never().is_none(), "every place is taken");
        taken.pop();
        assert!((&mut second).now_or_never().is_none(), "the other one has asked before");
        let place = first.now_or_never().expect("a place is free");
        drop(place);
        assert!(second.now_or_never().is_some());
        assert!(turns.publication().now_or_never().is_some(), "saves do not take the places of publications");
    }
}
