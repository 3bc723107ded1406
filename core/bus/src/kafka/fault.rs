//! What librdkafka's errors mean, by whose fault they are, and what a client has heard of its brokers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::BusError;

/// Longest text of librdkafka that is passed on, in characters.
const MAX_PROBLEM: usize = 300;

/// What a client has heard of its brokers.
#[derive(Default)]
pub(super) struct Heard {
    /// Every broker was lost.
    down: AtomicBool,
    /// The last thing it said, and what it means.
    last: Mutex<Option<(Code, String)>>,
}

impl Heard {
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// A broker has answered: what was said before is over.
    pub(super) fn is_up(&self) {
        self.down.store(false, Ordering::Release);
        self.forget();
    }

    /// What was said before is over; brokers that were lost stay a loss.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The error of a client that got no answer: what it heard says more than "timed out".
    pub(super) fn explain(&self, endpoint: &str, otherwise: &KafkaError) -> BusError {
        self.cause(endpoint).unwrap_or_else(|| meaning(endpoint, otherwise))
    }

    /// Every broker was lost.
    pub(super) fn loss(&self, endpoint: &str) -> BusError {
        let lost = || BusError::Unreachable { endpoint: endpoint.to_owned(), problem: "the brokers were lost".into() };
        // The next caller meets a refusal once more, and it counts then.
        self.cause(endpoint).filter(BusError::is_transient).unwrap_or_else(lost)
    }

    /// The last thing that was heard, if no broker has answered since.
    pub(super) fn cause(&self, endpoint: &str) -> Option<BusError> {
        let (code, text) = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let endpoint = endpoint.to_owned();
        Some(match code {
            Code::Authentication | Code::SaslAuthenticationFailed => BusError::Denied {
                endpoint,
                problem: format!("{text}; check bus.user, bus.mechanism and the password in bus.password_file"),
            },
            code if is_refusal(code) => {
                BusError::Denied { endpoint, problem: format!("{text}; see the ACLs in docs/operate/buses/kafka.md") }
            }
            Code::SSL => BusError::Misconfigured {
                endpoint,
                problem: format!("TLS: {text}; check bus.tls.ca, and that bus.brokers names TLS listeners"),
            },
            _ if is_announced(&text) => BusError::Unreachable {
                endpoint,
                problem: format!("{text}; is that broker up, and are its advertised.listeners right?"),
            },
            _ => BusError::Unreachable { endpoint, problem: format!("{text}; is bus.brokers right, and are they up?") },
        })
    }
}

/// Whether an error says no more than that something was given up: why is what the client has heard.
pub(super) fn is_silence(problem: &KafkaError) -> bool {
    let code = if let KafkaError::AdminOp(code) = problem { Some(*code) } else { problem.rdkafka_error_code() };
    matches!(
        code,
        Some(
            Code::PurgeQueue
                | Code::PurgeInflight
                | Code::OperationTimedOut
                | Code::MessageTimedOut
                | Code::RequestTimedOut
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
        )
    )
}

/// Whether a text is about a broker's own address, which a bootstrap server has told. librdkafka calls it by address and
/// number.
fn is_announced(text: &str) -> bool {
    let named = text.split(": ").find_map(|part| part.rsplit_once('/'));
    named.is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed
    )
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        // What matters comes through `error` as well.
        tracing::debug!(target: "librdkafka", facility, "{text}");
        // But not to a client of administrators, which asks for no errors.
        if facility == "FAIL" {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let text = text.split_once("]: ").map_or(text, |(_, text)| text);
            last.get_or_insert_with(|| (Code::BrokerTransportFailure, told(text)));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        let Some(code) = error.rdkafka_error_code() else { return };
        if code == Code::AllBrokersDown {
            self.down.store(true, Ordering::Release);
            return;
        }
        // The group is a name only: nothing is committed, no client joins.
        if code == Code::GroupAuthorizationFailed {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let grave = |code| is_refusal(code) || code == Code::SSL;
        if grave(code) || !last.as_ref().is_some_and(|(code, _)| grave(*code)) {
            *last = Some((code, told(reason)));
        }
    }
}

/// What librdkafka says, without how long it took and without advice about settings that are not ours.
fn told(reason: &str) -> String {
    let tails = [" (after ", ", verify that ssl.ca.location"];
    let kept = tails.iter().fold(reason, |text, tail| text.split_once(tail).map_or(text, |(before, _)| before));
    kept.chars().take(MAX_PROBLEM).collect()
}

impl ConsumerContext for Heard {}

/// The same, shared with another reader.
pub(super) struct Ear(pub(super) Arc<Heard>);

impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for Ear {}

/// What one error means.
pub(super) fn meaning(endpoint: &str, error: &KafkaError) -> BusError {
    let endpoint = endpoint.to_owned();
    let problem: String = error.to_string().chars().take(MAX_PROBLEM).collect();
    // The library tells no code of what an administrator's request met.
    let code = if let KafkaError::AdminOp(code) = error { Some(*code) } else { error.rdkafka_error_code() };
    match code {
        Some(code) if is_refusal(code) => {
            BusError::Denied { endpoint, problem: format!("{problem}; see the ACLs in docs/operate/buses/kafka.md") }
        }
        Some(
            Code::InvalidReplicationFactor
            | Code::PolicyViolation
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::InvalidTransactionTimeout
            | Code::InvalidRecord,
        ) => BusError::Misconfigured { endpoint, problem },
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => BusError::Misconfigured {
            endpoint,
            problem: format!("{problem}; set max.message.bytes of the topic to 1048588 or more"),
        },
        Some(Code::KafkaStorageError) => {
            BusError::Full { endpoint, problem: format!("{problem}; look at the disks of the brokers") }
        }
        Some(Code::Unknown) => BusError::Unknown { endpoint, problem },
        _ => match error {
            KafkaError::ClientConfig(_, text, name, _) => {
                BusError::Misconfigured { endpoint, problem: format!("bus.properties {name}: {text}") }
            }
            KafkaError::ClientCreation(_) => BusError::Misconfigured { endpoint, problem },
            _ => BusError::Unreachable { endpoint, problem },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_announces_a_wrong_address_is_told_from_a_wrong_setting() {
        let refused = "Connect to ipv4#127.0.0.1:9 failed: Connection refused";
        assert!(is_announced(&format!("127.0.0.1:9/1: {refused}")));
        assert!(is_announced(&format!("sasl_ssl://kafka-2:9093/12: {refused}")));
        assert!(!is_announced(&format!("127.0.0.1:9/bootstrap: {refused}")));
        assert!(!is_announced("Current transaction failed in state BeginCommit: Topic authorization failed"));
    }

    #[test]
    fn what_is_passed_on_is_about_the_problem_alone() {
        let reason = "ssl://h:1/bootstrap: SSL handshake failed: broker certificate could not be verified, verify that \
            ssl.ca.location is correctly configured (after 69ms in state SSL_HANDSHAKE)";
        let kept = "ssl://h:1/bootstrap: SSL handshake failed: broker certificate could not be verified";
        assert_eq!(told(reason), kept);
        assert_eq!(told("Connection refused"), "Connection refused");
        assert_eq!(told(&"é".repeat(MAX_PROBLEM + 1)).chars().count(), MAX_PROBLEM);
    }
}
