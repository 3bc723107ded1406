//! What is worth saying about a cluster before relying on it.

use tonic::transport::Endpoint;

use crate::etcd::Shared;
use crate::etcd::client::Client;
use crate::etcd::pb::{AlarmType, StatusResponse};
use crate::{Finding, Level, StoreError};

/// Below these releases of their series, known defects of leases and watches remain.
const FLOORS: [(u64, u64, u64); 3] = [(3, 5, 33), (3, 6, 14), (3, 7, 1)];
/// Part of the quota in use from which it is worth a warning, in percent.
const QUOTA_WARNING_PERCENT: i64 = 80;
/// etcd's default quota, for servers that do not tell theirs (before 3.6).
const DEFAULT_QUOTA: i64 = 2 * 1024 * 1024 * 1024;

/// A defect, the releases of 3.5 and 3.6 that mend it, and what it does to us.
struct Defect {
    patched: [(u64, u64, u64); 2],
    text: &'static str,
}

const DEFECTS: [Defect; 3] = [
    Defect {
        patched: [(3, 5, 13), (3, 6, 0)],
        text: "a watch may announce progress ahead of events it has yet to send (etcd issue 17507); \
               Rotacast does not rely on progress",
    },
    Defect {
        patched: [(3, 5, 15), (3, 6, 0)],
        text: "a watch that starts at the compacted revision lacks that revision's deletions (etcd issue 18089); \
               Rotacast lists anew in that case",
    },
    Defect {
        patched: [(3, 5, 23), (3, 6, 5)],
        text: "renewing a lease that has just expired may be answered as if it still lived (etcd change 20590); \
               two broadcasters may then both believe that they lead until the next renewal, though only one can commit",
    },
];

impl Shared {
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (endpoint, member) in self.options.endpoints.iter().zip(&*self.endpoints.current()) {
            match self.status_of(member).await {
                Ok(status) => findings.extend(member_findings(endpoint, &status)),
                Err(error) => findings.push(error_finding(&format!("etcd member {endpoint}"), &error)),
            }
        }
        findings.extend(self.alarm_findings().await);
        findings.push(self.access_finding().await);
        findings.extend(self.size_finding().await);
        findings
    }

    /// Asks one member itself: a client of the cluster asks any.
    async fn status_of(&self, member: &Endpoint) -> Result<StatusResponse, StoreError> {
        let (member, user) = (member.clone(), self.options.user.clone());
        self.once(async { Client::connect(vec![member], user).await?.status().await }).await
    }

    async fn alarm_findings(&self) -> Vec<Finding> {
        let answer = match self.client().await {
            Ok(client) => self.once(client.alarms()).await,
            Err(error) => Err(error),
        };
        let alarms = match answer {
            Ok(answer) => answer.alarms,
            Err(error) => return vec![error_finding("etcd alarms", &error)],
        };
        let raised = alarms.iter().filter_map(|alarm| {
            let (name, fix) = match alarm.alarm() {
                AlarmType::None => return None,
                AlarmType::Nospace => {
                    ("NOSPACE: it takes no writes", "compact and defragment it, then 'etcdctl alarm disarm'")
                }
                AlarmType::Corrupt => {
                    ("CORRUPT: its members disagree", "replace the member that differs; do not rotate until then")
                }
            };
            Some(Finding {
                level: Level::Error,
                subject: "etcd alarms".into(),
                text: format!("member {:x} has raised {name}", alarm.member_id),
                fix: fix.into(),
            })
        });
        let raised: Vec<Finding> = raised.collect();
        if raised.is_empty() { vec![ok("etcd alarms", "none")] } else { raised }
    }

    async fn access_finding(&self) -> Finding {
        // A key that does not exist tells as much as one that does.
        match self.get(&crate::Key::new("rotacast-access-probe")).await {
            Ok(_)
                if self.options.user.is_none()
                    && self.options.tls.as_ref().is_none_or(|tls| tls.identity.is_none()) =>
            {
                Finding {
                    level: Level::Warning,
                    subject: "etcd access".into(),
                    text: "any client that reaches it may read and write: it asks for no user and no certificate"
                        .into(),
                    fix: "turn on authentication and TLS in etcd, and give the secrets' prefix to Rotacast only".into(),
                }
            }
            Ok(_) => ok("etcd access", "it knows who we are"),
            // Refused outside our prefix: as it should be.
            Err(StoreError::Denied { problem, .. }) if problem.contains("permission denied") => {
                ok("etcd access", "limited to what was granted")
            }
            Err(error) => error_finding("etcd access", &error),
        }
    }

    async fn size_finding(&self) -> Option<Finding> {
        let client = self.client().await.ok()?;
        let members = self.once(client.members()).await.ok()?.members.len();
        Some(if members >= 3 {
            ok("etcd members", &format!("{members}"))
        } else {
            Finding {
                level: Level::Warning,
                subject: "etcd members".into(),
                text: format!("{members}: the loss of one stops it"),
                fix: "run three or five members".into(),
            }
        })
    }
}

