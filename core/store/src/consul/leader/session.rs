//! Sessions: what a lock is bound to.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::consul::Shared;
use crate::consul::call::Call;
use crate::{Key, StoreError};

/// Consul's least and greatest time-to-live of a session.
pub(super) const LEAST_TTL: Duration = Duration::from_secs(10);
const GREATEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Consul's greatest lock delay.
pub(super) const GREATEST_LOCK_DELAY: Duration = Duration::from_secs(60);

/// What the names of our sessions begin with.
pub(super) const SESSION_NAME: &str = "rotacast";

/// Which session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::consul) struct SessionId(String);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted<'s> {
    name: &'s str,
    #[serde(rename = "TTL")]
    ttl: String,
    /// The lock goes with its session, so that its key is there exactly as long as a broadcaster leads.
    behavior: &'static str,
    /// How long no session can take the lock after the session was invalidated while it held it. As long as the
    /// time-to-live: an operator may destroy a leader's session by mistake, and that leader relies on its own clock
    /// until its next renewal. Stepping down deletes the key first, which costs no delay.
    lock_delay: String,
    /// No health checks, under either of their names: a gossip failure of the agent's node is no reason to depose.
    node_checks: [&'static str; 0],
    checks: [&'static str; 0],
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    #[serde(rename = "ID")]
    id: SessionId,
}

/// What is read of a session.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    #[serde(default)]
    name: String,
    #[serde(default)]
    node: String,
}

/// Whole seconds, and within what Consul grants.
pub(super) fn granted(ttl: Duration) -> Duration {
    let ttl = ttl.clamp(LEAST_TTL, GREATEST_TTL);
    Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
}

impl Shared {
    /// Makes a session; `ttl` is one that Consul grants.
    pub(super) async fn make_session(&self, name: &str, ttl: Duration) -> Result<SessionId, StoreError> {
        let wanted = Wanted {
            name,
            ttl: format!("{}s", ttl.as_secs()),
            behavior: "delete",
            lock_delay: format!("{}s", ttl.min(GREATEST_LOCK_DELAY).as_secs()),
            node_checks: [],
            checks: [],
        };
        let body = Zeroizing::new(serde_json::to_vec(&wanted).expect("text always serialises"));
        let answer = self.once(&Call::write(self.url(["session", "create"]), body)).await?;
        let made: Made = serde_json::from_slice(&answer.body).map_err(|problem| self.unreadable(&problem))?;
        Ok(made.id)
    }

    /// Fails by name if another client's session holds the leader's key: such a term may never end.
    pub(super) async fn is_a_leaders(&self, election: &Key, session: &SessionId) -> Result<(), StoreError> {
        let answer = self.read(&Call::read(self.url(["session", "info", session.0.as_str()]))).await?;
        let known: Option<Vec<Known>> =
            serde_json::from_slice(&answer.body).map_err(|problem| self.unreadable(&problem))?;
        let foreign = |it: &Known| !it.name.starts_with(SESSION_NAME);
        match known.unwrap_or_default().into_iter().find(foreign) {
            None => Ok(()),
            Some(Known { name, node }) => Err(StoreError::Corrupt {
                key: election.to_string(),
                problem: format!(
                    "session {} (name {name:?}, node {node:?}) of another client holds it, so no broadcaster can lead. To end it: \
                     curl -X PUT CONSUL/v1/session/destroy/{}",
                    session.0, session.0
                ),
            }),
        }
    }

    /// `false`: there is no such session any more.
    pub(super) async fn renew_session(&self, session: &SessionId) -> Result<bool, StoreError> {
        let answer = self.once(&self.session_call("renew", session)).await?;
        Ok(answer.status.as_u16() == 200)
    }

    /// Ends a session and deletes what it holds. If Consul does not answer, the session runs out by itself.
    pub(super) async fn destroy_session(&self, session: &SessionId) {
        if let Err(error) = self.once(&self.session_call("destroy", session)).await {
            tracing::debug!(%error, "giving a session back; it runs out by itself");
        }
    }

    fn session_call(&self, verb: &str, session: &SessionId) -> Call {
        let url: Url = self.url(["session", verb, session.0.as_str()]);
        Call::write(url, Zeroizing::new(Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_one_that_consul_grants() {
        assert_eq!(granted(Duration::from_secs(2)), LEAST_TTL);
        assert_eq!(granted(Duration::from_millis(15_001)), Duration::from_secs(16));
        assert_eq!(granted(Duration::MAX), GREATEST_TTL);
    }
}
