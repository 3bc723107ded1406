//! What only PostgreSQL has.

use std::time::Duration;

use rotacast_proto::LoginSecret;
use rotacast_protocol::Version;
use rotacast_provider::LiveSessions::{ByPolicy, End};
use rotacast_provider::conformance::{Fixture as _, Held as _, LoginFixture as _};
use rotacast_provider::postgres::{Endpoint, OnLiveSessions};
use rotacast_provider::{Credential, Evidence, ProviderError, Trial, Verdict};

use rotacast_test_servers::Scratch;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fixture::{Postgres, field, fields, start};

async fn made(fixture: &Postgres, version: u64) -> Credential {
    let (secret, version) = (fixture.secret(), Version::new(version).unwrap());
    let value = fixture.provider().draw(&secret, version).unwrap();
    let credential = Credential { secret, version, value };
    fixture.provider().create(&credential).await.unwrap();
    credential
}

fn rejection(verdict: Result<Verdict, ProviderError>) -> String {
    match verdict {
        Ok(Verdict::Rejected(why) | Verdict::Unusable(why)) => why,
        other => panic!("expected a rejection, found {other:?}"),
    }
}

fn unfinished(outcome: Result<(), ProviderError>) -> String {
    match outcome {
        Err(ProviderError::Unfinished { problem, .. }) => problem,
        other => panic!("expected what is in the way, found {other:?}"),
    }
}

