//! Reading a stream for as long as there is a listener.

use futures::stream::BoxStream;
use tokio::sync::mpsc;

use super::reading::{Broken, Reading, Step};
use crate::feed::{self, Gone, deliver, next_pause, pauses};
use crate::nats::stream::Kind;
use crate::nats::{NatsBus, WATCH_BUFFER};
use crate::{BusError, BusEvent};

impl NatsBus {
    pub(in crate::nats) fn watch(
        &self,
        kind: Kind,
        filters: Vec<String>,
    ) -> BoxStream<'static, Result<BusEvent, BusError>> {
        let bus = self.clone();
        feed::spawn(WATCH_BUFFER, move |out| async move {
            if let Err(Stop::Failed(problem)) = bus.feed(kind, &filters, &out).await {
                // The reader may have gone at the same moment.
                drop(out.send(Err(problem)).await);
            }
        })
    }

    /// Reads a stream into a channel, beginning anew after every loss of continuity.
    async fn feed(
        &self,
        kind: Kind,
        filters: &[String],
        out: &mpsc::Sender<Result<BusEvent, BusError>>,
    ) -> Result<(), Stop> {
        let mut row = pauses();
        let mut begun = false;
        loop {
            match self.begin(kind, filters.to_vec()).await {
                Ok(mut reading) => {
                    if std::mem::replace(&mut begun, true) {
                        deliver(out, Ok(BusEvent::Resync)).await?;
                    }
                    let why = loop {
                        let event = match reading.next().await {
                            Ok(Step::Message(envelope)) => BusEvent::Message(envelope),
                            Ok(Step::CaughtUp) => {
                                row = pauses();
                                BusEvent::CaughtUp
                            }
                            Ok(Step::Rubbish { subject, sequence }) => {
                                self.sweep_subject(kind, subject, sequence);
                                continue;
                            }
                            Err(why) => break why,
                        };
                        self.has_read(kind, reading.reached());
                        deliver(out, Ok(event)).await?;
                    };
                    tracing::debug!(?kind, ?why, "subscription begins anew");
                    self.inner.restarts.note(&kind.stream(&self.inner.names), format!("{why:?}"));
                }
                Err(problem) if problem.is_transient() => {
                    tracing::debug!(?kind, %problem, "subscription not begun");
                    self.inner.restarts.note(&kind.stream(&self.inner.names), problem.to_string());
                }
                Err(problem) => {
                    // Its reader begins again, so that a refusal that stays is a finding.
                    self.inner.restarts.note(&kind.stream(&self.inner.names), problem.to_string());
                    return Err(Stop::Failed(problem));
                }
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }

    /// Begins a reading, creating the stream if it is missing.
    async fn begin(&self, kind: Kind, filters: Vec<String>) -> Result<Reading<'_>, BusError> {
        let name = kind.stream(&self.inner.names);
        let heartbeat = self.inner.options.heartbeat;
        for _ in 0..2 {
            let continuity = self.inner.continuity.subscribe();
            let ours = (&self.inner.context, &self.inner.names, &*self.inner.strays);
            match Reading::begin(ours, &name, filters.clone(), heartbeat, continuity).await {
                Ok(reading) => return Ok(reading),
                Err(Broken::NoStream) => {
                    self.ensure(kind).await?;
                }
                Err(Broken::Lost(problem)) => return Err(self.unreachable(problem)),
                Err(Broken::Refused(problem)) => {
                    return Err(BusError::Denied { endpoint: self.inner.endpoint.clone(), problem });
                }
            }
        }
        Err(self.unreachable(format!("stream {name} appears and vanishes")))
    }
}

/// Why a feed stops.
enum Stop {
    Gone,
    Failed(BusError),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Stop::Gone
    }
}
