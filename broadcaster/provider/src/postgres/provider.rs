//! The provider: what is done, in which order, and what is refused.

use std::time::Duration;

use async_trait::async_trait;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;
use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::admin;
use super::login::{Login, log_in};
use super::mark::{Comment, Mark};
use super::role::{Problem, Role, comment};
use super::settings::{InvalidSettings, OnLiveSessions, PostgresSettings, check_name, role_name};
use super::value::LoginValue;
use crate::{Credential, Draw, Evidence, LiveSessions, Provider, ProviderError, Session, Verdict};

/// Longest a call may take. Above the server's own bound, so that a statement has ended before it is given up, and
/// enough to hand over the objects of a role that owned thousands.
const CALL_TIMEOUT: Duration = Duration::from_secs(45);

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
}

impl PostgresProvider {
    /// Checks the settings; nothing is connected.
    ///
    /// # Errors
    /// [`InvalidSettings`] says which one is wrong.
    pub fn new(settings: PostgresSettings) -> Result<Self, InvalidSettings> {
        admin::config(&settings.admin)?;
        check_name("group_role", &settings.group_role)?;
        check_name("database", &settings.database)?;
        check_name("role_name", &settings.role_name)?;
        if !(settings.role_name.contains("{secret}") && settings.role_name.contains("{version}")) {
            return Err(InvalidSettings::Template);
        }
        Ok(Self { settings, draw: Draw::default() })
    }

    fn group(&self) -> &str {
        &self.settings.group_role
    }

