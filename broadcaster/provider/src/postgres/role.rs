//! One role as the server has it, and whether Rotacast may retire it.

use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::GenericClient;

use super::foreign;
use super::mark::{Comment, Mark, Owner};
use crate::Session;

/// Why a call did not come to an end; the provider's name and the version are added where it is handed out.
pub(super) enum Problem {
    Unreachable(String),
    /// The administrator's connection cannot be read from its file.
    OwnFile(String),
    Denied(String),
    Refused(String),
    /// The role has no mark: nothing shows yet that it and the value belong together.
    Unmarked(String),
    Unfinished(String),
    InUse {
        sessions: Vec<Session>,
        next: String,
    },
}

/// A role.
pub(super) struct Role {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) comment: Comment,
    pub(super) is_member: bool,
    pub(super) can_log_in: bool,
    superuser: bool,
    creates_roles: bool,
    has_members: bool,
    is_administrator: bool,
}

const READ_ROLE: &str = "
    SELECT r.oid, r.rolsuper, r.rolcreaterole, shobj_description(r.oid, 'pg_authid'), r.rolcanlogin,
           r.rolname IN (current_user, session_user),
           EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                   WHERE m.member = r.oid AND g.rolname = $2),
           EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles w ON w.oid = m.member
                   WHERE m.roleid = r.oid AND w.rolname NOT IN (current_user, session_user))
    FROM pg_roles r WHERE r.rolname = $1";

const READ_MARKS: &str = "
    SELECT r.rolname::text, d.description FROM pg_shdescription d JOIN pg_roles r ON r.oid = d.objoid
    WHERE d.classoid = 'pg_authid'::regclass AND d.description LIKE '{\"rotacast\":%' ORDER BY r.rolname";

const READ_SESSIONS: &str = "
    SELECT pid, coalesce(application_name, ''), host(client_addr), coalesce(state, 'in an unknown state'),
           to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), datname::text
    FROM pg_stat_activity WHERE usesysid = $1 ORDER BY backend_start, pid";

