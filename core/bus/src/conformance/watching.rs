//! A subscription and what it has delivered so far.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;

use crate::{BusError, BusEvent, LeaderBus};

/// A wait that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(60);

pub(super) struct Watching {
    stream: BoxStream<'static, Result<BusEvent, BusError>>,
    /// The last message by subject.
    pub(super) last: BTreeMap<String, Envelope>,
    /// Messages since the last `Resync`.
    pub(super) since_resync: usize,
    pub(super) resyncs: usize,
    /// Whether `CaughtUp` has come since the last `Resync`.
    pub(super) caught_up: bool,
}

impl Watching {
    pub(super) fn new(stream: BoxStream<'static, Result<BusEvent, BusError>>) -> Self {
        Self { stream, last: BTreeMap::new(), since_resync: 0, resyncs: 0, caught_up: false }
    }

    /// A subscription that has caught up.
    pub(super) async fn settled(stream: BoxStream<'static, Result<BusEvent, BusError>>) -> Self {
        let mut watching = Self::new(stream);
        watching.until("caught up", |w| w.caught_up).await;
        watching
    }

    /// Reads until `done` holds.
    pub(super) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let Ok(event) = tokio::time::timeout(HANG, self.stream.next()).await else {
                let subjects: Vec<_> = self.last.keys().take(20).collect();
                let (caught_up, resyncs) = (self.caught_up, self.resyncs);
                panic!("waiting for: {what}; has {subjects:?}, caught up {caught_up}, {resyncs} resyncs");
            };
            match event {
                Some(Ok(BusEvent::Message(envelope))) => {
                    self.since_resync += 1;
                    self.last.insert(envelope.subject.clone(), envelope);
                }
                Some(Ok(BusEvent::CaughtUp)) => self.caught_up = true,
                Some(Ok(BusEvent::Resync)) => {
                    self.resyncs += 1;
                    self.since_resync = 0;
                    self.caught_up = false;
                }
                Some(Err(problem)) => panic!("waiting for: {what}; the subscription ended: {problem}"),
                None => panic!("waiting for: {what}; the subscription ended without an error"),
            }
        }
    }

    /// Reads until the subscription ends, which must be with an error.
    pub(super) async fn end(&mut self) -> BusError {
        loop {
            match tokio::time::timeout(HANG, self.stream.next()).await.expect("the subscription goes on") {
                Some(Ok(_)) => {}
                Some(Err(problem)) => return problem,
                None => panic!("the subscription ended without an error"),
            }
        }
    }

    pub(super) fn payload(&self, subject: &str) -> Option<&Bytes> {
        self.last.get(subject).map(|envelope| &envelope.payload)
    }
}

/// The registrations that a watch finds which begins now.
pub(super) async fn registrations_of(leader: &dyn LeaderBus) -> Vec<Envelope> {
    Watching::settled(leader.watch_registrations()).await.last.into_values().collect()
}
