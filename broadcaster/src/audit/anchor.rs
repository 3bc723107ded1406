//! Keeps the log's head in the store: what ends before it was cut off.
//!
//! An entry is written to the file first and the head to the store after it, so that a crash in between leaves an entry
//! that the store does not know yet, and never a head without its entry. What is irreversible waits until the store knows
//! its entry. Other entries share one write to the store a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rotacast_clock as clock;
use rotacast_proto::Level;
use rotacast_protocol::{AuditChain, WallTime};
use rotacast_store::{AuditHead, Committed, Cursor, SecretTree, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::doubt::{Doubt, Doubted, Files, LogName, Verdict, judge};
use super::entry::Entry;
use super::error::AuditError;
use super::log::Shared;
use super::writer::Writer;
use crate::findings::{Findings, Topic};

/// How long the store may not know an entry that no caller waits for: one write a second, however many entries there are.
const HEAD_LAG: Duration = Duration::from_secs(1);

/// How often the file is looked at. Also how soon a log in doubt that was put right is taken up again.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// The subjects of the findings.
const LOG: &str = "log";
const HEAD: &str = "head";

/// What mends a head that cannot be written.
const HEAD_FIX: &str =
    "the store takes no writes: see what else `rotacast doctor` says of it; what is irreversible waits";

/// How a log stands with the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// The newest entry that the store knows.
    pub(super) known: u64,
    /// Why the log takes no entries, and the id of exactly this doubt.
    pub(super) doubt: Option<(String, Doubt)>,
}

impl Standing {
    /// Before the store was asked.
    pub(super) fn of_files(files: &Files) -> Self {
        let doubt = match files {
            Files::Broken(broken) => {
                let doubted = Doubted { doubt: Doubt::Broken(broken.clone()), resume: None, keeps_files: false };
                Some((doubted.id(), doubted.doubt))
            }
            Files::Empty | Files::Whole { .. } => None,
        };
        Self { known: 0, doubt }
    }
}

/// Which look at the file it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Start,
    Again,
}

/// A log's place in the store.
pub struct Anchor {
    tree: SecretTree,
    log: LogName,
    findings: Findings,
    /// Which head was last read or written, and when it was written.
    stored: Mutex<Option<(AuditChain, Cursor)>>,
    /// What the start found that the store did not know, until it is on record. The store is not told of anything before.
    beyond: Mutex<Option<Entry>>,
    started: AtomicBool,
}

impl Anchor {
    /// The head of `log` in `tree`.
    #[must_use]
    pub fn new(tree: SecretTree, log: LogName, findings: Findings) -> Arc<Self> {
        Arc::new(Self {
            tree,
            log,
            findings,
            stored: Mutex::new(None),
            beyond: Mutex::new(None),
            started: AtomicBool::new(false),
        })
    }

    /// Compares file and store, and keeps the head from then on, until `stop`.
    pub(super) async fn start(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let beyond = self.settle(shared).await?;
        if self.started.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        *self.beyond.lock().await = beyond;
        self.note(shared).await;
        if shared.standing.borrow().doubt.is_none() {
            self.look(shared, Look::Start).await;
        }
        tokio::spawn(Arc::clone(self).keep(Arc::downgrade(shared), stop.clone()));
        Ok(())
    }

    /// Puts on record what the start found that the store did not know. Returns whether nothing of it is left to write.
    async fn note(&self, shared: &Arc<Shared>) -> bool {
        let mut beyond = self.beyond.lock().await;
        let Some(entry) = beyond.clone() else { return true };
        // The next look tries whether it takes entries again.
        if shared.failing.load(Ordering::Relaxed) {
            return false;
        }
        match blocking(shared, move |writer, now| writer.append(&[&entry], now).map(drop)).await {
            Ok(()) => *beyond = None,
            Err(problem) => tracing::error!(%problem, "the audit log takes no entry"),
        }
        beyond.is_none()
    }

