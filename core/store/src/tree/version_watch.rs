//! The watch of the versions: a store's watch, made gap-free by [`VersionLog`].

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::{Instant as Timer, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::SecretTree;
use super::version_log::{VersionEvent, VersionLog};
use crate::{StoreError, StoreEvent};

/// Events waiting for a slow reader; when full, the watch waits, and so does the store's.
const QUEUE: usize = 256;
/// How often it is looked up whether the numbers missing before a held-back version were destroyed after all: an
/// operator who settles a gap by hand waits this long at most.
const GAP_RECHECK: Duration = Duration::from_secs(5);

type Told = Result<VersionEvent, StoreError>;

impl SecretTree {
    /// Every version of every secret, and then every new one: per secret in ascending order, each once, without a
    /// gap, whatever the store's watch loses. It retries by itself while the store is away, and ends with the
    /// first error that retrying cannot mend. Must be called within a tokio runtime; dropping it ends it.
    #[must_use]
    pub fn watch_versions(&self) -> BoxStream<'static, Told> {
        let (events, queue) = mpsc::channel(QUEUE);
        let tree = self.clone();
        tokio::spawn(async move {
            let closed = events.clone();
            tokio::select! {
                () = closed.closed() => {}
                () = tree.tell_versions(&events) => {}
            }
        });
        ReceiverStream::new(queue).boxed()
    }

    async fn tell_versions(&self, events: &mpsc::Sender<Told>) {
        let folder = self.versions_folder();
        let mut log = VersionLog::new(folder.clone());
        let mut watch = self.store.watch(&folder);
        let mut recheck: Option<Timer> = None;
        loop {
            let due = async {
                match recheck {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let mut ready = None;
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
                () = due => {}
            }
            if let Err(error) = self.settle_gaps(&mut log).await {
                let _ = events.send(Err(error)).await;
                return;
            }
            recheck = (!log.gaps().is_empty()).then(|| Timer::now() + GAP_RECHECK);
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
    async fn settle_gaps(&self, log: &mut VersionLog) -> Result<(), StoreError> {
        for secret in log.gaps() {
            match self.read_destroyed(&secret).await {
                Ok((destroyed, _)) => log.settle(&secret, &destroyed),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%secret, %error, "cannot look up destroyed versions; newer ones are held back");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
