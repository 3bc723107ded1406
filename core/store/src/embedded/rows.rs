//! What the store's operations mean in rows. Every function is one transaction.

use rotacast_proto::SecretValue;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::worker::Failure;
use crate::{Check, Commit, Committed, Cursor, Entry, Key, Listing, StoreEvent, Write};

/// Keys in the log of changes before the oldest are forgotten: minutes of heavy writing, about a megabyte.
const MAX_CHANGES: i64 = 10_000;
/// How many more may pile up before that is done, so that it is not done at every commit.
const CHANGES_SLACK: i64 = 500;
/// After about how many changes they are counted, which takes longer the more there are.
const COUNTED_EVERY: u64 = 64;
/// Changes read at once: bounds the memory of a batch to 16 MiB of values.
const BATCH: i64 = 64;

pub(super) fn get(connection: &mut Connection, key: &Key) -> Result<Option<Entry>, Failure> {
    let sql = "SELECT key, created, modified, value FROM entries WHERE key = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([key.as_str()], entry).optional()?)
}

pub(super) fn list(connection: &mut Connection, parent: &Key) -> Result<Listing, Failure> {
    let transaction = connection.transaction()?;
    let cursor = Cursor(position(&transaction)?.cursor);
    let sql = "SELECT key, created, modified, value FROM entries WHERE key > ?1 AND key < ?2 ORDER BY key";
    let (from, to) = range(parent);
    let entries = transaction.prepare_cached(sql)?.query_map([from, to], entry)?.collect::<Result<_, _>>()?;
    Ok(Listing { entries, cursor })
}

/// What happened since a cursor.
pub(super) enum Changes {
    /// These events, up to and including this cursor.
    Events(Vec<StoreEvent>, Cursor),
    /// The log no longer reaches back so far.
    Forgotten,
    /// The store is younger than the cursor: another file, or an old copy of it.
    Backwards(Cursor),
}

pub(super) fn changes(connection: &mut Connection, parent: &Key, since: Cursor) -> Result<Changes, Failure> {
    let transaction = connection.transaction()?;
    let position = position(&transaction)?;
    if position.cursor < since.0 {
        return Ok(Changes::Backwards(Cursor(position.cursor)));
    }
    if position.trimmed > since.0 {
        return Ok(Changes::Forgotten);
    }
    let (from, to) = range(parent);
    // Whole commits only: up to the cursor where the batch is full, inclusive.
    let sql = "SELECT cursor FROM changes WHERE cursor > ?1 AND key > ?2 AND key < ?3
               ORDER BY cursor, ordinal LIMIT 1 OFFSET ?4";
    let full: Option<u64> = transaction
        .prepare_cached(sql)?
        .query_row(params![since.0, from, to, BATCH - 1], |row| row.get(0))
        .optional()?;
    let upto = full.unwrap_or(position.cursor);
    let sql = "SELECT changes.cursor, changes.key, changes.deleted,
                      entries.key, entries.created, entries.modified, entries.value
               FROM changes LEFT JOIN entries ON entries.key = changes.key AND entries.modified = changes.cursor
               WHERE changes.cursor > ?1 AND changes.cursor <= ?2 AND changes.key > ?3 AND changes.key < ?4
               ORDER BY changes.cursor, changes.ordinal";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query(params![since.0, upto, from, to])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, bool>(2)? {
            events.push(StoreEvent::Deleted { key: Key::new(row.get::<_, String>(1)?), cursor: Cursor(row.get(0)?) });
        } else if let Some(key) = row.get::<_, Option<String>>(3)? {
            events.push(StoreEvent::Put(Entry {
                key: Key::new(key),
                created: Cursor(row.get(4)?),
                modified: Cursor(row.get(5)?),
                value: SecretValue::new(row.get(6)?),
            }));
        }
        // Otherwise it was written or deleted again since: a later change tells.
    }
    Ok(Changes::Events(events, Cursor(upto)))
}

