//! The embedded bus's file: one thread that owns the database and commits in batches.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rotacast_proto::{Envelope, v1};
use rotacast_protocol::{Incarnation, InstanceKey, InstanceName, Revision, SecretName, ServiceName};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{Memory, lock};
use crate::{BusError, CLAIM};

/// What `user_version` says of files this build writes. A newer one is refused by name.
const SCHEMA_VERSION: i64 = 1;
/// "RotB": tells our files from other databases.
const APPLICATION_ID: i64 = 0x526f_7442;
/// Most writes of one commit: one fsync for all of them, while no caller waits behind more than this many.
const BATCH: usize = 256;
/// Most secrets; a state is below 1 KiB in practice.
const MAX_STATES: usize = 100_000;
/// Most incarnations. The broadcaster prunes those that are over.
const MAX_REGISTRATIONS: usize = 1_000_000;
/// How long opening waits for a predecessor that is just closing.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);

/// One write.
pub(super) enum Change {
    /// `over`: the signature of a state that fences nothing.
    State {
        secret: SecretName,
        revision: Revision,
        envelope: Envelope,
        over: Option<Bytes>,
    },
    Claim {
        envelope: Envelope,
    },
    Registration {
        key: InstanceKey,
        envelope: Envelope,
    },
    Prune {
        key: InstanceKey,
    },
}

/// Where a write's outcome goes.
type Done = oneshot::Sender<Result<(), BusError>>;

/// What the thread is asked.
pub(super) enum Request {
    Write(Box<Change>, Done),
    Close(oneshot::Sender<()>),
}

/// Starts the thread; returns when the file is open and in memory.
pub(super) async fn start(
    path: PathBuf,
    endpoint: String,
    memory: Memory,
    requests: mpsc::Receiver<Request>,
) -> Result<(), BusError> {
    let (opened, outcome) = oneshot::channel();
    let failed = |problem: String| BusError::Unreachable { endpoint: endpoint.clone(), problem };
    let thread_endpoint = endpoint.clone();
    std::thread::Builder::new()
        .name("rotacast-bus".into())
        .spawn(move || {
            let file = open(&path, &thread_endpoint).and_then(|connection| {
                let file = File { connection, endpoint: thread_endpoint, memory };
                file.load()?;
                Ok(file)
            });
            match file {
                // The opener has gone: nothing is left to write.
                Ok(file) => match opened.send(Ok(())) {
                    Ok(()) => file.serve(requests),
                    Err(_) => drop(file),
                },
                Err(problem) => drop(opened.send(Err(problem))),
            }
        })
        .map_err(|problem| failed(format!("cannot start its thread: {problem}")))?;
    outcome.await.map_err(|_| failed("its thread ended while opening".into()))?
}