fn refusal(outcome: Result<(), ProviderError>) -> String {
    match outcome {
        Err(ProviderError::Refused { problem, .. }) => problem,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

async fn superuser(fixture: &Postgres, statements: &str) {
    fixture.server.superuser("app").await.batch_execute(statements).await.unwrap();
}

#[tokio::test]
async fn what_a_version_creates_belongs_to_the_group_and_stays() {
    let Some(fixture) = start().await else { return };
    let (provider, old, new) = (fixture.provider(), made(&fixture, 1).await, made(&fixture, 2).await);
    let (table, own) = (fixture.name("orders"), fixture.name("own"));
    let session = fixture.logged_in(&old).await;
    session.client.batch_execute(&format!("CREATE TABLE {table} (id int)")).await.unwrap();
    let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = $1";
    let owner_of = async |table: &String| -> String {
        fixture.server.superuser("app").await.query_one(owner, &[table]).await.unwrap().get(0)
    };
    assert_eq!(owner_of(&table).await, "app_owner");
    // A session may return to its own role. What it makes with it is handed over.
    let role = field(&old, "username");
    superuser(&fixture, &format!("GRANT CREATE ON SCHEMA public TO {role}")).await;
    session.client.batch_execute(&format!("SET ROLE NONE; CREATE TABLE {own} (id int)")).await.unwrap();
    assert_eq!(owner_of(&own).await, role);
    Box::new(session).close().await;
    // Only a superuser can take back a right that a superuser gave.
    let why = unfinished(provider.destroy(&old, std::slice::from_ref(&new), ByPolicy).await);
    assert!(why.contains("privileges for schema public"), "{why}");
    superuser(&fixture, &format!("REVOKE CREATE ON SCHEMA public FROM {role}")).await;
    provider.destroy(&old, std::slice::from_ref(&new), ByPolicy).await.unwrap();
    assert_eq!(owner_of(&own).await, "app_owner");
    let session = fixture.logged_in(&new).await;
    session.client.batch_execute(&format!("ALTER TABLE {table} ADD x int; ALTER TABLE {own} ADD x int")).await.unwrap();
}

#[tokio::test]
async fn a_role_that_holds_objects_in_another_database_is_not_dropped_and_it_says_where() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let (role, schema) = (field(&credential, "username"), fixture.name("held"));
    let elsewhere = fixture.server.superuser("elsewhere").await;
    elsewhere.batch_execute(&format!("CREATE SCHEMA {schema} AUTHORIZATION {role}")).await.unwrap();
    let why = unfinished(provider.destroy(&credential, &[], ByPolicy).await);
    assert!(why.contains("database elsewhere") && why.contains("\\c \"elsewhere\" REASSIGN OWNED BY"), "{why}");
    elsewhere.batch_execute(&format!("REASSIGN OWNED BY {role} TO app_owner; DROP OWNED BY {role}")).await.unwrap();
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
}

#[tokio::test]
async fn a_role_of_that_name_that_another_client_made_is_not_taken_over() {
    let Some(fixture) = start().await else { return };
    let provider = fixture.provider();
    let (secret, version) = (fixture.secret(), Version::FIRST);
    let value = provider.draw(&secret, version).unwrap();
    let credential = Credential { secret, version, value };
    let role = field(&credential, "username");
    superuser(&fixture, &format!("CREATE ROLE {role} LOGIN PASSWORD 'theirs-4711' IN ROLE app_owner")).await;
    assert!(refusal(provider.create(&credential).await).contains("did not make it"));
    assert!(fixture.connect(&fixture.value(1, &role, "theirs-4711")).await.is_some());
}

#[tokio::test]
async fn a_value_written_by_another_client_is_tested_and_retired() {
    let Some(fixture) = start().await else { return };
    let (provider, role) = (fixture.provider(), fixture.name("Theirs \"x\""));
    let quoted = postgres_protocol::escape::escape_identifier(&role);
    let made = format!("CREATE ROLE {quoted} LOGIN PASSWORD 'theirs-4711' IN ROLE app_owner");
    superuser(&fixture, &format!("{made}; COMMENT ON ROLE {quoted} IS 'ask Billing'")).await;
    let credential = fixture.value(1, &role, "theirs-4711");
    assert_eq!(provider.test(&credential, &[], Trial::New).await.unwrap(), Verdict::Works);
    provider.disable(&credential, &[], ByPolicy).await.unwrap();
    let comment = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
    let client = fixture.server.superuser("app").await;
    let comment: String = client.query_one(comment, &[&role]).await.unwrap().get(0);
    assert!(comment.contains("\"earlier\":\"ask Billing\""), "{comment}");
    assert!(fixture.connect(&credential).await.is_none());
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
    let there = client.query("SELECT FROM pg_roles WHERE rolname = $1", &[&role]).await.unwrap();
    assert!(there.is_empty(), "the role is still there");
}

#[tokio::test]
async fn a_mark_that_is_over_is_cleared_by_the_statement_in_the_rejection() {
    let Some(fixture) = start().await else { return };
    let (provider, role) = (fixture.provider(), fixture.name("Moved \"x\""));
    let quoted = postgres_protocol::escape::escape_identifier(&role);
    superuser(&fixture, &format!("CREATE ROLE {quoted} LOGIN PASSWORD 'moved-4711' IN ROLE app_owner")).await;
    let moved = fixture.value(1, &role, "moved-4711");
    let renamed = Credential { secret: "payments/renamed".parse().unwrap(), ..moved.clone() };
    let drawn = made(&fixture, 1).await;
    // After the store was restored, a value may be written again under another number.
    let [again, drawn_again] =
        [&moved, &drawn].map(|it| Credential { version: Version::new(7).unwrap(), ..it.clone() });
    for (earlier, later) in [(&moved, &again), (&again, &renamed), (&drawn, &drawn_again)] {
        assert_eq!(provider.test(earlier, &[], Trial::New).await.unwrap(), Verdict::Works);
        let why = rejection(provider.test(later, &[], Trial::New).await);
        assert!(why.contains(&format!("{} version {}", earlier.secret, earlier.version)), "{why}");
        let (_, statement) = why.split_once("and only then: ").expect("a statement");
        superuser(&fixture, statement).await;
        assert_eq!(provider.test(later, &[], Trial::New).await.unwrap(), Verdict::Works);
    }
    for credential in [renamed, drawn_again] {
        provider.destroy(&credential, &[], ByPolicy).await.unwrap();
        assert!(fixture.connect(&credential).await.is_none());
    }
}

#[tokio::test]
async fn names_that_others_chose_do_not_drive_a_terminal_and_are_bounded() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let (role, number) = (field(&credential, "username"), fixture.name(""));
    let tables: Vec<String> = (0..12).map(|table| format!("report_{table}{number}")).collect();
    let bad = format!("\"bad\n\u{1b}[31m{number}\"");
    let mut statements = format!("CREATE ROLE {bad} LOGIN SUPERUSER PASSWORD 'bad-4711'; CREATE SCHEMA {bad};");
    for table in &tables {
        statements += &format!("CREATE TABLE {table} (id int); ALTER TABLE {table} OWNER TO {role};");
    }
    statements += &format!(
        "CREATE FUNCTION {bad}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION {bad}.f() OWNER TO {role}"
    );
    superuser(&fixture, &statements).await;
    let report = fixture.logged_in(&fixture.value(1, bad.trim_matches('"'), "bad-4711")).await.client;
    let reads: String = tables.iter().map(|table| format!("SELECT * FROM {table};")).collect();
    report.batch_execute(&format!("BEGIN; {reads}")).await.unwrap();
    let locked = unfinished(provider.destroy(&credential, &[], ByPolicy).await);
    assert!(locked.contains("(bad  [31m") && locked.contains("and 7 more since"), "{locked}");
    report.batch_execute("COMMIT").await.unwrap();
    let closed = unfinished(provider.destroy(&credential, &[], ByPolicy).await);
    assert!(closed.contains("whose name has control characters"), "{closed}");
    for text in [locked, closed] {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[tokio::test]
async fn a_table_that_is_in_use_is_not_waited_for_and_its_user_is_named() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let (role, table) = (field(&credential, "username"), fixture.name("report"));
    superuser(&fixture, &format!("CREATE TABLE {table} (id int); ALTER TABLE {table} OWNER TO {role}")).await;
    let report = fixture.server.superuser("app").await;
    report.batch_execute(&format!("BEGIN; SELECT * FROM {table}")).await.unwrap();
    let pid: i32 = report.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let why = unfinished(provider.destroy(&credential, &[], ByPolicy).await);
    assert!(why.contains(&format!("pid {pid} (")) && why.contains(&format!("uses {table} since ")), "{why}");
    report.batch_execute("COMMIT").await.unwrap();
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
}

/// A statement that waits for one lock holds the others, and queries queue behind those.
#[tokio::test]
async fn a_hand_over_that_takes_long_is_given_up() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let (role, slow) = (field(&credential, "username"), fixture.name("slow"));
    let statements = format!(
        "CREATE FUNCTION {slow}() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
             IF current_query() LIKE '%\"{role}\"%' THEN PERFORM pg_sleep(20); END IF; END $$;
         CREATE EVENT TRIGGER {slow} ON ddl_command_start WHEN TAG IN ('DROP OWNED') EXECUTE FUNCTION {slow}()"
    );
    superuser(&fixture, &statements).await;
    let why = unfinished(provider.destroy(&credential, &[], ByPolicy).await);
    assert!(why.contains("took too long"), "{why}");
    superuser(&fixture, &format!("DROP EVENT TRIGGER {slow}")).await;
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
}

