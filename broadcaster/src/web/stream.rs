//! Server-sent events: what the page shows, again whenever it changes.
//!
//! Each event says everything about what it names, so that a browser that was cut off needs nothing but to listen again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_protocol::SecretName;
use rotacast_protocol::status::SecretStatus;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;

use super::Front;
use super::findings::FindingsView;
use super::problem::ProblemView;
use super::requests::RequestsView;
use super::summary::SummaryView;
use crate::api::Refusal;
use crate::operators::{Operators, Reading};
use crate::viewers::Viewer;

/// A sign of life, and the time for relative times: a page that hears none for three of them says so.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Changes are collected for so long: people read no faster, and a rotation of thousands of instances changes all the time.
const COLLECT: Duration = Duration::from_millis(200);
/// Secrets in one event: a browser shows the first while the next are still being made.
const MAX_IN_EVENT: usize = 500;
/// Events that wait for a slow browser; then changes are collected for longer.
const BUFFERED: usize = 8;

#[derive(Serialize)]
struct SecretsView {
    /// Whatever was known before is void.
    reset: bool,
    /// The snapshot goes on.
    more: bool,
    secrets: Vec<SummaryView>,
}

/// What a page follows.
pub(super) enum View {
    /// Every secret, on a line each.
    Overview,
    /// One secret in full.
    Secret(SecretName),
}

impl View {
    /// Whether a viewer may follow it.
    pub(super) fn check(&self, viewer: &Viewer) -> Result<(), Refusal> {
        match self {
            Self::Overview => viewer.check_some(Reading::Status),
            Self::Secret(secret) => viewer.check(Reading::Status, Some(secret)),
        }
    }
}

/// The browser listens no more.
struct Gone;

/// What a browser was sent of each secret's line, as a digest: most of what changes in a secret does not show there.
#[derive(Default)]
struct Told(BTreeMap<SecretName, u64>);

impl Told {
    /// Whether exactly that was not sent yet. From now on it was.
    fn is_news(&mut self, summary: &SummaryView) -> bool {
        let mut hasher = DefaultHasher::new();
        json(summary).hash(&mut hasher);
        let digest = hasher.finish();
        self.0.insert(summary.secret.clone(), digest) != Some(digest)
    }
}

fn json(view: &impl Serialize) -> String {
    serde_json::to_string(view).expect("views have string keys and finite numbers")
}

/// One browser.
struct Listener {
    front: Arc<Front>,
    /// As it asked: a browser that is signed out meanwhile gets nothing more.
    headers: HeaderMap,
    events: mpsc::Sender<Result<Event, Infallible>>,
}

/// Tells until the browser is gone, the broadcaster stops, or a problem has been told.
pub(super) fn serve(front: Arc<Front>, headers: HeaderMap, view: View) -> impl IntoResponse {
    let (events, stream) = mpsc::channel(BUFFERED);
    let listener = Listener { front: Arc::clone(&front), headers, events };
    tokio::spawn(async move {
        tokio::select! {
            () = listener.run(&view) => {}
            () = front.stop.cancelled() => {}
        }
    });
    Sse::new(ReceiverStream::new(stream))
}

impl Listener {
    async fn run(self, view: &View) {
        let told = match view {
            View::Overview => self.overview().await,
            View::Secret(name) => self.secret(name).await,
        };
        if let Ok(refusal) = told {
            // The last word: the browser listens again after a while, and begins anew.
            let _ = self.send("problem", &ProblemView::from(&refusal)).await;
        }
    }

    async fn send(&self, name: &str, data: &impl Serialize) -> Result<(), Gone> {
        self.events.send(Ok(Event::default().event(name).data(json(data)))).await.map_err(|_| Gone)
    }

    async fn overview(&self) -> Result<Refusal, Gone> {
        loop {
            if let Some(refusal) = self.overview_with_these_rights().await? {
                return Ok(refusal);
            }
        }
    }