impl Role {
    /// Reads a role; `None` when there is none of that name.
    pub(super) async fn read(client: &impl GenericClient, name: &str, group: &str) -> Result<Option<Self>, Problem> {
        let rows = client.query(READ_ROLE, &[&name, &group]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Self {
            oid: row.try_get(0)?,
            name: name.to_owned(),
            superuser: row.try_get(1)?,
            creates_roles: row.try_get(2)?,
            comment: Comment::read(row.try_get(3)?),
            can_log_in: row.try_get(4)?,
            is_administrator: row.try_get(5)?,
            is_member: row.try_get(6)?,
            has_members: row.try_get(7)?,
        }))
    }

    /// The name of a role that bears the owner's mark, whatever it is called now: a role keeps its comment when it is renamed.
    pub(super) async fn find_marked(client: &impl GenericClient, owner: Owner<'_>) -> Result<Option<String>, Problem> {
        for row in client.query(READ_MARKS, &[]).await? {
            let (name, text): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            if let Comment::Mark(mark) = Comment::read(Some(text))
                && mark.objection(owner).is_none()
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Whether the role may be counted or ended as the owner's.
    pub(super) fn check_end(&self, owner: Owner<'_>, group: &str) -> Result<(), Problem> {
        if let Some(problem) = self.objection(owner, group) {
            return Err(Problem::Refused(problem));
        }
        match &self.comment {
            Comment::Mark(_) | Comment::Unreadable => Ok(()),
            // Of a drawn value: others made the role, or an operator has cleared its mark.
            Comment::Other(_) => Err(Problem::Unmarked(format!("role {} does not bear Rotacast's mark", self.name))),
        }
    }

    /// Why a role whose login has just worked may not become the owner's, or `None` when it may. The mark of another number is
    /// never taken over: after a restore instances may use a version that the record does not list.
    pub(super) fn objection(&self, owner: Owner<'_>, group: &str) -> Option<String> {
        self.unfit(group).or_else(|| self.outside(group)).or_else(|| self.of_another_with_way_out(owner))
    }

    /// Why a role that is there may not be made the owner's anew, or `None` when the owner's making has only been repeated.
    pub(super) fn untouchable(&self, owner: Owner<'_>, group: &str) -> Option<String> {
        self.unfit(group).or_else(|| self.of_another(owner)).or_else(|| match &self.comment {
            Comment::Mark(mark) => {
                let name = &self.name;
                mark.disabled_at
                    .map(|_| format!("role {name} was disabled already: a retired credential is not revived"))
            }
            Comment::Other(_) | Comment::Unreadable => Some(self.made_by_others()),
        })
    }

    fn made_by_others(&self) -> String {
        format!("role {} is there, and Rotacast did not make it: it does not bear Rotacast's mark", self.name)
    }

    /// Not the login of a service.
    fn unfit(&self, group: &str) -> Option<String> {
        let name = &self.name;
        if self.is_administrator {
            return Some(format!("role {name} is Rotacast's administrator"));
        }
        if name == group {
            return Some(format!("role {name} is the group role itself"));
        }
        if self.superuser || self.creates_roles {
            let right = if self.superuser { "a superuser" } else { "allowed to create roles" };
            return Some(format!("role {name} is {right}; expected a plain login role inside group role {group}"));
        }
        self.has_members
            .then(|| format!("role {name} has members of its own, which would lose what they have through it"))
    }

    /// A role whose membership in the group was not given.
    fn outside(&self, group: &str) -> Option<String> {
        let name = &self.name;
        (!self.is_member).then(|| {
            format!(
                "role {name} is not a direct member of group role {group}; if Rotacast is to retire it, GRANT {} TO {}",
                escape_identifier(group),
                escape_identifier(name)
            )
        })
    }

    fn of_another(&self, owner: Owner<'_>) -> Option<String> {
        let name = &self.name;
        match &self.comment {
            Comment::Mark(mark) => mark.objection(owner).map(|problem| format!("role {name} {problem}")),
            Comment::Unreadable => Some(format!("role {name} bears a mark that this release cannot read")),
            Comment::Other(_) => None,
        }
    }

    fn of_another_with_way_out(&self, owner: Owner<'_>) -> Option<String> {
        let clear = format!("COMMENT ON ROLE {} IS NULL", escape_identifier(&self.name));
        self.of_another(owner)
            .map(|problem| format!("{problem}; if no instance uses it as that any more, and only then: {clear}"))
    }

    /// Whether it bears the owner's mark.
    pub(super) fn is_marked(&self, owner: Owner<'_>) -> bool {
        matches!(&self.comment, Comment::Mark(mark) if mark.objection(owner).is_none())
    }

    /// Whether the role is this version's own, and its password was set so recently that a server may not know it yet.
    pub(super) fn is_fresh(&self, owner: Owner<'_>, now: i64, settle: Duration) -> bool {
        let Comment::Mark(mark) = &self.comment else { return false };
        // A part of a second counts as a whole one.
        let settle = i64::try_from(settle.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        self.can_log_in
            && mark.objection(owner).is_none()
            && mark.made_at.is_some_and(|made| now.saturating_sub(made) <= settle)
    }

    /// The mark that makes the role the owner's, once [`Role::objection`] has none.
    pub(super) fn mark(&self, owner: Owner<'_>) -> Mark {
        match &self.comment {
            Comment::Mark(mark) => mark.clone(),
            Comment::Other(earlier) => {
                let mut mark = Mark::of(owner);
                mark.earlier.clone_from(earlier);
                mark
            }
            Comment::Unreadable => unreachable!("an unreadable mark is an objection, and the role not touched"),
        }
    }

    /// Its live sessions on this server. `usesysid` is the role that logged in, whatever `SET ROLE` or
    /// `SET SESSION AUTHORIZATION` did since, and visible without any right.
    pub(super) async fn sessions(&self, client: &impl GenericClient) -> Result<Vec<Session>, Problem> {
        let rows = client.query(READ_SESSIONS, &[&self.oid]).await?;
        let mut sessions = Vec::with_capacity(rows.len());
        for row in rows {
            let (pid, application, state): (i32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
            let (address, since): (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(4)?);
            let database: Option<String> = row.try_get(5)?;
            let application =
                if application.is_empty() { "an unnamed application".into() } else { foreign::name(&application) };
            let address = address.map_or_else(String::new, |address| format!(" from {address}"));
            let since = since.map_or_else(String::new, |since| format!(", connected since {since}"));
            let database =
                database.map_or_else(String::new, |database| format!(" to database {}", foreign::name(&database)));
            sessions
                .push(Session { description: format!("pid {pid}, {application}{address}{database}, {state}{since}") });
        }
        Ok(sessions)
    }
}

/// `COMMENT ON ROLE` with a mark.
pub(super) fn comment(role: &str, mark: &Mark) -> String {
    format!("COMMENT ON ROLE {} IS {}", escape_identifier(role), escape_literal(&mark.write()))
}
