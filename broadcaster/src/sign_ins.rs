//! Sign-ins that fail: limited, counted, and put on record, per source and in all.
//!
//! A source is an IPv4 address, or the /64 network of an IPv6 address. The limit applies to wrong tokens and signatures only:
//! beyond `PER_SOURCE` within `WINDOW` they are answered "too many" and counted in one number. What is right is always let in,
//! whatever else its source has shown: otherwise a client behind the same proxy could lock every operator out. Nothing is lost
//! by that: a token has 256 random bits and a signature cannot be guessed either, and a check costs little more than the limiter.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Extensions;
use rotacast_log_limit::LogLimit;
use rotacast_proto::Level;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;
use tracing::warn;

use crate::api::{Control, Refusal};
use crate::audit::Entry;
use crate::connections::Peer;
use crate::findings::{Findings, Topic};

/// How long a failure is held against its source.
const WINDOW: Duration = Duration::from_secs(60);
/// Failures of one source within `WINDOW`: more than a person mistypes, and a program with a wrong token sends no more
/// either.
pub const PER_SOURCE: usize = 10;
/// Failures of all sources within `WINDOW`; beyond it, one each is as much as a source gets.
pub const IN_ALL: usize = 600;
/// Sources remembered, of a few hundred bytes each: those that have shown nothing for longest are forgotten for others.
const MAX_SOURCES: usize = 16_384;
/// How often failures go on record, in one entry for each source.
pub const RECORD_EVERY: Duration = Duration::from_secs(10);
/// Sources that have an entry of their own each time; the others share one.
const MAX_RECORDED: usize = 20;
/// How long no source was refused until the finding is over.
const QUIET: Duration = Duration::from_secs(600);
/// The subject of the finding.
const FINDING: &str = "failed";

/// Who asks, as far as the network shows it. None: not over the network, as in a test.
pub(crate) fn source(extensions: &Extensions) -> Option<Peer> {
    let info = extensions.get::<TcpConnectInfo>()?;
    info.remote_addr().map(|address| Peer::from(address.ip()))
}

/// How a sign-in ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// It was let in.
    Done,
    /// It showed nothing that the configuration knows.
    Failed,
    /// The same, from a source that had shown too much of the kind before: the answer says to wait.
    Limited,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Limited];

    /// As label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Limited => "limited",
        }
    }
}

/// One source.
#[derive(Default, Debug)]
struct Source {
    /// When it failed, the oldest first; at most [`PER_SOURCE`].
    failures: Vec<Instant>,
    used: Option<Instant>,
}

#[derive(Default, Debug)]
struct Inner {
    sources: HashMap<Peer, Source>,
    /// When any source failed, the oldest first; at most [`IN_ALL`].
    all: VecDeque<Instant>,
    counts: [u64; Outcome::ALL.len()],
    /// Failures and refusals since the last entry, by source.
    unrecorded: BTreeMap<Peer, (u64, u64)>,
    /// Of sources beyond those that are kept apart.
    unrecorded_others: (u64, u64),
    refused_at: Option<Instant>,
}

impl Inner {
    fn forget(&mut self, now: Instant) {
        while self.all.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.all.pop_front();
        }
    }

    fn limit(&self) -> usize {
        if self.all.len() >= IN_ALL { 1 } else { PER_SOURCE }
    }

    fn count(&mut self, outcome: Outcome) {
        let at = Outcome::ALL.iter().position(|it| *it == outcome).expect("ALL has each");
        self.counts[at] += 1;
    }

    fn source(&mut self, peer: Peer, now: Instant) -> &mut Source {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&peer) {
            // The older half at once, so that a flood of new sources costs each of them little.
            let mut used: Vec<Option<Instant>> = self.sources.values().map(|it| it.used).collect();
            let (_, middle, _) = used.select_nth_unstable(MAX_SOURCES / 2);
            let middle = *middle;
            self.sources.retain(|_, it| it.used > middle);
        }
        let source = self.sources.entry(peer).or_default();
        source.failures.retain(|at| now.duration_since(*at) < WINDOW);
        source.used = Some(now);
        source
    }

    fn note(&mut self, peer: Peer, failed: u64, limited: u64) {
        let noted = match self.unrecorded.contains_key(&peer) || self.unrecorded.len() < MAX_RECORDED {
            true => self.unrecorded.entry(peer).or_default(),
            false => &mut self.unrecorded_others,
        };
        noted.0 += failed;
        noted.1 += limited;
    }
}

/// Every attempt to sign in, of all doors. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct SignIns(Arc<Mutex<Inner>>);

