//! Publishing without a transaction: registrations, reports, and what is forgotten.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;
use rotacast_proto::Envelope;

use super::access::{Access, Held};
use super::fault::{Ear, Heard, is_silence, meaning};
use super::record;
use crate::BusError;
use crate::feed::{LastProblem, next_pause, pauses};

/// A producer, and what it was made of.
type Made = (Arc<Held>, Arc<FutureProducer<Ear>>);

/// An idempotent producer, made anew when it fails for good, and with a renewed login.
pub(super) struct Producer {
    access: Arc<Access>,
    endpoint: String,
    heard: Arc<Heard>,
    current: Mutex<Option<Made>>,
}

impl Producer {
    pub(super) fn new(access: Arc<Access>) -> Self {
        Self { endpoint: access.options.endpoint(), access, heard: Arc::default(), current: Mutex::new(None) }
    }

    /// Why nothing is acknowledged, as far as it was heard.
    pub(super) fn trouble(&self) -> Option<BusError> {
        self.heard.cause(&self.endpoint)
    }

    fn producer(&self) -> Result<Arc<FutureProducer<Ear>>, BusError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_of, producer)) = current.as_ref() {
            if producer.client().fatal_error().is_none() && !self.access.is_renewed(made_of) {
                return Ok(Arc::clone(producer));
            }
            release(current.take());
        }
        let held = self.access.held();
        let config = self.access.options.writing(&held);
        let producer = config.create_with_context(Ear(Arc::clone(&self.heard)));
        let producer = Arc::new(producer.map_err(|problem| meaning(&self.endpoint, &problem))?);
        *current = Some((held, Arc::clone(&producer)));
        Ok(producer)
    }

    /// Publishes until it is acknowledged; `None` forgets the key. Doubling is harmless: it is the whole state
    /// of its key. Its caller bounds it.
    pub(super) async fn publish(
        &self,
        topic: &str,
        key: &str,
        envelope: Option<&Envelope>,
        last: &LastProblem,
    ) -> Result<(), BusError> {
        let mut row = pauses();
        loop {
            let producer = self.producer()?;
            let sent = producer.send(recorded(topic, key, envelope), Timeout::Never).await;
            match sent {
                Ok(_) => {
                    self.heard.is_up();
                    return Ok(());
                }
                Err((problem, _)) => {
                    let error = self.refusal(&problem);
                    if !error.is_transient() {
                        return Err(error);
                    }
                    tracing::debug!(%problem, %topic, "publish repeated");
                    last.note(error);
                }
            }
            drop(producer);
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }

    /// Sends without waiting for the acknowledgement, unless the brokers are known to be lost.
    pub(super) async fn send(&self, topic: &str, key: &str, envelope: &Envelope) -> Result<(), BusError> {
        let producer = self.producer()?;
        let sent = producer.send_result(recorded(topic, key, Some(envelope)));
        let delivery = sent.map_err(|(problem, _)| self.refusal(&problem))?;
        if !self.heard.is_down() {
            return Ok(());
        }
        match delivery.await {
            Ok(Ok(_)) => {
                self.heard.is_up();
                Ok(())
            }
            Ok(Err((problem, _))) => Err(self.refusal(&problem)),
            Err(_) => Err(BusError::Unreachable { endpoint: self.endpoint.clone(), problem: "closed".into() }),
        }
    }

    fn refusal(&self, problem: &KafkaError) -> BusError {
        match problem.rdkafka_error_code() {
            // May come back: the broadcaster makes the topics anew.
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                BusError::Unreachable { endpoint: self.endpoint.clone(), problem: problem.to_string() }
            }
            _ if is_silence(problem) => self.heard.explain(&self.endpoint, problem),
            _ => meaning(&self.endpoint, problem),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        release(self.current.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn recorded<'a>(topic: &'a str, key: &'a str, envelope: Option<&'a Envelope>) -> FutureRecord<'a, str, [u8]> {
    let record = FutureRecord::to(topic).key(key);
    match envelope {
        Some(envelope) => record.payload(&envelope.payload[..]).headers(record::headers(envelope, None)),
        None => record,
    }
}

/// Dropping a producer may block.
fn release<T: Send + 'static>(producer: Option<T>) {
    if let Some(producer) = producer {
        std::thread::spawn(move || drop(producer));
    }
}
