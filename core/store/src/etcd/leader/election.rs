//! Leadership: a key bound to a lease. Its creation revision is the epoch, and every commit of the leader compares it.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_protocol::time::{CLOCK_DRIFT_PERCENT, CLOCK_RESOLUTION};
use rotacast_protocol::{Epoch, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::etcd::Shared;
use crate::etcd::client::Renewals;
use crate::etcd::generated::mvccpb::event::EventType;
use crate::etcd::pb::{Compare, RequestOp, TxnRequest, WatchCreateRequest};
use crate::{CALL_TIMEOUT, Committed, Key, Leadership, StoreError};

/// A lease is renewed this many times within its time-to-live.
const RENEWALS_PER_TTL: u32 = 4;
/// How often a candidate looks again although its watch of the leader's key is silent.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// First and longest pause after a failed attempt; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long stepping down may take; beyond it the lease runs out by itself.
const RESIGN_TIMEOUT: Duration = CALL_TIMEOUT;

pub(super) async fn campaign(
    shared: Arc<Shared>,
    election: Key,
    candidate: String,
    ttl: Duration,
    cancel: CancellationToken,
) -> Result<Leadership, StoreError> {
    let backoff = ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times();
    let mut pauses = backoff.build();
    loop {
        let looked = tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            looked = shared.get_leased(&election) => looked,
        };
        let attempt = match looked {
            // It ends with no term, and may be a leader's all the same that has not noticed yet: not ours to delete.
            Ok(Some((_, 0))) => Err(StoreError::Corrupt {
                key: election.to_string(),
                problem: "it names a leader and is bound to no lease, so its term never ends: another client wrote it"
                    .into(),
            }),
            Ok(Some((leader, _))) => Ok(Attempt::Led { revision: leader.modified.0 }),
            // Not raced against `cancel`: a lease that was granted must be known, to be given back. Every step has
            // a time limit.
            Ok(None) => attempt(&shared, &election, &candidate, ttl).await,
            Err(error) => Err(error),
        };
        if cancel.is_cancelled() {
            if let Ok(Attempt::Won(term)) = attempt {
                term.step_down().await;
            }
            return Err(StoreError::Cancelled);
        }
        let wait = async {
            match attempt {
                Ok(Attempt::Won(term)) => return Ok(Some(term)),
                Ok(Attempt::Led { revision }) => {
                    pauses = backoff.build();
                    until_free(&shared, &election, revision).await;
                }
                Err(error) if error.is_transient() => {
                    tracing::info!(%error, "campaigning: trying again");
                    sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                }
                Err(error) => return Err(error),
            }
            Ok(None)
        };
        tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            won = wait => if let Some(term) = won? {
                return Ok(term.lead());
            }
        }
    }
}

enum Attempt {
    Won(Term),
    /// Another broadcaster leads, as of this revision.
    Led {
        revision: u64,
    },
}

async fn attempt(shared: &Arc<Shared>, election: &Key, candidate: &str, ttl: Duration) -> Result<Attempt, StoreError> {
    let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    let seconds = i64::try_from(seconds.max(1)).map_err(|_| StoreError::Invalid {
        what: "the time-to-live of a leadership".into(),
        problem: "longer than any clock runs".into(),
    })?;
    let sent = rotacast_clock::instant();
    let lease = shared.once(shared.client().await?.grant(seconds)).await?;
    let mut term = Term {
        shared: Arc::clone(shared),
        election: election.clone(),
        epoch: 0,
        lease: lease.id,
        ttl: Duration::from_secs(u64::try_from(lease.ttl).unwrap_or(0)),
        sent,
    };
    let create = TxnRequest {
        compare: vec![Compare::created(election, 0)],
        success: vec![RequestOp::put(election, candidate.as_bytes(), lease.id)],
    };
    match shared.transact(create).await {
        Ok(Committed::Done(cursor)) => {
            term.epoch = cursor.0;
            Ok(Attempt::Won(term))
        }
        Ok(Committed::Conflict) => {
            term.revoke().await;
            // The faster candidate shows at the next attempt.
            Ok(Attempt::Led { revision: 0 })
        }
        Err(error) => {
            // It may or may not have been done; without its lease the key cannot stay either way.
            term.revoke().await;
            Err(error)
        }
    }
}

