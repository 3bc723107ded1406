//! Following a secret until something is decided, over lost connections and changes of leader.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_protocol::status::SecretStatus;
use rotacast_protocol::{Revision, SecretName};
use tokio::time::Instant;

use crate::Context;
use crate::client::Client;
use crate::error::{Exit, Stop};

/// A status is asked for this often even if no change is announced: a change of leader ends announcements quietly.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The same for every secret at once, which may be thousands of statuses.
const ASK_ALL_EVERY: Duration = Duration::from_secs(30);
/// How long a broadcaster that was there may be gone before a wait gives up: longer than a restart or a change of
/// leader takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest pause between two tries to reach it.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// What following brings.
pub(crate) enum News {
    /// A secret, as it stands.
    Status(Box<SecretStatus>),
    /// The broadcaster is gone for the moment; it is tried again.
    Lost,
}

/// Whom to follow, and for how long.
pub(crate) struct Follow<'a> {
    pub(crate) context: &'a Context,
    /// None: every secret.
    pub(crate) secret: Option<&'a SecretName>,
    pub(crate) timeout: Option<Duration>,
    /// Whether the secret may not be known yet: its first version has just been written.
    pub(crate) may_be_missing: bool,
}

impl Follow<'_> {
    /// Hands everything to `each` until it breaks. A status is never older than the one before.
    pub(crate) async fn run<T>(&self, mut each: impl FnMut(News) -> Result<ControlFlow<T>, Stop>) -> Result<T, Stop> {
        let Some(timeout) = self.timeout else { return self.run_on(&mut each).await };
        match tokio::time::timeout(timeout, self.run_on(&mut each)).await {
            Ok(result) => result,
            Err(_) => {
                let about = self.secret.map(|secret| format!(" for {secret}")).unwrap_or_default();
                let fix = match self.secret {
                    Some(secret) => format!("nothing was cancelled; `rotacast why {secret}` says what it waits for"),
                    None => String::new(),
                };
                let problem = format!("waited{about} longer than {}", crate::human_time::span(millis(timeout)));
                Err(Stop::failed(Exit::Timeout, "timeout", problem, fix))
            }
        }
    }

    async fn run_on<T>(&self, each: &mut impl FnMut(News) -> Result<ControlFlow<T>, Stop>) -> Result<T, Stop> {
        let mut current = Some(self.context.client().await?);
        let mut leads = true;
        let mut answered: Option<Instant> = None;
        let mut pauses = pauses();
        loop {
            let ended = match &current {
                None => match self.context.client().await {
                    Ok(fresh) => {
                        current = Some(fresh);
                        continue;
                    }
                    Err(stop) => stop,
                },
                // The leader knows more: it is looked for again.
                Some(client) if !leads && client.has_others() => {
                    leads = true;
                    match self.context.client().await {
                        Ok(fresh) => {
                            current = Some(fresh);
                            continue;
                        }
                        Err(stop) => stop,
                    }
                }
                Some(client) => match self.listen(client, each, &mut answered).await {
                    Ok(ControlFlow::Break(decided)) => return Ok(decided),
                    Ok(ControlFlow::Continue(leader)) => {
                        pauses = self::pauses();
                        leads = leader;
                        continue;
                    }
                    Err(stop) => stop,
                },
            };
            // Only what was there before is waited for: a wrong address is reported at once.
            if !(ended.is_unreachable() && answered.is_some_and(|since| since.elapsed() <= PATIENCE)) {
                return Err(ended);
            }
            if current.take().is_some()
                && let ControlFlow::Break(decided) = each(News::Lost)?
            {
                return Ok(decided);
            }
            tokio::time::sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
        }
    }

    /// Asks once, then listens until it is time to ask again: whether it was the leader that was asked.
    async fn listen<T>(
        &self,
        client: &Client,
        each: &mut impl FnMut(News) -> Result<ControlFlow<T>, Stop>,
        answered: &mut Option<Instant>,
    ) -> Result<ControlFlow<T, bool>, Stop> {
        // Opened before the question, so that no change falls between the two.
        let mut changes = client.watch(self.secret).await?;
        let (leader, statuses) = match client.status(self.secret).await {
            Err(stop) if stop.is_not_found() && self.may_be_missing => (true, Vec::new()),
            status => status.map(|status| (status.leader, status.secrets))?,
        };
        *answered = Some(Instant::now());
        let mut newest: BTreeMap<SecretName, Revision> = BTreeMap::new();
        for status in statuses {
            newest.insert(status.secret.clone(), status.revision);
            if let ControlFlow::Break(decided) = each(News::Status(Box::new(status)))? {
                return Ok(ControlFlow::Break(decided));
            }
        }
        let ask = Instant::now() + if self.secret.is_some() { ASK_EVERY } else { ASK_ALL_EVERY };
        loop {
            match tokio::time::timeout_at(ask, changes.message()).await {
                Err(_) => return Ok(ControlFlow::Continue(leader)),
                Ok(Ok(Some(status))) => {
                    let status: SecretStatus = client.read(status)?;
                    // The first announcements may have been made before the question was answered.
                    let known = newest.entry(status.secret.clone()).or_default();
                    if status.revision < *known {
                        continue;
                    }
                    *known = status.revision;
                    if let ControlFlow::Break(decided) = each(News::Status(Box::new(status)))? {
                        return Ok(ControlFlow::Break(decided));
                    }
                }
                Ok(Ok(None)) => return Err(Stop::unreachable(client.server(), "it ended the announcements")),
                Ok(Err(status)) => return Err(Stop::answered(client.server(), &status)),
            }
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

/// For people: a timeout fits by far.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
