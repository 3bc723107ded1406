//! The broadcaster's side of the bus over NATS.

mod publish;
mod reading;
mod reads;
mod settings;
mod state;
mod strays;
mod streams;
mod sweep;
mod sync;
mod watch;

use std::sync::{Mutex, PoisonError};

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, ErrorCode};
use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;
use rotacast_protocol::{InstanceKey, Revision, SecretName};

use super::NatsBus;
use super::stream::Kind;
use crate::feed::LastProblem;
use crate::{BusError, BusEvent, Finding, InstanceBus, LeaderBus, Level, LogFill, MAX_MESSAGE_BYTES, Stray, SyncCall};

pub(super) use reads::Reads;
pub(super) use strays::StrayCounts;
pub(super) use sweep::Sweeps;

/// How full the streams were when they were last looked at.
pub(super) type Fills = Mutex<Vec<LogFill>>;

/// From this part on a stream counts as nearly full. What is left is room for some thousand registrations more.
const NEARLY_FULL: f64 = 0.9;

/// What this handle published last, by secret.
pub(super) type LastStates = Mutex<state::LastStates>;

#[async_trait]
impl LeaderBus for NatsBus {
    fn describe(&self) -> String {
        InstanceBus::describe(self)
    }

    async fn publish_over(
        &self,
        secret: &SecretName,
        revision: Revision,
        state: &Envelope,
        over: Option<&Envelope>,
    ) -> Result<(), BusError> {
        self.check(state)?;
        let last = LastProblem::default();
        self.within_or(&last, self.publish_state_fenced(secret, revision, state, over, &last)).await
    }

    async fn read_state(&self, secret: &SecretName) -> Result<Option<Envelope>, BusError> {
        self.read_envelope(&self.inner.names.state(secret)).await
    }

    async fn read_claim(&self) -> Result<Option<Envelope>, BusError> {
        self.read_envelope(&self.inner.names.claim()).await
    }

    async fn publish_claim(&self, claim: &Envelope) -> Result<(), BusError> {
        self.check(claim)?;
        self.publish_durably(Kind::State, self.inner.names.claim(), claim).await
    }

    fn watch_registrations(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        self.watch(Kind::Registrations, self.everything(Kind::Registrations))
    }

    async fn prune_registration(&self, key: &InstanceKey) -> Result<(), BusError> {
        self.within(async {
            self.forget(Kind::Registrations, self.inner.names.registration(key), None).await?;
            self.forget(Kind::Reports, self.inner.names.report(key), None).await
        })
        .await
    }

    fn sweep_registration(&self, key: &InstanceKey) {
        self.sweep_read(self.inner.names.registration(key));
    }

    fn watch_reports(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        self.watch(Kind::Reports, self.everything(Kind::Reports))
    }