/// Until the leader's key is deleted, or it is worth looking again for any other reason.
async fn until_free(shared: &Shared, election: &Key, revision: u64) {
    let Ok(from) = i64::try_from(revision) else { return };
    if from == 0 {
        return sleep(FIRST_PAUSE).await;
    }
    let watching = async {
        let client = shared.client().await?;
        let request = WatchCreateRequest {
            key: election.as_str().into(),
            start_revision: from + 1,
            ..WatchCreateRequest::default()
        };
        let mut stream = shared.once(client.watch(&request)).await?;
        loop {
            let Some(answer) = stream.message().await.map_err(|error| shared.explain(&error))? else { break };
            let freed = answer.events.iter().any(|event| event.r#type() == EventType::Delete);
            if freed || answer.canceled {
                break;
            }
        }
        Ok::<(), StoreError>(())
    };
    if let Ok(Err(error)) = timeout(LOOK_AGAIN, watching).await {
        tracing::debug!(%error, "watching the leader's key");
        sleep(FIRST_PAUSE).await;
    }
}

/// One term of leadership, and the lease it rests on.
struct Term {
    shared: Arc<Shared>,
    election: Key,
    epoch: u64,
    lease: i64,
    ttl: Duration,
    /// When the newest renewal that succeeded was sent.
    sent: Instant,
}

/// What a renewal has found.
enum Renewal {
    Leads,
    /// The lease or the key is gone.
    Over,
    /// The key is this term's, and bound to its lease no more.
    Unbound,
}

/// For how long a lease of `ttl` on etcd's clock is certain to last on ours, from the moment its renewal was sent.
fn surely(ttl: Duration) -> Duration {
    (ttl * (100 - CLOCK_DRIFT_PERCENT) / (100 + CLOCK_DRIFT_PERCENT)).saturating_sub(CLOCK_RESOLUTION)
}

impl Term {
    fn lead(self) -> Leadership {
        let (valid, valid_until) = watch::channel(self.sent + surely(self.ttl));
        let (lost, resign) = (CancellationToken::new(), CancellationToken::new());
        let epoch = Epoch(self.epoch);
        let resigned = tokio::spawn(self.last(valid, lost.clone(), resign.clone()));
        Leadership { epoch, valid_until, lost, resign, resigned }
    }

    async fn last(mut self, valid: watch::Sender<Instant>, lost: CancellationToken, resign: CancellationToken) {
        let interval = self.ttl / RENEWALS_PER_TTL;
        let mut stream: Option<Renewals> = None;
        loop {
            tokio::select! {
                () = resign.cancelled() => {
                    lost.cancel();
                    self.step_down().await;
                    return;
                }
                // Dropped without stepping down: the lease runs out by itself.
                () = valid.closed() => break,
                () = sleep(interval) => {}
            }
            let left = valid.borrow().since(rotacast_clock::instant());
            if left.is_zero() {
                tracing::warn!(epoch = self.epoch, "the leadership's lease was not renewed in time");
                break;
            }
            let renewed = tokio::select! {
                () = resign.cancelled() => continue,
                renewed = timeout(left, self.renew(&mut stream)) => renewed,
            };
            match renewed {
                Ok(Ok(Renewal::Leads)) => {
                    valid.send_replace(self.sent + surely(self.ttl));
                }
                Ok(Ok(Renewal::Over)) => {
                    tracing::warn!(epoch = self.epoch, "the leadership's lease or key is gone");
                    break;
                }
                // The key would outlive this broadcaster, and no other could lead.
                Ok(Ok(Renewal::Unbound)) => {
                    tracing::error!(
                        epoch = self.epoch, key = %self.election,
                        "another client has written the leader's key, which is bound to the leadership's lease no more: \
                         stepping down"
                    );
                    lost.cancel();
                    self.step_down().await;
                    return;
                }
                Ok(Err(error)) => {
                    // An answer that still comes belongs to an earlier request: never wait for it on this stream.
                    stream = None;
                    tracing::warn!(%error, "renewing the leadership: trying again");
                }
                Err(_) => stream = None,
            }
        }
        lost.cancel();
    }

    /// Renews the lease and looks whether the key is still this term's.
    async fn renew(&mut self, stream: &mut Option<Renewals>) -> Result<Renewal, StoreError> {
        let sent = rotacast_clock::instant();
        let shared = Arc::clone(&self.shared);
        let client = shared.client().await?;
        let renewed = shared.once(async {
            let renewals = match stream {
                Some(renewals) => {
                    renewals.renew().await?;
                    renewals
                }
                None => stream.insert(client.keep_alive(self.lease).await?),
            };
            renewals.renewed().await
        });
        let Some(seconds) = renewed.await? else { return Ok(Renewal::Over) };
        let ttl = Duration::from_secs(seconds);
        match shared.get_leased(&self.election).await? {
            Some((leader, lease)) if leader.created.0 == self.epoch && lease != self.lease => Ok(Renewal::Unbound),
            Some((leader, _)) if leader.created.0 == self.epoch => {
                self.sent = sent;
                self.ttl = ttl;
                Ok(Renewal::Leads)
            }
            Some(_) | None => Ok(Renewal::Over),
        }
    }

    /// Gives the leadership up: the key first, so that a successor need not wait for the lease.
    async fn step_down(&self) {
        let epoch = i64::try_from(self.epoch).unwrap_or(i64::MAX);
        let delete = TxnRequest {
            compare: vec![Compare::created(&self.election, epoch)],
            success: vec![RequestOp::delete(&self.election)],
        };
        match timeout(RESIGN_TIMEOUT, self.shared.transact(delete)).await {
            Ok(Err(error)) => tracing::warn!(%error, "stepping down; the lease runs out by itself"),
            Err(_) => tracing::warn!("stepping down took too long; the lease runs out by itself"),
            Ok(Ok(_)) => {}
        }
        self.revoke().await;
    }

    async fn revoke(&self) {
        let Ok(client) = self.shared.client().await else { return };
        if let Err(error) = self.shared.once(client.revoke(self.lease)).await {
            tracing::debug!(%error, "giving a lease back; it runs out by itself");
        }
    }
}
