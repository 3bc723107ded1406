//! What PostgreSQL has logged: every login, logout and role change, without the gaps between an observer's readings.

use std::collections::{BTreeMap, BTreeSet};

use super::database::Database;

/// The order of events in PostgreSQL's log.
#[derive(Clone, Debug, Default)]
pub struct SessionLog {
    roles: BTreeMap<String, Events>,
}

/// One role's events by the number of their line.
#[derive(Clone, Debug, Default)]
struct Events {
    logins: u64,
    open: BTreeSet<u32>,
    disabled: Option<usize>,
    dropped: Option<usize>,
    /// Lines of sessions that began or were still open after the role was disabled.
    late: Vec<String>,
}

impl SessionLog {
    /// Reads the server's log up to its end.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn read(database: &Database) -> Self {
        let file = database.scratch().path().join("log");
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        let mut log = Self::default();
        for (number, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            log.take_in(number, line);
        }
        log
    }

    /// How often this role has logged in.
    #[must_use]
    pub fn logins(&self, role: &str) -> u64 {
        self.roles.get(role).map_or(0, |events| events.logins)
    }

    /// Whether this role was disabled and dropped.
    #[must_use]
    pub fn is_gone(&self, role: &str) -> bool {
        self.roles.get(role).is_some_and(|events| events.disabled.is_some() && events.dropped.is_some())
    }

    /// Every trace of a session that stayed, or began, after its role was disabled. Empty if there is none.
    #[must_use]
    pub fn early_ends(&self) -> Vec<String> {
        let late =
            self.roles.iter().flat_map(|(role, events)| events.late.iter().map(move |line| format!("{role}: {line}")));
        late.collect()
    }

    /// Lines look like `2026-11-23 04:40:00.123 UTC [123] user=ledger LOG:  disconnection: session time: …`.
    fn take_in(&mut self, number: usize, line: &str) {
        let Some((head, message)) = line.split_once("LOG:  ") else { return };
        let Some((process, user)) = process_and_user(head) else { return };
        if message.starts_with("connection authorized: ") {
            let events = self.of(user);
            events.logins += 1;
            events.open.insert(process);
            if events.disabled.is_some() {
                events.late.push(line.to_owned());
            }
        } else if message.starts_with("disconnection: ") {
            self.of(user).open.remove(&process);
        } else if let Some(statement) = message.strip_prefix("statement: ") {
            // One line may hold several.
            statement.split(';').for_each(|statement| self.statement(number, line, statement));
        }
    }

    fn statement(&mut self, number: usize, line: &str, statement: &str) {
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words.as_slice() {
            ["ALTER", "ROLE", role, "NOLOGIN", ..] => {
                let events = self.of(role.trim_matches('"'));
                if events.disabled.is_none() {
                    events.disabled = Some(number);
                    events
                        .late
                        .extend(events.open.iter().map(|process| format!("process {process} was still there: {line}")));
                }
            }
            ["DROP", "ROLE", role, ..] => {
                self.of(role.trim_matches('"')).dropped.get_or_insert(number);
            }
            _ => {}
        }
    }

    fn of(&mut self, role: &str) -> &mut Events {
        self.roles.entry(role.to_owned()).or_default()
    }
}

fn process_and_user(head: &str) -> Option<(u32, &str)> {
    let (_, rest) = head.split_once('[')?;
    let (process, rest) = rest.split_once(']')?;
    let user = rest.trim().strip_prefix("user=")?.trim();
    Some((process.parse().ok()?, user))
}

#[cfg(test)]
mod tests {
    use super::SessionLog;

    fn read(lines: &[&str]) -> SessionLog {
        let mut log = SessionLog::default();
        for (number, line) in lines.iter().enumerate() {
            log.take_in(number, &format!("2026-11-23 04:40:00.123 UTC {line}"));
        }
        log
    }

    const LOGIN: &str = "[7] user=a_v1 LOG:  connection authorized: user=a_v1 database=payments";
    const LOGOUT: &str = "[7] user=a_v1 LOG:  disconnection: session time: 0:00:01.0 user=a_v1 database=payments";
    const DISABLE: &str = "[9] user=rotacast_admin LOG:  statement: ALTER ROLE \"a_v1\" NOLOGIN PASSWORD NULL";
    const DROP: &str = "[9] user=rotacast_admin LOG:  statement: DROP OWNED BY \"a_v1\"; DROP ROLE \"a_v1\"";

    #[test]
    fn a_role_that_ends_after_its_sessions_is_fine() {
        let log = read(&[LOGIN, LOGOUT, DISABLE, DROP]);
        assert!(log.early_ends().is_empty() && log.is_gone("a_v1"));
        assert_eq!(log.logins("a_v1"), 1);
    }

    #[test]
    fn a_session_that_outlives_its_role_or_begins_after_it_is_reported() {
        assert_eq!(read(&[LOGIN, DISABLE, LOGOUT, DROP]).early_ends().len(), 1);
        assert_eq!(read(&[DISABLE, LOGIN, LOGOUT, DROP]).early_ends().len(), 1);
        assert!(!read(&[LOGIN, LOGOUT]).is_gone("a_v1"));
    }
}