#[tokio::test]
async fn what_lies_in_another_schema_is_named_with_the_statements_that_clear_it() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let role = field(&credential, "username");
    let schemas: Vec<String> =
        (0..12).map(|number| fixture.name(&format!("a_schema_with_a_long_name_{number}"))).collect();
    for schema in &schemas {
        let statements = format!(
            "CREATE SCHEMA {schema}; CREATE FUNCTION {schema}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             ALTER FUNCTION {schema}.f() OWNER TO {role}"
        );
        superuser(&fixture, &statements).await;
    }
    let why = unfinished(provider.destroy(&credential, &[], ByPolicy).await);
    for schema in &schemas {
        assert!(why.contains(&format!("GRANT CREATE, USAGE ON SCHEMA \"{schema}\" TO \"app_owner\";")), "{why}");
    }
    let (_, statements) = why.split_once("as their owner: ").expect("statements");
    superuser(&fixture, statements).await;
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
}

/// As after the provider's address was changed: the administrator reaches a server without such a role.
#[tokio::test]
async fn a_role_that_is_not_there_is_ended_only_if_its_login_fails() {
    let Some(fixture) = start().await else { return };
    let Some(second) = rotacast_test_servers::Postgres::start_with(&[]).await else { return };
    second.admin("postgres").await.batch_execute("CREATE ROLE app_owner NOLOGIN").await.unwrap();
    let moved = fixture.with(|settings| settings.admin = second.admin_url("postgres").into());
    let credential = made(&fixture, 1).await;
    for outcome in [moved.disable(&credential, &[], ByPolicy).await, moved.destroy(&credential, &[], ByPolicy).await] {
        let why = unfinished(outcome);
        assert!(why.contains("and yet a login at 127.0.0.1:"), "{why}");
    }
    // A login that is refused after the authentication has passed it.
    let mut changed = fields(&credential);
    changed["dbname"] = "nowhere".into();
    let why = unfinished(moved.disable(&fixture.credential(1, &changed), &[], ByPolicy).await);
    assert!(why.contains("does not show that it has ended") && why.contains("3D000"), "{why}");
    fixture.provider().destroy(&credential, &[], ByPolicy).await.unwrap();
    moved.destroy(&credential, &[], ByPolicy).await.unwrap();
}

