//! Who runs what: searched and counted here, so that a page about 100,000 instances asks for what it shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rotacast_proto::instance_subject;
use rotacast_protocol::coordinator::Standing;
use rotacast_protocol::status::{InstanceStatus, moment};
use rotacast_protocol::{SecretName, ServiceName, Version, WallTime};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::api::{Control, Instances, Refusal};
use crate::operators::Reading;
use crate::viewers::Viewer;

/// How old an answer may be: any number of pages costs the tasks no more than one question in that time.
const FRESH: Duration = Duration::from_secs(2);
/// Most instances in one answer.
const MAX_LIMIT: usize = 500;
const DEFAULT_LIMIT: usize = 100;
/// Most groups in one answer: beyond, a secret or service is to be named.
const MAX_GROUPS: usize = 2000;
/// Most secrets named in one answer whose instances are not known.
const MAX_UNANSWERED: usize = 100;
/// Longest text to search for, in bytes.
const MAX_QUERY: usize = 200;

/// What is asked for.
#[derive(Default, Deserialize)]
pub(super) struct InstancesQuery {
    secret: Option<String>,
    service: Option<String>,
    version: Option<u64>,
    not_on: Option<u64>,
    standing: Option<String>,
    q: Option<String>,
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

/// One secret's part, or all.
#[derive(Default, Deserialize)]
pub(super) struct FleetQuery {
    secret: Option<String>,
}

#[derive(Serialize)]
pub(super) struct PageView {
    #[serde(serialize_with = "moment")]
    taken_at: WallTime,
    total: usize,
    matching: usize,
    instances: Vec<InstanceStatus>,
    #[serde(flatten)]
    missing: MissingView,
}

#[derive(Serialize)]
pub(super) struct FleetView {
    #[serde(serialize_with = "moment")]
    taken_at: WallTime,
    total: usize,
    groups: Vec<GroupView>,
    truncated: bool,
    #[serde(flatten)]
    missing: MissingView,
}

/// The secrets that were asked for and whose instances are not known: they do not answer, or are out of service.
#[derive(Serialize)]
struct MissingView {
    unanswered: Vec<SecretName>,
    unanswered_total: usize,
}

/// The instances of one service on one version of one secret.
#[derive(Serialize)]
struct GroupView {
    service: ServiceName,
    secret: SecretName,
    version: Option<Version>,
    instances: usize,
    standings: BTreeMap<Standing, usize>,
}

/// All instances, as of one moment.
struct Snapshot {
    taken: Instant,
    taken_at: WallTime,
    instances: Vec<InstanceStatus>,
    unanswered: Vec<SecretName>,
}

impl Snapshot {
    fn missing(&self, viewer: &Viewer, wanted: Option<&str>) -> MissingView {
        let all = || {
            let wanted = |secret: &&SecretName| wanted.is_none_or(|wanted| wanted == secret.as_str());
            self.unanswered.iter().filter(wanted).filter(|secret| viewer.reads(Reading::Fleet, Some(secret)))
        };
        MissingView { unanswered: all().take(MAX_UNANSWERED).cloned().collect(), unanswered_total: all().count() }
    }
}

/// The newest snapshot, shared by all viewers.
#[derive(Default)]
pub(super) struct Fleet(Mutex<Option<Arc<Snapshot>>>);

impl Fleet {
    /// Held while the tasks are asked, so that a reader who comes meanwhile gets the same answer.
    async fn snapshot(&self, control: &dyn Control) -> Result<Arc<Snapshot>, Refusal> {
        let mut newest = self.0.lock().await;
        if let Some(snapshot) = newest.as_ref().filter(|snapshot| snapshot.taken.elapsed() < FRESH) {
            return Ok(Arc::clone(snapshot));
        }
        let taken_at = rotacast_clock::wall();
        let asked = control.instances(None, None).await.inspect_err(|_| *newest = None)?;
        let Instances { found: instances, unanswered } = asked;
        let snapshot = Arc::new(Snapshot { taken: Instant::now(), taken_at, instances, unanswered });
        *newest = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// One page of those that match.
    pub(super) async fn page(
        &self,
        control: &dyn Control,
        viewer: &Viewer,
        query: InstancesQuery,
    ) -> Result<PageView, Refusal> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if limit == 0 || limit > MAX_LIMIT {
            return Err(Refusal::Invalid(format!("limit {limit}; expected 1 to {MAX_LIMIT}")));
        }
        let filter = Filter::new(&query)?;
        let snapshot = self.snapshot(control).await?;
        let mut instances = Vec::new();
        let (mut total, mut matching) = (0, 0);
        let mut readable = Readable::new(viewer);
        for instance in snapshot.instances.iter().filter(|instance| readable.has(&instance.secret)) {
            total += 1;
            if !filter.admits(instance) {
                continue;
            }
            if matching >= query.offset && instances.len() < limit {
                instances.push(instance.clone());
            }
            matching += 1;
        }
        let missing = snapshot.missing(viewer, filter.secret);
        Ok(PageView { taken_at: snapshot.taken_at, total, matching, instances, missing })
    }

