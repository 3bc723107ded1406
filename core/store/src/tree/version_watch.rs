//! The watch of the versions: a store's watch, made gap-free by [`VersionLog`].

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_protocol::{SecretName, Version};
use tokio::sync::mpsc;
use tokio::time::{Instant as Timer, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::SecretTree;
use super::destroyed::Destroyed;
use super::version_log::{VersionEvent, VersionLog};
use crate::{StoreError, StoreEvent};

/// Events waiting for a slow reader; when full, the watch waits, and so does the store's.
const QUEUE: usize = 256;
/// How often it is looked up whether the numbers missing before a held-back version were destroyed after all: an
/// operator who settles a gap by hand waits this long at most.
const GAP_RECHECK: Duration = Duration::from_secs(5);

/// How many gaps are looked up key by key; for more, one listing of all notes costs less.
const LOOKED_UP_BY_KEY: usize = 8;

type Told = Result<VersionEvent, StoreError>;

impl SecretTree {
    /// Every version of every secret, and then every new one: per secret in ascending order, each once, without a
    /// gap, whatever the store's watch loses. It retries by itself while the store is away, and ends with the
    /// first error that retrying cannot mend. Must be called within a tokio runtime; dropping it ends it.
    #[must_use]
    pub fn watch_versions(&self) -> BoxStream<'static, Told> {
        self.watch_versions_beyond(BTreeMap::new())
    }

    /// The same for a reader that knows each secret's numbers up to one: none of them is missing, and the next one follows it.
    /// Of the other secrets, the first number that is there is the beginning.
    #[must_use]
    pub fn watch_versions_beyond(&self, known: BTreeMap<SecretName, Version>) -> BoxStream<'static, Told> {
        let (events, queue) = mpsc::channel(QUEUE);
        let tree = self.clone();
        tokio::spawn(async move {
            let closed = events.clone();
            tokio::select! {
                () = closed.closed() => {}
                () = tree.tell_versions(known, &events) => {}
            }
        });
        ReceiverStream::new(queue).boxed()
    }

    async fn tell_versions(&self, known: BTreeMap<SecretName, Version>, events: &mpsc::Sender<Told>) {
        let folder = self.versions_folder();
        let mut log = VersionLog::new(folder.clone(), known);
        let mut watch = self.store.watch(&folder);
        let mut recheck: Option<Timer> = None;
        loop {
            let due = async {
                match recheck {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (mut ready, mut all_gaps) = (None, false);
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(event)) => {
                        if let StoreEvent::Ready(cursor) = event {
                            ready = Some(cursor);
                        }
                        log.take(event);
                    }
                    Some(Err(error)) => {
                        let _ = events.send(Err(error)).await;
                        return;
                    }
                    None => return,
                },
                () = due => (recheck, all_gaps) = (None, true),
            }
            let gaps = if all_gaps { log.gaps() } else { log.unsettled() };
            if let Err(error) = self.settle_gaps(&mut log, gaps).await {
                let _ = events.send(Err(error)).await;
                return;
            }
            recheck = log.has_gaps().then(|| recheck.unwrap_or_else(|| Timer::now() + GAP_RECHECK));
            if let Some(cursor) = ready {
                log.resynced(cursor);
            }
            for event in log.drain() {
                if events.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Looks up which missing numbers were destroyed. What cannot be looked up now stays held back until the next
    /// try.
    async fn settle_gaps(&self, log: &mut VersionLog, gaps: Vec<SecretName>) -> Result<(), StoreError> {
        let held_back = |problem: &StoreError| {
            tracing::warn!(secrets = gaps.len(), %problem, "cannot look up destroyed versions; newer ones are held back");
        };
        if gaps.len() > LOOKED_UP_BY_KEY {
            match self.all_destroyed().await {
                Ok(notes) => {
                    let none = Destroyed::default();
                    gaps.iter().for_each(|secret| log.settle(secret, notes.get(secret).unwrap_or(&none)));
                }
                Err(error) if error.is_transient() => held_back(&error),
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        for secret in &gaps {
            match self.read_destroyed(secret).await {
                Ok((destroyed, _)) => log.settle(secret, &destroyed),
                Err(error) if error.is_transient() => held_back(&error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
