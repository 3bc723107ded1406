//! The provider: what is done, in which order, and what is refused.

use std::time::Duration;

use async_trait::async_trait;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;
use rotacast_proto::{FILE_DEADLINE, SecretValue};
use rotacast_protocol::{SecretName, Version};
use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::admin;
use super::foreign;
use super::login::{Login, log_in};
use super::mark::{Mark, Owner};
use super::refusals::Refusals;
use super::role::{Problem, Role, comment};
use super::settings::{InvalidSettings, OnLiveSessions, PostgresSettings, check_name, role_name};
use super::value::LoginValue;
use crate::{Credential, Draw, Evidence, LiveSessions, Provider, ProviderError, Session, Trial, Verdict};

/// Longest a call may take. Above the server's own bound, so that a statement has ended before it is given up, and
/// enough to hand over the objects of a role that owned thousands.
const CALL_TIMEOUT: Duration = Duration::from_secs(45);

/// Longest wait for a turn. Together with the call it is below the longest time that an effect may take.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// What bounds a transaction on the server's side, also when this side is gone. The lock wait is short: the holder
/// of the lock does the same work, and the call comes again.
const TRANSACTION_BOUNDS: &str = "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '10s'; \
     SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// How long a session that was closed or terminated may stay visible; it is gone within milliseconds unless the server
/// is overloaded, and then the call comes again.
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two looks whether a session is gone.
const SESSION_END_INTERVAL: Duration = Duration::from_millis(20);

/// Shows as the application of the provider's own logins.
const LOGIN_NAME: &str = "rotacast test login";

/// Shows as the application of the login that must fail, once per version.
const PROOF_NAME: &str = "rotacast proof of the end: this login must fail";

/// Longest wait for the lock of one table that is handed over: queries of the table queue behind it for as long.
const TABLE_LOCK_MILLIS: i64 = 100;

/// Longest time that each statement of the hand-over may take: while it waits for one lock, it holds those that it has. More
/// than a few locks that are waited for in a row are not to be had. For each object of the role it gets a millisecond more, of
/// which PostgreSQL needs a fraction.
const HAND_OVER_MILLIS: i64 = 1000;
const HAND_OVER_MILLIS_PER_OBJECT: i64 = 1;

/// Whether the administrator is a superuser, and how many objects of the role are in this database.
const READ_HAND_OVER: &str = "
    SELECT rolsuper, (
        SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) FROM pg_roles WHERE rolname = current_user";

/// Roles of which those are members that were set to act as the group role of this name when they were made.
const READ_RENAMED_GROUPS: &str = "
    SELECT DISTINCT g.rolname::text FROM pg_roles r
    JOIN pg_auth_members m ON m.member = r.oid JOIN pg_roles g ON g.oid = m.roleid
    JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass
    WHERE d.description LIKE '{\"rotacast\":%' AND ('role=' || $1) = ANY(r.rolconfig) ORDER BY 1";

/// Schemas, databases and roles that are named; the statements stay readable.
const MOST_NAMED: usize = 20;

/// Holders of locks that are named, and tables of each: the text goes into the log at every try.
const MOST_HOLDERS: usize = 5;
const MOST_TABLES: i32 = 5;

/// Between two logins of a test that may only be early: the first pause, doubled up to the longest.
const EARLY_FIRST: Duration = Duration::from_millis(250);
const EARLY_LONGEST: Duration = Duration::from_secs(2);

/// The tables of one holder in `$2` names at most, and how many more there are.
const READ_HOLDERS: &str = "
    SELECT a.pid, coalesce(a.usename::text, 'an unknown role'), coalesce(nullif(a.application_name, ''), 'an unnamed application'),
           coalesce(to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), 'an unknown time'),
           (array_agg(DISTINCT c.oid::regclass::text))[1:$2], greatest(count(DISTINCT c.oid) - $2, 0)
    FROM pg_class c JOIN pg_locks l ON l.relation = c.oid AND l.granted
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE c.relowner = $1 AND a.pid <> pg_backend_pid() GROUP BY 1, 2, 3, 4 ORDER BY 4, 1";

const READ_CLOSED_SCHEMAS: &str = "
    SELECT DISTINCT n.nspname::text FROM pg_namespace n JOIN (
        SELECT relnamespace FROM pg_class WHERE relowner = $1
        UNION SELECT pronamespace FROM pg_proc WHERE proowner = $1
        UNION SELECT typnamespace FROM pg_type WHERE typowner = $1
        UNION SELECT oprnamespace FROM pg_operator WHERE oprowner = $1
        UNION SELECT collnamespace FROM pg_collation WHERE collowner = $1
    ) AS owned (namespace) ON owned.namespace = n.oid
    WHERE NOT has_schema_privilege($2::name, n.oid, 'CREATE') ORDER BY 1";

