//! The three topics of a cluster: how they should be, and what is wrong with the ones that are there.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use rotacast_protocol::ClusterName;
use tokio::sync::Mutex;

use super::access::Access;
use super::fault::{Ear, Heard, is_silence, meaning};
use super::options::KafkaTopics;
use crate::{BusError, Finding, Level, MAX_MESSAGE_BYTES, MAX_REGISTRATION_BYTES};

/// Partitions of a topic created by us: one leader on each of three brokers.
const PARTITIONS: i32 = 3;
/// Most partitions that make sense: every client reads all of them.
const MAX_PARTITIONS: usize = 12;
/// Copies of a topic created by us, where there are brokers enough.
const REPLICATION: i32 = 3;
/// How long one request about topics may take, in milliseconds.
const REQUEST_MS: u64 = 2500;
/// How long a second look may take that finds out why a request has no answer: both fit into one examination.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How often a topic that was created is looked for.
const SEEN: Duration = Duration::from_millis(20);
/// For how long reports of a life that says nothing are kept, in milliseconds: an hour. They are soft.
const REPORTS_MS: &str = "3600000";
/// A topic that takes less refuses ordinary messages: a registration with many secrets has 34 KiB.
const ORDINARY: i64 = MAX_REGISTRATION_BYTES as i64;
/// A topic of reports that keeps them for less may lose them to a reader that begins anew.
const REPORTS_KEPT_MS: i64 = 60_000;
/// Room for keys, headers and framing around the largest message.
const ROOM: usize = 8 * 1024;

/// One of the three.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    State,
    Registrations,
    Reports,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::State, Kind::Registrations, Kind::Reports];

    pub(super) fn topic(self, cluster: &ClusterName) -> String {
        let kind = match self {
            Kind::State => "state",
            Kind::Registrations => "registrations",
            Kind::Reports => "reports",
        };
        format!("rotacast.{cluster}.{kind}")
    }

    fn settings(self, replication: i32) -> Vec<(&'static str, &'static str)> {
        let mut settings = vec![
            ("cleanup.policy", if self == Kind::Reports { "compact,delete" } else { "compact" }),
            ("unclean.leader.election.enable", "false"),
            ("max.message.bytes", "1048588"),
        ];
        if self == Kind::Reports {
            settings.push(("retention.ms", REPORTS_MS));
            settings.push(("segment.ms", REPORTS_MS));
        } else {
            settings.push(("min.insync.replicas", if replication >= 3 { "2" } else { "1" }));
        }
        settings
    }

    /// Compares a topic with what it must be and should be. `before`: how many partitions it had.
    fn audit(self, topic: &str, partitions: &[i32], before: usize, settings: &HashMap<String, String>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |level, text: String, fix: String| {
            findings.push(Finding { level, subject: format!("topic {topic}"), text, fix });
        };
        let set = |setting: &str| format!("kafka-configs.sh --alter --topic {topic} --add-config {setting}");
        let get = |name: &str| settings.get(name).map_or("", String::as_str);
        let number = |name: &str| settings.get(name).and_then(|value| value.parse::<i64>().ok());
        let policies: Vec<_> = get("cleanup.policy").split(',').map(str::trim).collect();
        let replicas = partitions.iter().copied().min().unwrap_or_default();
        if !settings.is_empty() {
            if !policies.contains(&"compact") {
                let text = format!(
                    "cleanup.policy is {:?}, expected compact: without it the last message of a key is forgotten",
                    get("cleanup.policy")
                );
                let level = if self == Kind::State { Level::Error } else { Level::Warning };
                add(
                    level,
                    text,
                    set(if self == Kind::Reports {
                        "cleanup.policy=[compact,delete]"
                    } else {
                        "cleanup.policy=compact"
                    }),
                );
            } else if self != Kind::Reports && policies.contains(&"delete") {
                let costs = if self == Kind::State {
                    "instances that start later learn nothing"
                } else {
                    "an instance that registers while no broadcaster leads may have to register again"
                };
                let text = format!("cleanup.policy has delete as well: {costs}");
                add(Level::Warning, text, set("cleanup.policy=compact"));
            }
            if get("unclean.leader.election.enable") == "true" {
                add(
                    Level::Warning,
                    "unclean.leader.election.enable is true: acknowledged messages can be lost, which costs time"
                        .into(),
                    set("unclean.leader.election.enable=false"),
                );
            }
            if let Some(found) = number("max.message.bytes").filter(|found| *found < (MAX_MESSAGE_BYTES + ROOM) as i64)
            {
                let text = format!("max.message.bytes is {found}, expected at least {}", MAX_MESSAGE_BYTES + ROOM);
                let blocks = found < ORDINARY && self != Kind::Reports;
                add(if blocks { Level::Error } else { Level::Warning }, text, set("max.message.bytes=1048588"));
            }
            if let Some(found) = number("retention.ms").filter(|found| {
                self == Kind::Reports && policies.contains(&"delete") && (0..REPORTS_KEPT_MS).contains(found)
            }) {
                let text = format!("retention.ms is {found}: reports may be deleted before they are read");
                add(Level::Warning, text, set(&format!("retention.ms={REPORTS_MS}")));
            }
            if let Some(found) = number("min.insync.replicas").filter(|_| self != Kind::Reports) {
                if found > i64::from(replicas) {
                    let text =
                        format!("min.insync.replicas is {found} with {replicas} replicas: nothing can be written");
                    add(Level::Error, text, set(&format!("min.insync.replicas={}", 1.max(replicas - 1))));
                } else if found < 2 && replicas >= 3 {
                    let text =
                        "min.insync.replicas is 1: one broker's disk alone may hold what was acknowledged".into();
                    add(Level::Warning, text, set("min.insync.replicas=2"));
                } else if found == i64::from(replicas) && replicas > 1 {
                    let text =
                        format!("min.insync.replicas is {found} of {replicas}: one broker's outage stops writing");
                    add(Level::Warning, text, set(&format!("min.insync.replicas={}", found - 1)));
                }
            }
        }
        if replicas < 2 && self != Kind::Reports {
            add(
                Level::Warning,
                "has one replica: its broker's outage stops rotations, its disk's loss forgets the log".into(),
                "kafka-reassign-partitions.sh, to 3 replicas on 3 brokers".into(),
            );
        }
        if partitions.len() > MAX_PARTITIONS {
            let text = format!(
                "has {} partitions, expected at most {MAX_PARTITIONS}: every client reads all",
                partitions.len()
            );
            add(Level::Warning, text, "delete it while the broadcaster runs: it is created anew".into());
        }
        if partitions.len() != before {
            let text = format!(
                "has {} partitions and had {before}: keys that moved have left their old messages behind",
                partitions.len()
            );
            add(Level::Warning, text, "delete it while the broadcaster runs: it is created anew".into());
        }
        if findings.is_empty() {
            let text = format!("{} partitions, {replicas} replicas, compacted", partitions.len());
            findings.push(Finding { level: Level::Ok, subject: format!("topic {topic}"), text, fix: String::new() });
        }
        findings
    }
}

