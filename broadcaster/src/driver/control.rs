//! The broadcaster as operators and tools see it.

mod doctor;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::{SecretValue, v1};
use rotacast_protocol::coordinator::{Order, Rejection};
use rotacast_protocol::record::Label;
use rotacast_protocol::status::{BroadcasterStatus, SecretStatus};
use rotacast_protocol::{Epoch, InstanceKey, OperatorName, Phase, SecretName, Version};
use rotacast_store::StoreError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::directory::Place;
use super::listener::{Listener, MAX_READING};
use super::{Environment, Mail, Question, Replica, Role, Secrets, TaskHandle, follower};
use crate::api::{AcceptedLoss, Action, CommandReply, Control, Instances, OperatorCommand, Refusal};
use crate::audit::Entry;

/// Statuses that wait for a slow listener; beyond that it gets only what changes next.
const STATUSES_BUFFERED: usize = 64;

/// How long the status of all secrets waits for their tasks, altogether: one that cannot answer must not hide the others.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// Answers for the tasks of the term in force; without one, as far as the store's records tell.
pub struct DriverControl {
    environment: Environment,
    secrets: Secrets,
    role: watch::Receiver<Role>,
    /// A place for each watch that has the store read.
    reading: Arc<Semaphore>,
    stop: CancellationToken,
}

impl DriverControl {
    /// Answers until `stop`.
    #[must_use]
    pub fn new(
        environment: Environment,
        secrets: Secrets,
        role: watch::Receiver<Role>,
        stop: CancellationToken,
    ) -> Self {
        Self { environment, secrets, role, reading: Arc::new(Semaphore::new(MAX_READING)), stop }
    }

    fn role(&self) -> Role {
        *self.role.borrow()
    }

    async fn leads(&self) -> Result<(), Refusal> {
        match self.role() {
            Role::Leader { .. } => Ok(()),
            Role::Follower => Err(follower::refusal(&self.environment).await),
        }
    }