const READ_OTHER_DATABASES: &str = "
    SELECT DISTINCT d.datname::text FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 AND d.datname <> current_database() ORDER BY 1";

/// A login role per version inside a group role that owns the objects.
///
/// Roles act as the group from their first statement on (`ALTER ROLE … SET role`): what one version's sessions create
/// belongs to the group, so that the next version can alter it and dropping the role takes nothing along.
///
/// Every change is one transaction under a lock of the role's name, with the mark in it. So a role never stands there
/// without its mark, and a `create` whose reply was lost has ended, one way or the other, before a later `destroy` looks.
///
/// Passwords go to the server as SCRAM-SHA-256 verifiers: what a statement log keeps cannot be used to log in.
pub struct PostgresProvider {
    settings: PostgresSettings,
    draw: Draw,
    /// Shared by all secrets.
    connections: Semaphore,
    refusals: Refusals,
}

/// What becomes of a role without a mark when its login works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Adoption {
    Mark,
    /// The test changes nothing.
    LeaveAsItIs,
}

/// How a test ended.
enum Tested {
    Verdict(Verdict),
    /// The login is refused, but Rotacast made its role a moment ago: the server that was asked may not know it yet.
    Early(String),
}

impl PostgresProvider {
    /// Checks the settings; nothing is connected.
    ///
    /// # Errors
    /// [`InvalidSettings`] says which one is wrong.
    pub fn new(settings: PostgresSettings) -> Result<Self, InvalidSettings> {
        admin::config(&settings, settings.admin.read(FILE_DEADLINE))?;
        check_name("group_role", &settings.group_role)?;
        check_name("database", &settings.database)?;
        check_name("role_name", &settings.role_name)?;
        if !(settings.role_name.contains("{secret}") && settings.role_name.contains("{version}")) {
            return Err(InvalidSettings::Template);
        }
        if settings.max_connections < PostgresSettings::LEAST_CONNECTIONS {
            return Err(InvalidSettings::Connections(settings.max_connections));
        }
        let connections = usize::try_from(settings.max_connections).unwrap_or(Semaphore::MAX_PERMITS);
        let connections = Semaphore::new(connections.min(Semaphore::MAX_PERMITS));
        Ok(Self { settings, draw: Draw::default(), connections, refusals: Refusals::default() })
    }

    fn group(&self) -> &str {
        &self.settings.group_role
    }