/// Sees to the topics.
pub(super) struct Topics {
    access: Arc<Access>,
    endpoint: String,
    /// One creation at a time; the others find what it made.
    creating: Mutex<()>,
    /// How many partitions each topic had when it was seen first, by the place of its kind.
    partitions: std::sync::Mutex<[Option<usize>; 3]>,
}

impl Topics {
    pub(super) fn new(access: Arc<Access>) -> Self {
        let endpoint = access.options.endpoint();
        Self { access, endpoint, creating: Mutex::new(()), partitions: std::sync::Mutex::default() }
    }

    pub(super) fn name(&self, kind: Kind) -> String {
        kind.topic(&self.access.options.cluster)
    }

    /// Creates what is missing, and returns all topics as they can be seen then; with `Use` only says what is missing.
    pub(super) async fn ensure(&self) -> Result<Metadata, BusError> {
        let _one = self.creating.lock().await;
        let metadata = self.metadata().await?;
        let missing = self.missing(&metadata);
        if missing.is_empty() {
            return Ok(metadata);
        }
        if self.access.options.topics == KafkaTopics::Use {
            return self.later(format!(
                "{} missing; start a broadcaster, which creates what is missing",
                self.names(&missing)
            ));
        }
        self.create(&missing, metadata.brokers().len()).await?;
        tracing::info!(topics = %self.names(&missing), "created");
        missing.iter().for_each(|kind| self.forget_partitions(*kind));
        // Brokers hear of it some time after it is done.
        let until = Instant::now() + Duration::from_millis(REQUEST_MS);
        loop {
            let metadata = self.metadata().await?;
            let missing = self.missing(&metadata);
            if missing.is_empty() {
                return Ok(metadata);
            }
            if Instant::now() >= until {
                return self.later(format!("{} created, and not to be seen yet", self.names(&missing)));
            }
            tokio::time::sleep(SEEN).await;
        }
    }

    /// How many partitions a topic had when it was seen first; it has `now`.
    fn first_partitions(&self, kind: Kind, now: usize) -> usize {
        let mut all = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        *all[kind as usize].get_or_insert(now)
    }

