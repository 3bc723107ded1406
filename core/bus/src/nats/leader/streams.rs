//! Making the streams, and refusing ones that cannot work.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{AccountErrorKind, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::Config;

use crate::nats::NatsBus;
use crate::nats::stream::Kind;
use crate::{BusError, Level};

impl NatsBus {
    /// Sees to all streams. Before it makes the first one it looks whether there is room for all that are missing: a
    /// set-up of one stream of three serves nothing.
    pub(in crate::nats) async fn ensure_all(&self) -> Result<(), BusError> {
        let mut missing = Vec::new();
        for kind in Kind::ALL {
            match self.inner.context.get_stream(kind.stream(&self.inner.names)).await {
                Ok(stream) => drop(self.accept(kind, &stream.cached_info().config)?),
                Err(problem) => match problem.kind() {
                    GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        missing.push(kind);
                    }
                    GetStreamErrorKind::JetStream(error) => return Err(self.api_error(&error)),
                    _ => return Err(self.request_error(&problem)),
                },
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.check_room(&missing).await?;
        let mut made = Vec::new();
        while let Some(kind) = missing.first().copied() {
            if let Err(problem) = self.ensure(kind).await {
                return Err(self.half_made(problem, &made, &missing));
            }
            missing.remove(0);
            made.push(kind);
        }
        Ok(())
    }

    /// What is there already is said beside what is not.
    fn half_made(&self, problem: BusError, made: &[Kind], missing: &[Kind]) -> BusError {
        let BusError::Full { endpoint, problem } = problem else { return problem };
        let names =
            |kinds: &[Kind]| kinds.iter().map(|kind| kind.stream(&self.inner.names)).collect::<Vec<_>>().join(", ");
        let made = if made.is_empty() { "none".to_owned() } else { names(made) };
        let problem = format!(
            "{problem}; streams made just now: {made}, still missing: {}; the next attempt makes those",
            names(missing)
        );
        BusError::Full { endpoint, problem }
    }

    /// Whether the account's limits leave room for these streams. What the server itself has shows only when they are made.
    async fn check_room(&self, missing: &[Kind]) -> Result<(), BusError> {
        let account = match self.inner.context.query_account().await {
            Ok(account) => account,
            Err(problem) => {
                return Err(match problem.kind() {
                    AccountErrorKind::JetStream(error) => self.api_error(&error),
                    _ => self.request_error(&problem),
                });
            }
        };
        let (limits, replicas) = (self.inner.options.limits, self.replicas() as u64);
        let tier = account.tiers.get(&format!("R{replicas}"));
        let (allowed, reserved) = match tier {
            // A tier's limits count each stream once.
            Some(tier) => (tier.limits, (tier.reserved_storage, tier.reserved_memory)),
            None => (account.limits, (account.reserved_storage, account.reserved_memory)),
        };
        let copies = if tier.is_some() { 1 } else { replicas };
        let rooms =
            [("files", true, allowed.max_storage, reserved.0), ("memory", false, allowed.max_memory, reserved.1)];
        for (place, durable, allowed, reserved) in rooms {
            let streams: Vec<_> = missing.iter().filter(|kind| kind.is_durable() == durable).collect();
            let needed: u64 = streams.iter().map(|kind| kind.bytes(limits) * copies).sum();
            let Some(allowed) = allowed.and_then(|allowed| u64::try_from(allowed).ok()) else { continue };
            let left = allowed.saturating_sub(reserved);
            if needed > left {
                let names: Vec<_> = streams.iter().map(|kind| kind.stream(&self.inner.names)).collect();
                return Err(self.full(format!(
                    "the JetStream account has {left} bytes left in {place} (of {allowed}), and {} needs {needed}; raise \
                     the account's limit, or set smaller sizes in [bus.streams]",
                    names.join(" and ")
                )));
            }
        }
        Ok(())
    }

    /// How many copies of a stream are made. A server knows its cluster's name only when it is part of one.
    fn replicas(&self) -> usize {
        let clustered = self.inner.client.server_info().cluster.is_some();
        self.inner.options.replicas.unwrap_or(if clustered { 3 } else { 1 })
    }

    /// The stream's configuration as the server has it; creates a missing stream; refuses one that cannot work.
    pub(in crate::nats) async fn ensure(&self, kind: Kind) -> Result<Config, BusError> {
        let name = kind.stream(&self.inner.names);
        // Another broadcaster may create it at the same time: look again once.
        for _ in 0..2 {
            match self.inner.context.get_stream(&name).await {
                Ok(stream) => return self.accept(kind, &stream.cached_info().config),
                Err(problem) => match problem.kind() {
                    GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
                    GetStreamErrorKind::JetStream(error) => return Err(self.api_error(&error)),
                    _ => return Err(self.request_error(&problem)),
                },
            }
            let config = kind.config(&self.inner.names, self.inner.options.limits, self.replicas());
            match self.inner.context.create_stream(config).await {
                Ok(stream) => {
                    tracing::info!(stream = %name, "created");
                    // Readers of an earlier stream of this name begin anew.
                    self.inner.continuity.send_modify(|count| *count += 1);
                    return self.accept(kind, &stream.cached_info().config);
                }
                Err(problem) => match problem.kind() {
                    CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {}
                    CreateStreamErrorKind::JetStream(error) => return Err(self.api_error(&error)),
                    CreateStreamErrorKind::TimedOut => return Err(self.request_error(&problem)),
                    _ => return Err(self.misconfigured(format!("creating stream {name}: {problem}"))),
                },
            }
        }
        Err(self.unreachable(format!("stream {name} appears and vanishes")))
    }

    fn accept(&self, kind: Kind, config: &Config) -> Result<Config, BusError> {
        let findings = kind.audit(&self.inner.names, config);
        let errors: Vec<_> = findings
            .iter()
            .filter(|finding| finding.level == Level::Error)
            .map(|finding| format!("{} {}; {}", finding.subject, finding.text, finding.fix))
            .collect();
        if errors.is_empty() { Ok(config.clone()) } else { Err(self.misconfigured(errors.join(". "))) }
    }
}
