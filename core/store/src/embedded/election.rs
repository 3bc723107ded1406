//! Leadership by a lock on a file beside the store's: the operating system frees it the moment its holder dies.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rotacast_protocol::{Epoch, Instant};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::rows;
use crate::{Key, Leadership, StoreError};

/// How often a candidate tries the lock: how long a successor waits at most after its holder died.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// A leadership is confirmed this many times within its time-to-live.
const RENEWALS_PER_TTL: u32 = 4;

pub(super) async fn campaign(
    shared: Arc<Shared>,
    election: Key,
    candidate: String,
    ttl: Duration,
    cancel: CancellationToken,
) -> Result<Leadership, StoreError> {
    let lock = Lock::file_of(&shared, &election)?;
    loop {
        if let Some(lock) = lock.try_take()? {
            let started = rotacast_clock::instant();
            let key = election.clone();
            let begun = shared.writer.run(move |connection| rows::begin_term(connection, &key, &candidate));
            let epoch = tokio::select! {
                () = cancel.cancelled() => return Err(StoreError::Cancelled),
                begun = begun => begun?,
            };
            return Ok(lead(shared, election, epoch, ttl, started, lock));
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            () = sleep(LOCK_POLL) => {}
        }
    }
}

fn lead(shared: Arc<Shared>, election: Key, epoch: u64, ttl: Duration, started: Instant, lock: Held) -> Leadership {
    let (valid, valid_until) = watch::channel(started + ttl);
    let lost = CancellationToken::new();
    let resign = CancellationToken::new();
    let term = Term { shared, election, epoch, ttl, valid, lost: lost.clone(), resign: resign.clone(), lock };
    let resigned = tokio::spawn(term.last());
    Leadership { epoch: Epoch(epoch), valid_until, lost, resign, resigned }
}

struct Term {
    shared: Arc<Shared>,
    election: Key,
    epoch: u64,
    ttl: Duration,
    valid: watch::Sender<Instant>,
    lost: CancellationToken,
    resign: CancellationToken,
    lock: Held,
}

impl Term {
    async fn last(self) {
        let interval = self.ttl / RENEWALS_PER_TTL;
        loop {
            tokio::select! {
                () = self.resign.cancelled() => break,
                () = self.valid.closed() => {
                    // Dropped without stepping down: let the time run out, as a crashed leader's would.
                    let left = self.valid.borrow().since(rotacast_clock::instant());
                    tokio::select! {
                        () = self.resign.cancelled() => {}
                        () = sleep(left) => {}
                    }
                    break;
                }
                () = sleep(interval) => {}
            }
            let sent = rotacast_clock::instant();
            let key = self.election.clone();
            let confirmed = self.shared.reader.run(move |connection| rows::active_epoch(connection, &key)).await;
            match confirmed {
                Ok(Some(epoch)) if epoch == self.epoch => {
                    self.valid.send_replace(sent + self.ttl);
                }
                Ok(_) => {
                    tracing::error!(epoch = self.epoch, "another term began although this one holds the lock");
                    break;
                }
                Err(error) => tracing::warn!(%error, "confirming the leadership: trying again"),
            }
        }
        self.lost.cancel();
        let (key, epoch) = (self.election.clone(), self.epoch);
        if let Err(error) = self.shared.writer.run(move |connection| rows::end_term(connection, &key, epoch)).await {
            tracing::warn!(%error, "noting the end of the leadership; the next leader's term ends it anyway");
        }
        drop(self.lock);
    }
}

/// The lock file of one election.
struct Lock {
    name: String,
    path: PathBuf,
}

/// The lock, while this lives.
struct Held {
    _file: File,
}

impl Lock {
    fn file_of(shared: &Shared, election: &Key) -> Result<Self, StoreError> {
        let Some(store) = shared.path.file_name() else {
            return Err(StoreError::Invalid { what: shared.name.clone(), problem: "it names no file".into() });
        };
        let mut file = store.to_os_string();
        file.push(format!(".{}.lock", election.as_str().replace('/', "+")));
        Ok(Self { name: shared.name.clone(), path: shared.path.with_file_name(file) })
    }

    /// The lock belongs to the opened file: two candidates of one process exclude each other as well.
    fn try_take(&self) -> Result<Option<Held>, StoreError> {
        let denied = |problem: String| StoreError::Denied {
            endpoint: self.name.clone(),
            problem: format!("lock file {}: {problem}", self.path.display()),
        };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        let file = file.map_err(|problem| denied(problem.to_string()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Held { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(problem) => Err(denied(problem.to_string())),
        }
    }
}
