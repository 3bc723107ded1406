//! What `doctor` finds on the broadcaster's side.

use std::sync::Arc;

use rotacast_bus::Stray;
use rotacast_clock as clock;
use rotacast_proto::{Finding, Level, v1};
use rotacast_protocol::coordinator::{Overlay, StageCounts};
use rotacast_protocol::status::SecretStatus;

use super::super::{Role, follower};
use super::DriverControl;
use crate::connections::Connections;

impl DriverControl {
    /// Looks at store, bus, leadership, audit log and secrets.
    pub(super) async fn examine(&self) -> v1::DoctorReply {
        let mut findings = self.environment.tree.examine().await;
        findings.extend(self.environment.bus.examine().await);
        let own = &self.environment.replica.name;
        let (level, text, fix) = match (self.role(), follower::leader(&self.environment).await) {
            (Role::Leader { epoch, .. }, _) => {
                (Level::Ok, format!("this broadcaster ({own}) leads, epoch {epoch}"), "")
            }
            (Role::Follower, Some(leader)) => {
                (Level::Ok, format!("this broadcaster ({own}) does not lead; {} does", leader.name), "")
            }
            (Role::Follower, None) => (
                Level::Warning,
                format!("this broadcaster ({own}) does not lead, and the store names no leader"),
                "fine for some seconds after a leader died; otherwise look at the logs of all replicas",
            ),
        };
        findings.push(Finding { level, subject: "leadership".into(), text, fix: fix.into() });
        let refused = self.environment.identities.refused();
        findings.push(Finding {
            level: if refused == 0 { Level::Ok } else { Level::Warning },
            subject: "messages refused".into(),
            text: format!("{refused} since the start"),
            fix: if refused == 0 {
                String::new()
            } else {
                "the log names the keys: compare them with [services.*].key".into()
            },
        });
        findings.extend(strays_finding(&self.environment.bus.strays()));
        findings.extend(self.environment.metrics.connections().map(connections_finding));
        findings.push(self.audit_finding());
        findings.extend(self.environment.metrics.expiries().told(clock::wall()));
        findings.extend(self.environment.findings.told());
        findings.extend(self.secret_findings());
        v1::DoctorReply { findings: findings.into_iter().map(v1::Finding::from).collect(), now_ms: clock::wall().0 }
    }

    fn audit_finding(&self) -> Finding {
        let file = self.environment.audit.path().display();
        let fails = self.environment.audit.fails();
        Finding {
            level: if fails { Level::Error } else { Level::Ok },
            subject: "audit log".into(),
            text: if fails {
                format!("{file} takes no entries: nothing is retired until it does")
            } else {
                format!("{file} takes entries")
            },
            fix: if fails {
                "look at the disk's space and the file's owner; the log says what failed".into()
            } else {
                String::new()
            },
        }
    }

    /// What is known of the secrets and of the instances that use them, in a line each; a follower knows nothing of them.
    fn secret_findings(&self) -> Vec<Finding> {
        if self.role() == Role::Follower {
            return Vec::new();
        }
        let statuses: Vec<_> =
            self.secrets.all().into_iter().map(|(_, task)| Arc::clone(&task.status.borrow())).collect();
        let with = |overlay: Overlay| -> Vec<&str> {
            let has = |status: &&Arc<SecretStatus>| status.overlays.contains(&overlay);
            statuses.iter().filter(has).map(|status| status.secret.as_str()).collect()
        };
        let finding = |level, subject: &str, text: String, fix: &str| Finding {
            level,
            subject: subject.into(),
            text,
            fix: fix.into(),
        };
        let mut findings = Vec::new();
        for (overlay, level, fix) in [
            (
                Overlay::SafeMode,
                Level::Error,
                "`rotacast why NAME` says what was noticed; `rotacast leave-safe-mode NAME --reason 'why'` once it was looked at",
            ),
            (
                Overlay::Staying,
                Level::Warning,
                "`rotacast why NAME` says which version is waited for; without one, write one, or `rotacast leave-safe-mode NAME \
                 --reason 'why'` once more",
            ),
            (Overlay::Stuck, Level::Error, "`rotacast why NAME` says who or what blocks, and what happens next"),
            (Overlay::AwaitingApproval, Level::Warning, "`rotacast approve NAME`"),
            (Overlay::Paused, Level::Warning, "`rotacast resume NAME`"),
        ] {
            let names = with(overlay);
            if !names.is_empty() {
                findings.push(finding(level, overlay.words(), named(&names), fix));
            }
        }
        let rotating = statuses.iter().filter(|status| status.rotation.is_some()).count();
        let text = format!("{} known, {rotating} rotating", statuses.len());
        findings.push(finding(Level::Ok, "secrets", text, ""));
        let sum = |of: fn(&StageCounts) -> u32| -> u64 {
            statuses.iter().flat_map(|status| &status.services).map(|service| u64::from(of(&service.counts))).sum()
        };
        let (members, out_of_reach) = (sum(|counts| counts.members), sum(|counts| counts.fenced));
        findings.push(match out_of_reach {
            0 => finding(
                Level::Ok,
                "leases",
                format!("{members} uses of secrets by instances, every lease is renewed"),
                "",
            ),
            lost => finding(
                Level::Warning,
                "leases",
                format!("{lost} of {members} uses of secrets are by instances whose leases have run out"),
                "`rotacast instances` shows them as fenced: they are dead, cut off or asleep",
            ),
        });
        findings
    }
}

/// The first few of many names.
fn named(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let first = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// What peers hold of the connections that there may be.
fn connections_finding(connections: &Connections) -> Finding {
    let counts = connections.counts();
    let (open, most) = (counts.proved + counts.unproved, counts.caps.total);
    // From nine tenths on, a restart of many instances may find no room.
    let full = open >= most - most / 10;
    let text = format!(
        "{open} of at most {most} are open, {} without a request; {} turned away since the start",
        counts.unproved,
        connections.turned_away()
    );
    let fix = match full {
        true => {
            "raise the limit on open files (nofile) or listen.max_connections, or stop the clients that the log names"
        }
        false => "",
    };
    let level = if full { Level::Warning } else { Level::Ok };
    Finding { level, subject: "connections".into(), text, fix: fix.into() }
}

/// What the bus dropped, where it knows which login may send what.
fn strays_finding(strays: &[(Stray, u64)]) -> Option<Finding> {
    if strays.is_empty() {
        return None;
    }
    let total: u64 = strays.iter().map(|(_, count)| count).sum();
    let kinds: Vec<_> =
        strays.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    Some(Finding {
        level: if total == 0 { Level::Ok } else { Level::Warning },
        subject: "messages dropped".into(),
        text: format!("{total} since the start{kinds}"),
        fix: if total == 0 {
            String::new()
        } else {
            "the log names the subject of each: find the login that published it, and compare its rights with what \
             `rotacast permissions nats` prints"
                .into()
        },
    })
}