    /// Bounds a call, and says of which provider and version its problem is.
    async fn bounded<T>(
        &self,
        version: Version,
        call: impl Future<Output = Result<T, Problem>> + Send,
    ) -> Result<T, ProviderError> {
        let late = || Problem::Unreachable(format!("no end within {} s", CALL_TIMEOUT.as_secs()));
        let outcome = tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()));
        outcome.map_err(|problem| self.error(version, problem))
    }

    fn error(&self, version: Version, problem: Problem) -> ProviderError {
        let (provider, version) = (self.describe(), version.get());
        match problem {
            Problem::Unreachable(problem) => ProviderError::Unreachable { provider, problem },
            Problem::Denied(problem) => ProviderError::Denied { provider, problem },
            Problem::Refused(problem) => ProviderError::Refused { provider, version, problem },
            Problem::InUse { sessions, next } => ProviderError::InUse { provider, version, sessions, next },
        }
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
            None => Err(Problem::Denied(format!("there is no group role {quoted}: CREATE ROLE {quoted} NOLOGIN"))),
        }
    }

    async fn create_role(&self, credential: &Credential) -> Result<(), Problem> {
        let value = self.ours(&credential.value).map_err(Problem::Refused)?;
        let mut connection = admin::open(&self.settings.admin).await?;
        let transaction = self.begin(connection.client(), &value.username).await?;
        let found = Role::read(&transaction, &value.username, self.group()).await?;
        let role = escape_identifier(&value.username);
        let group = escape_identifier(self.group());
        let verifier = escape_literal(&scram_sha_256(value.password.as_bytes()));
        let mark = Mark::new(&credential.secret, credential.version, value.draw.clone());
        let (verb, joins) = match &found {
            None => ("CREATE", true),
            Some(found) => {
                match &found.comment {
                    Comment::Mark(there) => same(there, &mark)
                        .map_err(|problem| Problem::Refused(format!("role {} {problem}", found.name)))?,
                    Comment::Other(_) | Comment::Unreadable => {
                        let name = &found.name;
                        return Err(Problem::Refused(format!(
                            "role {name} is there already, and Rotacast did not make it"
                        )));
                    }
                }
                if let Some(problem) = found.untouchable(credential, self.group()) {
                    return Err(Problem::Refused(problem));
                }
                ("ALTER", !found.is_member)
            }
        };
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

    async fn test_login(&self, credential: &Credential, others: &[Credential]) -> Result<Verdict, Problem> {
        let value = match self.ours(&credential.value) {
            Ok(value) => value,
            Err(problem) => return Ok(Verdict::Rejected(problem)),
        };
        if let Some(other) = shared_with(&value, credential, others) {
            return Ok(Verdict::Rejected(format!(
                "its role is also that of version {other}: retiring one would end the other; expected a role per version"
            )));
        }
        let mut session = match log_in(&value, LOGIN_NAME).await {
            Login::In(session) => session,
            Login::Refused(why) => return Ok(Verdict::Rejected(format!("the login is refused: {why}"))),
            Login::Unclear(problem) => return Err(Problem::Unreachable(format!("test login: {problem}"))),
        };
        let pid: i32 = session.client().query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        let mut connection = admin::open(&self.settings.admin).await?;
        let client = connection.client();
        let role = Role::read(client, &value.username, self.group()).await?;
        let seen = match &role {
            Some(role) => self.sees(client, role.oid, pid).await?,
            None => false,
        };
        session.close().await;
        let verdict = match role {
            Some(role) if seen => match role.objection(credential, self.group()) {
                Some(problem) => Verdict::Rejected(problem),
                // Its own session must not count as a use of the credential.
                None if self.await_end(client, role.oid, Some(pid)).await? == 0 => Verdict::Works,
                None => return Err(Problem::Unreachable("the session of the test login does not end".into())),
            },
            _ => Verdict::Rejected(
                "the login works, but the administrator does not see its session: they reach different servers, \
                 and Rotacast could not tell which sessions still use it"
                    .into(),
            ),
        };
        connection.close().await;
        Ok(verdict)
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
        let Ok(value) = self.ours(&credential.value) else { return Ok(Evidence::None) };
        if let Some(other) = shared_with(&value, credential, others) {
            return Err(Problem::Refused(format!(
                "its role is also that of version {other}: whose sessions they are cannot be told"
            )));
        }
        let mut connection = admin::open(&self.settings.admin).await?;
        let client = connection.client();
        let sessions = match Role::read(client, &value.username, self.group()).await? {
            // The sessions of a role that is not this version's are not this version's either.
            Some(role) => match role.objection(credential, self.group()) {
                Some(problem) => return Err(Problem::Refused(problem)),
                None => role.sessions(client).await?,
            },
            None => Vec::new(),
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
        let mut connection = admin::open(&self.settings.admin).await?;
        let transaction = self.begin(connection.client(), &value.username).await?;
        let Some(role) = Role::read(&transaction, &value.username, self.group()).await? else {
            return Ok(());
        };
        if let Some(problem) = role.objection(credential, self.group()) {
            return Err(Problem::Refused(problem));
        }
        let now: i64 = transaction.query_one("SELECT extract(epoch FROM now())::bigint", &[]).await?.try_get(0)?;
        let mut mark = role.mark(credential);
        let since = *mark.disabled_at.get_or_insert(now);
        let quoted = escape_identifier(&role.name);
        transaction.batch_execute(&format!("ALTER ROLE {quoted} NOLOGIN PASSWORD NULL")).await?;
        transaction.batch_execute(&comment(&role.name, &mark)).await?;
        transaction.commit().await?;

        match log_in(&value, LOGIN_NAME).await {
            Login::Refused(_) => {}
            Login::In(session) => {
                session.close().await;
                let name = &role.name;
                return Err(Problem::Unreachable(format!(
                    "role {name} is disabled, and yet a login at {} succeeded; a pooler or replica there may lag",
                    value.endpoint
                )));
            }
            Login::Unclear(problem) => {
                return Err(Problem::Unreachable(format!("cannot show that the login fails now: {problem}")));
            }
        }
        self.end_sessions(connection.client(), &role, now.saturating_sub(since), live).await?;
        connection.close().await;
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
        let mut connection = admin::open(&self.settings.admin).await?;
        let transaction = self.begin(connection.client(), &value.username).await?;
        let Some(role) = Role::read(&transaction, &value.username, self.group()).await? else {
            return Ok(());
        };
        if let Some(problem) = role.objection(credential, self.group()) {
            return Err(Problem::Refused(problem));
        }
        // A login that had just been let in when the role was disabled shows up late.
        let sessions = role.sessions(&transaction).await?;
        if !sessions.is_empty() {
            return Err(Problem::InUse {
                sessions,
                next: "they began as the role was disabled; the call comes again".into(),
            });
        }
        let (quoted, group) = (escape_identifier(&role.name), escape_identifier(self.group()));
        // An administrator without superuser rights must be a member to hand a role's objects over; the drop ends it.
        let superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
        let superuser: bool = transaction.query_one(superuser, &[]).await?.try_get(0)?;
        if !superuser {
            transaction.batch_execute(&format!("GRANT {quoted} TO CURRENT_USER")).await?;
        }
        transaction.batch_execute(&format!("REASSIGN OWNED BY {quoted} TO {group}")).await?;
        // Nothing owned is left: this takes back the grants, which would hold the role.
        transaction.batch_execute(&format!("DROP OWNED BY {quoted}")).await?;
        if let Err(error) = transaction.batch_execute(&format!("DROP ROLE {quoted}")).await {
            let held = error.as_db_error().filter(|error| *error.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
            let Some(held) = held else { return Err(error.into()) };
            let detail = held.detail().unwrap_or("no detail").replace('\n', ", ");
            return Err(Problem::Refused(format!(
                "role {} is disabled but still holds what the administrator cannot hand over ({detail}); \
                 as a superuser, in each database named there or else in this one: \
                 REASSIGN OWNED BY {quoted} TO {group}; DROP OWNED BY {quoted}",
                role.name
            )));
        }
        transaction.commit().await?;
        connection.close().await;
        Ok(())
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

/// Whether a marked role is the one that `wanted` is to make.
fn same(there: &Mark, wanted: &Mark) -> Result<(), String> {
    if !there.is_of(&wanted.secret, wanted.version) {
        return Err(format!("is the credential of {} version {}", there.secret, there.version));
    }
    if there.disabled_at.is_some() {
        return Err("was disabled already: a retired credential is not revived".into());
    }
    if there.draw != wanted.draw {
        return Err("was made for another value of this version, which an instance may be using".into());
    }
    Ok(())
}

#[async_trait]
impl Provider for PostgresProvider {
    fn describe(&self) -> String {
        format!("postgres {} at {}", self.settings.database, self.settings.endpoint)
    }

    fn accepts(&self, value: &SecretValue) -> Result<(), String> {
        self.ours(value).map(drop)
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
        self.bounded(credential.version, self.create_role(credential)).await
    }

    async fn test(&self, credential: &Credential, others: &[Credential]) -> Result<Verdict, ProviderError> {
        self.bounded(credential.version, self.test_login(credential, others)).await
    }

    async fn usage(&self, credential: &Credential, others: &[Credential]) -> Result<Evidence, ProviderError> {
        self.bounded(credential.version, self.count_sessions(credential, others)).await
    }

    async fn disable(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.bounded(credential.version, self.disable_role(credential, others, sessions)).await
    }

    async fn destroy(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.bounded(credential.version, self.drop_role(credential, others, sessions)).await
    }
}
