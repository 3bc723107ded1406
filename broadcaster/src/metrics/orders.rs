//! What becomes of operators' orders before they reach a secret.

use prometheus_client::registry::Registry;

use super::label::{Counters, counters};

/// What became of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was carried out.
    Done,
    /// The same, alone and by a role for emergencies.
    Emergency,
    /// It waits for approvals.
    Waits,
    /// No role of its operator allows it.
    Denied,
    /// It was refused for another reason.
    Refused,
}

impl Ended {
    const NAMES: [&'static str; 5] = ["denied", "done", "emergency", "refused", "waits"];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Emergency => "emergency",
            Self::Waits => "waits",
            Self::Denied => "denied",
            Self::Refused => "refused",
        }
    }
}

/// Counts them. Clones are of the same figures.
#[derive(Clone, Default, Debug)]
pub struct Orders(Counters<1>);

impl Orders {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let help = "Operators' orders, by what became of them before they reached a secret.";
        Self(counters(registry, "operator_orders", help, "outcome", &Ended::NAMES))
    }

    pub(crate) fn count(&self, ended: Ended) {
        self.0.get_or_create(&[("outcome", ended.as_str())]).inc();
    }
}
