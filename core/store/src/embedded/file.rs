//! The file: opening, its schema, and what can be wrong with it.

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::worker::Failure;
use crate::{Finding, Level, StoreError};

/// `Rtcs`: marks the file as Rotacast's own.
const APPLICATION_ID: i64 = 0x5274_6373;
/// The newest schema this code reads and writes.
const SCHEMA_VERSION: i64 = 1;
/// How long a write waits for another process's; far above a commit's millisecond, below the call's timeout.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);

const SCHEMA: &str = "
    -- cursor: the last commit's. trimmed: changes up to this cursor are no longer in the log.
    CREATE TABLE position (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        cursor INTEGER NOT NULL CHECK (cursor >= trimmed),
        trimmed INTEGER NOT NULL CHECK (trimmed >= 0)
    ) STRICT;
    INSERT INTO position VALUES (1, 0, 0);
    CREATE TABLE entries (
        key TEXT PRIMARY KEY NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL CHECK (modified >= created),
        value BLOB NOT NULL
    ) STRICT;
    -- Which keys changed, without values.
    CREATE TABLE changes (
        cursor INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        key TEXT NOT NULL,
        deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)),
        PRIMARY KEY (cursor, ordinal)
    ) STRICT, WITHOUT ROWID;
    -- The newest term of each election; active until its holder steps down.
    CREATE TABLE elections (
        key TEXT PRIMARY KEY NOT NULL,
        epoch INTEGER NOT NULL CHECK (epoch > 0),
        candidate TEXT NOT NULL,
        active INTEGER NOT NULL CHECK (active IN (0, 1))
    ) STRICT;
";

/// A connection for writing and one for reading.
pub(super) fn open(path: &Path) -> Result<(Connection, Connection), StoreError> {
    let name = format!("embedded {}", path.display());
    let created = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    if let Err(problem) = created {
        return Err(StoreError::Denied { endpoint: name, problem: problem.to_string() });
    }
    let prepare = || -> Result<(Connection, Connection), Failure> {
        let mut writer =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        writer.busy_timeout(BUSY_TIMEOUT)?;
        // Before anything is written: is it ours, and can we read it?
        check_owner(&writer, path)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        // Deleted values are overwritten, not only unlinked.
        writer.pragma_update(None, "secure_delete", "ON")?;
        install_schema(&mut writer, path)?;
        let sound: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(damaged(path, &sound).into());
        }
        let reader =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        reader.busy_timeout(BUSY_TIMEOUT)?;
        reader.pragma_update(None, "query_only", "ON")?;
        Ok((writer, reader))
    };
    prepare().map_err(|failure| match failure {
        Failure::Store(error) => error,
        Failure::Sql(error) => explain(&name, &error),
    })
}

fn check_owner(connection: &Connection, path: &Path) -> Result<(), Failure> {
    let owner: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let refuse = |problem| Err(StoreError::Invalid { what: format!("store file {}", path.display()), problem }.into());
    if owner != APPLICATION_ID && (owner != 0 || tables > 0) {
        return refuse("it is another program's SQLite database; choose another data folder".into());
    }
    if version > SCHEMA_VERSION {
        return refuse(format!(
            "its schema version is {version}, expected at most {SCHEMA_VERSION}: a newer rotacast wrote it; \
             upgrade this one"
        ));
    }
    Ok(())
}

fn install_schema(connection: &mut Connection, path: &Path) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster, and may be newer.
    check_owner(&transaction, path)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    Ok(())
}

/// SQLite's words as a store's.
pub(super) fn explain(name: &str, error: &rusqlite::Error) -> StoreError {
    let endpoint = name.to_owned();
    let problem = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            key: endpoint,
            problem: format!("{problem}; the file is damaged: restore it from a backup, or move it away to start anew"),
        },
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure) => {
            StoreError::Unwritable { endpoint, problem }
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => StoreError::Denied { endpoint, problem },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => {
            StoreError::Unreachable { endpoint, problem }
        }
        // A row that breaks a constraint or has the wrong type was not written by this code.
        _ => StoreError::Corrupt { key: endpoint, problem },
    }
}

fn damaged(path: &Path, problem: &str) -> StoreError {
    StoreError::Corrupt {
        key: format!("embedded {}", path.display()),
        problem: format!("{problem}; the file is damaged: restore it from a backup, or move it away to start anew"),
    }
}

pub(super) fn examine(connection: &Connection, path: &Path) -> Result<Vec<Finding>, Failure> {
    let finding = |level, subject: &str, text: String, fix: &str| Finding {
        level,
        subject: subject.into(),
        text,
        fix: fix.into(),
    };
    let mut findings = Vec::new();
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    findings.push(if sound == "ok" {
        finding(Level::Ok, "store file", format!("{} is sound, SQLite {}", path.display(), rusqlite::version()), "")
    } else {
        finding(Level::Error, "store file", format!("{} is damaged: {sound}", path.display()), "restore a backup")
    });
    let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if journal != "wal" {
        let text = format!("journal mode is {journal}, expected wal");
        findings.push(finding(Level::Error, "store durability", text, "move the data folder to a local disk"));
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            let text = format!("{} can be read by other users (mode {:o})", path.display(), meta.permissions().mode());
            findings.push(finding(Level::Warning, "store file access", text, "chmod 600 the file"));
        }
        Ok(_) => findings.push(finding(Level::Ok, "store file access", "only its owner can read it".into(), "")),
        Err(problem) => {
            let text = format!("{} is gone while in use: {problem}", path.display());
            findings.push(finding(Level::Error, "store file access", text, "stop, and restore the file"));
        }
    }
    findings.push(finding(
        Level::Warning,
        "store availability",
        "one file on one machine: if this disk is lost, so is the store".into(),
        "use etcd where an outage of this machine matters",
    ));
    Ok(findings)
}
