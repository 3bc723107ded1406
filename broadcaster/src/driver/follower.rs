//! What a broadcaster that does not lead can tell: what the store's records say, and who leads.
//!
//! Every answer is a linearizable read of the store, so it is no older than its question. Who uses a secret and what a
//! rotation waits for is in the leader's memory only.

use std::collections::BTreeSet;

use rotacast_clock as clock;
use rotacast_proto::Level;
use rotacast_protocol::SecretName;
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::status::SecretStatus;
use rotacast_store::{RecordEntry, StoreError};
use tracing::warn;

use super::{Environment, Replica};
use crate::api::Refusal;
use crate::findings::Topic;

/// The leader, as the store says; `None` also if it cannot be asked.
pub(super) async fn leader(environment: &Environment) -> Option<Replica> {
    match environment.tree.leader().await {
        Ok(candidate) => candidate.as_deref().map(Replica::of_candidate),
        Err(problem) => {
            warn!(%problem, "cannot be asked who leads");
            None
        }
    }
}

/// The refusal that sends the caller to the leader.
pub(super) async fn refusal(environment: &Environment) -> Refusal {
    Refusal::NotLeader {
        problem: match leader(environment).await {
            Some(Replica { name, .. }) if name == environment.replica.name => {
                "it is taking over at this moment, or its term before a crash has not run out yet; try again in a few seconds".into()
            }
            Some(Replica { name, address: Some(address), .. }) => format!("{name} leads, at {address}"),
            Some(Replica { name, address: None, .. }) => format!("{name} leads"),
            None => "the store names no leader at the moment; the election may be on".into(),
        },
    }
}

/// One secret's status or every secret's, from the records.
pub(super) async fn statuses(
    environment: &Environment,
    secret: Option<&SecretName>,
) -> Result<Vec<SecretStatus>, Refusal> {
    if let Some(problem) = environment.home.closed() {
        return Err(Refusal::Unavailable {
            problem: problem.to_string(),
            fix: "`rotacast doctor` says since when, and what to correct".into(),
        });
    }
    let Some(name) = secret else {
        let records = environment.tree.load_records().await.map_err(|problem| unreadable(&problem))?;
        // A record that is gone is no record that cannot be read.
        let names: BTreeSet<&str> = records.entries.iter().map(|entry| entry.secret.as_str()).collect();
        environment.findings.keep_only(Topic::OutOfService, |name| names.contains(name));
        let mut statuses = Vec::with_capacity(records.entries.len());
        for entry in &records.entries {
            let name = entry.secret.as_str();
            match told(environment, entry) {
                Ok(status) => {
                    environment.findings.clear(Topic::OutOfService, name);
                    statuses.push(status);
                }
                // The answer has the others all the same.
                Err(refusal) => {
                    let fix = "upgrade this broadcaster, or write the record back from a backup of the store";
                    let text = refusal.to_string();
                    environment.findings.raise(Topic::OutOfService, name, Level::Error, text, fix);
                }
            }
        }
        return Ok(statuses);
    };
    let entry = environment.tree.read_record(name).await.map_err(|problem| unreadable(&problem))?;
    let entry = entry.ok_or_else(|| Refusal::NotFound {
        what: format!("secret {name}"),
        fix: format!("`rotacast put {name}` writes its first version"),
    })?;
    Ok(vec![told(environment, &entry)?])
}

fn told(environment: &Environment, entry: &RecordEntry) -> Result<SecretStatus, Refusal> {
    let record = SecretRecord::decode_of(&entry.secret, &entry.bytes).map_err(|problem| Refusal::Unavailable {
        problem: format!("the record of {}: {problem}", entry.secret),
        fix: "upgrade this broadcaster if a later release wrote it; otherwise write it back from a backup of the store"
            .into(),
    })?;
    let now = clock::wall();
    let configured = environment.settings.of(&entry.secret).shown(&record, now);
    let findings = environment.findings.about(&entry.secret);
    Ok(SecretStatus { findings, ..SecretStatus::of_record(&record, configured, now) })
}

fn unreadable(problem: &StoreError) -> Refusal {
    Refusal::Unavailable { problem: problem.to_string(), fix: "ask another broadcaster".into() }
}
