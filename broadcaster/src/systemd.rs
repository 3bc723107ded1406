//! Notifies systemd, where its unit asks for it (`Type=notify`, `WatchdogSec=`); elsewhere nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::health::{Health, HealthReport};

fn tell(states: &[NotifyState<'_>]) {
    // Without a socket this does nothing.
    if let Err(problem) = sd_notify::notify(states) {
        warn!(%problem, "systemd cannot be notified");
    }
}

/// One line that `systemctl status` shows.
fn status(report: &HealthReport) -> String {
    let who = match (report.role, &report.leader) {
        ("leader", _) => "leads".to_owned(),
        (_, Some(leader)) => format!("follows {leader}"),
        (_, None) => "follows; no leader at the moment".to_owned(),
    };
    let all: Vec<&str> = report.problems.iter().chain(&report.warnings).map(String::as_str).collect();
    if all.is_empty() { who } else { format!("{who}; {}", all.join("; ")) }
}

/// How often a watchdog of this length is fed: twice in its time, as systemd advises.
fn feed_every(watchdog: Duration) -> Duration {
    (watchdog / 2).max(Duration::from_millis(1))
}

/// Sends READY, STATUS, a WATCHDOG while the broadcaster is alive, and STOPPING.
pub async fn run(health: Health, stop: CancellationToken) {
    let mut changes = health.changes();
    let watchdog = sd_notify::watchdog_enabled().map(feed_every);
    let mut ready = false;
    let mut told = String::new();
    loop {
        let report = health.report();
        if report.ready && !ready {
            ready = true;
            tell(&[NotifyState::Ready]);
        }
        let now = status(&report);
        if now != told {
            tell(&[NotifyState::Status(&now)]);
            told = now;
        }
        // A broadcaster whose loop stands still sends no sign of life.
        if watchdog.is_some() && report.alive {
            tell(&[NotifyState::Watchdog]);
        }
        let feed = async {
            match watchdog {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = changes.changed() => {}
            () = feed => {}
        }
    }
    tell(&[NotifyState::Stopping]);
}

/// The configuration is being read again, until [`reloaded`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(problem) => warn!(%problem, "systemd cannot be notified"),
    }
}

/// It is in force, or refused.
pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_who_leads_and_what_is_wrong() {
        let good = HealthReport { alive: true, ready: true, role: "leader", ..HealthReport::default() };
        assert_eq!(status(&good), "leads");
        let follower = HealthReport { role: "follower", leader: Some("a".into()), ..good.clone() };
        assert_eq!(status(&follower), "follows a");
        let alone = HealthReport { leader: None, problems: vec!["x".into()], warnings: vec!["y".into()], ..follower };
        assert_eq!(status(&alone), "follows; no leader at the moment; x; y");
    }

    #[test]
    fn a_watchdog_is_fed_twice_in_its_time() {
        assert_eq!(feed_every(Duration::from_secs(30)), Duration::from_secs(15));
        assert!(feed_every(Duration::ZERO) > Duration::ZERO);
    }
}
