//! What PostgreSQL itself shows, recorded without asking Rotacast.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::database::Database;

/// How often it reads.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was seen of one login role. Times are those of the readings.
#[derive(Clone, Debug)]
pub struct RoleLife {
    /// Its name.
    pub name: String,
    /// When it was first there.
    pub made: Instant,
    /// When a session of it was first and last seen.
    pub sessions: Option<(Instant, Instant)>,
    /// Most sessions at once.
    pub most_sessions: i64,
    /// When it was first seen without LOGIN, or gone.
    pub disabled: Option<Instant>,
    /// When it was first seen gone.
    pub dropped: Option<Instant>,
    /// Sessions that readings showed although the role was disabled or dropped. Must be empty.
    pub sessions_after_disable: Vec<String>,
}

#[derive(Debug, Default)]
struct Record {
    roles: BTreeMap<u32, RoleLife>,
    readings: u64,
    /// Why it stopped reading, if it had to.
    failed: Option<String>,
}

/// Reads roles and sessions all the time, over a superuser's connection that it shares with no test.
#[derive(Debug)]
pub struct Observer {
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

impl Observer {
    pub(super) async fn start(database: &Database) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let observing = observe(database.superuser().await, database.known(), Arc::clone(&record));
        Self { record, task: tokio::spawn(observing) }
    }

    /// Every version's role so far, by age.
    ///
    /// # Panics
    /// If it could not read all the time.
    #[must_use]
    pub fn roles(&self) -> Vec<RoleLife> {
        let record = lock(&self.record);
        if let Some(problem) = &record.failed {
            panic!("the observer lost sight of PostgreSQL: {problem}");
        }
        record.roles.values().cloned().collect()
    }

    /// How many readings it has made.
    #[must_use]
    pub fn readings(&self) -> u64 {
        lock(&self.record).readings
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Roles as of the statement's snapshot, sessions as of a moment after it: a session that shows beside a role without
/// LOGIN, or without its role, was there after the role was disabled.
const READING: &str = "
    SELECT coalesce(r.oid, s.usesysid), r.rolname::text, coalesce(r.rolcanlogin, false), coalesce(s.sessions, 0),
           coalesce(s.descriptions, '')
    FROM (SELECT oid, rolname, rolcanlogin FROM pg_roles WHERE oid <> ALL($1)) r
    FULL JOIN (SELECT usesysid, count(*) AS sessions,
                      string_agg(concat_ws(' ', pid, application_name, state, backend_start, query), '; ') AS descriptions
               FROM pg_stat_activity
               WHERE usesysid IS NOT NULL AND usesysid <> ALL($1) GROUP BY usesysid) s
    ON s.usesysid = r.oid";

async fn observe(client: Client, known: Vec<u32>, record: Arc<Mutex<Record>>) {
    loop {
        match client.query(READING, &[&known]).await {
            Ok(rows) => {
                let rows = rows.iter().map(|row| Row {
                    id: row.get(0),
                    name: row.get(1),
                    may_log_in: row.get(2),
                    sessions: row.get(3),
                    descriptions: row.get(4),
                });
                lock(&record).take_in(Instant::now(), rows.collect());
            }
            Err(error) => {
                lock(&record).failed = Some(error.to_string());
                return;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Row {
    id: u32,
    /// None: the role is gone, and a session of it is not.
    name: Option<String>,
    may_log_in: bool,
    sessions: i64,
    descriptions: String,
}

impl Record {
    fn take_in(&mut self, now: Instant, rows: Vec<Row>) {
        self.readings += 1;
        for (id, life) in &mut self.roles {
            if !rows.iter().any(|row| row.id == *id && row.name.is_some()) {
                life.disabled.get_or_insert(now);
                life.dropped.get_or_insert(now);
            }
        }
        for row in rows {
            let life = self.roles.entry(row.id).or_insert_with(|| RoleLife {
                name: row.name.clone().unwrap_or_else(|| format!("role {}", row.id)),
                made: now,
                sessions: None,
                most_sessions: 0,
                disabled: None,
                dropped: None,
                sessions_after_disable: Vec::new(),
            });
            if !row.may_log_in {
                life.disabled.get_or_insert(now);
            }
            if row.sessions > 0 {
                let first = life.sessions.map_or(now, |(first, _)| first);
                life.sessions = Some((first, now));
                life.most_sessions = life.most_sessions.max(row.sessions);
                if life.disabled.is_some() {
                    life.sessions_after_disable.push(row.descriptions);
                }
            }
        }
    }
}
