//! The sample service does what the end-to-end tests need it to do, with a broadcaster in memory and a real PostgreSQL.

use std::time::Duration;

use clap::Parser;
use rotacast_subscriber::testing::FakeCluster;
use rotacast_tests::pool_service::{self, Settings, Status};
use rotacast_tests::servers::{Postgres, Shared, until};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "payments/db";

/// A service in this process, its database and its broadcaster.
struct Scene {
    postgres: Shared<Postgres>,
    cluster: FakeCluster,
    latest: watch::Receiver<Option<Status>>,
    stop: oneshot::Sender<()>,
    service: JoinHandle<anyhow::Result<()>>,
}

impl Scene {
    async fn begin(flags: &[&str]) -> Option<Self> {
        let postgres = Postgres::shared().await?;
        postgres.create_database(postgres.name()).await;
        let cluster = FakeCluster::new();
        make_login(&postgres, 1).await;
        cluster.put(SECRET, value(&postgres, 1));
        let required =
            ["pool-service", "--url=grpc://in-memory", "--cluster=unused", "--identity=unused", "--trust=unused"];
        let settings = Settings::try_parse_from(required.iter().chain(flags)).expect("valid flags");
        let subscriber = cluster.subscriber("payments-api").expect("a valid name");
        let (say, latest) = watch::channel(None);
        let (stop, stopped) = oneshot::channel::<()>();
        let service = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            pool_service::serve(&settings, subscriber, stopped, |status| {
                say.send_replace(Some(status));
                Ok(())
            })
            .await
        });
        Some(Self { postgres, cluster, latest, stop, service })
    }

    /// The first matching status from now on.
    async fn status(&mut self, what: &str, mut fits: impl FnMut(&Status) -> bool) -> Status {
        let found = self.latest.wait_for(|status| status.as_ref().is_some_and(&mut fits));
        let found = tokio::time::timeout(LIMIT, found).await;
        let found = found.map(|found| found.map(|status| status.clone()));
        match found {
            Ok(Ok(Some(status))) => status,
            _ => panic!("waited in vain for: {what}; the last status is {:?}", *self.latest.borrow()),
        }
    }

    async fn put_second(&self) {
        make_login(&self.postgres, 2).await;
        self.cluster.put(SECRET, value(&self.postgres, 2));
    }

    async fn sessions(&self, version: u32) -> i64 {
        let admin = self.postgres.admin("postgres").await;
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        admin.query_one(query, &[&login(&self.postgres, version)]).await.expect("a superuser may look").get(0)
    }

    /// The oldest version that the service holds by its newest report.
    fn oldest_reported(&self) -> Option<u64> {
        let reports = self.cluster.reports();
        let secrets = reports.iter().flat_map(|report| report.secrets.values());
        secrets.flat_map(|secret| secret.held.iter()).map(|version| version.get()).min()
    }

    async fn end(mut self) -> Status {
        self.stop.send(()).expect("the service still runs");
        let last = tokio::time::timeout(LIMIT, self.latest.wait_for(|status| status.as_ref().is_some_and(|s| s.left)));
        let last = last.await.expect("it leaves").expect("it says so").clone();
        self.service.await.expect("no panic").expect("it leaves cleanly");
        last.expect("waited for one")
    }
}

fn login(postgres: &Shared<Postgres>, version: u32) -> String {
    format!("{}_v{version}", postgres.name())
}

async fn make_login(postgres: &Shared<Postgres>, version: u32) {
    let statement = format!("CREATE ROLE \"{}\" LOGIN PASSWORD 'password-{version}'", login(postgres, version));
    postgres.admin("postgres").await.batch_execute(&statement).await.expect("a superuser may");
}

