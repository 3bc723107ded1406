//! A watch that never skips: a listing at a revision, then every change after it. Whatever ends the stream, it is
//! taken up again after the last revision told in full; where etcd no longer has that history, everything is
//! listed anew.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::call::{is_compacted, is_future, is_too_much};
use super::client::WatchStream;
use super::generated::mvccpb::event::EventType;
use super::pb::{RangeRequest, WatchCreateRequest, WatchResponse};
use super::read::{entry, key_of, unsigned};
use crate::history::Floor;
use crate::{Cursor, Key, Listing, StoreError, StoreEvent};

/// Events waiting for a slow reader; when full, the watch waits.
const QUEUE: usize = 64;
/// A watch that has been silent this long is asked for a sign of life …
const QUIET: Duration = Duration::from_secs(5);
/// … and taken up anew if there is none within this time.
const STUCK: Duration = Duration::from_secs(5);
/// How often everything is listed anew although nothing seems wrong: servers have had bugs that lost events.
const RESYNC: Duration = Duration::from_secs(600);
/// First and longest pause before a lost watch is taken up; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

type Told = Result<StoreEvent, StoreError>;

/// Why a watch ended.
enum End {
    /// The listener is gone.
    Unheard,
    /// Take it up where it ended.
    Resume(StoreError),
    /// The history after the last revision told is gone, or too much to send.
    Relist,
    /// List anew as of the last revision told.
    Resync,
    /// Retrying cannot mend it.
    Fatal(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        if error.is_transient() { End::Resume(error) } else { End::Fatal(error) }
    }
}

struct Watch {
    shared: Arc<Shared>,
    parent: Key,
    events: mpsc::Sender<Told>,
    /// Everything up to this revision has been told. Nothing until the first listing. Only listings and whole
    /// revisions of events move it: servers have announced progress ahead of the events.
    told: Option<i64>,
    /// The history it tells: a setback found by whomever ends it.
    begun: Floor,
    resync_at: Instant,
}

pub(super) fn watch(shared: Arc<Shared>, parent: Key) -> BoxStream<'static, Told> {
    let (events, queue) = mpsc::channel(QUEUE);
    let begun = shared.history.floor();
    let watch = Watch { shared, parent, events: events.clone(), told: None, begun, resync_at: Instant::now() + RESYNC };
    tokio::spawn(async move {
        tokio::select! {
            () = events.closed() => {}
            () = watch.run() => {}
        }
    });
    ReceiverStream::new(queue).boxed()
}

