//! The keys that Rotacast itself uses: what each counts for, which live instances use or trust it, and what is on record about
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rotacast_proto::{KeyId, Level, VerifyingKey, v1};
use rotacast_protocol::InstanceKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::audit::{AuditLog, Entry};
use crate::config::Config;
use crate::findings::{Findings, Topic};
use crate::identities::{Identities, KeyStanding, Service};
use crate::key_uses::{InstanceUse, RefusedUse};
use crate::operators::Operators;

/// How often refused uses are put on record: as failed sign-ins are.
const RECORD_EVERY: Duration = Duration::from_secs(10);
/// How long a key that does not count has not been shown until that finding is over.
const QUIET: Duration = Duration::from_secs(600);
/// Most instances that are named beside a key.
const MOST_NAMED: usize = 32;
/// How many of them a finding names.
const NAMED: usize = 5;
/// The subject of the finding about instances that do not trust the key which signs.
const SIGNING_KEY: &str = "signing key";

/// What a key counts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    InUse,
    Announced,
    Trusted,
    Former,
    Revoked,
    Unknown,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Announced => "announced",
            Self::Trusted => "trusted",
            Self::Former => "former",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

impl From<KeyStanding> for Standing {
    fn from(standing: KeyStanding) -> Self {
        match standing {
            KeyStanding::Trusted => Self::Trusted,
            KeyStanding::Former => Self::Former,
            KeyStanding::Revoked => Self::Revoked,
        }
    }
}

/// Knows the keys of the broadcasters, the services and the operators.
pub struct KeyBook {
    identities: Arc<Identities>,
    operators: watch::Receiver<Arc<Operators>>,
    /// This broadcaster's own; the first signs.
    own: Vec<VerifyingKey>,
    audit: Arc<AuditLog>,
    findings: Findings,
}

impl KeyBook {
    /// Of this broadcaster, which signs with the first of its `own` keys.
    #[must_use]
    pub fn new(
        identities: Arc<Identities>,
        operators: watch::Receiver<Arc<Operators>>,
        own: Vec<VerifyingKey>,
        audit: Arc<AuditLog>,
        findings: Findings,
    ) -> Self {
        Self { identities, operators, own, audit, findings }
    }

    /// Every key, as of now.
    #[must_use]
    pub fn told(&self, now: Instant) -> v1::KeysReply {
        let live = self.identities.uses().live(now);
        let telling = live.iter().filter(|(_, used)| tells(used)).count();
        let mut keys: Vec<v1::KeyInfo> = self.own.iter().enumerate().map(|(at, key)| own_key(at, key, &live)).collect();
        let services = self.identities.services();
        let named = services.named.iter().map(|(name, service)| (name.to_string(), service));
        let anyone = services.anyone.iter().map(|service| ("*".to_owned(), service));
        for (owner, service) in named.chain(anyone) {
            keys.extend(self.service_keys(&owner, service, &live, now));
        }
        for (name, operator) in self.operators.borrow().people() {
            keys.extend(operator.keys.iter().map(|key| v1::KeyInfo {
                key_id: key.id().to_string(),
                of: "operator".into(),
                owner: name.to_string(),
                standing: Standing::Trusted.as_str().into(),
                ..v1::KeyInfo::default()
            }));
        }
        v1::KeysReply { keys, instances: count(telling) }
    }

    fn service_keys(
        &self,
        owner: &str,
        service: &Service,
        live: &[(InstanceKey, InstanceUse)],
        now: Instant,
    ) -> Vec<v1::KeyInfo> {
        let services = self.identities.services();
        let of_owner = |key: &InstanceKey| match owner {
            "*" => !services.named.contains_key(&key.service),
            name => key.service.as_str() == name,
        };
        let mut known: Vec<(KeyId, Standing)> =
            service.keys.iter().map(|(key, standing)| (key.id().clone(), standing.into())).collect();
        // What attested live instances, and is not in the configuration any more.
        for (key, used) in live {
            if of_owner(key) && !known.iter().any(|(id, _)| *id == used.attested_by) {
                known.push((used.attested_by.clone(), Standing::Unknown));
            }
        }
        let told = known.into_iter().map(|(id, standing)| {
            let attested: Vec<&(InstanceKey, InstanceUse)> =
                live.iter().filter(|(key, used)| of_owner(key) && used.attested_by == id).collect();
            let newest = attested.iter().map(|(_, used)| now.saturating_duration_since(used.heard)).min();
            v1::KeyInfo {
                key_id: id.to_string(),
                of: "service".into(),
                owner: owner.to_owned(),
                standing: standing.as_str().into(),
                instances: count(attested.len()),
                attests: named(attested.iter().map(|(key, _)| key)),
                used_ms_ago: newest.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
                ..v1::KeyInfo::default()
            }
        });
        told.collect()
    }