    /// Bounds a call by time and by the connections that it holds at once.
    async fn bounded<T>(
        &self,
        connections: u32,
        call: impl Future<Output = Result<T, Problem>> + Send,
    ) -> Result<T, Problem> {
        let busy = || {
            let most = self.settings.max_connections;
            Problem::Unreachable(format!(
                "all {most} connections that max_connections allows are busy; it is tried again"
            ))
        };
        let late = || Problem::Unreachable(format!("no end within {} s", CALL_TIMEOUT.as_secs()));
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.connections.acquire_many(connections)).await;
        match turn {
            Ok(Ok(_places)) => tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late())),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// Makes a call that asks who uses a role, or ends it. If the role has no mark, a login with the value must work first.
    async fn of_marked<T, C: Future<Output = Result<T, Problem>> + Send>(
        &self,
        credential: &Credential,
        others: &[Credential],
        connections: u32,
        call: impl Fn() -> C + Send + Sync,
    ) -> Result<T, ProviderError> {
        let mut outcome = self.bounded(connections, call()).await;
        if let Err(Problem::Unmarked(problem)) = outcome {
            outcome = match self.claim(credential, others, problem).await {
                Ok(()) => self.bounded(connections, call()).await,
                Err(problem) => Err(problem),
            };
        }
        outcome.map_err(|problem| self.error(credential.version, problem))
    }

    /// Logs in with a value, so that its role gets the mark. A value whose login fails never ends the role that
    /// it names: its writer need not have known the role's password.
    async fn claim(&self, credential: &Credential, others: &[Credential], problem: String) -> Result<(), Problem> {
        let unproved =
            |why: &str| Problem::Refused(format!("{problem}, and no login shows that the value is its own: {why}"));
        if let Some(why) = self.refusals.against(credential) {
            return Err(unproved(&why));
        }
        match self.bounded(2, self.test_login(credential, others, Adoption::Mark)).await? {
            Tested::Verdict(Verdict::Works) => Ok(()),
            Tested::Verdict(Verdict::Rejected(why) | Verdict::Unusable(why)) | Tested::Early(why) => {
                self.refusals.note(credential, &why);
                Err(unproved(&why))
            }
        }
    }

    fn error(&self, version: Version, problem: Problem) -> ProviderError {
        let (provider, version) = (self.describe(), version.get());
        match problem {
            Problem::Unreachable(problem) => ProviderError::Unreachable { provider, problem },
            Problem::OwnFile(problem) => ProviderError::OwnFile { provider, problem },
            Problem::Denied(problem) => ProviderError::Denied { provider, problem },
            Problem::Refused(problem) | Problem::Unmarked(problem) => {
                ProviderError::Refused { provider, version, problem }
            }
            Problem::Unfinished(problem) => ProviderError::Unfinished { provider, version, problem },
            Problem::InUse { sessions, next } => ProviderError::InUse { provider, version, sessions, next },
        }
    }

    /// Whose the role of a value has to be.
    fn owner<'a>(&'a self, credential: &'a Credential, value: &'a LoginValue) -> Owner<'a> {
        let Credential { secret, version, .. } = credential;
        Owner { cluster: &self.settings.cluster, secret, version: *version, draw: value.draw.as_deref() }
    }

    /// The login in a value, where it is one of the server that the administrator looks after.
    fn ours(&self, value: &SecretValue) -> Result<LoginValue, String> {
        let value = LoginValue::parse(value).map_err(|error| error.to_string())?;
        let settings = &self.settings;
        if value.endpoint != settings.endpoint && !settings.also_at.contains(&value.endpoint) {
            return Err(format!(
                "the value's host and port are not {}: its role is on a server that is not looked after here; \
                 if it is another address of the same one, add it to also_at",
                settings.endpoint
            ));
        }
        Ok(value)
    }

    /// The login in a value that is to be retired.
    fn retirable(&self, credential: &Credential, others: &[Credential]) -> Result<LoginValue, Problem> {
        let value = self.ours(&credential.value).map_err(Problem::Refused)?;
        match shared_with(&value, credential, others) {
            Some(other) => {
                Err(Problem::Refused(format!("its role is also that of version {other}, which is still valid")))
            }
            None => Ok(value),
        }
    }

    /// Begins a change of one role: no other transaction changes it until this one ends.
    async fn begin<'a>(&self, client: &'a mut Client, role: &str) -> Result<Transaction<'a>, Problem> {
        let transaction = client.transaction().await?;
        transaction.batch_execute(TRANSACTION_BOUNDS).await?;
        let name = format!("rotacast role {role}");
        transaction.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[&name]).await?;
        let group = transaction
            .query_opt("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = $1", &[&self.group()])
            .await?;
        let quoted = escape_identifier(self.group());
        match group.map(|row| row.try_get(0)).transpose()? {
            Some(false) => Ok(transaction),
            Some(true) => Err(Problem::Denied(format!(
                "group role {quoted} is a superuser or may create roles, and so would every service: \
                 ALTER ROLE {quoted} NOSUPERUSER NOCREATEROLE"
            ))),
            None => Err(Problem::Denied(self.missing_group(&transaction).await?)),
        }
    }

    /// A second group role would leave new logins without the rights that the first one has, so a renamed one is looked for:
    /// roles that Rotacast made for the configured group are its members.
    async fn missing_group(&self, client: &impl GenericClient) -> Result<String, Problem> {
        let quoted = escape_identifier(self.group());
        let rows = client.query(READ_RENAMED_GROUPS, &[&self.group()]).await?;
        let mut ways = Vec::new();
        for row in rows.iter().take(MOST_NAMED) {
            let name: String = row.try_get(0)?;
            ways.push(match foreign::quoted(&name) {
                Some(found) => format!("ALTER ROLE {found} RENAME TO {quoted}"),
                None => format!("rename {:?}, whose name has control characters", foreign::name(&name)),
            });
        }
        Ok(match ways.is_empty() {
            true => format!("there is no group role {quoted}: CREATE ROLE {quoted} NOLOGIN"),
            false => format!(
                "there is no group role {quoted}; it was renamed, because logins that Rotacast made for it are members of \
                 another role: {}",
                ways.join(", or ")
            ),
        })
    }

    async fn create_role(&self, credential: &Credential) -> Result<(), Problem> {
        let value = self.ours(&credential.value).map_err(Problem::Refused)?;
        let mut connection = admin::open(&self.settings).await?;
        let transaction = self.begin(connection.client(), &value.username).await?;
        let found = Role::read(&transaction, &value.username, self.group()).await?;
        let role = escape_identifier(&value.username);
        let group = escape_identifier(self.group());
        let verifier = escape_literal(&scram_sha_256(value.password.as_bytes()));
        let owner = self.owner(credential, &value);
        let (verb, joins) = match &found {
            None => ("CREATE", true),
            Some(found) => {
                if let Some(problem) = found.untouchable(owner, self.group()) {
                    return Err(Problem::Refused(problem));
                }
                ("ALTER", !found.is_member)
            }
        };
        let mut mark = Mark::of(owner);
        mark.made_at = Some(seconds_of(&transaction).await?);
        transaction.batch_execute(&format!("{verb} ROLE {role} LOGIN PASSWORD {verifier}")).await?;
        if joins {
            transaction.batch_execute(&format!("GRANT {group} TO {role}")).await?;
        }
        let acts_as = escape_literal(self.group());
        transaction.batch_execute(&format!("ALTER ROLE {role} SET role TO {acts_as}")).await?;
        transaction.batch_execute(&comment(&value.username, &mark)).await?;
        transaction.commit().await?;
        connection.close().await;
        Ok(())
    }

    async fn test_login(
        &self,
        credential: &Credential,
        others: &[Credential],
        adoption: Adoption,
    ) -> Result<Tested, Problem> {
        let unusable = |why: String| Ok(Tested::Verdict(Verdict::Unusable(why)));
        let value = match self.ours(&credential.value) {
            Ok(value) => value,
            Err(problem) => return unusable(problem),
        };
        if let Some(other) = shared_with(&value, credential, others) {
            return unusable(format!(
                "its role is also that of version {other}: retiring one would end the other; expected a role per version"
            ));
        }
        let mut session = match log_in(&value, LOGIN_NAME).await {
            Login::In(session) => session,
            Login::Refused { why, at_authentication } => {
                let why = format!("the login is refused: {why}");
                // A role that Rotacast did not draw was not made a moment ago by Rotacast.
                if value.draw.is_none() {
                    self.refusals.note(credential, &why);
                }
                if !at_authentication {
                    return unusable(why);
                }
                let fresh = value.draw.is_some() && self.is_fresh(credential, &value).await?;
                return Ok(if fresh { Tested::Early(why) } else { Tested::Verdict(Verdict::Rejected(why)) });
            }
            Login::Unclear(problem) => return Err(Problem::Unreachable(format!("test login: {problem}"))),
        };
        self.refusals.forget(credential);
        let pid: i32 = session.client().query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        let mut connection = admin::open(&self.settings).await?;
        let client = connection.client();
        let role = Role::read(&*client, &value.username, self.group()).await?;
        let seen = match &role {
            Some(role) => self.sees(client, role.oid, pid).await?,
            None => false,
        };
        session.close().await;
        let owner = self.owner(credential, &value);
        let verdict = match role {
            Some(role) if seen => match role.objection(owner, self.group()) {
                Some(problem) => Verdict::Unusable(problem),
                // Its own session must not count as a use of the credential.
                None if self.await_end(client, role.oid, Some(pid)).await? == 0 => {
                    if adoption == Adoption::Mark {
                        self.adopt(client, &role, owner).await?;
                    }
                    Verdict::Works
                }
                None => return Err(Problem::Unreachable("the session of the test login does not end".into())),
            },
            _ => Verdict::Unusable(
                "the login works, but the administrator does not see its session: they reach different servers, \
                 and Rotacast could not tell which sessions still use it"
                    .into(),
            ),
        };
        connection.close().await;
        Ok(Tested::Verdict(verdict))
    }

    /// Whether the role was made for this value a moment ago, as the administrator's server has it.
    async fn is_fresh(&self, credential: &Credential, value: &LoginValue) -> Result<bool, Problem> {
        let mut connection = admin::open(&self.settings).await?;
        let client = connection.client();
        let role = Role::read(&*client, &value.username, self.group()).await?;
        let now = seconds_of(&*client).await?;
        connection.close().await;
        Ok(role.is_some_and(|role| role.is_fresh(self.owner(credential, value), now, self.settings.settle)))
    }

    /// Marks a role whose login has just worked as this version's: so no other secret or cluster takes it for its own, and it is
    /// found again under another name.
    async fn adopt(&self, client: &mut Client, role: &Role, owner: Owner<'_>) -> Result<(), Problem> {
        if role.is_marked(owner) {
            return Ok(());
        }
        let transaction = self.begin(client, &role.name).await?;
        // Another call may have been faster.
        let now = Role::read(&transaction, &role.name, self.group()).await?;
        let now = now.filter(|now| now.oid == role.oid && !now.is_marked(owner));
        let Some(now) = now.filter(|now| now.objection(owner, self.group()).is_none()) else { return Ok(()) };
        let marked = transaction.batch_execute(&comment(&now.name, &now.mark(owner))).await;
        if let Err(error) = marked {
            if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                return Err(error.into());
            }
            let quoted = escape_identifier(&role.name);
            return Err(Problem::Denied(format!(
                "it may not change role {quoted}, so Rotacast could never end it ({}); give it the right to, from PostgreSQL 16 on by \
                 GRANT {quoted} TO the administrator WITH ADMIN OPTION",
                admin::told(&error)
            )));
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn sees(&self, client: &Client, role: u32, pid: i32) -> Result<bool, Problem> {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1 AND pid = $2 AND application_name = $3";
        let seen: i64 = client.query_one(count, &[&role, &pid, &LOGIN_NAME]).await?.try_get(0)?;
        Ok(seen == 1)
    }

    /// Waits, for a moment, until a role's session, or all of them, are gone. Says how many are left.
    async fn await_end(&self, client: &Client, role: u32, pid: Option<i32>) -> Result<i64, Problem> {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1 AND pid = coalesce($2, pid)";
        let deadline = tokio::time::Instant::now() + SESSION_END_TIMEOUT;
        loop {
            let left: i64 = client.query_one(count, &[&role, &pid]).await?.try_get(0)?;
            if left == 0 || tokio::time::Instant::now() >= deadline {
                return Ok(left);
            }
            tokio::time::sleep(SESSION_END_INTERVAL).await;
        }
    }

    async fn count_sessions(&self, credential: &Credential, others: &[Credential]) -> Result<Evidence, Problem> {
        // A value that names no role here says nothing about who uses it: that is no evidence of disuse.
        let value = self.ours(&credential.value).map_err(Problem::Refused)?;
        if let Some(other) = shared_with(&value, credential, others) {
            return Err(Problem::Refused(format!(
                "its role is also that of version {other}: whose sessions they are cannot be told"
            )));
        }
        let mut connection = admin::open(&self.settings).await?;
        let client = connection.client();
        let sessions = match Role::read(client, &value.username, self.group()).await? {
            // The sessions of a role that is not this version's are not this version's either.
            Some(role) => {
                self.check_not_renamed(client, credential, &value, Some(&role)).await?;
                role.check_end(self.owner(credential, &value), self.group())?;
                role.sessions(client).await?
            }
            None => {
                self.check_not_renamed(client, credential, &value, None).await?;
                Vec::new()
            }
        };
        connection.close().await;
        Ok(Evidence::Sessions(sessions))
    }

    async fn disable_role(
        &self,
        credential: &Credential,
        others: &[Credential],
        live: LiveSessions,
    ) -> Result<(), Problem> {
        let value = self.retirable(credential, others)?;
        let owner = self.owner(credential, &value);
        let mut connection = admin::open(&self.settings).await?;
        let transaction = self.begin(connection.client(), &value.username).await?;
        let Some(role) = Role::read(&transaction, &value.username, self.group()).await? else {
            self.check_not_renamed(&transaction, credential, &value, None).await?;
            drop(transaction);
            connection.close().await;
            return prove_end(&value, "there is no such role where the administrator looks").await;
        };
        self.check_not_renamed(&transaction, credential, &value, Some(&role)).await?;
        role.check_end(owner, self.group())?;
        let now = seconds_of(&transaction).await?;
        let mut mark = role.mark(owner);
        let since = *mark.disabled_at.get_or_insert(now);
        if role.can_log_in {
            // It was made able to again since.
            mark.proved_at = None;
        }
        let quoted = escape_identifier(&role.name);
        transaction.batch_execute(&format!("ALTER ROLE {quoted} NOLOGIN PASSWORD NULL")).await?;
        transaction.batch_execute(&comment(&role.name, &mark)).await?;
        transaction.commit().await?;
        // Each failing login is a line in the log of the server, which its operators have to explain: one is enough.
        if mark.proved_at.is_none() {
            prove_end(&value, "its role is disabled").await?;
            self.note_proof(connection.client(), &role, owner).await?;
        }
        self.end_sessions(connection.client(), &role, now.saturating_sub(since), live).await?;
        connection.close().await;
        Ok(())
    }

    /// A role that was renamed lives on, whatever `there` has its name now, and its login under the old name fails all the same.
    async fn check_not_renamed(
        &self,
        client: &impl GenericClient,
        credential: &Credential,
        value: &LoginValue,
        there: Option<&Role>,
    ) -> Result<(), Problem> {
        let owner = self.owner(credential, value);
        if there.is_some_and(|there| there.is_marked(owner)) {
            return Ok(());
        }
        let Some(found) = Role::find_marked(client, owner).await? else { return Ok(()) };
        let (shown, wanted) = (foreign::name(&found), escape_identifier(&value.username));
        let rename = match foreign::quoted(&found) {
            Some(found) => format!("ALTER ROLE {found} RENAME TO {wanted}"),
            None => "rename it back; its name has control characters".to_owned(),
        };
        let first = match there {
            Some(_) => format!("another role has its name now: rename or drop that role {wanted} first, then "),
            None => String::new(),
        };
        Err(Problem::Unfinished(format!("its role {wanted} was renamed and lives on as {shown:?}: {first}{rename}")))
    }

    async fn note_proof(&self, client: &mut Client, role: &Role, owner: Owner<'_>) -> Result<(), Problem> {
        let transaction = self.begin(client, &role.name).await?;
        let there = Role::read(&transaction, &role.name, self.group()).await?;
        // Its comment may have been changed since.
        let ours = |there: &Role| there.oid == role.oid && !there.can_log_in && there.is_marked(owner);
        if let Some(there) = there.filter(ours) {
            let mut mark = there.mark(owner);
            mark.proved_at = Some(seconds_of(&transaction).await?);
            transaction.batch_execute(&comment(&there.name, &mark)).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Sees to the sessions of a role disabled for so many seconds.
    async fn end_sessions(
        &self,
        client: &Client,
        role: &Role,
        seconds: i64,
        live: LiveSessions,
    ) -> Result<(), Problem> {
        let sessions: Vec<Session> = role.sessions(client).await?;
        if sessions.is_empty() {
            return Ok(());
        }
        let after = match (live, self.settings.on_live_sessions) {
            (LiveSessions::End, _) => 0,
            (LiveSessions::ByPolicy, OnLiveSessions::Terminate { after }) => {
                i64::try_from(after.as_secs()).unwrap_or(i64::MAX)
            }
            (LiveSessions::ByPolicy, OnLiveSessions::Wait) => {
                return Err(Problem::InUse { sessions, next: "they are waited for".to_owned() });
            }
        };
        if seconds < after {
            return Err(Problem::InUse { sessions, next: format!("they are terminated in {} s", after - seconds) });
        }
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = $1";
        match client.query(terminate, &[&role.oid]).await {
            Ok(_) if self.await_end(client, role.oid, None).await? == 0 => Ok(()),
            Ok(_) => Err(Problem::InUse { sessions, next: "they were told to end".to_owned() }),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Err(Problem::InUse {
                sessions,
                next: "the administrator may not end them: GRANT pg_signal_backend to it, or end them by hand"
                    .to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn drop_role(
        &self,
        credential: &Credential,
        others: &[Credential],
        live: LiveSessions,
    ) -> Result<(), Problem> {
        // What was never disabled must not lose its role while a session is open.
        self.disable_role(credential, others, live).await?;
        let value = self.retirable(credential, others)?;
        let mut connection = admin::open(&self.settings).await?;
        let transaction = self.begin(connection.client(), &value.username).await?;
        let Some(role) = Role::read(&transaction, &value.username, self.group()).await? else {
            return Ok(());
        };
        role.check_end(self.owner(credential, &value), self.group())?;
        // A login that had just been let in when the role was disabled shows up late.
        let sessions = role.sessions(&transaction).await?;
        if !sessions.is_empty() {
            return Err(Problem::InUse {
                sessions,
                next: "they began as the role was disabled; the call comes again".into(),
            });
        }
        let (quoted, group) = (escape_identifier(&role.name), escape_identifier(self.group()));
        let row = transaction.query_one(READ_HAND_OVER, &[&role.oid]).await?;
        let (superuser, objects): (bool, i64) = (row.try_get(0)?, row.try_get(1)?);
        // An administrator without superuser rights must be a member to hand a role's objects over; the drop ends it.
        if !superuser {
            transaction.batch_execute(&format!("GRANT {quoted} TO CURRENT_USER")).await?;
        }
        let longest = HAND_OVER_MILLIS.saturating_add(objects.saturating_mul(HAND_OVER_MILLIS_PER_OBJECT));
        let bounds = format!("SET LOCAL lock_timeout = {TABLE_LOCK_MILLIS}; SET LOCAL statement_timeout = {longest}");
        transaction.batch_execute(&bounds).await?;
        // Once nothing owned is left, the second takes back the grants, which would hold the role.
        let statements = format!("REASSIGN OWNED BY {quoted} TO {group}; DROP OWNED BY {quoted}; DROP ROLE {quoted}");
        if let Err(error) = transaction.batch_execute(&statements).await {
            drop(transaction);
            return Err(self.what_holds(connection.client(), &role, error).await);
        }
        transaction.commit().await?;
        connection.close().await;
        Ok(())
    }

    /// Why a role that is disabled cannot be dropped yet, with the statements that change it, in full.
    async fn what_holds(&self, client: &Client, role: &Role, error: tokio_postgres::Error) -> Problem {
        let told = match error.code() {
            Some(code) if matches!(*code, SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED) => {
                self.who_holds_locks(client, role).await
            }
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => self.closed_schemas(client, role).await,
            Some(code) if *code == SqlState::DEPENDENT_OBJECTS_STILL_EXIST => {
                let detail = error.as_db_error().and_then(|error| error.detail()).unwrap_or("no detail");
                self.other_databases(client, role, &foreign::told(&detail.replace('\n', ", "))).await.map(Some)
            }
            _ => Ok(None),
        };
        match told {
            Ok(Some(told)) => Problem::Unfinished(format!("role {} is disabled, but {told}", role.name)),
            Ok(None) => error.into(),
            Err(problem) => problem,
        }
    }

    async fn who_holds_locks(&self, client: &Client, role: &Role) -> Result<Option<String>, Problem> {
        let rows = client.query(READ_HOLDERS, &[&role.oid, &MOST_TABLES]).await?;
        let mut holders = Vec::new();
        for row in rows.iter().take(MOST_HOLDERS) {
            let (pid, user, application): (i32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (since, tables, more): (String, Vec<String>, i64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
            let (user, application) = (foreign::name(&user), foreign::name(&application));
            let mut tables = tables.iter().map(|table| foreign::name(table)).collect::<Vec<_>>().join(", ");
            if more > 0 {
                tables.push_str(&format!(" and {more} more"));
            }
            holders.push(format!("pid {pid} ({user}, {application}) uses {tables} since {since}"));
        }
        if let Some(more) = rows.len().checked_sub(MOST_HOLDERS).filter(|more| *more > 0) {
            holders.push(format!("and {more} more"));
        }
        let holders = match holders.is_empty() {
            true => "handing over its tables took too long, or a transaction used one a moment ago".to_owned(),
            false => format!("its tables cannot be handed over while transactions use them: {}", holders.join("; ")),
        };
        Ok(Some(format!(
            "{holders}. It is tried again, each time waiting {TABLE_LOCK_MILLIS} ms at most for a table, so that queries do not \
             queue up; end those transactions, or SELECT pg_terminate_backend(PID)"
        )))
    }

    async fn closed_schemas(&self, client: &Client, role: &Role) -> Result<Option<String>, Problem> {
        let group = escape_identifier(self.group());
        let rows = client.query(READ_CLOSED_SCHEMAS, &[&role.oid, &self.group()]).await?;
        let mut grants = Vec::new();
        for row in rows.iter().take(MOST_NAMED) {
            let schema: String = row.try_get(0)?;
            grants.push(match foreign::quoted(&schema) {
                Some(schema) => format!("GRANT CREATE, USAGE ON SCHEMA {schema} TO {group};"),
                None => {
                    format!("(the same for schema {:?}, whose name has control characters)", foreign::name(&schema))
                }
            });
        }
        Ok((!grants.is_empty()).then(|| {
            format!(
                "group role {group} may not own what it left in other schemas; as their owner: {}",
                grants.join(" ")
            )
        }))
    }

    async fn other_databases(&self, client: &Client, role: &Role, detail: &str) -> Result<String, Problem> {
        let (quoted, group) = (escape_identifier(&role.name), escape_identifier(self.group()));
        let rows = client.query(READ_OTHER_DATABASES, &[&role.oid]).await?;
        let mut databases = Vec::new();
        for row in rows.iter().take(MOST_NAMED) {
            let database: String = row.try_get(0)?;
            databases.push(match foreign::quoted(&database) {
                Some(database) => format!("\\c {database}"),
                None => format!("(in database {:?}, whose name has control characters)", foreign::name(&database)),
            });
        }
        let statements = format!("REASSIGN OWNED BY {quoted} TO {group}; DROP OWNED BY {quoted};");
        let each = match databases.is_empty() {
            true => format!("in this database: {statements}"),
            false => databases.into_iter().map(|it| format!("{it} {statements}")).collect::<Vec<_>>().join(" "),
        };
        Ok(format!(
            "it still holds what the administrator cannot hand over ({detail}); as a superuser, in psql, {each}"
        ))
    }
}

/// The other version that names the same role.
fn shared_with(value: &LoginValue, credential: &Credential, others: &[Credential]) -> Option<Version> {
    others
        .iter()
        .filter(|other| other.version != credential.version)
        // What is no login names no role.
        .filter(|other| LoginValue::parse(&other.value).is_ok_and(|other| other.username == value.username))
        .map(|other| other.version)
        .next()
}

/// The server's clock, in seconds since the Unix epoch.
async fn seconds_of(client: &impl GenericClient) -> Result<i64, Problem> {
    Ok(client.query_one("SELECT extract(epoch FROM now())::bigint", &[]).await?.try_get(0)?)
}

/// Logs in, which must fail at the authentication. Everything else is no proof.
async fn prove_end(value: &LoginValue, state: &str) -> Result<(), Problem> {
    let at = &value.endpoint;
    match log_in(value, PROOF_NAME).await {
        Login::Refused { at_authentication: true, .. } => Ok(()),
        Login::Refused { why, .. } => {
            Err(Problem::Unfinished(format!("{state}, but a login at {at} does not show that it has ended: {why}")))
        }
        Login::In(session) => {
            session.close().await;
            Err(Problem::Unfinished(format!(
                "{state}, and yet a login at {at} succeeds: a pooler or replica there lags, or it is another server than the \
                 administrator's"
            )))
        }
        Login::Unclear(problem) => {
            Err(Problem::Unreachable(format!("cannot show that the login fails now: {problem}")))
        }
    }
}

#[async_trait]
impl Provider for PostgresProvider {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn system(&self) -> String {
        format!("{} at {}", self.settings.database, self.settings.endpoint)
    }

    fn accepts(&self, value: &SecretValue) -> Result<(), String> {
        self.ours(value).map(drop)
    }

    fn test_every(&self) -> Option<Duration> {
        Some(self.settings.test_every)
    }

    fn draw(&self, secret: &SecretName, version: Version) -> Result<SecretValue, ProviderError> {
        let template = &self.settings.role_name;
        let username = role_name(template, secret, version).ok_or_else(|| {
            let problem = format!("role_name {template} gives more than 63 bytes for {secret}: set a shorter one");
            self.error(version, Problem::Refused(problem))
        })?;
        let value = LoginValue {
            endpoint: self.settings.endpoint.clone(),
            username,
            password: self.draw.text(),
            database: self.settings.database.clone(),
            draw: Some(format!("{:032x}", rand::random::<u128>())),
        };
        Ok(value.write())
    }

    async fn create(&self, credential: &Credential) -> Result<(), ProviderError> {
        let made = self.bounded(1, self.create_role(credential)).await;
        made.map_err(|problem| self.error(credential.version, problem))
    }

    async fn test(
        &self,
        credential: &Credential,
        others: &[Credential],
        trial: Trial,
    ) -> Result<Verdict, ProviderError> {
        let (settle, adoption) = match trial {
            Trial::New => (self.settings.settle, Adoption::Mark),
            Trial::Known => (Duration::ZERO, Adoption::LeaveAsItIs),
        };
        let (since, mut pause) = (tokio::time::Instant::now(), EARLY_FIRST);
        loop {
            let tested = self.bounded(2, self.test_login(credential, others, adoption)).await;
            match tested.map_err(|problem| self.error(credential.version, problem))? {
                Tested::Verdict(verdict) => return Ok(verdict),
                Tested::Early(why) if since.elapsed() + pause > settle => return Ok(Verdict::Rejected(why)),
                // It holds no connection meanwhile.
                Tested::Early(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(EARLY_LONGEST);
        }
    }

    async fn usage(&self, credential: &Credential, others: &[Credential]) -> Result<Evidence, ProviderError> {
        self.of_marked(credential, others, 1, || self.count_sessions(credential, others)).await
    }

    async fn disable(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.of_marked(credential, others, 2, || self.disable_role(credential, others, sessions)).await
    }

    async fn destroy(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.of_marked(credential, others, 2, || self.drop_role(credential, others, sessions)).await
    }
}