    fn forget_partitions(&self, kind: Kind) {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize] = None;
    }

    fn missing(&self, metadata: &Metadata) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| found(metadata, &self.name(*kind)).is_none()).collect()
    }

    fn names(&self, kinds: &[Kind]) -> String {
        kinds.iter().map(|kind| self.name(*kind)).collect::<Vec<_>>().join(", ")
    }

    fn later<T>(&self, problem: String) -> Result<T, BusError> {
        Err(BusError::Unreachable { endpoint: self.endpoint.clone(), problem })
    }

    /// Refuses topics that cannot work.
    pub(super) async fn accept(&self, metadata: &Metadata) -> Result<(), BusError> {
        let findings = self.judge(metadata).await;
        for finding in findings.iter().filter(|finding| finding.level == Level::Warning) {
            tracing::warn!(subject = %finding.subject, fix = %finding.fix, "{}", finding.text);
        }
        let errors: Vec<_> = findings
            .iter()
            .filter(|finding| finding.level == Level::Error)
            .map(|finding| format!("{} {}; {}", finding.subject, finding.text, finding.fix))
            .collect();
        if errors.is_empty() {
            return Ok(());
        }
        Err(BusError::Misconfigured { endpoint: self.endpoint.clone(), problem: errors.join(". ") })
    }

    async fn create(&self, missing: &[Kind], brokers: usize) -> Result<(), BusError> {
        let replication = match self.access.options.replication {
            Some(copies) => i32::from(copies),
            None if brokers >= 3 => REPLICATION,
            None => 1,
        };
        let names: Vec<_> = missing.iter().map(|kind| (*kind, self.name(*kind))).collect();
        let topics: Vec<_> = names
            .iter()
            .map(|(kind, name)| {
                let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(replication));
                kind.settings(replication).into_iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let outcome = {
            let admin = self.admin()?;
            let outcome = admin.get().create_topics(&topics, &request()).await;
            outcome.map_err(|problem| admin.explain(&self.endpoint, &problem))?
        };
        for result in outcome {
            match result {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let problem = format!("creating topic {name}: {code}");
                    return Err(match meaning(&self.endpoint, &KafkaError::AdminOp(code)) {
                        BusError::Denied { endpoint, .. } => BusError::Denied {
                            endpoint,
                            problem: format!(
                                "{problem}; allow it, or create the topic as docs/operate/buses/kafka.md says"
                            ),
                        },
                        BusError::Misconfigured { endpoint, .. } => BusError::Misconfigured {
                            endpoint,
                            problem: format!("{problem}; with {brokers} brokers and bus.replication {replication}"),
                        },
                        _ => BusError::Unreachable { endpoint: self.endpoint.clone(), problem },
                    });
                }
            }
        }
        Ok(())
    }

    /// Brokers, topics and their settings.
    pub(super) async fn examine(&self) -> Result<Vec<Finding>, BusError> {
        Ok(self.judge(&self.metadata().await?).await)
    }

    async fn judge(&self, metadata: &Metadata) -> Vec<Finding> {
        let brokers = metadata.brokers().len();
        let mut findings = vec![Finding {
            level: Level::Ok,
            subject: format!("Kafka {}", self.endpoint),
            text: format!("{brokers} brokers up"),
            fix: String::new(),
        }];
        for kind in Kind::ALL {
            let name = self.name(kind);
            let Some(partitions) = found(metadata, &name) else {
                self.forget_partitions(kind);
                findings.push(Finding {
                    level: Level::Error,
                    subject: format!("topic {name}"),
                    text: "is missing".into(),
                    fix: "start a broadcaster, which creates it, with rights to do so".into(),
                });
                continue;
            };
            let before = self.first_partitions(kind, partitions.len());
            match self.settings(&name).await {
                Ok(Ok(settings)) => findings.extend(kind.audit(&name, &partitions, before, &settings)),
                // The other topics are behind the same brokers.
                Err(problem) => {
                    let subject = format!("Kafka {}", self.endpoint);
                    findings.retain(|finding| finding.subject != subject);
                    findings.push(problem.finding(subject));
                    return findings;
                }
                Ok(Err(problem)) => {
                    findings.push(Finding {
                        level: Level::Warning,
                        subject: format!("topic {name}"),
                        text: format!("its settings cannot be read: {problem}"),
                        fix: "allow DescribeConfigs on it".into(),
                    });
                    findings.extend(kind.audit(&name, &partitions, before, &HashMap::new()));
                }
            }
        }
        findings
    }

    /// The settings of a topic, or why it does not tell them. `Err`: no broker answers.
    async fn settings(&self, topic: &str) -> Result<Result<HashMap<String, String>, BusError>, BusError> {
        let admin = self.admin()?;
        let outcome = admin.get().describe_configs([&ResourceSpecifier::Topic(topic)], &request()).await;
        let resources = match outcome {
            Ok(resources) => resources,
            Err(problem) => return Err(self.silence(&admin, topic, problem).await),
        };
        let mut settings = HashMap::new();
        for resource in resources {
            match resource {
                Ok(resource) => {
                    settings.extend(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))));
                }
                // A request that no broker took counts as an answer about the topic.
                Err(code) if is_silence(&KafkaError::AdminOp(code)) => {
                    return Err(self.silence(&admin, topic, KafkaError::AdminOp(code)).await);
                }
                Err(code) => return Ok(Err(meaning(&self.endpoint, &KafkaError::AdminOp(code)))),
            }
        }
        Ok(Ok(settings))
    }

    /// Why a request about a topic has no answer. Where its client has heard nothing, a reader of the topic hears more.
    async fn silence(&self, admin: &Admin, topic: &str, problem: KafkaError) -> BusError {
        if !is_silence(&problem) || admin.heard.cause(&self.endpoint).is_some() {
            return admin.explain(&self.endpoint, &problem);
        }
        let (config, endpoint, topic) = (self.access.client(), self.endpoint.clone(), topic.to_owned());
        let asked = blocking(&self.endpoint, move || {
            let heard = Arc::new(Heard::default());
            let reader: BaseConsumer<Ear> =
                config.create_with_context(Ear(Arc::clone(&heard))).map_err(|problem| meaning(&endpoint, &problem))?;
            let read = reader.fetch_watermarks(&topic, 0, SECOND_LOOK);
            drop(reader.poll(Duration::ZERO));
            std::thread::spawn(move || drop(reader));
            Ok(heard.explain(&endpoint, read.as_ref().err().unwrap_or(&problem)))
        });
        asked.await.unwrap_or_else(|problem| problem)
    }

    async fn metadata(&self) -> Result<Metadata, BusError> {
        let (config, endpoint) = (self.access.client(), self.endpoint.clone());
        blocking(&self.endpoint, move || ask_for_topics(&config, &endpoint)).await
    }

    fn admin(&self) -> Result<Admin, BusError> {
        let heard = Arc::new(Heard::default());
        let admin = self.access.client().create_with_context(Ear(Arc::clone(&heard)));
        let admin = admin.map_err(|problem| meaning(&self.endpoint, &problem))?;
        Ok(Admin { client: Some(admin), heard })
    }
}