    /// `None`: operators or roles have changed, so that it begins anew.
    async fn overview_with_these_rights(&self) -> Result<Option<Refusal>, Gone> {
        let mut rights = self.rights();
        let viewer = match self.about(&View::Overview).await? {
            Ok(viewer) => viewer,
            Err(refusal) => return Ok(Some(refusal)),
        };
        // Before the snapshot, so that nothing falls between the two.
        let mut changes = self.front.control.watch(None);
        let snapshot = match self.front.control.status(None).await {
            Ok(status) => status.secrets,
            Err(refusal) => return Ok(Some(refusal)),
        };
        let mut told = Told::default();
        let mut reset = true;
        let readable = |status: &SecretStatus| viewer.reads(Reading::Status, Some(&status.secret));
        let mut rest = snapshot.into_iter().filter(readable).map(SummaryView::from).peekable();
        loop {
            let secrets: Vec<SummaryView> = rest.by_ref().take(MAX_IN_EVENT).filter(|it| told.is_news(it)).collect();
            let more = rest.peek().is_some();
            self.send("secrets", &SecretsView { reset, more, secrets }).await?;
            reset = false;
            if !more {
                break;
            }
        }
        let (mut standing, mut waiting) = (FindingsView::default(), RequestsView::default());
        self.findings(&viewer, &mut standing).await?;
        self.requests(&viewer, &mut waiting).await?;
        let mut beat = heartbeat();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(first)) => {
                        if let Some(refusal) = self.changed(&viewer, first, &mut changes, &mut told).await? {
                            return Ok(Some(refusal));
                        }
                    }
                    Some(Err(refusal)) => return Ok(Some(refusal)),
                    None => return Ok(Some(stopping())),
                },
                _ = beat.tick() => {
                    if let Err(refusal) = self.about(&View::Overview).await? {
                        return Ok(Some(refusal));
                    }
                    self.findings(&viewer, &mut standing).await?;
                    self.requests(&viewer, &mut waiting).await?;
                }
                Ok(()) = rights.changed() => return Ok(None),
                () = self.events.closed() => return Err(Gone),
            }
        }
    }

    /// Hears of the next change of operators and roles.
    fn rights(&self) -> watch::Receiver<Arc<Operators>> {
        let mut rights = self.front.options.viewers.changes();
        rights.mark_unchanged();
        rights
    }

    /// Tells of what changes within [`COLLECT`], each secret once.
    async fn changed(
        &self,
        viewer: &Viewer,
        first: SecretStatus,
        changes: &mut Statuses,
        told: &mut Told,
    ) -> Result<Option<Refusal>, Gone> {
        let mut changed = BTreeMap::from([(first.secret.clone(), first)]);
        let due = Instant::now() + COLLECT;
        let mut ended = None;
        while changed.len() < MAX_IN_EVENT && ended.is_none() {
            match tokio::time::timeout_at(due, changes.next()).await {
                Ok(Some(Ok(status))) => drop(changed.insert(status.secret.clone(), status)),
                Ok(Some(Err(refusal))) => ended = Some(refusal),
                Ok(None) => ended = Some(stopping()),
                Err(_) => break,
            }
        }
        let readable = |status: &SecretStatus| viewer.reads(Reading::Status, Some(&status.secret));
        let changed = changed.into_values().filter(readable).map(SummaryView::from);
        let secrets: Vec<_> = changed.filter(|it| told.is_news(it)).collect();
        if !secrets.is_empty() {
            self.send("secrets", &SecretsView { reset: false, more: false, secrets }).await?;
        }
        Ok(ended)
    }

    async fn secret(&self, name: &SecretName) -> Result<Refusal, Gone> {
        let mut changes = self.front.control.watch(Some(name.clone()));
        let mut beat = heartbeat();
        let mut rights = self.rights();
        let view = View::Secret(name.clone());
        loop {
            // What depends on time alone is not announced; so it is asked for with every sign of life.
            if let Err(refusal) = self.about(&view).await? {
                return Ok(refusal);
            }
            match self.front.control.status(Some(name.clone())).await {
                Ok(status) => {
                    for status in status.secrets {
                        self.send("secret", &status).await?;
                    }
                }
                Err(refusal) => return Ok(refusal),
            }
            loop {
                tokio::select! {
                    change = changes.next() => match change {
                        Some(Ok(mut status)) => {
                            let due = Instant::now() + COLLECT;
                            let mut ended = None;
                            while ended.is_none()
                                && let Ok(newer) = tokio::time::timeout_at(due, changes.next()).await
                            {
                                match newer {
                                    Some(Ok(newer)) => status = newer,
                                    Some(Err(refusal)) => ended = Some(refusal),
                                    None => ended = Some(stopping()),
                                }
                            }
                            self.send("secret", &status).await?;
                            if let Some(refusal) = ended {
                                return Ok(refusal);
                            }
                        }
                        Some(Err(refusal)) => return Ok(refusal),
                        None => return Ok(stopping()),
                    },
                    _ = beat.tick() => break,
                    Ok(()) = rights.changed() => break,
                    () = self.events.closed() => return Err(Gone),
                }
            }
        }
    }

    /// What stands, if that is not what was sent before; at first that was nothing. It is about secrets of all kinds.
    async fn findings(&self, viewer: &Viewer, sent: &mut FindingsView) -> Result<(), Gone> {
        if !viewer.reads(Reading::Status, None) {
            return Ok(());
        }
        let now = FindingsView::of(&self.front.options.findings);
        if now != *sent {
            self.send("findings", &now).await?;
            *sent = now;
        }
        Ok(())
    }

    /// The orders that wait for approvals, if they are not what was sent before. The store is read only where there are such
    /// rules, and what it does not say now it says with the next sign of life.
    async fn requests(&self, viewer: &Viewer, sent: &mut RequestsView) -> Result<(), Gone> {
        let asked = self.front.desk.operators().asks_for_approvals();
        let waiting = if asked { self.front.desk.requests().await } else { Ok(Vec::new()) };
        let Ok(waiting) = waiting else { return Ok(()) };
        let now = RequestsView::of(&waiting, viewer);
        if now != *sent {
            self.send("requests", &now).await?;
            *sent = now;
        }
        Ok(())
    }

    /// A sign of life, unless the browser may no longer look.
    async fn about(&self, view: &View) -> Result<Result<Viewer, Refusal>, Gone> {
        let viewer = self.front.viewer_still(&self.headers).and_then(|viewer| view.check(&viewer).map(|()| viewer));
        if let Ok(viewer) = &viewer {
            let about = self.front.about(viewer).await;
            self.send("about", &about).await?;
        }
        Ok(viewer)
    }
}