fn open(path: &Path, endpoint: &str) -> Result<Connection, BusError> {
    let fail = |problem| database_error(endpoint, &problem);
    // SQLite would make it as the umask says, and gives its other files the mode of this one.
    let created = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    created.map_err(|problem| BusError::Unreachable { endpoint: endpoint.to_owned(), problem: problem.to_string() })?;
    let connection = Connection::open(path).map_err(fail)?;
    connection.busy_timeout(OPEN_PATIENCE).map_err(fail)?;
    // Exclusive: what is in memory is only true while no other process writes the file.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;").map_err(fail)?;
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(fail);
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
    let misconfigured = |problem: String| BusError::Misconfigured { endpoint: endpoint.to_owned(), problem };
    if application != APPLICATION_ID && (application != 0 || tables > 0) {
        return Err(misconfigured("it is another program's database; give another path".into()));
    }
    if version > SCHEMA_VERSION {
        return Err(misconfigured(format!(
            "it was written by a newer Rotacast (schema {version}, this build reads up to {SCHEMA_VERSION}); upgrade \
             this one, or move the file away: instances register again by themselves"
        )));
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    if version < SCHEMA_VERSION {
        connection
            .execute_batch(&format!(
                "BEGIN;
                 CREATE TABLE state (secret TEXT PRIMARY KEY, revision INTEGER NOT NULL, envelope BLOB NOT NULL) STRICT;
                 CREATE TABLE registration (
                     service TEXT NOT NULL, instance TEXT NOT NULL, incarnation TEXT NOT NULL, envelope BLOB NOT NULL,
                     PRIMARY KEY (service, instance, incarnation)
                 ) STRICT, WITHOUT ROWID;
                 PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {SCHEMA_VERSION};
                 COMMIT;"
            ))
            .map_err(fail)?;
    }
    Ok(connection)
}

struct File {
    connection: Connection,
    endpoint: String,
    memory: Memory,
}

impl File {
    /// Reads the whole file into memory.
    fn load(&self) -> Result<(), BusError> {
        let fail = |problem| database_error(&self.endpoint, &problem);
        let mut states = self.connection.prepare("SELECT secret, envelope FROM state").map_err(fail)?;
        let rows =
            states.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))).map_err(fail)?;
        let mut log = lock(&self.memory.states);
        for row in rows {
            let (secret, envelope) = row.map_err(fail)?;
            if secret == CLAIM {
                *lock(&self.memory.claim) = Some(self.decode(&secret, &envelope)?);
                continue;
            }
            let key = SecretName::new(secret.as_str()).map_err(|problem| self.corrupt(&secret, &problem))?;
            log.put(key, self.decode(&secret, &envelope)?);
        }
        drop(log);
        let mut registrations = self
            .connection
            .prepare("SELECT service, instance, incarnation, envelope FROM registration")
            .map_err(fail)?;
        let rows = registrations
            .query_map([], |row| {
                let key = (row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?);
                Ok((key, row.get::<_, Vec<u8>>(3)?))
            })
            .map_err(fail)?;
        let mut log = lock(&self.memory.registrations);
        for row in rows {
            let ((service, instance, incarnation), envelope) = row.map_err(fail)?;
            let name = format!("{service}/{instance}/{incarnation}");
            let key = InstanceKey::new(
                ServiceName::new(service).map_err(|problem| self.corrupt(&name, &problem))?,
                InstanceName::new(instance).map_err(|problem| self.corrupt(&name, &problem))?,
                incarnation.parse::<Incarnation>().map_err(|problem| self.corrupt(&name, &problem))?,
            );
            log.put(key, self.decode(&name, &envelope)?);
        }
        Ok(())
    }

    /// Serves until every handle is gone or one asks to close.
    fn serve(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = requests.blocking_recv() {
            let mut next = Some(first);
            while let Some(request) = next.take() {
                match request {
                    Request::Write(change, done) => batch.push((change, done)),
                    Request::Close(done) => {
                        self.commit(&mut batch);
                        self.memory.closed.cancel();
                        // Later callers find the channel closed; those in it learn that the outcome is unknown.
                        drop(requests);
                        drop(self.connection);
                        // The caller may have stopped waiting.
                        done.send(()).unwrap_or_default();
                        return;
                    }
                }
                if batch.len() < BATCH {
                    next = requests.try_recv().ok();
                }
            }
            self.commit(&mut batch);
        }
    }

    /// Writes a batch in one transaction; tells subscribers and callers after it is on disk.
    fn commit(&mut self, batch: &mut Vec<(Box<Change>, Done)>) {
        if batch.is_empty() {
            return;
        }
        let outcome = self.write(batch);
        for (index, (change, done)) in batch.drain(..).enumerate() {
            let result = match &outcome {
                Ok(refusals) => refusals
                    .get(index)
                    .and_then(Option::as_ref)
                    .map_or(Ok(()), |refusal| Err(refusal.error(&self.endpoint))),
                Err(problem) => Err(database_error(&self.endpoint, problem)),
            };
            if result.is_ok() {
                match *change {
                    Change::State { secret, envelope, .. } => lock(&self.memory.states).put(secret, envelope),
                    Change::Claim { envelope } => *lock(&self.memory.claim) = Some(envelope),
                    Change::Registration { key, envelope } => lock(&self.memory.registrations).put(key, envelope),
                    Change::Prune { key } => {
                        lock(&self.memory.registrations).remove(&key);
                        lock(&self.memory.reports).remove(&key);
                    }
                }
            }
            // A caller that has gone away asks again with the same message.
            drop(done.send(result));
        }
    }

    fn write(&mut self, batch: &[(Box<Change>, Done)]) -> Result<Vec<Option<Refusal>>, rusqlite::Error> {
        // As of before the batch: the bounds may be passed by less than one batch.
        let counts =
            Counts { states: lock(&self.memory.states).len(), registrations: lock(&self.memory.registrations).len() };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let refusals =
            batch.iter().map(|(change, _)| apply(&transaction, &counts, change)).collect::<Result<Vec<_>, _>>()?;
        transaction.commit()?;
        Ok(refusals)
    }

    fn decode(&self, name: &str, bytes: &[u8]) -> Result<Envelope, BusError> {
        v1::Envelope::decode(bytes).map(Envelope::from).map_err(|problem| self.corrupt(name, &problem))
    }

    fn corrupt(&self, name: &str, problem: &dyn std::fmt::Display) -> BusError {
        BusError::Misconfigured {
            endpoint: self.endpoint.clone(),
            problem: format!(
                "entry {name:?} does not read: {problem}; move the file away: instances register again by themselves"
            ),
        }
    }
}