impl Watch {
    async fn run(mut self) {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times();
        let mut pauses = backoff.build();
        let mut resync = false;
        loop {
            let before = self.told;
            let Err(end) = self.list_and_follow(resync).await;
            resync = false;
            match end {
                End::Unheard => return,
                End::Fatal(error) => {
                    let _ = self.events.send(Err(error)).await;
                    return;
                }
                End::Resync => {
                    resync = true;
                    continue;
                }
                End::Relist => {
                    tracing::info!(store = self.shared.name, parent = %self.parent, "history is gone: listing anew");
                    self.told = None;
                }
                End::Resume(error) => {
                    tracing::info!(store = self.shared.name, parent = %self.parent, %error, "watch lost: taking it up");
                }
            }
            if self.told != before && self.told.is_some() {
                pauses = backoff.build();
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    async fn list_and_follow(&mut self, resync: bool) -> Result<std::convert::Infallible, End> {
        if self.told.is_none() || resync {
            let listing = self.listing().await?;
            self.tell_listing(listing).await?;
            self.resync_at = Instant::now() + RESYNC;
        }
        self.follow().await
    }

    /// As of the last revision told, so that what happened since is told as single changes; as of now if that is
    /// gone or there is none.
    async fn listing(&self) -> Result<Listing, End> {
        if let Some(revision) = self.told
            && let Some(listing) = self.shared.list_at(&self.parent, Some(revision)).await?
        {
            return Ok(listing);
        }
        Ok(self.shared.list(&self.parent).await?)
    }

    async fn tell_listing(&mut self, listing: Listing) -> Result<(), End> {
        self.tell(StoreEvent::Init).await?;
        for entry in listing.entries {
            self.tell(StoreEvent::Listed(entry)).await?;
        }
        self.tell(StoreEvent::Ready(listing.cursor)).await?;
        self.told = i64::try_from(listing.cursor.0).ok();
        Ok(())
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, End> {
        let Some(told) = self.told else { return Err(End::Relist) };
        let mut stream = self.open(told + 1).await?;
        self.next(&mut stream).await?;
        self.check_history(told).await?;
        loop {
            let answer = self.next(&mut stream).await?;
            self.tell_changes(answer).await?;
        }
    }

    async fn open(&self, from: i64) -> Result<WatchStream, End> {
        let RangeRequest { key, range_end, .. } = RangeRequest::below(&self.parent);
        // Without fragments: etcd then sends the events of a revision in one piece.
        let request = WatchCreateRequest { key, range_end, start_revision: from, progress_notify: true };
        let client = self.shared.client().await?;
        Ok(self.shared.once(client.watch(&request)).await?)
    }

    /// A watch that starts exactly at the compacted revision lacks that revision's deletions. If the revision
    /// before the start can still be read after the watch was created, the start was not compacted.
    async fn check_history(&self, told: i64) -> Result<(), End> {
        let client = self.shared.client().await?;
        let request = RangeRequest { count_only: true, revision: told, ..RangeRequest::below(&self.parent) };
        let (begun, name) = (self.begun, &self.shared.name);
        let answer = self.shared.read(|| async {
            match client.range(&request).await {
                Err(status) if is_compacted(&status) => Ok(Err(End::Relist)),
                Err(status) if is_future(&status) => {
                    let problem = format!("it has not reached revision {told}, which it has shown before");
                    Ok(Err(End::Fatal(self.shared.history.went_backwards(name, begun, problem, 0))))
                }
                answer => answer.map(Ok),
            }
        });
        let answer = answer.await??;
        let header = self.shared.header(answer.header.as_ref())?;
        Ok(self.shared.answered(begun, header)?)
    }

    /// The next message of the stream, asking for a sign of life when it is silent.
    async fn next(&self, stream: &mut WatchStream) -> Result<WatchResponse, End> {
        let quiet_at = Instant::now() + QUIET;
        let stuck_at = quiet_at + STUCK;
        let mut asked = false;
        let received = loop {
            tokio::select! {
                received = stream.message() => break received,
                () = sleep_until(self.resync_at) => return Err(End::Resync),
                () = sleep_until(if asked { stuck_at } else { quiet_at }) => {
                    if asked {
                        return Err(End::Resume(self.shared.unreachable("the watch gave no sign of life")));
                    }
                    asked = true;
                    stream.request_progress().await.map_err(|error| self.shared.explain(&error))?;
                }
            }
        };
        let answer = match received {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(End::Resume(self.shared.unreachable("the watch was closed"))),
            Err(error) if is_too_much(&error) => return Err(End::Relist),
            Err(error) => return Err(self.shared.explain(&error).into()),
        };
        let header = self.shared.header(answer.header.as_ref())?;
        let (name, revision) = (&self.shared.name, unsigned(header.revision));
        self.shared.history.same_store(name, self.begun, header.cluster_id, revision)?;
        if answer.compact_revision > 0 {
            return Err(End::Relist);
        }
        if answer.canceled {
            return Err(self.canceled(&answer.cancel_reason).await);
        }
        Ok(answer)
    }

    async fn canceled(&self, reason: &str) -> End {
        if reason.contains("permission denied") {
            return End::Fatal(StoreError::Denied {
                endpoint: self.shared.name.clone(),
                problem: format!("watching {}/ needs the right to read it", self.parent),
            });
        }
        if reason.contains("auth") {
            // A call's token is renewed with the call; a stream's is not.
            let renewed = match self.shared.client().await {
                Ok(client) => client.refresh_token().await,
                Err(error) => return error.into(),
            };
            if let Err(error) = renewed {
                return self.shared.explain(&error).into();
            }
        }
        End::Resume(self.shared.unreachable(format!("the watch was ended: {reason}")))
    }

    async fn tell_changes(&mut self, answer: WatchResponse) -> Result<(), End> {
        let mut last = None;
        for event in answer.events {
            let kind = event.r#type();
            let Some(kv) = event.kv else { continue };
            let revision = kv.mod_revision;
            // A repetition of what was told.
            if self.told.is_some_and(|told| revision <= told) {
                continue;
            }
            last = last.max(Some(revision));
            let change = match kind {
                EventType::Put => StoreEvent::Put(entry(kv)),
                EventType::Delete => StoreEvent::Deleted { key: key_of(&kv.key), cursor: Cursor(unsigned(revision)) },
            };
            self.tell(change).await?;
        }
        if last.is_some() {
            self.told = last;
        }
        Ok(())
    }

    async fn tell(&self, event: StoreEvent) -> Result<(), End> {
        self.events.send(Ok(event)).await.map_err(|_| End::Unheard)
    }
}