    async fn task(&self, secret: &SecretName) -> Result<TaskHandle, Refusal> {
        self.leads().await?;
        let missing = || {
            let names: Vec<String> = self.secrets.all().iter().map(|(name, _)| name.to_string()).collect();
            let similar = names
                .iter()
                .map(|name| (strsim::jaro_winkler(name, secret.as_str()), name))
                .filter(|(likeness, _)| *likeness > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let fix = match similar {
                Some((_, name)) => {
                    format!("did you mean {name}? `rotacast put {secret}` writes the first version of a new secret")
                }
                None => format!("`rotacast put {secret}` writes its first version"),
            };
            Refusal::NotFound { what: format!("secret {secret}"), fix }
        };
        match self.secrets.place(secret) {
            Place::Served(task) => Ok(task),
            Place::OutOfService(fault) => Err(out_of_service(secret, fault.reason())),
            Place::Unknown => Err(missing()),
        }
    }

    /// Asks a task something and waits for its answer.
    async fn ask<T>(&self, task: &TaskHandle, mail: impl FnOnce(oneshot::Sender<T>) -> Mail) -> Result<T, Refusal> {
        let gone = || Refusal::Unavailable {
            problem: "this broadcaster's term ended meanwhile".into(),
            fix: "ask again: `rotacast status` tells whether it took effect".into(),
        };
        let (reply, answer) = oneshot::channel();
        task.mail.send(mail(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Every secret's status: as of now, or as it was last published if its task does not answer in time.
    async fn statuses(&self) -> Vec<SecretStatus> {
        let over = tokio::time::Instant::now() + STATUS_PATIENCE;
        let mut waiting = Vec::new();
        for (_, task) in self.secrets.all() {
            let (reply, answer) = oneshot::channel();
            // A task that takes no mail, or has ended, does not answer either.
            let _ = tokio::time::timeout_at(over, task.mail.send(Mail::Question(Question::Status(reply)))).await;
            waiting.push((task, answer));
        }
        let mut statuses = Vec::with_capacity(waiting.len());
        for (task, answer) in waiting {
            statuses.push(match tokio::time::timeout_at(over, answer).await {
                Ok(Ok(status)) => status,
                _ => self.published(&task),
            });
        }
        statuses
    }

    /// A status as it was last published, with what is known since of why its task does not answer.
    fn published(&self, task: &TaskHandle) -> SecretStatus {
        let status = SecretStatus::clone(&task.status.borrow());
        SecretStatus { findings: self.environment.findings.about(&status.secret), ..status }
    }

    async fn order(&self, by: OperatorName, secret: &SecretName, order: Order) -> Result<CommandReply, Refusal> {
        let rotates = order == Order::Rotate;
        let task = self.task(secret).await?;
        if rotates && self.environment.settings.of(secret).policy.provider.is_none() {
            return Err(Refusal::Conflict {
                problem: format!("{secret} has no provider: Rotacast follows its versions and makes none"),
                fix: format!(
                    "write the new value to its source or with `rotacast put {secret}`; or name a provider in \
                     [secrets.\"{secret}\"]"
                ),
            });
        }
        match &order {
            Order::Gone { instance, .. } => self.is_silent_everywhere(&task, instance).await?,
            Order::LeaveSafeMode => self.has_what_instances_would_follow(&task, secret).await?,
            _ => {}
        }
        let outcome = self.ask(&task, |reply| Mail::Operator { by, order, reply }).await?.map_err(refusal)?;
        let rotation = outcome.rotation.filter(|_| rotates);
        Ok(CommandReply { version: rotation.map(|(_, version)| version), number: rotation.map(|(number, _)| number) })
    }

    /// Once safe mode is left, instances follow the record again: into nothing, if the store lacks the value that it names.
    /// While a version waits they stay with what they serve until it is current.
    async fn has_what_instances_would_follow(&self, task: &TaskHandle, secret: &SecretName) -> Result<(), Refusal> {
        let status = self.ask(task, |reply| Mail::Question(Question::Status(reply))).await?;
        if status.versions.iter().any(|it| it.label == Label::Pending) {
            return Ok(());
        }
        let tree = &self.environment.tree;
        let prepared = status.rotation.as_ref().filter(|rotation| rotation.phase != Phase::Verifying);
        for version in status.current.into_iter().chain(prepared.map(|rotation| rotation.new)) {
            let stored = tree.read_version(secret, version).await.map_err(|problem| Refusal::Unavailable {
                problem: format!("whether the store has the value of version {version} cannot be read: {problem}"),
                fix: "order it again once the store answers".into(),
            })?;
            if stored.is_none() {
                return Err(Refusal::Conflict {
                    problem: format!(
                        "instances would follow the record to version {version}, and the store has no value of it: every use \
                         would fail"
                    ),
                    fix: format!(
                        "write {} back from a backup of the store; or write what services use now with `rotacast put \
                         {secret}`, then leave safe mode: instances stay with what they serve until that version is current",
                        tree.version_key(secret, version)
                    ),
                });
            }
        }
        Ok(())
    }

    /// One process uses many secrets. That it is gone may be said for one of them only if it was not heard for any lately: a
    /// Sync may name some of its secrets only. What was heard is kept for the whole term, so that no other secret is asked.
    async fn is_silent_everywhere(&self, task: &TaskHandle, instance: &InstanceKey) -> Result<(), Refusal> {
        let elsewhere = self.secrets.heard().elsewhere(instance);
        let question = |reply| Mail::Question(Question::MayBeRunning { instance: instance.clone(), elsewhere, reply });
        match self.ask(task, question).await? {
            None => Ok(()),
            Some(problem) => Err(Refusal::Conflict { problem, fix: String::new() }),
        }
    }

    async fn put(&self, by: &OperatorName, secret: &SecretName, value: SecretValue) -> Result<CommandReply, Refusal> {
        self.leads().await?;
        // Numbers are never used again: those the record knows count too, whatever the store still holds.
        let floor = match self.secrets.place(secret) {
            Place::Served(task) => self.ask(&task, |reply| Mail::Question(Question::LastVersion(reply))).await?,
            Place::OutOfService(fault) => return Err(out_of_service(secret, fault.reason())),
            Place::Unknown => {
                self.may_begin()?;
                None
            }
        };
        let settings = &self.environment.settings;
        let provider = settings.of(secret).policy.provider.and_then(|id| settings.provider(&id));
        if let Some(provider) = provider
            && let Err(problem) = provider.accepts(&value)
        {
            return Err(Refusal::Invalid(format!(
                "nothing is written: provider {} of {secret} cannot use this value: {problem}",
                provider.describe()
            )));
        }
        let version = self.environment.tree.put_next(secret, value, floor).await.map_err(|problem| match problem {
            StoreError::Invalid { .. } | StoreError::TooLarge { .. } => Refusal::Invalid(problem.to_string()),
            problem => Refusal::Unavailable {
                problem: problem.to_string(),
                fix: "the value may or may not be written: `rotacast status` tells".into(),
            },
        })?;
        let entry = Entry::new(by.as_str(), "put").secret(secret.clone()).detail("version", version.get());
        if let Err(problem) = self.environment.audit.append(entry).await {
            // Writing a version is undone by rolling it back: its rotation has entries of its own.
            tracing::error!(%secret, %problem, "the audit log takes no entry");
        }
        Ok(CommandReply { version: Some(version), number: None })
    }
}

impl DriverControl {
    /// Whether a secret that has no task may get its first version. Refused before anything is written.
    fn may_begin(&self) -> Result<(), Refusal> {
        if !self.secrets.has_room() {
            return Err(Refusal::Conflict {
                problem: format!("this broadcaster serves at most {} secrets, and has as many", self.secrets.limit()),
                fix: "raise limits.secrets in its configuration, or use a cluster of its own for further secrets"
                    .into(),
            });
        }
        Ok(())
    }
}

pub(super) fn out_of_service(secret: &SecretName, reason: &str) -> Refusal {
    Refusal::Unavailable {
        problem: format!("secret {secret} is out of service: {reason}"),
        fix: "`rotacast doctor` says since when, and how to repair it".into(),
    }
}

fn refusal(rejection: Rejection) -> Refusal {
    match rejection {
        Rejection::Operator { problem } => Refusal::Conflict { problem, fix: String::new() },
        Rejection::Deposed { .. } => Refusal::NotLeader { problem: rejection.to_string() },
        other => Refusal::Conflict { problem: other.to_string(), fix: String::new() },
    }
}

#[async_trait]
impl Control for DriverControl {
    async fn status(&self, secret: Option<SecretName>) -> Result<BroadcasterStatus, Refusal> {
        let about = self.broadcaster().await;
        if !about.leader {
            let secrets = follower::statuses(&self.environment, secret.as_ref()).await?;
            return Ok(BroadcasterStatus { secrets, ..about });
        }
        let secrets = match &secret {
            Some(secret) => {
                let task = self.task(secret).await?;
                let asked = self.ask(&task, |reply| Mail::Question(Question::Status(reply)));
                match tokio::time::timeout(STATUS_PATIENCE, asked).await {
                    Ok(status) => vec![status?],
                    Err(_) => vec![self.published(&task)],
                }
            }
            None => self.statuses().await,
        };
        Ok(BroadcasterStatus { secrets, ..about })
    }

    async fn broadcaster(&self) -> BroadcasterStatus {
        let Environment { cluster, replica, tree, bus, .. } = &self.environment;
        let (leader, epoch, leading) = match self.role() {
            Role::Leader { epoch, .. } => (true, Some(epoch), Some(replica.clone())),
            Role::Follower => (false, None, follower::leader(&self.environment).await),
        };
        BroadcasterStatus {
            cluster: cluster.to_string(),
            epoch,
            leader,
            store: tree.store().describe(),
            bus: bus.describe(),
            secrets: Vec::new(),
            replica: replica.name.clone(),
            leading: leading.map(Replica::leading),
            findings: self.environment.findings.severities(),
        }
    }

    fn watch(&self, secret: Option<SecretName>) -> BoxStream<'static, Result<SecretStatus, Refusal>> {
        let (statuses, stream) = mpsc::channel(STATUSES_BUFFERED);
        let listener = Listener {
            wanted: secret,
            environment: self.environment.clone(),
            secrets: self.secrets.clone(),
            role: self.role.clone(),
            reading: Arc::clone(&self.reading),
            statuses,
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = listener.run() => {}
                () = stop.cancelled() => {}
            }
        });
        ReceiverStream::new(stream).boxed()
    }

    async fn instances(&self, secret: Option<SecretName>, not_on: Option<Version>) -> Result<Instances, Refusal> {
        self.leads().await?;
        let ask =
            |task| async move { self.ask(&task, |reply| Mail::Question(Question::Instances { not_on, reply })).await };
        if let Some(secret) = &secret {
            return Ok(Instances { found: ask(self.task(secret).await?).await?, unanswered: Vec::new() });
        }
        let over = tokio::time::Instant::now() + STATUS_PATIENCE;
        // All at once: one that hangs takes no time from the others.
        let asked = self.secrets.all().into_iter().map(|(secret, task)| async move {
            let answer = tokio::time::timeout_at(over, ask(task)).await;
            (secret, answer)
        });
        let mut instances = Instances { found: Vec::new(), unanswered: self.secrets.unserved_names() };
        instances.unanswered.extend(self.secrets.left_out());
        for (secret, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(Ok(found)) => instances.found.extend(found),
                Ok(Err(_)) | Err(_) => instances.unanswered.push(secret),
            }
        }
        Ok(instances)
    }

