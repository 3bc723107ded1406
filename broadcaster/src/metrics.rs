//! What the broadcaster counts, for Prometheus.
//!
//! The seams are measured from outside, by decorators that implement the same traits ([`Metrics::store`],
//! [`Metrics::bus`], [`Metrics::settings`]). What the core decided is counted where it is applied, and gauges over all
//! secrets are summed up when they are asked for. Every label has a fixed set of values: the name of a secret, a service
//! or an instance is never one. `docs/operate/metrics.md` lists everything.

mod audit;
mod bus;
mod calls;
mod certificates;
mod connections;
mod figures;
mod findings;
mod identities;
mod intake;
mod label;
mod leadership;
mod orders;
mod provider;
mod rotations;
mod servers;
mod sign_ins;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rotacast_bus::LeaderBus;
use rotacast_clock as clock;
use rotacast_store::Store;

pub(crate) use audit::AuditCounts;
pub(crate) use figures::{Figures, FiguresSlot, Standings};
pub(crate) use intake::{Intake, SyncOutcome};
pub(crate) use leadership::LeadershipGauges;
pub use orders::{Ended, Orders};
pub(crate) use rotations::{Rotations, Stood};
pub(crate) use servers::Servers;

use crate::certificates::Expiries;
use crate::connections::Connections;
use crate::findings::Findings;
use crate::identities::Identities;
use crate::settings::Settings;
use crate::sign_ins::SignIns;
use bus::MeasuredBus;
use figures::AllFigures;
use identities::Refused;
use provider::MeasuredSettings;
use store::MeasuredStore;

/// Before every name but that of the process's start.
const PREFIX: &str = "rotacast";

/// Everything that is counted, and the text a scrape gets. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    store: store::StoreCounts,
    bus: bus::BusCounts,
    provider: calls::Calls,
    audit: AuditCounts,
    rotations: Rotations,
    intake: Intake,
    leadership: LeadershipGauges,
    figures: AllFigures,
    servers: Servers,
    refused: Refused,
    standing: findings::Standing,
    expiries: Expiries,
    orders: Orders,
    sign_ins: sign_ins::SignInCounts,
    open: connections::Open,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::default();
        // The name that every process has for it, without a prefix of ours.
        all.register(
            "process_start_time_seconds",
            "When this process started, in seconds since 1970",
            ConstGauge::new(started()),
        );
        let registry = all.sub_registry_with_prefix(PREFIX);
        label::gauge_of_one(
            registry,
            "build_info",
            "Version of the running build",
            "version",
            env!("CARGO_PKG_VERSION"),
        );
        let inner = Inner {
            store: store::StoreCounts::register(registry),
            bus: bus::BusCounts::register(registry),
            provider: provider::register(registry),
            audit: AuditCounts::register(registry),
            rotations: Rotations::register(registry),
            intake: Intake::register(registry),
            leadership: LeadershipGauges::register(registry),
            figures: AllFigures::register(registry),
            servers: Servers::register(registry),
            refused: Refused::register(registry),
            standing: findings::Standing::register(registry),
            expiries: certificates::register(registry),
            orders: Orders::register(registry),
            sign_ins: sign_ins::SignInCounts::register(registry),
            open: connections::Open::register(registry),
            registry: all,
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Metrics {
    /// The content type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = prometheus_text::CONTENT_TYPE;

    /// All of it as of now, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.inner.registry).expect("a String takes everything");
        text
    }

    /// A store that does what this one does, and is measured.
    #[must_use]
    pub fn store(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(MeasuredStore::new(store, self.inner.store.clone()))
    }

    /// A bus that does what this one does, and is measured.
    #[must_use]
    pub fn bus(&self, bus: Arc<dyn LeaderBus>) -> Arc<dyn LeaderBus> {
        Arc::new(MeasuredBus::new(bus, self.inner.bus.clone()))
    }

    /// The same settings, with providers that are measured.
    #[must_use]
    pub fn settings(&self, settings: Arc<dyn Settings>) -> Arc<dyn Settings> {
        Arc::new(MeasuredSettings::new(settings, self.inner.provider.clone()))
    }

    /// Counts for the audit log.
    pub(crate) fn audit(&self) -> AuditCounts {
        self.inner.audit.clone()
    }

    /// Shows what these refuse. The first ones that are given stay.
    pub fn count_refusals_of(&self, identities: &Arc<Identities>) {
        self.inner.refused.of(identities);
    }

    /// Shows how these ended. The first ones that are given stay.
    pub fn count_sign_ins_of(&self, sign_ins: &SignIns) {
        self.inner.sign_ins.of(sign_ins);
    }

    /// Counts operators' orders.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.inner.orders.clone()
    }

    /// Until when our own certificates are valid: what is put there is shown.
    #[must_use]
    pub fn expiries(&self) -> Expiries {
        self.inner.expiries.clone()
    }

    /// Shows how many of these stand. The first ones that are given stay.
    pub fn count_findings_of(&self, findings: &Findings) {
        self.inner.standing.of(findings);
    }

    /// Shows what these hold. The first ones that are given stay.
    pub fn count_connections_of(&self, connections: &Connections) {
        self.inner.open.of(connections);
    }

    /// What peers hold, once it is known.
    pub(crate) fn connections(&self) -> Option<&Connections> {
        self.inner.open.get()
    }

    /// What the core decides.
    pub(crate) fn rotations(&self) -> &Rotations {
        &self.inner.rotations
    }

    /// What comes in from instances and operators.
    pub(crate) fn intake(&self) -> &Intake {
        &self.inner.intake
    }

    /// Whether store and bus answer.
    pub(crate) fn servers(&self) -> Servers {
        self.inner.servers.clone()
    }

    /// Whether this replica leads.
    pub(crate) fn leadership(&self) -> &LeadershipGauges {
        &self.inner.leadership
    }

    /// Where one secret's task puts its figures, until the slot is dropped.
    pub(crate) fn figures(&self) -> FiguresSlot {
        self.inner.figures.join()
    }
}

/// Close enough: metrics are made when a process starts.
fn started() -> f64 {
    seconds_of(clock::wall())
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit in 53 bits for 280,000 years")]
fn seconds_of(time: rotacast_protocol::WallTime) -> f64 {
    time.0 as f64 / 1000.0
}