type Statuses = BoxStream<'static, Result<SecretStatus, Refusal>>;

fn heartbeat() -> Interval {
    let mut beat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

fn stopping() -> Refusal {
    Refusal::Unavailable { problem: "this broadcaster is stopping".into(), fix: String::new() }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::Version;
    use rotacast_protocol::coordinator::ConditionName;
    use rotacast_protocol::status::BlockerStatus;

    use super::*;

    #[test]
    fn only_what_shows_on_its_line_is_news() {
        let blocker = |condition| BlockerStatus {
            condition,
            who: None,
            why: String::new(),
            since: None,
            next: String::new(),
            command: None,
        };
        let summary = |current, second| {
            SummaryView::from(SecretStatus {
                current: Some(Version::new(current).unwrap()),
                blockers: vec![blocker(ConditionName::Prepared), blocker(second)],
                ..SecretStatus::new("payments/db".parse().unwrap())
            })
        };
        let (released, usage) = (ConditionName::MembersReleased, ConditionName::UsageEvidence);
        let mut told = Told::default();
        let news: Vec<bool> = [(1, released), (1, released), (1, usage), (2, usage), (1, released)]
            .into_iter()
            .map(|(current, condition)| told.is_news(&summary(current, condition)))
            .collect();
        assert_eq!(news, [true, false, false, true, true]);
    }
}
