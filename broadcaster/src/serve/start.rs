//! What is not there yet when a broadcaster starts: servers start in any order, so it is waited for, and told once.

use std::time::Duration;

use anyhow::anyhow;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_admin::show_duration;
use rotacast_bus::{BusError, ServerFault};
use rotacast_store::StoreError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{BusConfig, NatsLogin, StoreConfig};

/// The first and the longest pause between two attempts, before jitter: a server that has just come up is noticed soon.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What TLS libraries and our own texts say when it is about certificates.
const ABOUT_TRUST: [&str; 6] = ["ertificate", "UnknownIssuer", "TLS", "SSL", "store.tls", "bus.tls"];

/// The settings to name when something does not answer as it should.
pub(super) struct Blame {
    /// Where it is.
    place: &'static str,
    /// Who we are to it.
    login: &'static str,
    /// Whom we trust.
    trust: &'static str,
}

impl Blame {
    pub(super) fn store(config: &StoreConfig) -> Self {
        let (place, login) = match config {
            StoreConfig::Embedded { .. } => ("store.file", "store.file"),
            StoreConfig::Etcd { .. } => ("store.endpoints", "store.user and store.password_file"),
            StoreConfig::Consul { .. } => ("store.address", "store.token_file"),
        };
        Self { place, login, trust: "store.tls" }
    }

    pub(super) fn bus(config: &BusConfig) -> Self {
        let (place, login) = match config {
            BusConfig::Embedded { .. } => ("bus.file", "bus.file"),
            BusConfig::Nats { login, .. } => (
                "bus.url",
                match login {
                    NatsLogin::None => "bus.credentials (or user, nkey_file, token_file)",
                    NatsLogin::Credentials(_) => "bus.credentials",
                    NatsLogin::Nkey(_) => "bus.nkey_file",
                    NatsLogin::Token(_) => "bus.token_file",
                    NatsLogin::Password(_) => "bus.user and bus.password_file",
                },
            ),
            BusConfig::Kafka { .. } => ("bus.brokers", "bus.user, bus.password_file and bus.mechanism"),
        };
        Self { place, login, trust: "bus.tls" }
    }

    /// The problem behind the setting that mends it, and how.
    fn tell(&self, fault: &impl Fault) -> String {
        let about_trust = ABOUT_TRUST.iter().any(|word| fault.problem().contains(word));
        match fault.server_fault() {
            Some(ServerFault::Refused) => {
                format!("{}: {fault}; expected credentials that it accepts, correct these settings", self.login)
            }
            _ if about_trust => format!(
                "{}: {fault}; {}.ca must hold the authority of the certificate that {} shows",
                self.trust, self.trust, self.place
            ),
            Some(ServerFault::NotReachable) => format!("{}: {fault}; start it, or correct the setting", self.place),
            Some(other) => format!("{}: {fault}; {}", self.place, other.advice()),
            None => format!("{}: {fault}", self.place),
        }
    }
}

/// What a seam's error means at the start.
pub(super) trait Fault: std::error::Error {
    /// Whether it may be over in a moment.
    fn may_pass(&self) -> bool;

    fn server_fault(&self) -> Option<ServerFault>;

    /// What the other side or the client says, without the address, which may contain any word.
    fn problem(&self) -> &str;
}

impl Fault for StoreError {
    fn may_pass(&self) -> bool {
        self.is_transient()
    }

    fn server_fault(&self) -> Option<ServerFault> {
        self.server_fault()
    }

    fn problem(&self) -> &str {
        match self {
            StoreError::Unreachable { problem, .. }
            | StoreError::Denied { problem, .. }
            | StoreError::OwnFile { problem, .. }
            | StoreError::Unwritable { problem, .. }
            | StoreError::Unknown { problem, .. }
            | StoreError::Invalid { problem, .. } => problem,
            _ => "",
        }
    }
}

impl Fault for BusError {
    fn may_pass(&self) -> bool {
        self.is_transient()
    }

    fn server_fault(&self) -> Option<ServerFault> {
        self.server_fault()
    }

    fn problem(&self) -> &str {
        match self {
            BusError::Unreachable { problem, .. }
            | BusError::NoLeader { problem, .. }
            | BusError::Denied { problem, .. }
            | BusError::Full { problem, .. }
            | BusError::Unknown { problem, .. }
            | BusError::Misconfigured { problem, .. } => problem,
            _ => "",
        }
    }
}