    /// Compares file and store, and tells the store of a log that it does not know. Entries that the store did not know of make
    /// an entry: they may be anything that is written in the right form.
    pub(super) async fn settle(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<Option<Entry>, StoreError> {
        let (beyond, untold) = self.compare(shared).await?;
        if untold {
            self.save(shared).await;
        }
        Ok(beyond)
    }

    /// Compares file and store. Says which entry tells of those that the store did not know, and whether it knows nothing of the
    /// log.
    async fn compare(&self, shared: &Arc<Shared>) -> Result<(Option<Entry>, bool), StoreError> {
        let mut stored = self.stored.lock().await;
        let all = self.tree.audit_heads().await?;
        self.tell_strangers(&all.strangers.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>());
        let heads: Vec<AuditHead> = all.heads.iter().map(|stored| stored.head.clone()).collect();
        let (log, under_way) = (self.log.clone(), Arc::clone(shared));
        let judged = reading(shared, move |writer, now| {
            // The file goes on behind a loss already, and the store hears of it next: what it knows now is no doubt.
            if under_way.accepting.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let doubted = writer.doubted().is_some() || matches!(writer.files(), Files::Broken(_));
            if doubted {
                writer.set_doubted(None);
                writer.examine(now)?;
            }
            let verdict = judge(&log, writer.files(), &heads, |sequence| writer.hash_at(sequence))?;
            let ready = match &verdict {
                Verdict::Trusted { .. } => writer.ready(now),
                Verdict::Doubted(it) => {
                    writer.set_doubted(Some(it.clone()));
                    Ok(())
                }
            };
            Ok(Some((verdict, writer.chain(), writer.head(), ready.map(|()| doubted))))
        });
        let (verdict, chain, head, ready) = match judged.await {
            Ok(Some(judged)) => judged,
            Ok(None) => return Ok((None, false)),
            // The files cannot be read: so do entries fail, and it is tried again with the next look.
            Err(problem) => {
                self.tell_failing(shared, &problem);
                return Ok((None, false));
            }
        };
        let known = match verdict {
            Verdict::Doubted(doubted) => {
                // Once the loss is accepted, the head moves on from here.
                let resumes = doubted.resume.and_then(|(chain, _)| all.heads.iter().find(|it| it.head.chain == chain));
                *stored = resumes.map(|it| (it.head.chain, it.cursor));
                self.tell_doubt(shared, &doubted);
                return Ok((None, false));
            }
            Verdict::Trusted { known } => known,
        };
        match ready {
            Err(problem) => self.tell_failing(shared, &problem),
            Ok(was_doubted) => {
                if was_doubted {
                    shared.failing.store(false, Ordering::Relaxed);
                }
                if !shared.failing.load(Ordering::Relaxed) {
                    self.findings.clear(Topic::Audit, LOG);
                }
            }
        }
        let found = all.heads.iter().find(|stored| stored.head.chain == chain);
        *stored = found.map(|found| (chain, found.cursor));
        shared.known.store(known.unwrap_or(0), Ordering::Relaxed);
        shared.standing.send_replace(Standing { known: known.unwrap_or(0), doubt: None });
        drop(stored);
        let renamed = found.is_some_and(|found| found.head.log != self.log.name || found.head.named != self.log.named);
        let beyond = head.sequence - known.unwrap_or(0).min(head.sequence);
        let told = || Entry::new("broadcaster", "log_continued").detail("known", known).detail("beyond", beyond);
        Ok(((beyond > 0).then(told), renamed || (known.is_none() && head.sequence > 0)))
    }

    fn tell_doubt(&self, shared: &Shared, doubted: &Doubted) {
        let id = doubted.id();
        let text = format!("{}: {}. Orders are refused and nothing is retired", shared.path.display(), doubted.doubt);
        let fix = format!(
            "put the files back as they were: the log is taken up again within seconds, without a restart. If they are lost: \
             `rotacast audit accept-loss {id} --reason WHY`"
        );
        self.findings.raise(Topic::Audit, LOG, Level::Error, text, &fix);
        shared.standing.send_modify(|standing| standing.doubt = Some((id, doubted.doubt.clone())));
    }

    fn tell_strangers(&self, strangers: &[String]) {
        self.findings.keep_only(Topic::Audit, |subject| {
            [LOG, HEAD].contains(&subject) || strangers.iter().any(|stranger| stranger == subject)
        });
        for key in strangers {
            let text = "this key is not the head of an audit log, or cannot be read".to_owned();
            self.findings.raise(
                Topic::Audit,
                key,
                Level::Warning,
                text,
                "delete it: a replica whose log it belongs to writes its head again",
            );
        }
    }

    /// Tells the store where the log ends, if it does not know.
    pub(super) async fn save(self: &Arc<Self>, shared: &Arc<Shared>) {
        if !self.note(shared).await {
            return;
        }
        let mut stored = self.stored.lock().await;
        let (chain, head) = *shared.head.borrow();
        if shared.standing.borrow().doubt.is_some() || head.sequence == 0 {
            return;
        }
        let LogName { name, named } = self.log.clone();
        let (sequence, hash) = (head.sequence, head.hash.to_string());
        let told = AuditHead { chain, log: name, named, sequence, hash, time: clock::wall() };
        let expected = stored.filter(|(of, _)| *of == chain).map(|(_, cursor)| cursor);
        match self.tree.save_audit_head(&told, expected).await {
            Ok(Committed::Done(cursor)) => {
                *stored = Some((chain, cursor));
                shared.known.store(sequence, Ordering::Relaxed);
                shared.standing.send_modify(|standing| standing.known = sequence);
                self.findings.clear(Topic::Audit, HEAD);
                // What stood in its place is gone.
                let chain = chain.to_string();
                self.findings.keep_only(Topic::Audit, |subject| !subject.ends_with(&chain));
            }
            // The answer to an earlier write was lost, the store was restored, or another program has written the head.
            Ok(Committed::Conflict) => {
                drop(stored);
                // It is told again with the next look: not from here, where a head that cannot be read would have no end.
                if let Err(problem) = self.compare(shared).await {
                    self.tell_unsaved(&problem);
                }
            }
            Err(problem) => self.tell_unsaved(&problem),
        }
    }

    /// An operator has accepted a loss: the store is told where the log goes on.
    pub(super) async fn accepted(self: &Arc<Self>, shared: &Arc<Shared>) {
        let goes_on = blocking(shared, |writer, _| Ok(writer.doubted().is_none())).await;
        if matches!(goes_on, Ok(true)) {
            shared.standing.send_modify(|standing| standing.doubt = None);
            self.save(shared).await;
        }
        shared.accepting.store(false, Ordering::SeqCst);
        if let Err(problem) = self.settle(shared).await {
            self.tell_unsaved(&problem);
        }
    }

    fn tell_unsaved(&self, problem: &StoreError) {
        let text = format!("the store was not told where the audit log ends, and is told again: {problem}");
        self.findings.raise(Topic::Audit, HEAD, Level::Warning, text, HEAD_FIX);
    }

    async fn keep(self: Arc<Self>, shared: Weak<Shared>, stop: CancellationToken) {
        let mut looked = Instant::now();
        loop {
            let Some(log) = shared.upgrade() else { return };
            let mut head = log.head.subscribe();
            let told = head.borrow_and_update().1.sequence <= log.standing.borrow().known;
            let pause = if told { LOOK_EVERY } else { HEAD_LAG };
            tokio::select! {
                () = stop.cancelled() => return,
                () = log.wanted.notified() => {}
                // The first entry that the store does not know begins the pause.
                Ok(()) = head.changed(), if told => continue,
                () = tokio::time::sleep(pause) => {}
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look(&log, Look::Again).await;
            }
            if log.head.borrow().1.sequence > log.standing.borrow().known {
                self.save(&log).await;
            }
        }
    }

    async fn look(self: &Arc<Self>, shared: &Arc<Shared>, which: Look) {
        if shared.standing.borrow().doubt.is_some() {
            if let Err(problem) = self.settle(shared).await {
                self.tell_unsaved(&problem);
            }
            return;
        }
        let failing = shared.failing.load(Ordering::Relaxed);
        let looked = blocking(shared, move |writer, now| {
            // The disk may not have taken the signature of the stop.
            let probe = failing || (which == Look::Start && writer.is_unsigned());
            writer.look(now, probe)
        });
        match looked.await {
            Ok(()) => self.findings.clear(Topic::Audit, LOG),
            Err(problem) => self.tell_failing(shared, &problem),
        }
    }

    fn tell_failing(&self, shared: &Shared, problem: &AuditError) {
        let fix =
            "put right what it names: the log is taken up again without a restart; docs/operate/audit.md has each case";
        self.findings.raise(Topic::Audit, LOG, Level::Error, problem.to_string(), fix);
        shared.failing.store(true, Ordering::Relaxed);
    }
}

/// Works with the writer, which may wait for a disk.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&mut Writer, WallTime) -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    let its = Arc::clone(shared);
    reading(shared, move |writer, now| {
        let outcome = work(writer, now);
        its.wrote(writer, &outcome);
        outcome
    })
    .await
}

/// The same, for work whose success does not say that the disk takes entries.
async fn reading<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&mut Writer, WallTime) -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    let shared = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || {
        let mut writer = shared.writer();
        let outcome = work(&mut writer, clock::wall());
        shared.moved(&writer);
        outcome
    });
    done.await.map_err(|_| AuditError::Closed)?
}
