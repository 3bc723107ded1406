//! One term: takes every record over, then feeds the tasks from the store and the bus until the leadership ends.

mod delivery;
mod listener;
mod records;
mod reports;
mod roster;
mod seals;
mod strays;
mod syncs;
mod versions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use rotacast_clock as clock;
use rotacast_protocol::coordinator::Tenure;
use rotacast_protocol::{InstanceKey, SecretName};
use rotacast_store::Leadership;
use tokio::sync::watch;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use self::delivery::Behind;
use self::roster::{Entering, Listed};
#[cfg(test)]
pub(super) use self::syncs::SYNCS_AT_ONCE;
use super::directory::{Fault, Secrets, TaskHandle};
use super::mail::Question;
use super::secret_task::Ended;
use super::setbacks::{KnownSetback, Setbacks};
use super::sync_places::SyncPlaces;
use super::turns::Turns;
use super::{Environment, Role};
use crate::findings::Topic;

/// How long a replica that steps down waits for the store to hear of it.
const RESIGN_PATIENCE: Duration = Duration::from_secs(3);

/// What only a leader's tasks write, and clear.
const OF_A_TERM: [Topic; 11] = [
    Topic::OutOfService,
    Topic::Unresponsive,
    Topic::Limit,
    Topic::StrangeKey,
    Topic::Pattern,
    Topic::Clock,
    Topic::Provider,
    Topic::Credential,
    Topic::Sealing,
    Topic::Gap,
    Topic::Value,
];

/// How often a secret that has not answered is asked again whether its record knows of the store's setback.
const ASK_AGAIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(30) };

const WRITTEN_BACK: &str = "another client wrote its record, or it could not be read for a while: it may be older than what \
                            has happened";

/// Leads until the leadership is lost, `stop`, or an error that ends the term. A setback of the store that a record does not
/// know of puts its secret into safe mode before anything else is done for it.
pub(super) async fn run(
    environment: &Environment,
    secrets: &Secrets,
    leadership: Leadership,
    role: &watch::Sender<Role>,
    setbacks: &Arc<Setbacks>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let over = CancellationToken::new();
    // After the election, so that whatever made it necessary is known; before the records are read.
    let setback = environment.tree.store().setback().map(|setback| KnownSetback {
        count: setback.count,
        reason: format!("{}: {}", environment.tree.store().describe(), setback.problem),
        setbacks: Arc::clone(setbacks),
    });
    let term = Arc::new(Term {
        environment: environment.clone(),
        secrets: secrets.clone(),
        tenure: Tenure { epoch: leadership.epoch, since: clock::now(), valid_until: *leadership.valid_until.borrow() },
        leadership: leadership.valid_until.clone(),
        roster: Mutex::default(),
        entering: Entering::default(),
        versions_read: AtomicBool::new(false),
        tasks: Mutex::new(JoinSet::new()),
        names: Mutex::default(),
        behind: Behind::default(),
        sync_places: Arc::default(),
        turns: Turns::default(),
        setback,
        setbacks: Arc::clone(setbacks),
        over: over.clone(),
    });
    secrets.heard().begin(term.tenure.since.instant);
    let mut work: JoinSet<anyhow::Result<()>> = JoinSet::new();
    // What it found while it followed is looked at anew.
    for topic in OF_A_TERM {
        environment.findings.clear_all(topic);
    }
    let outcome = async {
        term.take_roster_over().await?;
        let known = term.take_records_over().await?;
        work.spawn(Arc::clone(&term).follow_versions(known));
        work.spawn(Arc::clone(&term).enter_newcomers());
        work.spawn(Arc::clone(&term).follow_registrations());
        work.spawn(Arc::clone(&term).follow_reports());
        work.spawn(Arc::clone(&term).answer_syncs());
        work.spawn(Arc::clone(&term).sweep_roster());
        work.spawn(Arc::clone(&term).mend_out_of_service());
        work.spawn(Arc::clone(&term).look_for_strays());
        work.spawn(Arc::clone(&term).keep_sealed());
        work.spawn(Arc::clone(&term).note_setbacks());
        work.spawn(Arc::clone(&term).tell_what_was_missed());
        environment.metrics.leadership().leads();
        role.send_replace(Role::Leader { epoch: leadership.epoch });
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = leadership.lost.cancelled() => Ok(()),
            ended = term.a_task_ends() => Err(ended),
            Some(ended) = work.join_next() => match ended {
                Ok(Ok(())) => Err(anyhow::anyhow!("a watch ended by itself")),
                Ok(Err(problem)) => Err(problem),
                Err(problem) => Err(problem).context("a watch broke off"),
            },
        }
    }
    .await;
    // First everything stops, then the leadership is given up: nothing is done in the name of a term that is over.
    over.cancel();
    work.shutdown().await;
    term.end_tasks().await;
    for topic in OF_A_TERM {
        environment.findings.clear_all(topic);
    }
    leadership.resign.cancel();
    if tokio::time::timeout(RESIGN_PATIENCE, leadership.resigned).await.is_err() {
        warn!("the store did not hear in time that this broadcaster steps down; its term runs out by itself");
    }
    outcome
}

