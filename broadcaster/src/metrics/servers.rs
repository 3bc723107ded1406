//! Whether store and bus answer: looked at every now and then, since nothing may be asked of them for hours, and an
//! election that waits for its turn keeps its failures to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rotacast_bus::LeaderBus;
use rotacast_proto::{Finding, Level, ServerFault};
use rotacast_store::{SecretTree, StoreError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::label::gauge;
use crate::findings::{Findings, Topic};

/// How often is looked: a few reads a minute are nothing to a store, and an alert waits for a minute anyway.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// For one look at the bus, which asks for the settings of every log; a call ends by itself after half of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether they answered at the last look.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    store: Gauge,
    bus: Gauge,
}

impl Servers {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let servers = Self {
            store: gauge(
                registry,
                "store_answers",
                "Whether the store answered the last linearizable read (1) or not (0); checked every 15 seconds",
            ),
            bus: gauge(
                registry,
                "bus_answers",
                "Whether the bus answered the last check and its set-up can work (1) or not (0); checked every 15 seconds",
            ),
        };
        // Both were reached before anything is shown.
        servers.store.set(1);
        servers.bus.set(1);
        servers
    }

    /// Looks until `ended`. What is wrong stands as a finding.
    pub(crate) async fn look(
        self,
        tree: SecretTree,
        bus: Arc<dyn LeaderBus>,
        findings: Findings,
        ended: CancellationToken,
    ) {
        let mut store_stands = Standing::new(Topic::Store, findings.clone());
        let mut bus_stands = Standing::new(Topic::Bus, findings);
        let looking = async {
            tokio::join!(
                async {
                    loop {
                        // Through the measured store, so that what went wrong is counted by its kind.
                        let answer = timeout(PATIENCE, tree.leader()).await;
                        self.store.set(i64::from(matches!(answer, Ok(Ok(_)))));
                        let found = match answer {
                            Ok(Ok(_)) => timeout(PATIENCE, tree.examine()).await,
                            Ok(Err(problem)) => Ok(vec![of_store(tree.store().describe(), &problem)]),
                            Err(silence) => Err(silence),
                        };
                        store_stands.take(found.unwrap_or_else(|_| vec![silent(tree.store().describe())]));
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                },
                async {
                    loop {
                        let found = timeout(PATIENCE, bus.examine()).await;
                        let found = found.unwrap_or_else(|_| vec![silent(bus.describe())]);
                        self.bus.set(i64::from(is_sound(&found)));
                        bus_stands.take(found);
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                },
            )
        };
        tokio::select! {
            _ = looking => {}
            () = ended.cancelled() => {}
        }
    }
}

fn of_store(subject: String, problem: &StoreError) -> Finding {
    let fix = problem.server_fault().map_or("look at the store's own log", ServerFault::advice);
    Finding { level: Level::Error, subject, text: problem.to_string(), fix: fix.into() }
}

fn silent(subject: String) -> Finding {
    let text = format!("no answer within {} s", PATIENCE.as_secs());
    Finding { level: Level::Error, subject, text, fix: ServerFault::NotReachable.advice().into() }
}

/// What stands about one server. A warning that was there at the first look is how the server was set up; one that comes
/// later is a change for the worse.
struct Standing {
    topic: Topic,
    findings: Findings,
    accepted: Option<BTreeSet<(String, String)>>,
}

impl Standing {
    fn new(topic: Topic, findings: Findings) -> Self {
        Self { topic, findings, accepted: None }
    }

    fn take(&mut self, found: Vec<Finding>) {
        let is_known = |finding: &Finding| (finding.subject.clone(), finding.text.clone());
        if self.accepted.is_none() && is_sound(&found) {
            let warnings = found.iter().filter(|finding| finding.level == Level::Warning);
            self.accepted = Some(warnings.map(is_known).collect());
        }
        let accepted = self.accepted.as_ref();
        let mut stands: BTreeMap<String, (Level, Vec<String>, String)> = BTreeMap::new();
        for finding in found {
            let new = accepted.is_some_and(|accepted| !accepted.contains(&is_known(&finding)));
            if finding.level == Level::Error || (finding.level == Level::Warning && new) {
                let all = stands.entry(finding.subject).or_insert((finding.level, Vec::new(), finding.fix));
                all.0 = all.0.max(finding.level);
                all.1.push(finding.text);
            }
        }
        self.findings.keep_only(self.topic, |subject| stands.contains_key(subject));
        for (subject, (level, texts, fix)) in stands {
            self.findings.raise(self.topic, subject, level, texts.join("; "), &fix);
        }
    }
}

fn is_sound(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(level: Level, subject: &str, text: &str) -> Finding {
        Finding { level, subject: subject.into(), text: text.into(), fix: "mend it".into() }
    }

    #[test]
    fn what_gets_worse_while_running_stands_and_what_was_accepted_at_the_start_does_not() {
        let findings = Findings::default();
        let mut standing = Standing::new(Topic::Bus, findings.clone());
        let texts = || -> Vec<_> { findings.standing().into_iter().map(|it| (it.level, it.text)).collect() };
        let one_replica = || found(Level::Warning, "stream STATE", "has one replica");
        standing.take(vec![found(Level::Error, "NATS", "connection refused")]);
        assert_eq!(texts(), [(Level::Error, "connection refused".into())]);
        standing.take(vec![one_replica(), found(Level::Ok, "NATS", "server 2.10")]);
        assert_eq!(texts(), []);
        standing.take(vec![one_replica(), found(Level::Warning, "stream STATE", "forgets messages after 1 h")]);
        assert_eq!(texts(), [(Level::Warning, "forgets messages after 1 h".into())]);
        standing.take(vec![
            found(Level::Warning, "stream STATE", "forgets messages after 1 h"),
            found(Level::Error, "stream STATE", "it is sealed"),
        ]);
        assert_eq!(texts(), [(Level::Error, "forgets messages after 1 h; it is sealed".into())]);
        standing.take(vec![one_replica()]);
        assert_eq!(texts(), []);
    }
}
