//! The keys that a running cluster uses.

use rotacast_proto::{KeyId, v1};
use rotacast_protocol::{Incarnation, InstanceKey};
use serde::Serialize;

use crate::Context;
use crate::error::{Exit, Stop};
use crate::human_time::span;
use crate::output::{Mark, note};
use crate::summary::count;
use crate::table::{Cell, Table};

#[derive(Serialize)]
struct KeyView {
    key_id: String,
    of: String,
    owner: Option<String>,
    standing: String,
    instances: u32,
    by_announcement: Vec<String>,
    distrusted_by: Vec<String>,
    attests: Vec<String>,
    used_ms_ago: Option<u64>,
}

#[derive(Serialize)]
struct KeysView {
    keys: Vec<KeyView>,
    /// Live instances that say which keys they trust.
    instances: u32,
}

/// As people read it; what a broadcaster sends may be anything.
fn name(key: &v1::InstanceKey) -> String {
    let parsed = || {
        let incarnation = <[u8; 16]>::try_from(key.incarnation.as_ref()).ok()?;
        let incarnation = Incarnation(u128::from_be_bytes(incarnation));
        Some(InstanceKey::new(key.service.parse().ok()?, key.instance.parse().ok()?, incarnation))
    };
    parsed().map_or_else(|| format!("{}/{}", key.service, key.instance), |key| key.to_string())
}

impl From<v1::KeyInfo> for KeyView {
    fn from(key: v1::KeyInfo) -> Self {
        let names = |keys: &[v1::InstanceKey]| keys.iter().map(name).collect();
        Self {
            by_announcement: names(&key.by_announcement),
            distrusted_by: names(&key.distrusted_by),
            attests: names(&key.attests),
            key_id: key.key_id,
            of: key.of,
            owner: Some(key.owner).filter(|owner| !owner.is_empty()),
            standing: key.standing,
            instances: key.instances,
            used_ms_ago: key.used_ms_ago,
        }
    }
}

pub(super) async fn run(context: &Context) -> Result<(), Stop> {
    let reply = context.client().await?.keys().await?;
    let view = KeysView { keys: reply.keys.into_iter().map(KeyView::from).collect(), instances: reply.instances };
    let output = context.output;
    if output.is_data() {
        return output.data(&view);
    }
    let mut table = Table::new(["KEY", "OF", "OWNER", "STANDING", "INSTANCES", "USED"]);
    for key in &view.keys {
        let mark = match key.standing.as_str() {
            "in_use" | "trusted" => Mark::Good,
            "former" | "revoked" | "unknown" if key.instances > 0 => Mark::Warn,
            _ => Mark::Plain,
        };
        let instances = match key.of.as_str() {
            "broadcaster" => format!("{} of {}", key.instances, view.instances),
            "service" => key.instances.to_string(),
            _ => "-".to_owned(),
        };
        table.row([
            (&key.key_id).into(),
            (&key.of).into(),
            key.owner.as_deref().unwrap_or("-").into(),
            Cell::marked(&key.standing.replace('_', " "), mark),
            instances.into(),
            key.used_ms_ago.map_or_else(|| "-".into(), |ago| format!("{} ago", span(ago))).into(),
        ]);
    }
    table.print(output, "")?;
    for key in &view.keys {
        if !key.distrusted_by.is_empty() {
            note(format_args!("{}: not trusted by {}", key.key_id, key.distrusted_by.join(", ")));
        }
        if !key.by_announcement.is_empty() {
            let names = key.by_announcement.join(", ");
            note(format_args!("{}: trusted only because it was announced, until they restart, by {names}", key.key_id));
        }
        if matches!(key.standing.as_str(), "former" | "revoked" | "unknown") && !key.attests.is_empty() {
            note(format_args!("{} ({}): attests {}", key.key_id, key.standing, key.attests.join(", ")));
        }
    }
    Ok(())
}

/// Refuses a key with which a message would not count.
pub(super) async fn check_trusted(context: &Context, key: &KeyId) -> Result<(), Stop> {
    let reply = context.client().await?.keys().await?;
    let refused = |problem: String, fix: &str| {
        Err(Stop::failed(Exit::Failed, "key_not_trusted", problem, format!("{fix}; or give --force")))
    };
    let Some(found) = reply.keys.into_iter().find(|found| found.key_id == key.as_str()).map(KeyView::from) else {
        return refused(
            format!("the leader does not know key {key}"),
            "for a service or an operator, add its public half to their `keys` in the broadcasters' configuration and reload \
             them; for the broadcasters' own, give all of them this file and restart them, one after the other: they then \
             announce it",
        );
    };
    match (found.of.as_str(), found.standing.as_str()) {
        (_, "former" | "revoked" | "unknown") => refused(
            format!("key {key} is {} in the configuration", found.standing),
            "put its public half under `keys` and reload",
        ),
        ("broadcaster", _) if !found.distrusted_by.is_empty() => refused(
            format!(
                "{} of {} do not trust key {key}: {}",
                found.distrusted_by.len(),
                count(reply.instances as usize, "live instance"),
                found.distrusted_by.join(", ")
            ),
            "wait for their next Sync, or add it to the files that they trust (ROTACAST_TRUST)",
        ),
        ("broadcaster", _) if !found.by_announcement.is_empty() => {
            let names = found.by_announcement.join(", ");
            note(format_args!("trusted only because it was announced, until they restart, by {names}"));
            Ok(())
        }
        _ => Ok(()),
    }
}