struct Term {
    environment: Environment,
    secrets: Secrets,
    tenure: Tenure,
    leadership: watch::Receiver<rotacast_protocol::Instant>,
    /// How many Syncs of each instance are under way.
    sync_places: Arc<SyncPlaces>,
    /// Which tasks may write to store and bus for the first time.
    turns: Turns,
    /// Every incarnation in the roster, for secrets that come later. As bounded as the roster itself.
    roster: Mutex<BTreeMap<InstanceKey, Listed>>,
    entering: Entering,
    /// The versions were read to their end in this term.
    versions_read: AtomicBool,
    tasks: Mutex<JoinSet<Ended>>,
    /// The secret of each task.
    names: Mutex<HashMap<task::Id, SecretName>>,
    behind: Behind,
    setback: Option<KnownSetback>,
    setbacks: Arc<Setbacks>,
    over: CancellationToken,
}

impl Term {
    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<Ended>> {
        self.tasks.lock().expect("no code panics while it holds this lock")
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<task::Id, SecretName>> {
        self.names.lock().expect("no code panics while holding this lock")
    }

    /// Runs a secret's task as one of this term's.
    fn spawn(&self, secret: SecretName, task: impl Future<Output = Ended> + Send + 'static) {
        // Held until its name is known, so that its end finds it.
        let mut names = self.names();
        let id = self.tasks().spawn(task).id();
        names.insert(id, secret);
    }

    fn roster(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceKey, Listed>> {
        self.roster.lock().expect("no code panics while it holds this lock")
    }

    /// Why a secret's record may be older than what has happened, unless it says so itself already.
    fn setback_for(&self, secret: &SecretName) -> Option<String> {
        let of_store = self.setback.as_ref().filter(|setback| setback.concerns(secret));
        let of_record = || self.setbacks.was_broken(secret).then(|| WRITTEN_BACK.to_owned());
        of_store.map(|setback| setback.reason.clone()).or_else(of_record)
    }

    /// Keeps account of which records do not say yet that they may be older than what has happened.
    async fn note_setbacks(self: Arc<Self>) -> anyhow::Result<()> {
        if let Some(setback) = self.setback.as_ref().filter(|setback| setback.is_new()) {
            let reason = &setback.reason;
            error!(reason, "safe mode: nothing irreversible happens until an operator has looked");
        }
        loop {
            if let Some(setback) = self.setback.as_ref().filter(|setback| setback.concerns_any()) {
                let mut unaware = BTreeSet::new();
                for (secret, task) in self.secrets.all() {
                    if setback.concerns(&secret) && !takes_mail(&task).await {
                        unaware.insert(secret);
                    }
                }
                // After the tasks: one that broke off meanwhile is among those that did not answer.
                unaware.extend(self.secrets.unserved_names());
                unaware.extend(self.secrets.left_out());
                setback.only_concerns(unaware);
            }
            for secret in self.setbacks.all_broken() {
                if let Some(task) = self.secrets.get(&secret)
                    && takes_mail(&task).await
                {
                    self.setbacks.mended(&secret);
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Waits until a task says that another leader is at work, which ends the term. One that breaks off takes its own
    /// secret out of service.
    async fn a_task_ends(&self) -> anyhow::Error {
        loop {
            let ended = std::future::poll_fn(|context| match self.tasks().poll_join_next_with_id(context) {
                // No task yet: one may be started later, and the watches below wake this term up.
                std::task::Poll::Ready(None) => std::task::Poll::Pending,
                other => other,
            });
            let interval = tokio::time::sleep(Duration::from_secs(1));
            let ended = tokio::select! {
                ended = ended => ended,
                // A task set that was empty when it was polled wakes no task up.
                () = interval => continue,
            };
            match ended {
                Some(Ok((id, Ended::Deposed(problem)))) => match self.names().remove(&id) {
                    Some(secret) => return anyhow::anyhow!("the record of {secret}: {problem}"),
                    None => return anyhow::anyhow!("a record: {problem}"),
                },
                Some(Ok((id, Ended::Overwritten(problem)))) => {
                    if let Some(secret) = self.names().remove(&id) {
                        self.take_out_of_service(secret, Fault::Overwritten(problem));
                    }
                }
                Some(Ok((id, Ended::Stopped))) => {
                    let ended = self.names().remove(&id);
                    if let Some(secret) = ended.filter(|_| !self.over.is_cancelled()) {
                        self.take_out_of_service(secret, Fault::Task("its task ended".into()));
                    }
                }
                Some(Err(problem)) => {
                    if let Some(secret) = self.names().remove(&problem.id()) {
                        self.take_out_of_service(secret, Fault::Task(format!("its task broke off: {problem}")));
                    }
                }
                None => {}
            }
        }
    }

    async fn end_tasks(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        while tasks.join_next().await.is_some() {}
    }
}

/// A task takes the setback it begins with into its record before any mail. One that breaks off meanwhile answers nothing.
async fn takes_mail(task: &TaskHandle) -> bool {
    task.ask(Question::LastVersion).await.is_some()
}