    /// Puts refused uses on record, and raises findings, until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut refused_at: BTreeMap<KeyId, Instant> = BTreeMap::new();
        loop {
            let stopped = tokio::select! {
                () = tokio::time::sleep(RECORD_EVERY) => false,
                () = stop.cancelled() => true,
            };
            self.record(&mut refused_at).await;
            self.look(Instant::now());
            if stopped {
                return;
            }
        }
    }

    async fn record(&self, refused_at: &mut BTreeMap<KeyId, Instant>) {
        let now = Instant::now();
        for ((service, key, why), refused) in self.identities.uses().take_refused() {
            let (standing, text) = match why {
                RefusedUse::Revoked => ("revoked", "the key is revoked, and what it attests is refused"),
                RefusedUse::Former => ("former", "the key attests no new instance any more"),
            };
            let entry = Entry::new("broadcaster", "key_refused")
                .detail("service", service.to_string())
                .detail("key", key.to_string())
                .detail("standing", standing)
                .detail("instance", refused.instance.full_name())
                .detail("times", refused.times);
            if let Err(problem) = self.audit.append(entry).await {
                warn!(%problem, %service, %key, "that a key was refused is not on record");
            }
            let text = format!("service {service}: {text}, and instances still show it, such as {}", refused.instance);
            let fix = "give these instances a key that is trusted: replace the file of their identity (they read it again by \
                       themselves); if they are not yours, a thief has that key";
            self.findings.raise(Topic::Key, key.as_str(), Level::Warning, text, fix);
            refused_at.insert(key, now);
        }
        refused_at.retain(|key, at| {
            let stands = now.saturating_duration_since(*at) < QUIET;
            if !stands {
                self.findings.clear(Topic::Key, key.as_str());
            }
            stands
        });
    }

    /// Whether every live instance trusts the key that signs.
    fn look(&self, now: Instant) {
        let Some(signing) = self.own.first() else { return };
        let live = self.identities.uses().live(now);
        let distrusting: Vec<&InstanceKey> = distrusting(signing.id(), &live).collect();
        if distrusting.is_empty() {
            return self.findings.clear(Topic::Key, SIGNING_KEY);
        }
        let mut names: Vec<String> = distrusting.iter().take(NAMED).map(ToString::to_string).collect();
        if distrusting.len() > NAMED {
            names.push(format!("{} more", distrusting.len() - NAMED));
        }
        let text = format!(
            "this broadcaster signs with key {}, which these live instances do not trust, so they refuse its states and replies: {}",
            signing.id(),
            names.join(", ")
        );
        let fix = "add its public key to the files that these instances trust (ROTACAST_TRUST; they are read again by themselves), or \
                   sign with the earlier key again (`rotacast keys use`) and restart; `rotacast keys status` names all of them";
        self.findings.raise(Topic::Key, SIGNING_KEY, Level::Error, text, fix);
    }
}

/// An SDK that says which keys it trusts.
fn tells(used: &InstanceUse) -> bool {
    !used.trusted.is_empty() || !used.announced.is_empty()
}

fn distrusting<'a>(key: &'a KeyId, live: &'a [(InstanceKey, InstanceUse)]) -> impl Iterator<Item = &'a InstanceKey> {
    let distrusts = |used: &InstanceUse| tells(used) && !used.trusted.contains(key) && !used.announced.contains(key);
    live.iter().filter(move |(_, used)| distrusts(used)).map(|(key, _)| key)
}