fn value(postgres: &Shared<Postgres>, version: u32) -> String {
    serde_json::json!({
        "engine": "postgres", "host": "127.0.0.1", "port": postgres.port(), "dbname": postgres.name(),
        "username": login(postgres, version), "password": format!("password-{version}"),
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_moves_to_the_next_version_without_a_failed_query() {
    let Some(mut scene) = Scene::begin(&[]).await else { return };
    scene.status("queries with version 1", |status| status.by_version.contains_key(&1)).await;
    scene.put_second().await;
    scene.status("queries with version 2 only", |s| s.by_version.contains_key(&2) && s.oldest_held == Some(2)).await;
    until("the old sessions to end", LIMIT, async || (scene.sessions(1).await == 0).then_some(())).await;
    until("the release to be reported", LIMIT, async || (scene.oldest_reported() == Some(2)).then_some(())).await;
    let last = scene.end().await;
    assert_eq!((last.queries_failed, last.oldest_held), (0, None), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaky_one_reports_a_release_and_keeps_a_session() {
    let Some(mut scene) = Scene::begin(&["--leak"]).await else { return };
    scene.status("queries with version 1", |status| status.by_version.contains_key(&1)).await;
    scene.put_second().await;
    until("the release to be reported", LIMIT, async || (scene.oldest_reported() == Some(2)).then_some(())).await;
    until("all but the leaked session to end", LIMIT, async || (scene.sessions(1).await == 1).then_some(())).await;
    let status = scene.status("a status after the release", |status| status.oldest_held == Some(2)).await;
    assert_eq!(status.queries_failed, 0, "{status:?}");
    assert_eq!(scene.sessions(1).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ignores_reloads_stays_with_the_first_version_and_holds_it() {
    let Some(mut scene) = Scene::begin(&["--ignore-reload"]).await else { return };
    scene.status("queries with version 1", |status| status.by_version.contains_key(&1)).await;
    scene.put_second().await;
    let switched = scene.status("the SDK to switch", |status| status.version == Some(2)).await;
    let more = scene.status("more queries", |status| status.queries_ok > switched.queries_ok + 10).await;
    assert_eq!(more.by_version.keys().collect::<Vec<_>>(), [&1], "{more:?}");
    assert_eq!((more.queries_failed, more.oldest_held), (0, Some(1)), "{more:?}");
    assert_eq!(scene.oldest_reported(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_refuses_goes_on_with_the_old_version_and_says_why() {
    let Some(mut scene) = Scene::begin(&["--refuse-prepare"]).await else { return };
    scene.status("queries with version 1", |status| status.by_version.contains_key(&1)).await;
    make_login(&scene.postgres, 2).await;
    scene.cluster.propose(SECRET, value(&scene.postgres, 2));
    let told = async || {
        let reports = scene.cluster.reports();
        let mut failures = reports.iter().flat_map(|r| r.secrets.values()).filter_map(|s| s.failure.clone());
        failures.find(|failure| format!("{failure:?}").contains("told to refuse"))
    };
    until("the refusal to be reported", LIMIT, told).await;
    let status = scene.status("any status", |_| true).await;
    assert_eq!((status.version, status.queries_failed), (Some(1), 0), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_queries_are_counted_by_their_text() {
    let Some(mut scene) = Scene::begin(&[]).await else { return };
    scene.status("queries with version 1", |status| status.by_version.contains_key(&1)).await;
    let old = login(&scene.postgres, 1);
    let admin = scene.postgres.admin("postgres").await;
    admin.batch_execute(&format!("ALTER ROLE \"{old}\" NOLOGIN")).await.expect("a superuser may");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    admin.query(cut, &[&old]).await.expect("a superuser may");
    let status = scene
        .status("refused logins", |status| status.errors.keys().any(|text| text.contains("not permitted to log in")))
        .await;
    assert!(status.queries_failed > 0 && !format!("{status:?}").contains("password-1"), "{status:?}");
    let counted = async || {
        let reports = scene.cluster.reports();
        reports.iter().flat_map(|r| r.secrets.values()).any(|s| !s.auth_failures.is_empty()).then_some(())
    };
    until("the failed logins to be reported", LIMIT, counted).await;
}
