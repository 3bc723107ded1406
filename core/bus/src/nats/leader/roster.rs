//! Readings of the whole roster.

use std::collections::BTreeMap;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use rotacast_log_limit::LogLimit;
use rotacast_proto::Envelope;

use crate::BusError;
use crate::feed::{next_pause, pauses};
use crate::nats::subscription::{Reading, Step};
use crate::nats::{Kind, NatsBus, envelope};

impl NatsBus {
    /// The last message of every incarnation, with everything acknowledged before this call.
    pub(super) async fn read_whole_roster(&self) -> Result<Vec<Envelope>, BusError> {
        let mut row = pauses();
        loop {
            let mut reading = self.begin(Kind::Roster, self.everything(Kind::Roster)).await?;
            let mut roster = BTreeMap::new();
            let complete = loop {
                match reading.next().await {
                    Ok(Step::Message { subject, envelope }) => {
                        roster.insert(subject, envelope);
                    }
                    Ok(Step::CaughtUp) => break true,
                    Err(why) => {
                        tracing::debug!(?why, "reading of the roster begins anew");
                        break false;
                    }
                }
            };
            if complete {
                self.read_tail(&reading, &mut roster).await?;
                reading.end().await;
                return Ok(roster.into_values().collect());
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }

    /// A consumer may live on a replica that is behind: what was acknowledged, and is not in its copy of the
    /// log yet, comes after what it has shown. The stream's leader knows; normally it says at once that there
    /// is nothing.
    async fn read_tail(&self, reading: &Reading, roster: &mut BTreeMap<String, Envelope>) -> Result<(), BusError> {
        let filter = Kind::Roster.subjects(&self.inner.names);
        let mut next = reading.reached() + 1;
        loop {
            let found =
                reading.stream().raw_message_builder().sequence(next).next_by_subject(filter.clone()).send().await;
            let message = match found {
                Ok(message) => message,
                Err(problem) => match problem.kind() {
                    LastRawMessageErrorKind::NoMessageFound => return Ok(()),
                    LastRawMessageErrorKind::JetStream(error) => return Err(self.api_error(&error)),
                    _ => return Err(self.request_error(&problem)),
                },
            };
            next = message.sequence + 1;
            match envelope::read(Some(&message.headers), message.payload) {
                Ok(envelope) => {
                    roster.insert(message.subject.to_string(), envelope);
                }
                Err(problem) => {
                    static LIMIT: LogLimit = LogLimit::new();
                    if let Some(left_out) = LIMIT.admit() {
                        let subject = &message.subject;
                        tracing::warn!(%subject, %problem, left_out, "message that is none of ours");
                    }
                }
            }
        }
    }
}
