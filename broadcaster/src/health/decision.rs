//! The decision, from facts alone.

use std::time::Duration;

use serde::Serialize;

use crate::findings::Topic;

/// How long its own loop may not have turned: far above what a busy machine needs, twelve turns.
pub const ALIVE_WITHIN: Duration = Duration::from_secs(60);

/// How long ago the store may have answered: three questions that it did not.
pub const STORE_WITHIN: Duration = Duration::from_secs(16);

/// What the decision is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// How this replica is called.
    pub replica: String,
    /// It leads.
    pub leads: bool,
    /// Whom the store names as leader, as of its last answer.
    pub leader: Option<String>,
    /// It was told to stop.
    pub stopping: bool,
    /// Since its own loop turned.
    pub since_beat: Duration,
    /// Since the store answered; `None`: it has not yet.
    pub since_store: Option<Duration>,
    /// The store is another cluster's.
    pub foreign: bool,
    /// The audit log did not take its last entry.
    pub audit_fails: bool,
    /// How many findings stand, by topic; none that has none.
    pub findings: Vec<(Topic, u64)>,
}

/// How a broadcaster is. Reasons hold no addresses and no names but replicas', since any client may probe.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct HealthReport {
    /// A restart would not help.
    pub alive: bool,
    /// Asking it makes sense.
    pub ready: bool,
    /// `leader` or `follower`.
    pub role: &'static str,
    /// Whom the store names as leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Why it is not alive or not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What an operator should look at, although the broadcaster is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Decides.
#[must_use]
pub fn decide(facts: &Facts) -> HealthReport {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let alive = facts.since_beat <= ALIVE_WITHIN;
    if !alive {
        problems.push(format!("its own loop has not turned for {} s", facts.since_beat.as_secs()));
    }
    let store = match facts.since_store {
        Some(since) if since <= STORE_WITHIN => true,
        Some(since) => {
            problems.push(format!("the store has not answered for {} s", since.as_secs()));
            false
        }
        None => {
            problems.push("the store has not answered yet".into());
            false
        }
    };
    if facts.stopping {
        problems.push("it is stopping".into());
    }
    if facts.foreign {
        problems.push("the store belongs to another cluster; `rotacast doctor` names it".into());
    }
    if facts.audit_fails {
        // A leader without an audit log retires nothing, and still grants the leases that services live on.
        warnings.push("the audit log did not take its last entry: nothing is retired until it does".into());
    }
    for (topic, count) in &facts.findings {
        // No names: any client may probe.
        warnings.push(format!("{}: {count}; `rotacast doctor` names them", topic.as_str().replace('_', " ")));
    }
    let leader = if facts.leads { Some(facts.replica.clone()) } else { facts.leader.clone() };
    if store && leader.is_none() {
        warnings.push("the store names no leader: an election is under way, or no broadcaster stands for it".into());
    }
    HealthReport {
        alive,
        ready: alive && store && !facts.stopping && !facts.foreign,
        role: if facts.leads { "leader" } else { "follower" },
        leader,
        problems,
        warnings,
    }
}
