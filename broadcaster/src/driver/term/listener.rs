//! Listens to a log of the bus for as long as the term lasts.

use backon::ExponentialBackoff;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_bus::{BusError, BusEvent};
use rotacast_log_limit::LogLimit;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::{backoff, pause};

/// Follows one log of the bus. A watch that ends, as where the bus refuses it, ends neither the term nor any rotation, since
/// Syncs carry everything too: it begins again. The bus's own examination shows what is wrong.
pub(super) struct Listener<W> {
    log: &'static str,
    watch: W,
    events: Option<BoxStream<'static, Result<BusEvent, BusError>>>,
    pauses: ExponentialBackoff,
    over: CancellationToken,
}

impl<W: Fn() -> BoxStream<'static, Result<BusEvent, BusError>>> Listener<W> {
    pub(super) fn new(log: &'static str, watch: W, over: CancellationToken) -> Self {
        Self { log, watch, events: None, pauses: backoff(), over }
    }

    /// The next event. A watch that begins again delivers the last message of every key once more, after a `Resync`.
    pub(super) async fn next(&mut self) -> BusEvent {
        let problem = match self.events.get_or_insert_with(&self.watch).next().await {
            Some(Ok(event)) => {
                if event == BusEvent::CaughtUp {
                    self.pauses = backoff();
                }
                return event;
            }
            Some(Err(problem)) => problem.to_string(),
            None => "the watch ended by itself".to_owned(),
        };
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            warn!(log = self.log, problem, left_out, "cannot follow a log of the bus; trying again");
        }
        self.events = None;
        pause(&mut self.pauses, &self.over).await;
        BusEvent::Resync
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_watch_is_begun_again_until_it_is_let_in() {
        let refused = || Err(BusError::Denied { endpoint: "kafka".into(), problem: "not now".into() });
        let watches = vec![vec![], vec![Ok(BusEvent::CaughtUp), refused()], vec![refused()]];
        let watches = Mutex::new(watches);
        let watch = || futures::stream::iter(watches.lock().unwrap().pop().unwrap()).boxed();
        let mut listener = Listener::new("reports", watch, CancellationToken::new());
        let mut events = Vec::new();
        for _ in 0..4 {
            events.push(listener.next().await);
        }
        assert_eq!(events, [BusEvent::Resync, BusEvent::CaughtUp, BusEvent::Resync, BusEvent::Resync]);
    }
}