    fn serve_sync(&self) -> BoxStream<'static, Result<SyncCall, BusError>> {
        sync::serve(self.clone())
    }

    async fn examine(&self) -> Vec<Finding> {
        let server = self.inner.client.server_info();
        let subject = format!("NATS {}", self.inner.endpoint);
        let mut findings = Vec::new();
        if !self.is_connected() {
            self.inner.restarts.clear();
            return vec![self.why_away().await.finding(subject)];
        }
        let text = format!("server {} {}", server.server_name, server.version);
        findings.push(Finding { level: Level::Ok, subject: subject.clone(), text, fix: String::new() });
        if server.max_payload < MAX_MESSAGE_BYTES {
            let text = format!("takes messages of {} bytes, expected {MAX_MESSAGE_BYTES}", server.max_payload);
            findings.push(Finding {
                level: Level::Warning,
                subject: subject.clone(),
                text,
                fix: "raise max_payload".into(),
            });
        }
        let mut replicated = true;
        let mut fills = Vec::new();
        for kind in Kind::ALL {
            let name = kind.stream(&self.inner.names);
            match self.inner.context.get_stream(&name).await {
                Ok(stream) => {
                    let config = &stream.cached_info().config;
                    replicated &= kind == Kind::Reports || config.num_replicas >= 3;
                    findings.extend(kind.audit(&self.inner.names, config));
                    let fill = fill(stream.cached_info());
                    fills.push(LogFill { log: kind.log(), fill });
                    findings.extend(nearly_full(kind, &name, fill));
                }
                Err(problem) => {
                    let subject = format!("stream {name}");
                    findings.extend(match problem.kind() {
                        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                            self.repair(kind, subject).await
                        }
                        GetStreamErrorKind::JetStream(error) => Some(self.api_error(&error).finding(subject)),
                        _ => Some(self.request_error(&problem).finding(subject)),
                    });
                }
            }
        }
        *self.inner.fills.lock().unwrap_or_else(PoisonError::into_inner) = fills;
        findings.extend(self.inner.restarts.findings());
        if !replicated {
            findings.push(Finding {
                level: Level::Warning,
                subject,
                text: "acknowledges before the disk has synced, unless its sync_interval is `always`, which cannot be \
                       seen from here: a power failure may cost registrations, and then time (never safety)"
                    .into(),
                fix: "3 replicas, or `jetstream { sync_interval: always }`".into(),
            });
        }
        findings
    }

    fn strays(&self) -> Vec<(Stray, u64)> {
        self.inner.strays.all().to_vec()
    }

    fn fills(&self) -> Vec<LogFill> {
        self.inner.fills.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// By bytes or messages, whichever is nearer to its limit.
#[allow(clippy::cast_precision_loss, reason = "a part of a whole, for people")]
fn fill(stream: &jetstream::stream::Info) -> f64 {
    let part = |used: u64, most: i64| if most > 0 { used as f64 / most as f64 } else { 0.0 };
    let (state, config) = (&stream.state, &stream.config);
    part(state.bytes, config.max_bytes).max(part(state.messages, config.max_messages))
}

/// Without the number: a finding that changes with every message would be a new one each time.
fn nearly_full(kind: Kind, stream: &str, fill: f64) -> Option<Finding> {
    let then = match kind {
        Kind::State => "it refuses new states when it is full",
        Kind::Registrations => {
            "it forgets the oldest registrations when it is full, and those instances register again"
        }
        // It forgets what comes again with the next Sync.
        Kind::Reports => return None,
    };
    (fill >= NEARLY_FULL).then(|| Finding {
        level: Level::Warning,
        subject: format!("stream {stream}"),
        text: format!("is more than {:.0} % full; {then}", NEARLY_FULL * 100.0),
        fix: "raise its max bytes with `nats stream edit`, and the size in [bus.streams]; see which service publishes so much"
            .into(),
    })
}

impl NatsBus {
    /// Makes a stream anew that is missing. The one in memory goes with its server; that another one is gone is said.
    async fn repair(&self, kind: Kind, subject: String) -> Option<Finding> {
        match self.ensure(kind).await {
            Ok(_) if kind.is_durable() => Some(Finding {
                level: Level::Error,
                subject,
                text:
                    "was missing: it was deleted, or its disk was lost; it is made anew, and everything is read again"
                        .into(),
                fix: "see who may delete streams; nothing else is needed".into(),
            }),
            Ok(_) => None,
            Err(problem) => Some(problem.finding(subject)),
        }
    }

    /// The filter that lets every subject of a stream through.
    fn everything(&self, kind: Kind) -> Vec<String> {
        vec![kind.subjects(&self.inner.names)]
    }

    /// Removes what is stored under a subject: all of it, or up to a sequence.
    async fn forget(&self, kind: Kind, subject: String, up_to: Option<u64>) -> Result<(), BusError> {
        let name = kind.stream(&self.inner.names);
        let stream =
            self.inner.context.get_stream_no_info(&name).await.map_err(|problem| self.request_error(&problem))?;
        let purge = stream.purge().filter(subject);
        let purged = match up_to {
            // The server keeps what has this sequence.
            Some(up_to) => purge.sequence(up_to.saturating_add(1)).await,
            None => purge.await,
        };
        match purged {
            Ok(_) => Ok(()),
            Err(problem) => match problem.kind() {
                jetstream::stream::PurgeErrorKind::JetStream(error) => match error.error_code() {
                    // Nothing there to forget.
                    ErrorCode::STREAM_NOT_FOUND => Ok(()),
                    _ => Err(self.api_error(&error)),
                },
                _ => Err(self.request_error(&problem)),
            },
        }
    }
}