fn own_key(at: usize, key: &VerifyingKey, live: &[(InstanceKey, InstanceUse)]) -> v1::KeyInfo {
    let id = key.id();
    let standing = if at == 0 { Standing::InUse } else { Standing::Announced };
    let only_announced = live.iter().filter(|(_, used)| !used.trusted.contains(id) && used.announced.contains(id));
    let trusting = live.iter().filter(|(_, used)| used.trusted.contains(id) || used.announced.contains(id));
    v1::KeyInfo {
        key_id: id.to_string(),
        of: "broadcaster".into(),
        standing: standing.as_str().into(),
        instances: count(trusting.count()),
        by_announcement: named(only_announced.map(|(key, _)| key)),
        distrusted_by: named(distrusting(id, live)),
        ..v1::KeyInfo::default()
    }
}

fn named<'a>(keys: impl Iterator<Item = &'a InstanceKey>) -> Vec<v1::InstanceKey> {
    keys.take(MOST_NAMED).map(Into::into).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What a reload changes about keys, for the audit log: one entry for each owner.
#[must_use]
pub fn changes(old: &Config, new: &Config, identities: &Identities, now: Instant) -> Vec<Entry> {
    let mut entries = Vec::new();
    let live = identities.uses().live(now);
    let (before, after) = (services(old), services(new));
    for owner in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let none = BTreeMap::new();
        let (before, after) = (before.get(owner).unwrap_or(&none), after.get(owner).unwrap_or(&none));
        let counts = |standing: Option<&KeyStanding>| standing.is_some_and(|it| *it != KeyStanding::Revoked);
        let cut_off = live.iter().filter(|(key, used)| {
            let id = used.attested_by.as_str();
            key.service.as_str() == owner && counts(before.get(id)) && !counts(after.get(id))
        });
        let cut_off = cut_off.count();
        entries.extend(
            entry("service", owner, before, after).map(|entry| entry.detail("live_instances_refused", cut_off)),
        );
    }
    let (before, after) = (operators(old), operators(new));
    for owner in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let none = BTreeMap::new();
        entries.extend(entry("operator", owner, before.get(owner).unwrap_or(&none), after.get(owner).unwrap_or(&none)));
    }
    entries
}

type Keys = BTreeMap<String, KeyStanding>;

fn services(config: &Config) -> BTreeMap<String, Keys> {
    let named = config.services.iter().map(|(name, service)| (name.to_string(), service));
    let all = named.chain(config.any_service.iter().map(|service| ("*".to_owned(), service)));
    let keys = all.map(|(name, service)| {
        let keys = service.keys.iter().map(|(key, standing)| (key.id().to_string(), standing));
        (name, keys.collect())
    });
    keys.collect()
}

fn operators(config: &Config) -> BTreeMap<String, Keys> {
    let keys = config.operators.people().map(|(name, operator)| {
        let keys = operator.keys.iter().map(|key| (key.id().to_string(), KeyStanding::Trusted));
        // A token has no id: the beginning of its digest tells which it was.
        let tokens = operator.tokens.iter().map(|token| (token.short(), KeyStanding::Trusted));
        (name.to_string(), keys.chain(tokens).collect())
    });
    keys.collect()
}

fn entry(of: &str, owner: &str, before: &Keys, after: &Keys) -> Option<Entry> {
    if before == after {
        return None;
    }
    let became = |standing: KeyStanding| {
        let ids = after.iter().filter(|(id, now)| **now == standing && before.get(*id) != Some(*now));
        ids.map(|(id, _)| id.clone()).collect::<Vec<_>>()
    };
    let removed: Vec<String> = before.keys().filter(|id| !after.contains_key(*id)).cloned().collect();
    Some(
        Entry::new("broadcaster", "keys_changed")
            .detail("of", of)
            .detail("owner", owner)
            .detail("trusted", became(KeyStanding::Trusted))
            .detail("former", became(KeyStanding::Former))
            .detail("revoked", became(KeyStanding::Revoked))
            .detail("removed", removed),
    )
}
