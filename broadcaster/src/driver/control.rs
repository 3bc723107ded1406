//! The broadcaster as operators and tools see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::{Finding, Level, SecretValue, v1};
use rotacast_protocol::coordinator::{Order, Rejection};
use rotacast_protocol::{OperatorName, SecretName, Version};
use rotacast_store::StoreError;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Environment, Mail, Role, Secrets, TaskHandle};
use crate::api::{Action, CommandReply, Control, OperatorCommand, Refusal};
use crate::audit::Entry;

/// Statuses that wait for a slow listener; then it is told only of what changes next.
const STATUSES_BUFFERED: usize = 64;

/// Answers for the tasks of the term in force.
pub struct DriverControl {
    environment: Environment,
    secrets: Secrets,
    role: watch::Receiver<Role>,
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
        Self { environment, secrets, role, stop }
    }

    fn leads(&self) -> Result<(), Refusal> {
        match *self.role.borrow() {
            Role::Leader(_) => Ok(()),
            Role::Follower => Err(Refusal::NotLeader {
                problem: "another one leads, or the election is still on; try again in a few seconds".into(),
            }),
        }
    }

    fn task(&self, secret: &SecretName) -> Result<TaskHandle, Refusal> {
        self.leads()?;
        self.secrets.get(secret).ok_or_else(|| {
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
        })
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

    async fn order(&self, by: OperatorName, secret: &SecretName, order: Order) -> Result<CommandReply, Refusal> {
        let rotates = order == Order::Rotate;
        let task = self.task(secret)?;
        let outcome = self.ask(&task, |reply| Mail::Operator { by, order, reply }).await?.map_err(refusal)?;
        let rotation = outcome.rotation.filter(|_| rotates);
        Ok(CommandReply {
            version: rotation.map(|(_, version)| version),
            generation: rotation.map(|(generation, _)| generation),
        })
    }

    async fn put(&self, by: &OperatorName, secret: &SecretName, value: SecretValue) -> Result<CommandReply, Refusal> {
        self.leads()?;
        // Numbers are never used again: those the record knows count too, whatever the store still holds.
        let floor = match self.secrets.get(secret) {
            None => None,
            Some(task) => {
                let status = self.ask(&task, Mail::Status).await?;
                status.versions.iter().filter_map(|info| Version::new(info.version).ok()).max()
            }
        };
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
        Ok(CommandReply { version: Some(version), generation: None })
    }
}

/// One listener of a watch.
struct Listener {
    wanted: Option<SecretName>,
    secrets: Secrets,
    statuses: mpsc::Sender<Result<v1::SecretStatus, Refusal>>,
}

impl Listener {
    /// Everything as it stands, and then whatever changes, until nobody listens any more.
    async fn run(self) {
        let mut changes = self.secrets.changes();
        let mut names: BTreeSet<SecretName> = self.names();
        loop {
            for name in names.iter().filter(|name| self.wanted.as_ref().is_none_or(|wanted| wanted == *name)) {
                let Some(task) = self.secrets.get(name) else { continue };
                let status = v1::SecretStatus::clone(&task.status.borrow());
                if self.statuses.send(Ok(status)).await.is_err() {
                    return;
                }
            }
            let change = tokio::select! {
                change = changes.recv() => change,
                () = self.statuses.closed() => return,
            };
            names = match change {
                Ok(name) => [name].into(),
                // Fell behind: everything once more.
                Err(RecvError::Lagged(_)) => self.names(),
                Err(RecvError::Closed) => return,
            };
        }
    }

    fn names(&self) -> BTreeSet<SecretName> {
        self.secrets.all().into_iter().map(|(name, _)| name).collect()
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
    async fn status(&self, secret: Option<SecretName>) -> Result<v1::StatusReply, Refusal> {
        let role = *self.role.borrow();
        let tasks = match &secret {
            Some(secret) => vec![self.task(secret)?],
            None => self.secrets.all().into_iter().map(|(_, task)| task).collect(),
        };
        let mut secrets = Vec::with_capacity(tasks.len());
        for task in tasks {
            secrets.push(self.ask(&task, Mail::Status).await?);
        }
        let (leader, epoch) = match role {
            Role::Leader(epoch) => (true, epoch.0),
            Role::Follower => (false, 0),
        };
        Ok(v1::StatusReply {
            cluster: self.environment.cluster.to_string(),
            epoch,
            leader,
            store: self.environment.tree.store().describe(),
            bus: self.environment.bus.describe(),
            secrets,
        })
    }

    fn watch(&self, secret: Option<SecretName>) -> BoxStream<'static, Result<v1::SecretStatus, Refusal>> {
        let (statuses, stream) = mpsc::channel(STATUSES_BUFFERED);
        let listener = Listener { wanted: secret, secrets: self.secrets.clone(), statuses };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = listener.run() => {}
                () = stop.cancelled() => {}
            }
        });
        ReceiverStream::new(stream).boxed()
    }

    async fn instances(
        &self,
        secret: Option<SecretName>,
        not_on: Option<Version>,
    ) -> Result<v1::InstancesReply, Refusal> {
        self.leads()?;
        let tasks = match &secret {
            Some(secret) => vec![self.task(secret)?],
            None => self.secrets.all().into_iter().map(|(_, task)| task).collect(),
        };
        let mut instances = Vec::new();
        for task in tasks {
            instances.extend(self.ask(&task, |reply| Mail::Instances { not_on, reply }).await?);
        }
        Ok(v1::InstancesReply { instances })
    }

    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal> {
        let OperatorCommand { secret, reason, action } = command;
        tracing::info!(%operator, %secret, action = action.name(), "operator's command");
        let order = match action {
            Action::Put(value) => return self.put(&operator, &secret, value).await,
            Action::Rotate => Order::Rotate,
            Action::Pause => Order::Pause { reason },
            Action::Resume => Order::Resume,
            Action::Approve => Order::Approve,
            Action::RollBack => Order::RollBack { reason },
            Action::Override { version, instances, sessions } => {
                Order::Override { version, instances: instances.into_iter().collect(), sessions, reason }
            }
            Action::Excuse(instance) => Order::Excuse { instance },
            Action::LeaveSafeMode => Order::LeaveSafeMode,
        };
        self.order(operator, &secret, order).await
    }

    async fn doctor(&self) -> v1::DoctorReply {
        let mut findings = self.environment.tree.examine().await;
        findings.extend(self.environment.bus.examine().await);
        let (level, text, fix) = match *self.role.borrow() {
            Role::Leader(epoch) => (Level::Ok, format!("this broadcaster leads, epoch {epoch}"), ""),
            Role::Follower => {
                (Level::Warning, "this broadcaster does not lead".to_owned(), "fine if another replica does")
            }
        };
        findings.push(Finding { level, subject: "leadership".into(), text, fix: fix.into() });
        let refused = self.environment.identities.refused();
        findings.push(Finding {
            level: if refused == 0 { Level::Ok } else { Level::Warning },
            subject: "messages refused".into(),
            text: format!("{refused} since the start"),
            fix: if refused == 0 {
                String::new()
            } else {
                "the log names the keys: compare them with [services.*].key".into()
            },
        });
        v1::DoctorReply { findings: findings.into_iter().map(v1::Finding::from).collect() }
    }
}

/// Keeps the trait object's type in one place.
pub type SharedControl = Arc<dyn Control>;