pub(super) fn commit(connection: &mut Connection, commit: &Commit) -> Result<Committed, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for check in &commit.checks {
        if !holds(&transaction, check)? {
            return Ok(Committed::Conflict);
        }
    }
    let before = position(&transaction)?.cursor;
    let cursor = before + 1;
    let (mut ordinal, mut deletes) = (0_i64, false);
    for write in &commit.writes {
        let (key, deleted) = match write {
            Write::Put(key, value) => {
                let sql = "INSERT INTO entries (key, created, modified, value) VALUES (?1, ?2, ?2, ?3)
                           ON CONFLICT (key) DO UPDATE SET modified = excluded.modified, value = excluded.value";
                transaction.prepare_cached(sql)?.execute(params![key.as_str(), cursor, value.expose()])?;
                (key, false)
            }
            Write::Delete(key) => {
                let sql = "DELETE FROM entries WHERE key = ?1";
                if transaction.prepare_cached(sql)?.execute([key.as_str()])? == 0 {
                    continue;
                }
                deletes = true;
                (key, true)
            }
        };
        let sql = "INSERT INTO changes (cursor, ordinal, key, deleted) VALUES (?1, ?2, ?3, ?4)";
        transaction.prepare_cached(sql)?.execute(params![cursor, ordinal, key.as_str(), deleted])?;
        ordinal += 1;
    }
    if ordinal == 0 {
        return Ok(Committed::Done(Cursor(before)));
    }
    transaction.prepare_cached("UPDATE position SET cursor = ?1")?.execute([cursor])?;
    // The more changes a commit has, the fewer commits pass until they are counted.
    let changes = u64::try_from(ordinal).unwrap_or(COUNTED_EVERY);
    if cursor.is_multiple_of((COUNTED_EVERY / changes).max(1)) {
        trim(&transaction)?;
    }
    transaction.commit()?;
    if deletes {
        // What was deleted must not live on in the write-ahead log. Another process's open read may put this off
        // until the next time; the commit itself is done.
        let _: Result<(), _> = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
    Ok(Committed::Done(Cursor(cursor)))
}

fn holds(transaction: &Transaction<'_>, check: &Check) -> Result<bool, Failure> {
    let modified = |key: &Key| -> Result<Option<u64>, Failure> {
        let sql = "SELECT modified FROM entries WHERE key = ?1";
        Ok(transaction.prepare_cached(sql)?.query_row([key.as_str()], |row| row.get(0)).optional()?)
    };
    Ok(match check {
        Check::Absent(key) => modified(key)?.is_none(),
        Check::Unchanged(key, cursor) => modified(key)? == Some(cursor.0),
        Check::Leads(election, epoch) => active_epoch(transaction, election)? == Some(epoch.0),
    })
}

/// The epoch that leads an election, unless its holder stepped down.
pub(super) fn active_epoch(connection: &Connection, election: &Key) -> Result<Option<u64>, Failure> {
    let sql = "SELECT epoch FROM elections WHERE key = ?1 AND active = 1";
    Ok(connection.prepare_cached(sql)?.query_row([election.as_str()], |row| row.get(0)).optional()?)
}

/// Begins the next term.
pub(super) fn begin_term(connection: &mut Connection, election: &Key, candidate: &str) -> Result<u64, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "INSERT INTO elections (key, epoch, candidate, active) VALUES (?1, 1, ?2, 1)
               ON CONFLICT (key) DO UPDATE SET epoch = epoch + 1, candidate = excluded.candidate, active = 1
               RETURNING epoch";
    let epoch = transaction.query_row(sql, [election.as_str(), candidate], |row| row.get(0))?;
    transaction.commit()?;
    Ok(epoch)
}

/// Ends a term, if it still lasts.
pub(super) fn end_term(connection: &mut Connection, election: &Key, epoch: u64) -> Result<(), Failure> {
    let sql = "UPDATE elections SET active = 0 WHERE key = ?1 AND epoch = ?2";
    connection.execute(sql, params![election.as_str(), epoch])?;
    Ok(())
}

pub(super) fn forget_changes(connection: &mut Connection) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("UPDATE position SET trimmed = cursor", [])?;
    transaction.execute("DELETE FROM changes", [])?;
    transaction.commit()?;
    Ok(())
}

fn trim(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let held: i64 = transaction.prepare_cached("SELECT count(*) FROM changes")?.query_row([], |row| row.get(0))?;
    if held <= MAX_CHANGES + CHANGES_SLACK {
        return Ok(());
    }
    let sql = "SELECT cursor FROM changes ORDER BY cursor, ordinal LIMIT 1 OFFSET ?1";
    let last: u64 = transaction.query_row(sql, [held - MAX_CHANGES - 1], |row| row.get(0))?;
    transaction.execute("DELETE FROM changes WHERE cursor <= ?1", [last])?;
    transaction.execute("UPDATE position SET trimmed = ?1", [last])?;
    Ok(())
}

struct Position {
    cursor: u64,
    trimmed: u64,
}

fn position(connection: &Connection) -> Result<Position, Failure> {
    let read = |row: &Row<'_>| Ok(Position { cursor: row.get(0)?, trimmed: row.get(1)? });
    Ok(connection.prepare_cached("SELECT cursor, trimmed FROM position")?.query_row([], read)?)
}

/// `parent/` up to, not including, `parent0`: `0` follows `/`.
fn range(parent: &Key) -> (String, String) {
    (format!("{parent}/"), format!("{parent}0"))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: Key::new(row.get::<_, String>(0)?),
        created: Cursor(row.get(1)?),
        modified: Cursor(row.get(2)?),
        value: SecretValue::new(row.get(3)?),
    })
}