    async fn term(&self) -> Result<Epoch, Refusal> {
        match self.role() {
            Role::Leader { epoch } => Ok(epoch),
            Role::Follower => Err(follower::refusal(&self.environment).await),
        }
    }

    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal> {
        let OperatorCommand { secret, action, proof, warrant } = command;
        tracing::info!(%operator, %secret, action = action.name(), "operator's command");
        self.leads().await?;
        self.put_on_record(Entry::ordered(&operator, action.name(), proof).warranted(&warrant).secret(secret.clone()))
            .await?;
        match action {
            Action::Put(value) => self.put(&operator, &secret, value).await,
            Action::Order(order) => self.order(operator, &secret, order).await,
        }
    }

    async fn put_on_record(&self, entry: Entry) -> Result<(), Refusal> {
        self.environment.audit.append(entry).await.map(drop).map_err(|problem| Refusal::Conflict {
            problem: format!("the order is not carried out, because it cannot be recorded: {problem}"),
            fix: "`rotacast doctor` says what is wrong with the audit log, and how to repair it".into(),
        })
    }

    async fn accept_audit_loss(&self, operator: OperatorName, loss: AcceptedLoss) -> Result<(), Refusal> {
        let AcceptedLoss { doubt, reason, proof, warrant } = loss;
        let with_proof = move |entry: Entry| entry.proved(proof).warranted(&warrant);
        let accepted = self.environment.audit.accept_loss(&operator, &doubt, reason.as_str(), with_proof).await;
        accepted.map(drop).map_err(|problem| Refusal::Conflict {
            problem: problem.to_string(),
            fix: "`rotacast doctor` names what stands now, and the command that accepts it".into(),
        })
    }

    async fn doctor(&self) -> v1::DoctorReply {
        self.examine().await
    }
}
