//! Leadership: a key locked by a session. The index at which the lock was taken is the epoch. Every commit of the
//! leader checks that the key still has that index: the lock cannot be lost, nor the session end, without changing it.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_proto::SecretValue;
use rotacast_protocol::time::{CLOCK_DRIFT_PERCENT, CLOCK_RESOLUTION};
use rotacast_protocol::{Epoch, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::commit::{Transacted, reasons};
use super::session::{GREATEST_LOCK_DELAY, SESSION_NAME, SessionId, granted};
use crate::consul::Shared;
use crate::consul::read::Pair;
use crate::{CALL_TIMEOUT, Key, Leadership, StoreError};

/// A session is renewed this many times within its time-to-live.
const RENEWALS_PER_TTL: u32 = 4;
/// How long one look at the leader's key waits for a change.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often a lock that Consul holds back for its lock delay is tried.
const LOCK_DELAY_POLL: Duration = Duration::from_millis(250);
/// First and longest pause after a failed attempt; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long stepping down may take; beyond it the session runs out by itself.
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
    let ttl = session_ttl(ttl);
    loop {
        let looked = tokio::select! {
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            looked = shared.pair(&election) => looked,
        };
        let attempt = match looked {
            Ok(Some(Pair { session: Some(session), modify_index, .. })) => {
                shared.is_a_leaders(&election, &session).await.map(|()| Attempt::Led { index: modify_index })
            }
            // Not raced against `cancel`: a session that was made must be known, to be given back. Every step has
            // a time limit.
            Ok(_) => attempt(&shared, &election, &candidate, ttl, &cancel).await,
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
                Ok(Attempt::Led { index }) => {
                    pauses = backoff.build();
                    until_free(&shared, &election, index).await;
                }
                Ok(Attempt::HeldBack) => {}
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
    /// Another broadcaster leads, as of this index.
    Led {
        index: u64,
    },
    /// The lock delay of the last leader's session lasts longer than this attempt's own session should.
    HeldBack,
}

async fn attempt(
    shared: &Arc<Shared>,
    election: &Key,
    candidate: &str,
    ttl: Duration,
    cancel: &CancellationToken,
) -> Result<Attempt, StoreError> {
    let sent = rotacast_clock::instant();
    let session = shared.make_session(&format!("{SESSION_NAME} {candidate}"), ttl).await?;
    let value = SecretValue::new(candidate.as_bytes().to_vec());
    let mut lock_delay = ExponentialBuilder::new()
        .with_min_delay(LOCK_DELAY_POLL)
        .with_max_delay(LOCK_DELAY_POLL * 2)
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let refused = match shared.lock(election, &value, &session).await {
            Ok(Transacted::Done(Some(epoch))) => {
                let shared = Arc::clone(shared);
                return Ok(Attempt::Won(Term { shared, election: election.clone(), epoch, session, ttl, sent }));
            }
            Ok(Transacted::Done(None)) => {
                shared.destroy_session(&session).await;
                return Err(shared.unreachable("its answer to a lock names no index"));
            }
            Ok(Transacted::Refused(refused)) => refused,
            Err(error) => {
                // It may or may not have been done; without its session the key cannot stay either way.
                shared.destroy_session(&session).await;
                return Err(error);
            }
        };
        let delayed = refused.iter().any(|refused| refused.what.contains("lock delay"));
        let young = rotacast_clock::instant().since(sent) < ttl / 2;
        if delayed && young && !cancel.is_cancelled() {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = sleep(lock_delay.next().unwrap_or(LOCK_DELAY_POLL)) => {}
            }
            continue;
        }
        shared.destroy_session(&session).await;
        shared.refused_rights(&refused)?;
        if delayed {
            return Ok(Attempt::HeldBack);
        }
        tracing::debug!(reasons = reasons(&refused), "the lock was taken by another client");
        // The faster candidate shows at the next attempt.
        return Ok(Attempt::Led { index: 0 });
    }
}

/// Until the leader's key changes, or it is worth looking again for any other reason.
async fn until_free(shared: &Shared, election: &Key, index: u64) {
    if index == 0 {
        return sleep(FIRST_PAUSE).await;
    }
    let began = rotacast_clock::instant();
    let looked = shared.pair_after(election, index, LOOK_AGAIN).await;
    if let Err(error) = &looked {
        tracing::debug!(%error, "watching the leader's key");
    }
    let unchanged = looked.is_ok_and(|pair| pair.is_some_and(|pair| pair.modify_index == index));
    if unchanged && rotacast_clock::instant().since(began) < LOOK_AGAIN {
        // Answered early without news: never ask in a tight loop.
        sleep(LOCK_DELAY_POLL).await;
    } else {
        sleep(FIRST_PAUSE).await;
    }
}

