//! Follows the reports of the instances.

use std::sync::Arc;

use rotacast_bus::BusEvent;
use rotacast_clock as clock;
use rotacast_protocol::coordinator::Input;
use tracing::debug;

use super::super::mail::Mail;
use super::Term;
use super::listener::Listener;

impl Term {
    pub(super) async fn follow_reports(self: Arc<Self>) -> anyhow::Result<()> {
        let mut events = Listener::new("reports", || self.environment.bus.watch_reports(), self.over.clone());
        let mut live = false;
        loop {
            let envelope = match events.next().await {
                BusEvent::Message(envelope) => envelope,
                BusEvent::CaughtUp => {
                    live = true;
                    continue;
                }
                BusEvent::Resync => {
                    live = false;
                    continue;
                }
            };
            let intake = self.environment.metrics.intake();
            let Ok(report) = self.environment.identities.report(&envelope) else {
                intake.report_refused();
                continue;
            };
            // The bus keeps the last report of an incarnation that may be long over.
            if live {
                self.secrets.heard().reports(&report.key, report.sequence, clock::instant(), report.secrets.keys());
            }
            let mut dropped = false;
            for (secret, part) in report.secrets {
                if let Some(task) = self.secrets.get(&secret) {
                    let input = Input::Report { key: report.key.clone(), sequence: report.sequence, report: part };
                    // A full mailbox drops reports: they are resent with every Sync.
                    if task.mail.try_send(Mail::Input(Box::new(input))).is_err() {
                        debug!(%secret, "dropped a report");
                        dropped = true;
                    }
                }
            }
            intake.report(&envelope.time, clock::wall(), dropped);
        }
    }
}