fn member_findings(endpoint: &str, status: &StatusResponse) -> Vec<Finding> {
    let subject = |what: &str| format!("etcd {what} {endpoint}");
    let mut findings = version_findings(&subject("version"), &status.version);
    if status.leader == 0 {
        findings.push(Finding {
            level: Level::Error,
            subject: subject("leader"),
            text: "it knows no leader: the cluster has no majority, or it is cut off".into(),
            fix: "bring the other members back".into(),
        });
    }
    for problem in &status.errors {
        findings.push(Finding {
            level: Level::Error,
            subject: subject("health"),
            text: problem.clone(),
            fix: "see etcd's own log".into(),
        });
    }
    let quota = if status.db_size_quota > 0 { status.db_size_quota } else { DEFAULT_QUOTA };
    let percent = status.db_size.saturating_mul(100) / quota;
    findings.push(Finding {
        level: if percent >= QUOTA_WARNING_PERCENT { Level::Warning } else { Level::Ok },
        subject: subject("database"),
        text: format!("{} MiB, {percent} % of its quota", status.db_size / (1024 * 1024)),
        fix: if percent >= QUOTA_WARNING_PERCENT { "compact and defragment it".into() } else { String::new() },
    });
    findings
}

fn version_findings(subject: &str, text: &str) -> Vec<Finding> {
    let Some(version) = parse(text) else {
        return vec![Finding {
            level: Level::Warning,
            subject: subject.into(),
            text: format!("{text:?} is no version that Rotacast knows"),
            fix: "use etcd 3.5 or later".into(),
        }];
    };
    let upgrade = "upgrade to 3.5.33, 3.6.14, 3.7.1 or later";
    if version < (3, 5, 0) {
        return vec![Finding {
            level: Level::Error,
            subject: subject.into(),
            text: format!("{text}: its series is no longer maintained and loses watch events"),
            fix: upgrade.into(),
        }];
    }
    let series = |&(major, minor, _): &(u64, u64, u64)| (major, minor) == (version.0, version.1);
    let below_floor = FLOORS.iter().any(|floor| series(floor) && version < *floor);
    if !below_floor {
        return vec![ok(subject, text)];
    }
    let named = DEFECTS.iter().filter(|defect| defect.patched.iter().any(|patch| series(patch) && version < *patch));
    let mut findings: Vec<Finding> = named
        .map(|defect| Finding {
            level: Level::Warning,
            subject: subject.into(),
            text: format!("{text}: {}", defect.text),
            fix: upgrade.into(),
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding {
            level: Level::Warning,
            subject: subject.into(),
            text: format!("{text} lacks later fixes to leases and watches"),
            fix: upgrade.into(),
        });
    }
    findings
}

/// `3.5.30`, with whatever follows the three numbers.
fn parse(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.trim_start_matches('v').split(['.', '-', '+']);
    let mut next = || parts.next()?.parse::<u64>().ok();
    Some((next()?, next()?, next()?))
}

fn ok(subject: &str, text: &str) -> Finding {
    Finding { level: Level::Ok, subject: subject.into(), text: text.into(), fix: String::new() }
}

fn error_finding(subject: &str, error: &StoreError) -> Finding {
    let fix = match error {
        StoreError::Denied { .. } => "check the user, the password and the role's rights",
        StoreError::Unreachable { .. } => "check the address, the network and that etcd runs",
        _ => "see etcd's own log",
    };
    Finding { level: Level::Error, subject: subject.into(), text: error.to_string(), fix: fix.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_named_with_their_defects() {
        let worst =
            |text| version_findings("etcd version", text).into_iter().map(|finding| finding.level).max().unwrap();
        assert_eq!(worst("3.4.23"), Level::Error);
        assert_eq!(worst("3.5.30"), Level::Warning);
        assert_eq!(worst("3.5.33"), Level::Ok);
        assert_eq!(worst("3.6.13"), Level::Warning);
        assert_eq!(worst("3.7.1"), Level::Ok);
        assert_eq!(worst("3.8.0-rc.0"), Level::Ok);
        assert_eq!(worst("new"), Level::Warning);
        assert_eq!(version_findings("", "3.5.1").len(), DEFECTS.len());
        assert_eq!(version_findings("", "3.5.14").len(), 2);
    }
}