/// One term of leadership, and the session it rests on.
struct Term {
    shared: Arc<Shared>,
    election: Key,
    epoch: u64,
    session: SessionId,
    ttl: Duration,
    /// When the newest renewal that succeeded was sent.
    sent: Instant,
}

/// The session's time-to-live: what is asked for, within what Consul grants, and no longer than its lock delays last. A
/// session that is destroyed by mistake ends at once, and then only its lock delay keeps a successor away: none may
/// believe to lead for longer than that.
fn session_ttl(ttl: Duration) -> Duration {
    granted(ttl).min(GREATEST_LOCK_DELAY)
}

/// For how long a session of `ttl` on Consul's clock is certain to last on ours, from the moment its renewal was sent.
fn surely(ttl: Duration) -> Duration {
    (ttl * (100 - CLOCK_DRIFT_PERCENT) / (100 + CLOCK_DRIFT_PERCENT)).saturating_sub(CLOCK_RESOLUTION)
}

impl Term {
    fn lead(self) -> Leadership {
        let (valid, valid_until) = watch::channel(self.sent + surely(self.ttl));
        let (lost, resign) = (CancellationToken::new(), CancellationToken::new());
        let epoch = Epoch(self.epoch);
        {
            let mut terms = self.shared.terms();
            // The newest term of each election is enough: an older one's index is never the key's again.
            terms.retain(|(election, _), _| *election != self.election);
            terms.insert((self.election.clone(), self.epoch), self.session.clone());
        }
        let resigned = tokio::spawn(self.last(valid, lost.clone(), resign.clone()));
        Leadership { epoch, valid_until, lost, resign, resigned }
    }

    async fn last(mut self, valid: watch::Sender<Instant>, lost: CancellationToken, resign: CancellationToken) {
        let interval = self.ttl / RENEWALS_PER_TTL;
        loop {
            tokio::select! {
                () = resign.cancelled() => {
                    lost.cancel();
                    self.step_down().await;
                    return;
                }
                // Dropped without stepping down: the session runs out by itself.
                () = valid.closed() => break,
                () = sleep(interval) => {}
            }
            let left = valid.borrow().since(rotacast_clock::instant());
            if left.is_zero() {
                tracing::warn!(epoch = self.epoch, "the leadership's session was not renewed in time");
                break;
            }
            let renewed = tokio::select! {
                () = resign.cancelled() => continue,
                renewed = timeout(left, self.renew()) => renewed,
            };
            match renewed {
                Ok(Ok(true)) => {
                    valid.send_replace(self.sent + surely(self.ttl));
                }
                Ok(Ok(false)) => {
                    tracing::warn!(epoch = self.epoch, "the leadership's session or key is gone");
                    lost.cancel();
                    self.shared.destroy_session(&self.session).await;
                    break;
                }
                Ok(Err(error)) => tracing::warn!(%error, "renewing the leadership: trying again"),
                Err(_) => {}
            }
        }
        lost.cancel();
    }

    /// Renews the session and looks whether the key is still this term's. `false`: the term is over.
    async fn renew(&mut self) -> Result<bool, StoreError> {
        let sent = rotacast_clock::instant();
        if !self.shared.renew_session(&self.session).await? {
            return Ok(false);
        }
        let key = self.shared.pair(&self.election).await?;
        let leads =
            key.is_some_and(|key| key.session.as_ref() == Some(&self.session) && key.modify_index == self.epoch);
        if leads {
            self.sent = sent;
        }
        Ok(leads)
    }

    /// Gives the leadership up: the key first, so that no lock delay keeps a successor waiting.
    async fn step_down(&self) {
        match timeout(RESIGN_TIMEOUT, self.shared.unlock(&self.election, &self.session)).await {
            Ok(Err(error)) => tracing::warn!(%error, "stepping down; the session runs out by itself"),
            Err(_) => tracing::warn!("stepping down took too long; the session runs out by itself"),
            Ok(Ok(_)) => {}
        }
        self.shared.destroy_session(&self.session).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_believes_to_lead_beyond_the_lock_delay_and_whoever_wins_has_time_to_renew() {
        for seconds in [1, 10, 59, 60, 61, 120, 300, 86_400] {
            let ttl = session_ttl(Duration::from_secs(seconds));
            assert!(surely(ttl) < ttl && surely(ttl) < GREATEST_LOCK_DELAY, "{ttl:?}");
            let interval = ttl / RENEWALS_PER_TTL;
            assert!(interval * 2 < surely(ttl), "{ttl:?}: a renewal that is lost must leave time for another");
            // A lock may be won with a session as old as this: see `attempt`.
            let oldest = ttl / 2;
            assert!(oldest + interval < surely(ttl), "{ttl:?}: whoever wins must come to its first renewal");
        }
    }
}