/// Tries until it is there. `None`: stopped meanwhile.
///
/// # Errors
/// What is still wrong after `limit`, or at once what waiting does not mend; with the setting and the fix.
pub(super) async fn until_there<T, F: Fault>(
    blame: &Blame,
    limit: Duration,
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T, F>,
) -> anyhow::Result<Option<T>> {
    let deadline = Instant::now() + limit;
    let pauses = ExponentialBuilder::new().with_min_delay(PAUSES.0).with_max_delay(PAUSES.1).without_max_times();
    let mut pauses = pauses.with_jitter().build();
    let mut told = false;
    loop {
        let outcome = tokio::select! {
            outcome = attempt() => outcome,
            () = stop.cancelled() => return Ok(None),
        };
        let fault = match outcome {
            Ok(there) => {
                if told {
                    info!("{} answers now", blame.place);
                }
                return Ok(Some(there));
            }
            Err(fault) => fault,
        };
        let problem = blame.tell(&fault);
        let pause = pauses.next().unwrap_or(PAUSES.1);
        if !fault.may_pass() {
            return Err(anyhow!(problem));
        }
        if Instant::now() + pause >= deadline {
            return Err(anyhow!("{problem} (tried for start_timeout, {})", show_duration(limit)));
        }
        if !told {
            warn!("{problem}; trying again for up to {}", show_duration(limit));
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rotacast_bus::StreamLimits;

    use super::*;

    fn absent() -> BusError {
        BusError::Unreachable { endpoint: "nats://h:1".into(), problem: "refused".into() }
    }

    fn nats() -> Blame {
        Blame::bus(&BusConfig::Nats {
            url: "nats://h:1".into(),
            login: NatsLogin::None,
            tls: None,
            replicas: None,
            streams: StreamLimits::default(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_up_late_is_waited_for() {
        let tries = AtomicU32::new(0);
        let attempt = async || match tries.fetch_add(1, Ordering::Relaxed) {
            5 => Ok(7),
            _ => Err(absent()),
        };
        let there = until_there(&nats(), Duration::from_secs(60), &CancellationToken::new(), attempt).await.unwrap();
        assert_eq!((there, tries.into_inner()), (Some(7), 6));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_up_is_given_up_in_time_with_setting_and_fix() {
        let began = Instant::now();
        let attempt = async || Err::<(), _>(absent());
        let problem =
            until_there(&nats(), Duration::from_secs(60), &CancellationToken::new(), attempt).await.unwrap_err();
        let problem = problem.to_string();
        assert!(problem.starts_with("bus.url: ") && problem.contains("start it, or correct the setting"), "{problem}");
        assert!(problem.contains("1m"), "{problem}");
        assert!(began.elapsed() <= Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_wrong_password_is_told_at_once() {
        let attempt = async || Err::<(), _>(BusError::Denied { endpoint: "h".into(), problem: "who?".into() });
        let problem =
            until_there(&nats(), Duration::from_secs(3600), &CancellationToken::new(), attempt).await.unwrap_err();
        assert!(problem.to_string().starts_with("bus.credentials"), "{problem}");
    }

    #[test]
    fn an_address_that_speaks_of_tls_is_not_about_certificates() {
        let fault = |problem: &str| BusError::Unreachable { endpoint: "tls://h:1".into(), problem: problem.into() };
        let told = nats().tell(&fault("connection refused"));
        assert!(told.starts_with("bus.url: ") && told.contains("start it, or correct the setting"), "{told}");
        let told = nats().tell(&fault("invalid peer certificate: UnknownIssuer"));
        assert!(told.starts_with("bus.tls: ") && told.contains("bus.tls.ca must hold the authority"), "{told}");
    }

    #[test]
    fn the_advice_fits_the_fault() {
        let problem = || "insufficient storage resources available".to_owned();
        let full = nats().tell(&BusError::Full { endpoint: "nats://h:1".into(), problem: problem() });
        assert!(full.contains("has no room") && full.contains("give it more room"), "{full}");
        let unknown = nats().tell(&BusError::Unknown { endpoint: "nats://h:1".into(), problem: problem() });
        assert!(unknown.contains("does not know") && unknown.contains("its own log"), "{unknown}");
        let unwritable = StoreError::Unwritable { endpoint: "etcd".into(), problem: problem() };
        let blame = Blame { place: "store.endpoints", login: "store.user", trust: "store.tls" };
        for told in [full, unknown, blame.tell(&unwritable)] {
            assert!(!told.contains("start it") && !told.contains("cannot be reached"), "{told}");
        }
    }

    #[tokio::test]
    async fn a_stop_ends_the_waiting() {
        let stop = CancellationToken::new();
        let attempt = async || {
            stop.cancel();
            Err::<(), _>(absent())
        };
        let there = until_there(&nats(), Duration::from_secs(3600), &stop, attempt).await.unwrap();
        assert_eq!(there, None);
    }
}
