//! What is worth saying about Consul before relying on it.

use serde::Deserialize;

use super::session::LEAST_TTL;
use crate::consul::Shared;
use crate::consul::call::Call;
use crate::{Finding, Key, Level, StoreError};

/// The oldest series with all that is used here, and the oldest that is still maintained.
const FLOOR: (u64, u64) = (1, 8);
const MAINTAINED: (u64, u64) = (1, 15);

/// What is read of `/v1/agent/self`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Agent {
    config: AgentConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentConfig {
    version: String,
}

impl Shared {
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let mut findings = vec![self.leader_finding().await];
        if findings[0].level == Level::Error {
            // Nothing else can be asked.
            return findings;
        }
        findings.push(self.version_finding().await);
        findings.extend(self.size_finding().await);
        findings.push(self.access_finding().await);
        findings.push(self.session_finding().await);
        findings
    }

    async fn leader_finding(&self) -> Finding {
        let subject = "consul leader";
        match self.tell::<String>(&["status", "leader"]).await {
            Ok(leader) if leader.is_empty() => Finding {
                level: Level::Error,
                subject: subject.into(),
                text: "there is none: the servers have no majority, or the agent is cut off from them".into(),
                fix: "bring the other servers back".into(),
            },
            Ok(leader) => ok(subject, &leader),
            Err(error) => error_finding(subject, &error),
        }
    }

    async fn version_finding(&self) -> Finding {
        match self.tell::<Agent>(&["agent", "self"]).await {
            Ok(agent) => version_finding(&agent.config.version),
            Err(StoreError::Denied { .. }) => Finding {
                level: Level::Warning,
                subject: "consul version".into(),
                text: "the token may not read it".into(),
                fix: "add agent_prefix \"\" { policy = \"read\" } to the policy of the token in store.token_file"
                    .into(),
            },
            Err(error) => error_finding("consul version", &error),
        }
    }

    async fn size_finding(&self) -> Option<Finding> {
        let servers = self.tell::<Vec<String>>(&["status", "peers"]).await.ok()?.len();
        Some(if servers >= 3 {
            ok("consul servers", &format!("{servers}"))
        } else {
            Finding {
                level: Level::Warning,
                subject: "consul servers".into(),
                text: format!("{servers}: the loss of one stops it"),
                fix: "run three or five servers".into(),
            }
        })
    }

    async fn access_finding(&self) -> Finding {
        // A key that does not exist tells as much as one that does.
        match self.get(&Key::new("rotacast-access-probe")).await {
            Ok(_) if self.options.token.is_none() => Finding {
                level: Level::Warning,
                subject: "consul access".into(),
                text: "any client that reaches it may read and write: it asks for no token".into(),
                fix: "turn on ACLs with default_policy = \"deny\", and set store.token_file".into(),
            },
            Ok(_) => ok("consul access", "it takes our token"),
            // Refused outside our prefix: as it should be.
            Err(StoreError::Denied { problem, .. }) if problem.contains("Permission denied") => {
                ok("consul access", "limited to what was granted")
            }
            Err(error) => error_finding("consul access", &error),
        }
    }

    /// Makes a session as a campaign does, and ends it.
    async fn session_finding(&self) -> Finding {
        let subject = "consul sessions";
        match self.make_session("rotacast doctor", LEAST_TTL).await {
            Ok(session) => {
                self.destroy_session(&session).await;
                ok(subject, &format!("a leadership of {} s is granted", LEAST_TTL.as_secs()))
            }
            Err(error @ StoreError::Denied { .. }) => Finding {
                level: Level::Error,
                subject: subject.into(),
                text: error.to_string(),
                fix: "add session_prefix \"\" { policy = \"write\" } to the policy of the token in store.token_file"
                    .into(),
            },
            Err(error) => error_finding(subject, &error),
        }
    }

    async fn tell<T: for<'de> Deserialize<'de>>(&self, path: &[&str]) -> Result<T, StoreError> {
        let answer = self.read(&Call::read(self.url(path.iter().copied()))).await?;
        serde_json::from_slice(&answer.body).map_err(|problem| self.unreadable(&problem))
    }
}

fn version_finding(text: &str) -> Finding {
    let subject = "consul version";
    let level = match parse(text) {
        None => Level::Warning,
        Some(version) if version < FLOOR => Level::Error,
        Some(version) if version < MAINTAINED => Level::Warning,
        Some(_) => return ok(subject, text),
    };
    let problem = match (level, parse(text)) {
        (Level::Error, _) => "it lacks sessions without health checks as Rotacast asks for them",
        (_, None) => "no version that Rotacast knows",
        _ => "its series is no longer maintained",
    };
    Finding {
        level,
        subject: subject.into(),
        text: format!("{text}: {problem}"),
        fix: "upgrade to a maintained release of Consul (1.8 is the least)".into(),
    }
}

/// The series of `1.8.7+ent`.
fn parse(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.trim_start_matches('v').split(['.', '-', '+']);
    let mut next = || parts.next()?.parse::<u64>().ok();
    Some((next()?, next()?))
}

fn ok(subject: &str, text: &str) -> Finding {
    Finding { level: Level::Ok, subject: subject.into(), text: text.into(), fix: String::new() }
}

fn error_finding(subject: &str, error: &StoreError) -> Finding {
    let fix = match error {
        StoreError::Denied { .. } => "check store.token_file and the policy of its token",
        StoreError::Unreachable { problem, .. } if problem.contains("store.tls") => {
            "check store.tls.ca: it must hold the authority that signed the agent's certificate"
        }
        StoreError::Unreachable { .. } => "check store.address, the network and that the Consul agent runs",
        _ => "see Consul's own log",
    };
    Finding { level: Level::Error, subject: subject.into(), text: error.to_string(), fix: fix.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_named() {
        assert_eq!(version_finding("1.7.14").level, Level::Error);
        assert_eq!(version_finding("1.8.7").level, Level::Warning);
        assert_eq!(version_finding("1.18.2+ent").level, Level::Ok);
        assert_eq!(version_finding("2.0.0").level, Level::Ok);
        assert_eq!(version_finding("new").level, Level::Warning);
    }
}