/// PgBouncer uses one code for everything. Only these texts are about the login.
#[tokio::test]
async fn what_a_pooler_refuses_is_refused_and_what_it_cannot_do_is_no_proof() {
    let Some(fixture) = start().await else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pooler = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let answers = [
        ("no more connections allowed (max_client_conn)", false),
        ("pgbouncer cannot connect to server", false),
        ("password authentication failed", true),
        ("SASL authentication failed", true),
        ("no such user", true),
    ];
    let server = async {
        for (text, _) in answers {
            let (mut client, _) = listener.accept().await.unwrap();
            let _startup = client.read(&mut [0; 1024]).await.unwrap();
            let fields = format!("SFATAL\0C08P01\0M{text}\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            client.write_all(&[b"E", &length[..], fields.as_bytes()].concat()).await.unwrap();
        }
    };
    let provider = fixture.with(|settings| settings.also_at = vec![pooler.clone()]);
    let calls = async {
        for (number, (text, refused)) in (1..).zip(answers) {
            let mut at_pooler = fields(&made(&fixture, number).await);
            at_pooler["port"] = pooler.port.into();
            let outcome = provider.disable(&fixture.credential(number, &at_pooler), &[], ByPolicy).await;
            match outcome {
                Ok(()) => assert!(refused, "{text}"),
                Err(ProviderError::Unreachable { .. }) => assert!(!refused, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(server, calls) })
        .await
        .expect("each call logs in once");
}

#[tokio::test]
async fn no_more_connections_are_open_at_once_than_the_setting_allows() {
    let Some(fixture) = start().await else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = fixture.with(|settings| {
        settings.admin = fixture.server.admin(port).into();
        settings.max_connections = 2;
    });
    let credential = made(&fixture, 1).await;
    // A server that accepts connections and does not answer, so that each call keeps its connection until the timeout.
    let server = async {
        for _ in 0..3 {
            let held = [listener.accept().await.unwrap(), listener.accept().await.unwrap()];
            let third = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
            assert!(third.is_err(), "a third connection is opened");
            drop(held);
        }
    };
    let calls = futures::future::join_all((0..6).map(|_| provider.usage(&credential, &[])));
    let (outcomes, ()) = tokio::join!(calls, server);
    assert!(outcomes.iter().all(|it| matches!(it, Err(ProviderError::Unreachable { .. }))), "{outcomes:?}");
}

#[tokio::test]
async fn a_login_that_the_server_knows_a_little_late_is_not_rejected() {
    let Some(fixture) = start().await else { return };
    let credential = made(&fixture, 1).await;
    let role = field(&credential, "username");
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = $1";
    let client = fixture.server.superuser("app").await;
    let known: String = client.query_one(verifier, &[&role]).await.unwrap().get(0);
    // As on a replica that lags behind: the role is there, the password is not.
    superuser(&fixture, &format!("ALTER ROLE {role} PASSWORD 'not-yet-4711'")).await;
    let provider = fixture.with(|settings| settings.settle = Duration::from_secs(30));
    let before = fixture.failed_logins(&credential).await;
    let late = async {
        while fixture.failed_logins(&credential).await == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        superuser(&fixture, &format!("ALTER ROLE {role} PASSWORD '{known}'")).await;
    };
    let (verdict, ()) = tokio::join!(provider.test(&credential, &[], Trial::New), late);
    assert_eq!(verdict.unwrap(), Verdict::Works);
    // A version that was made long ago has no such grace: the server knows it by now.
    let age = format!(
        "DO $$ BEGIN EXECUTE format('COMMENT ON ROLE {role} IS %L', \
         regexp_replace(shobj_description('{role}'::regrole, 'pg_authid'), '\"made_at\":\\d+', '\"made_at\":1')); END $$"
    );
    superuser(&fixture, &format!("{age}; ALTER ROLE {role} PASSWORD 'changed-4711'")).await;
    let before = fixture.failed_logins(&credential).await;
    assert!(rejection(provider.test(&credential, &[], Trial::New).await).contains("28P01"));
    assert_eq!(fixture.failed_logins(&credential).await - before, 1);
    // A version that worked before has no such grace.
    superuser(&fixture, &format!("ALTER ROLE {role} PASSWORD 'changed-4711'")).await;
    let before = fixture.failed_logins(&credential).await;
    assert!(rejection(provider.test(&credential, &[], Trial::Known).await).contains("28P01"));
    assert_eq!(fixture.failed_logins(&credential).await - before, 1);
}

#[tokio::test]
async fn a_session_is_its_login_roles_whatever_role_it_sets() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let session = fixture.logged_in(&credential).await;
    for statement in ["SET ROLE app_owner", "SET ROLE NONE", "RESET SESSION AUTHORIZATION", "BEGIN"] {
        session.client.batch_execute(statement).await.unwrap();
        let Evidence::Sessions(sessions) = provider.usage(&credential, &[]).await.unwrap() else {
            panic!("no evidence")
        };
        let [only] = &sessions[..] else { panic!("{statement}: {sessions:?}") };
        assert!(only.description.contains("payments-api from 127.0.0.1 to database app"), "{only:?}");
    }
    // A user with more rights who switches to the role has not logged in with its credential.
    Box::new(session).close().await;
    let other = fixture.server.superuser("app").await;
    other.batch_execute(&format!("SET SESSION AUTHORIZATION {}", field(&credential, "username"))).await.unwrap();
    assert_eq!(provider.usage(&credential, &[]).await.unwrap(), Evidence::Sessions(Vec::new()));
}

#[tokio::test]
async fn what_cannot_log_in_is_rejected_with_the_reason() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let with = |name: &str, value: &str| {
        let mut changed = fields(&credential);
        changed[name] = value.into();
        fixture.credential(1, &changed)
    };
    // Only a refused identity shows that the credential does not work.
    for (name, value, why, at_authentication) in [
        ("password", "wrong-4711", "28P01", true),
        ("username", "nobody_at_all", "28P01", true),
        ("dbname", "nowhere", "3D000", false),
        ("engine", "mysql", "engine", false),
        ("host", "localhost", "host and port", false),
        ("port", "1", "host and port", false),
    ] {
        let verdict = provider.test(&with(name, value), &[], Trial::New).await;
        assert_eq!(matches!(verdict, Ok(Verdict::Rejected(_))), at_authentication, "{name}: {verdict:?}");
        let found = rejection(verdict);
        assert!(found.contains(why), "{name}: {found}");
    }
    let role = field(&credential, "username");
    superuser(&fixture, &format!("ALTER ROLE {role} NOLOGIN")).await;
    let verdict = provider.test(&credential, &[], Trial::New).await;
    assert!(matches!(&verdict, Ok(Verdict::Rejected(why)) if why.contains("28000")), "{verdict:?}");
    superuser(&fixture, &format!("ALTER ROLE {role} LOGIN; REVOKE app_owner FROM {role}")).await;
    let verdict = provider.test(&credential, &[], Trial::New).await;
    assert!(matches!(&verdict, Ok(Verdict::Unusable(why)) if why.contains("not a direct member")), "{verdict:?}");
}

#[tokio::test]
async fn a_full_server_is_no_verdict() {
    let Some(fixture) = start().await else { return };
    let credential = made(&fixture, 1).await;
    superuser(&fixture, &format!("ALTER ROLE {} CONNECTION LIMIT 0", field(&credential, "username"))).await;
    let outcome = fixture.provider().test(&credential, &[], Trial::New).await;
    assert!(
        matches!(&outcome, Err(ProviderError::Unreachable { problem, .. }) if problem.contains("53300")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn another_address_of_the_server_is_taken_when_it_is_named() {
    let Some(fixture) = start().await else { return };
    let mut changed = fields(&made(&fixture, 1).await);
    changed["host"] = "localhost".into();
    let credential = fixture.credential(1, &changed);
    assert!(refusal(fixture.provider().disable(&credential, &[], ByPolicy).await).contains("also_at"));
    let alias = Endpoint { host: "localhost".into(), port: fixture.server.port() };
    let provider = fixture.with(|settings| settings.also_at = vec![alias]);
    assert_eq!(provider.test(&credential, &[], Trial::New).await.unwrap(), Verdict::Works);
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
}

#[tokio::test]
async fn a_role_with_members_of_its_own_is_left_alone() {
    let Some(fixture) = start().await else { return };
    let credential = made(&fixture, 1).await;
    let member = fixture.name("member");
    superuser(&fixture, &format!("CREATE ROLE {member}; GRANT {} TO {member}", field(&credential, "username"))).await;
    assert!(refusal(fixture.provider().destroy(&credential, &[], ByPolicy).await).contains("members of its own"));
    assert!(fixture.connect(&credential).await.is_some());
}

#[tokio::test]
async fn sessions_are_not_terminated_before_their_time() {
    let Some(fixture) = start().await else { return };
    let credential = made(&fixture, 1).await;
    let mut session = fixture.logged_in(&credential).await;
    let after = Duration::from_secs(3600);
    let provider = fixture.with(|settings| settings.on_live_sessions = OnLiveSessions::Terminate { after });
    let outcome = provider.disable(&credential, &[], ByPolicy).await;
    assert!(
        matches!(&outcome, Err(ProviderError::InUse { next, .. }) if next.contains("terminated in")),
        "{outcome:?}"
    );
    assert!(session.works().await);
}

#[tokio::test]
async fn an_override_of_sessions_without_the_right_to_end_them_says_which() {
    let Some(fixture) = start().await else { return };
    let credential = made(&fixture, 1).await;
    let mut session = fixture.logged_in(&credential).await;
    let weak = fixture.name("weak");
    superuser(&fixture, &format!("CREATE ROLE {weak} LOGIN CREATEROLE PASSWORD 'weak-4711'")).await;
    superuser(&fixture, &format!("GRANT app_owner TO {weak} WITH ADMIN OPTION; GRANT pg_read_all_stats TO {weak}"))
        .await;
    let admin = format!("host=127.0.0.1 port={} user={weak} password=weak-4711 dbname=app", fixture.server.port());
    let provider = fixture.with(|settings| settings.admin = admin.into());
    let outcome = provider.disable(&credential, &[], End).await;
    assert!(
        matches!(&outcome, Err(ProviderError::InUse { next, .. }) if next.contains("GRANT pg_signal_backend")),
        "{outcome:?}"
    );
    assert!(session.works().await);
}

#[tokio::test]
async fn a_missing_group_and_a_missing_right_are_the_administrators_fault() {
    let Some(fixture) = start().await else { return };
    let credential = made(&fixture, 1).await;
    for (group, why) in [("no_such_group", "CREATE ROLE"), (fixture.server.superuser_login().0, "NOSUPERUSER")] {
        let provider = fixture.with(|settings| settings.group_role = group.into());
        let outcome = provider.create(&credential).await;
        assert!(matches!(&outcome, Err(ProviderError::Denied { problem, .. }) if problem.contains(why)), "{outcome:?}");
    }
    let powerless = fixture.name("powerless");
    superuser(&fixture, &format!("CREATE ROLE {powerless} LOGIN PASSWORD 'powerless-4711'")).await;
    for password in ["powerless-4711", "wrong-4711"] {
        let admin =
            format!("host=127.0.0.1 port={} user={powerless} password={password} dbname=app", fixture.server.port());
        let provider = fixture.with(|settings| settings.admin = admin.into());
        let outcome = provider.disable(&credential, &[], ByPolicy).await;
        assert!(matches!(outcome, Err(ProviderError::Denied { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_group_that_was_renamed_is_not_to_be_made_again() {
    let Some(fixture) = start().await else { return };
    let (group, renamed) = (fixture.name("group"), fixture.name("renamed"));
    superuser(&fixture, &format!("CREATE ROLE {group} NOLOGIN; GRANT {group} TO rotacast_admin WITH ADMIN OPTION"))
        .await;
    let provider = fixture.with(|settings| settings.group_role.clone_from(&group));
    let draw = |version| {
        let (secret, version) = (fixture.secret(), Version::new(version).unwrap());
        let value = provider.draw(&secret, version).unwrap();
        Credential { secret, version, value }
    };
    provider.create(&draw(1)).await.unwrap();
    superuser(&fixture, &format!("ALTER ROLE {group} RENAME TO {renamed}")).await;
    let second = draw(2);
    let fix = format!("ALTER ROLE \"{renamed}\" RENAME TO \"{group}\"");
    match provider.create(&second).await {
        Err(ProviderError::Denied { problem, .. }) => {
            assert!(problem.ends_with(&fix) && !problem.contains("CREATE ROLE"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
    superuser(&fixture, &fix).await;
    provider.create(&second).await.unwrap();
}

#[tokio::test]
async fn a_renamed_role_is_named_although_another_one_has_its_name() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    let role = field(&credential, "username");
    let renamed = fixture.rename(&credential, "renamed").await;
    superuser(&fixture, &format!("CREATE ROLE {role} LOGIN PASSWORD 'theirs-4711' IN ROLE app_owner")).await;
    let fix = format!("ALTER ROLE \"renamed_{role}\" RENAME TO \"{role}\"");
    for outcome in [
        provider.usage(&credential, &[]).await.map(drop),
        provider.disable(&credential, &[], ByPolicy).await,
        provider.destroy(&credential, &[], ByPolicy).await,
    ] {
        let told = unfinished(outcome);
        assert!(told.contains("another role has its name now") && told.ends_with(&fix), "{told}");
    }
    assert!(fixture.connect(&renamed).await.is_some());
    assert!(fixture.connect(&fixture.value(1, &role, "theirs-4711")).await.is_some(), "another owner's role was hit");
    superuser(&fixture, &format!("DROP ROLE {role}; {fix}")).await;
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
    assert!(fixture.connect(&credential).await.is_none());
}

#[tokio::test]
async fn the_servers_log_holds_statements_but_no_password() {
    let Some(fixture) = start().await else { return };
    let (provider, credential) = (fixture.provider(), made(&fixture, 1).await);
    provider.create(&credential).await.unwrap();
    assert_eq!(provider.test(&credential, &[], Trial::New).await.unwrap(), Verdict::Works);
    provider.destroy(&credential, &[], ByPolicy).await.unwrap();
    let log = fixture.server.log();
    let role = field(&credential, "username");
    for statement in ["CREATE ROLE", "ALTER ROLE", "DROP ROLE"] {
        assert!(log.contains(&format!("{statement} \"{role}\"")), "the log does not hold {statement}");
    }
    assert!(log.contains("SCRAM-SHA-256$"), "no verifier was sent");
    assert!(!log.contains(&field(&credential, "password")), "the log holds the password");
}

#[test]
fn the_rights_these_tests_run_with_are_the_documented_ones() {
    let (_, statements) = super::server::SETUP.split_once('\n').unwrap();
    assert!(include_str!("../../../../../docs/operate/providers.md").contains(statements));
}

#[tokio::test]
async fn an_administrators_password_that_is_renewed_in_its_file_is_used() {
    let Some(fixture) = start().await else { return };
    let credential = made(&fixture, 1).await;
    let admin = fixture.name("renewed");
    superuser(&fixture, &format!("CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD 'first-4711'")).await;
    superuser(&fixture, &format!("GRANT app_owner TO {admin} WITH ADMIN OPTION; GRANT pg_read_all_stats TO {admin}"))
        .await;
    let scratch = Scratch::new("pg-admin");
    let file = scratch.path().join("admin");
    let port = fixture.server.port();
    let write = |password: &str| {
        let text = format!("host=127.0.0.1 port={port} user={admin} password={password} dbname=app\n");
        std::fs::write(&file, text).unwrap();
    };
    write("first-4711");
    let provider = fixture.with(|settings| settings.admin = LoginSecret::File(file.clone()));
    provider.usage(&credential, &[]).await.unwrap();
    superuser(&fixture, &format!("ALTER ROLE {admin} PASSWORD 'second-4711'")).await;
    let refused = provider.usage(&credential, &[]).await;
    assert!(matches!(refused, Err(ProviderError::Denied { .. })), "{refused:?}");
    write("second-4711");
    provider.usage(&credential, &[]).await.unwrap();
    // A file that was read half-written is an error that the next call may not meet.
    std::fs::write(&file, "host=").unwrap();
    let refused = provider.usage(&credential, &[]).await;
    assert!(matches!(refused, Err(ProviderError::OwnFile { .. })), "{refused:?}");
    write("second-4711");
    provider.usage(&credential, &[]).await.unwrap();
}