/// Why one write of a batch was left out.
enum Refusal {
    Fenced(String),
    Full { what: &'static str, bound: usize },
}

impl Refusal {
    fn error(&self, endpoint: &str) -> BusError {
        match self {
            Refusal::Fenced(subject) => BusError::Fenced { subject: subject.clone() },
            Refusal::Full { what, bound } => BusError::Full {
                endpoint: endpoint.to_owned(),
                problem: format!("{what} holds {bound} entries, as many as it may; remove what is over"),
            },
        }
    }
}

struct Counts {
    states: usize,
    registrations: usize,
}

fn apply(transaction: &Transaction<'_>, counts: &Counts, change: &Change) -> Result<Option<Refusal>, rusqlite::Error> {
    match change {
        Change::State { secret, revision, envelope, over } => {
            // SQLite's integers are signed; revisions never come near 2^63.
            let revision = i64::try_from(revision.0).unwrap_or(i64::MAX);
            let before: Option<(i64, Vec<u8>)> = transaction
                .prepare_cached("SELECT revision, envelope FROM state WHERE secret = ?1")?
                .query_row([secret.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let fences = |before: &[u8]| {
                over.as_ref().is_none_or(|over| v1::Envelope::decode(before).map_or(true, |it| it.signature != *over))
            };
            match before {
                Some((before, envelope)) if before > revision && fences(&envelope) => {
                    return Ok(Some(Refusal::Fenced(secret.to_string())));
                }
                None if counts.states >= MAX_STATES => {
                    return Ok(Some(Refusal::Full { what: "the log of states", bound: MAX_STATES }));
                }
                _ => {}
            }
            transaction
                .prepare_cached("INSERT OR REPLACE INTO state (secret, revision, envelope) VALUES (?1, ?2, ?3)")?
                .execute(params![secret.as_str(), revision, encode(envelope)])?;
        }
        Change::Claim { envelope } => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO state (secret, revision, envelope) VALUES (?1, 0, ?2)")?
                .execute(params![CLAIM, encode(envelope)])?;
        }
        Change::Registration { key, envelope } => {
            let (service, instance, life) = (key.service.as_str(), key.instance.as_str(), key.incarnation.to_string());
            let known = transaction
                .prepare_cached("SELECT 1 FROM registration WHERE service = ?1 AND instance = ?2 AND incarnation = ?3")?
                .exists(params![service, instance, life])?;
            if !known && counts.registrations >= MAX_REGISTRATIONS {
                return Ok(Some(Refusal::Full { what: "the log of registrations", bound: MAX_REGISTRATIONS }));
            }
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO registration (service, instance, incarnation, envelope) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![service, instance, life, encode(envelope)])?;
        }
        Change::Prune { key } => {
            transaction
                .prepare_cached("DELETE FROM registration WHERE service = ?1 AND instance = ?2 AND incarnation = ?3")?
                .execute(params![key.service.as_str(), key.instance.as_str(), key.incarnation.to_string()])?;
        }
    }
    Ok(None)
}

fn encode(envelope: &Envelope) -> Vec<u8> {
    v1::Envelope::from(envelope.clone()).encode_to_vec()
}

fn database_error(endpoint: &str, problem: &rusqlite::Error) -> BusError {
    match problem.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BusError::Misconfigured {
            endpoint: endpoint.to_owned(),
            problem: "another process has it open; only one broadcaster can use one embedded bus".into(),
        },
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => BusError::Misconfigured {
            endpoint: endpoint.to_owned(),
            problem: format!("{problem}; move the file away: instances register again by themselves"),
        },
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure) => {
            BusError::Full { endpoint: endpoint.to_owned(), problem: format!("{problem}; make room on its disk") }
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => BusError::Denied {
            endpoint: endpoint.to_owned(),
            problem: format!("{problem}; look at the owner of the file"),
        },
        _ => BusError::Unknown { endpoint: endpoint.to_owned(), problem: problem.to_string() },
    }
}