impl SignIns {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what a source shows. `find` says whose it is.
    ///
    /// # Errors
    /// What `find` says; [`Refusal::Busy`] instead, if the source has shown too much that is wrong.
    pub(crate) fn attempt<T>(
        &self,
        source: Option<Peer>,
        now: Instant,
        find: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let found = find();
        let Some(peer) = source else { return found };
        let mut inner = self.inner();
        let Err(refusal) = &found else {
            inner.count(Outcome::Done);
            return found;
        };
        inner.forget(now);
        let limit = inner.limit();
        let source = inner.source(peer, now);
        if source.failures.len() >= limit {
            inner.count(Outcome::Limited);
            inner.note(peer, 0, 1);
            inner.refused_at = Some(now);
            return Err(Refusal::Busy(format!(
                "too many failed sign-ins from {peer}: {PER_SOURCE} within a minute are answered, and none further"
            )));
        }
        source.failures.push(now);
        inner.count(Outcome::Failed);
        inner.note(peer, 1, 0);
        inner.all.push_back(now);
        if inner.all.len() > IN_ALL {
            inner.all.pop_front();
        }
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            warn!(%peer, %refusal, left_out, "a sign-in failed");
        }
        found
    }

    /// How many ended so, since the start.
    #[must_use]
    pub fn counts(&self) -> [(Outcome, u64); Outcome::ALL.len()] {
        let counts = self.inner().counts;
        let mut each = Outcome::ALL.map(|outcome| (outcome, 0));
        each.iter_mut().zip(counts).for_each(|(each, count)| each.1 = count);
        each
    }

    /// Puts failures on record, and raises a finding while sources are refused, until `stop`.
    pub async fn keep(self, control: Arc<dyn Control>, findings: Findings, stop: CancellationToken) {
        loop {
            let stopped = tokio::select! {
                () = tokio::time::sleep(RECORD_EVERY) => false,
                () = stop.cancelled() => true,
            };
            for entry in self.take_unrecorded() {
                if let Err(problem) = control.put_on_record(entry).await {
                    warn!(%problem, "failed sign-ins are not on record");
                }
            }
            self.tell(&findings, Instant::now());
            if stopped {
                return;
            }
        }
    }

    fn take_unrecorded(&self) -> Vec<Entry> {
        let mut inner = self.inner();
        let each = std::mem::take(&mut inner.unrecorded);
        let others = std::mem::take(&mut inner.unrecorded_others);
        let named = each.into_iter().map(|(peer, counts)| (peer.to_string(), counts));
        let rest = (others != (0, 0)).then(|| ("other sources".to_owned(), others));
        let entry = |(source, (failed, limited)): (String, (u64, u64))| {
            Entry::new("broadcaster", "sign_in_failed")
                .detail("source", source)
                .detail("times", failed)
                .detail("limited", limited)
        };
        named.chain(rest).map(entry).collect()
    }

    fn tell(&self, findings: &Findings, now: Instant) {
        let refused = self.inner().refused_at.is_some_and(|at| now.duration_since(at) < QUIET);
        if !refused {
            return findings.clear(Topic::SignIn, FINDING);
        }
        let text = "a source is refused, because it shows wrong tokens or signatures again and again".to_owned();
        let fix =
            "the audit log names it (`sign_in_failed`): correct its token or key, or keep it away from this address";
        findings.raise(Topic::SignIn, FINDING, Level::Warning, text, fix);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn peer(text: &str) -> Option<Peer> {
        Some(Peer::from(text.parse::<IpAddr>().unwrap()))
    }

    fn wrong() -> Result<(), Refusal> {
        Err(Refusal::SignIn("unknown".into()))
    }

    fn fail(sign_ins: &SignIns, from: Option<Peer>, times: usize, now: Instant) {
        for _ in 0..times {
            let _ = sign_ins.attempt(from, now, wrong);
        }
    }

    fn limited(sign_ins: &SignIns, from: Option<Peer>, now: Instant) -> bool {
        matches!(sign_ins.attempt(from, now, wrong), Err(Refusal::Busy(_)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_is_limited_and_what_is_right_is_let_in_from_it() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        let (here, elsewhere) = (peer("10.0.0.1"), peer("10.0.0.2"));
        fail(&sign_ins, here, PER_SOURCE, now);
        assert!(limited(&sign_ins, here, now));
        // A process that has just started knows no source: an operator signs in beside a client that fails.
        assert!(sign_ins.attempt(here, now, || Ok(())).is_ok());
        assert!(limited(&sign_ins, here, now), "that does not reset what the source has shown");
        assert!(!limited(&sign_ins, elsewhere, now));
        assert!(!limited(&sign_ins, here, now + WINDOW), "it is forgotten");
        assert_eq!(sign_ins.counts().map(|(_, count)| count), [1, PER_SOURCE as u64 + 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_source_is_remembered_within_a_bound() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        for _ in 0..1_000 {
            assert!(sign_ins.attempt(peer("10.0.0.1"), now, || Ok(())).is_ok());
            fail(&sign_ins, peer("10.0.0.1"), 1, now);
        }
        let inner = sign_ins.inner();
        assert!(inner.sources.values().all(|source| source.failures.len() <= PER_SOURCE));
    }

    #[tokio::test(start_paused = true)]
    async fn while_many_sources_fail_one_failure_each_is_answered() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        for number in 0..=IN_ALL {
            fail(&sign_ins, peer(&format!("10.1.{}.{}", number / 250, number % 250)), 1, now);
        }
        assert!(limited(&sign_ins, peer("10.1.0.7"), now), "one failure is enough now");
        assert!(!limited(&sign_ins, peer("10.2.0.1"), now));
        assert!(sign_ins.attempt(peer("10.1.0.7"), now, || Ok(())).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn sources_are_forgotten_before_they_fill_memory_and_addresses_of_one_network_are_one() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        for number in 0..MAX_SOURCES + 10 {
            let address = IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
            fail(&sign_ins, Some(Peer::from(address)), 1, now + Duration::from_micros(number as u64));
        }
        assert!(sign_ins.inner().sources.len() <= MAX_SOURCES);
        assert!(sign_ins.inner().unrecorded.len() <= MAX_RECORDED);
        let fresh = SignIns::default();
        for number in 0..PER_SOURCE {
            fail(&fresh, peer(&format!("2001:db8:1:2::{number:x}")), 1, now);
        }
        assert!(limited(&fresh, peer("2001:db8:1:2:ffff::1"), now));
    }

    #[test]
    fn failures_are_recorded_by_source_and_once() {
        let sign_ins = SignIns::default();
        fail(&sign_ins, peer("10.0.0.1"), PER_SOURCE + 2, Instant::now());
        let entries = sign_ins.take_unrecorded();
        let told = format!("{entries:?}");
        assert!(entries.len() == 1 && told.contains("10.0.0.1") && told.contains("sign_in_failed"), "{told}");
        assert!(sign_ins.take_unrecorded().is_empty());
    }
}