/// A client for topics; let go of on a thread that may block.
struct Admin {
    client: Option<AdminClient<Ear>>,
    heard: Arc<Heard>,
}

impl Admin {
    fn get(&self) -> &AdminClient<Ear> {
        self.client.as_ref().expect("taken only by drop")
    }

    /// What an error means: of no answer, what was heard of the brokers.
    fn explain(&self, endpoint: &str, problem: &KafkaError) -> BusError {
        if is_silence(problem) { self.heard.explain(endpoint, problem) } else { meaning(endpoint, problem) }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(admin) = self.client.take() {
            std::thread::spawn(move || drop(admin));
        }
    }
}

fn request() -> AdminOptions {
    let timeout = Duration::from_millis(REQUEST_MS);
    AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout))
}

/// The replicas of every partition of a topic that exists.
fn found(metadata: &Metadata, name: &str) -> Option<Vec<i32>> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none())?;
    let partitions = topic.partitions();
    (!partitions.is_empty())
        .then(|| partitions.iter().map(|p| i32::try_from(p.replicas().len()).unwrap_or(i32::MAX)).collect())
}

/// What brokers tell of all topics to a client that is made anew: blocks until one does.
pub(super) fn ask_for_topics(config: &ClientConfig, endpoint: &str) -> Result<Metadata, BusError> {
    let heard = Arc::new(Heard::default());
    let consumer: BaseConsumer<Ear> =
        config.create_with_context(Ear(Arc::clone(&heard))).map_err(|problem| meaning(endpoint, &problem))?;
    let until = Instant::now() + Duration::from_millis(REQUEST_MS);
    loop {
        // Its errors arrive only while it is polled.
        drop(consumer.poll(Duration::ZERO));
        match consumer.fetch_metadata(None, Duration::from_millis(500)) {
            Ok(metadata) => return Ok(metadata),
            Err(_) if Instant::now() < until => {}
            Err(problem) => {
                drop(consumer.poll(Duration::ZERO));
                return Err(heard.explain(endpoint, &problem));
            }
        }
    }
}

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    endpoint: &str,
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(problem) => Err(BusError::Unreachable {
            endpoint: endpoint.to_owned(),
            problem: format!("its thread ended: {problem}"),
        }),
    }
}