    /// How many of each service run what.
    pub(super) async fn groups(
        &self,
        control: &dyn Control,
        viewer: &Viewer,
        query: FleetQuery,
    ) -> Result<FleetView, Refusal> {
        let secret = query.secret.filter(|text| !text.is_empty()).map(SecretName::new).transpose();
        let secret = secret.map_err(|error| Refusal::Invalid(error.to_string()))?;
        let snapshot = self.snapshot(control).await?;
        let mut counts: BTreeMap<(&ServiceName, &SecretName, Option<Version>), BTreeMap<Standing, usize>> =
            BTreeMap::new();
        let mut total = 0;
        let mut readable = Readable::new(viewer);
        for it in snapshot.instances.iter().filter(|it| readable.has(&it.secret)) {
            if secret.as_ref().is_none_or(|secret| *secret == it.secret) {
                total += 1;
                let group = counts.entry((&it.key.service, &it.secret, it.version)).or_default();
                *group.entry(it.standing).or_default() += 1;
            }
        }
        let truncated = counts.len() > MAX_GROUPS;
        let groups = counts.into_iter().take(MAX_GROUPS).map(|((service, secret, version), standings)| GroupView {
            service: service.clone(),
            secret: secret.clone(),
            version,
            instances: standings.values().sum(),
            standings,
        });
        let (taken_at, missing) =
            (snapshot.taken_at, snapshot.missing(viewer, secret.as_ref().map(SecretName::as_str)));
        Ok(FleetView { taken_at, total, groups: groups.collect(), truncated, missing })
    }
}

/// Which secrets' instances a viewer may see. Instances of one secret follow each other, so that few are decided about.
struct Readable<'v, 's> {
    viewer: &'v Viewer,
    last: Option<(&'s SecretName, bool)>,
}

impl<'v, 's> Readable<'v, 's> {
    fn new(viewer: &'v Viewer) -> Self {
        Self { viewer, last: None }
    }

    fn has(&mut self, secret: &'s SecretName) -> bool {
        match self.last {
            Some((last, readable)) if last == secret => readable,
            _ => {
                let readable = self.viewer.reads(Reading::Fleet, Some(secret));
                self.last = Some((secret, readable));
                readable
            }
        }
    }
}

/// A query, checked.
struct Filter<'q> {
    secret: Option<&'q str>,
    service: Option<&'q str>,
    version: Option<Version>,
    not_on: Option<Version>,
    standing: Option<&'q str>,
    words: String,
}

impl<'q> Filter<'q> {
    fn new(query: &'q InstancesQuery) -> Result<Self, Refusal> {
        fn given(text: &Option<String>) -> Option<&str> {
            text.as_deref().filter(|text| !text.is_empty())
        }
        let words = query.q.as_deref().unwrap_or_default().to_lowercase();
        if words.len() > MAX_QUERY {
            return Err(Refusal::Invalid(format!("q of {} bytes; expected at most {MAX_QUERY}", words.len())));
        }
        let checked = |version: Option<u64>| version.map(Version::new).transpose();
        let (version, not_on) = checked(query.version)
            .and_then(|version| Ok((version, checked(query.not_on)?)))
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        Ok(Self {
            secret: given(&query.secret),
            service: given(&query.service),
            version,
            not_on,
            standing: given(&query.standing),
            words,
        })
    }

    fn admits(&self, it: &InstanceStatus) -> bool {
        let found = |text: &str| text.to_lowercase().contains(&self.words);
        self.secret.is_none_or(|secret| it.secret.as_str() == secret)
            && self.service.is_none_or(|service| it.key.service.as_str() == service)
            && self.version.is_none_or(|version| it.version == Some(version))
            && self.not_on.is_none_or(|version| !it.is_only_on(version))
            && self.standing.is_none_or(|standing| it.standing.as_str() == standing)
            && (self.words.is_empty() || found(&instance_subject(&it.key)) || found(it.secret.as_str()))
    }
}
