//! The dashboard with 10,000 secrets and very many instances, and with none: what a browser shows, and how long it
//! takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_broadcaster::api::{AcceptedLoss, CommandReply, Control, Instances, OperatorCommand, Refusal};
use rotacast_broadcaster::audit::Entry;
use rotacast_broadcaster::operators::Operators;
use rotacast_broadcaster::orders::Desk;
use rotacast_broadcaster::viewers::Viewers;
use rotacast_broadcaster::web::{WebOptions, router};
use rotacast_proto::v1;
use rotacast_protocol::coordinator::{Overlay, StageCounts, Standing};
use rotacast_protocol::message::Stage;
use rotacast_protocol::record::Label;
use rotacast_protocol::status::{
    BroadcasterStatus, FindingCounts, InstanceStatus, RotationStatus, SecretStatus, ServiceStatus, VersionStatus,
};
use rotacast_protocol::{
    Epoch, Generation, Incarnation, InstanceKey, OperatorName, Phase, Revision, RotationNumber, SecretName, Version,
    WallTime,
};
use rotacast_tests::browser::{Browser, Theme};
use rotacast_tests::servers::Scratch;
use rotacast_tests::world::usual;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

const SECRETS: u32 = 10_000;
/// A hundred thousand in the long hunts: `tools/test --long`.
fn instances() -> u32 {
    usual(10_000, 100_000)
}
/// The most rows that a page draws at once.
const MAX_ROWS: u64 = 110;
/// How often a secret changes, a different one each time.
const CHANGE_EVERY: Duration = Duration::from_millis(5);

/// A broadcaster with so many secrets, of which one is stuck, a hundred rotate, and one changes all the time.
struct Crowd {
    secrets: u32,
    instances: u32,
}

fn name(number: u32) -> SecretName {
    format!("team-{:03}/service-{number:05}/db", number % 100).parse().unwrap()
}

fn status(number: u32, revision: u64) -> SecretStatus {
    let now = rotacast_clock::wall();
    let before = |millis| WallTime(now.0 - millis);
    let (one, two) = (Version::FIRST, Version::FIRST.next());
    let rotates = number.is_multiple_of(100);
    let rotation = RotationStatus {
        number: RotationNumber(2),
        phase: Phase::Draining,
        old: Some(one),
        new: two,
        started_at: before(60_000),
        phase_since: before(30_000),
        trigger: "store".into(),
        rollback_reason: None,
        phases: Vec::new(),
    };
    let version = |version, label| VersionStatus { version, label, sealed: false, seen_at: before(86_400_000) };
    SecretStatus {
        revision: Revision(revision),
        generation: Generation(2),
        current: Some(two),
        versions: vec![version(one, Label::Previous), version(two, Label::Current)],
        rotation: rotates.then_some(rotation),
        services: vec![ServiceStatus {
            service: "api".parse().unwrap(),
            counts: StageCounts { members: 10, switched: 10, released: 7, ..Default::default() },
        }],
        overlays: if number == 4_200 { vec![Overlay::Stuck] } else { Vec::new() },
        provider: "postgres main".into(),
        ..SecretStatus::new(name(number))
    }
}

#[tonic::async_trait]
impl Control for Crowd {
    async fn status(&self, secret: Option<SecretName>) -> Result<BroadcasterStatus, Refusal> {
        let secrets = match secret {
            None => (0..self.secrets).map(|number| status(number, 1)).collect(),
            Some(_) => vec![status(0, 1)],
        };
        Ok(BroadcasterStatus { secrets, ..self.broadcaster().await })
    }

    async fn broadcaster(&self) -> BroadcasterStatus {
        BroadcasterStatus {
            cluster: "crowd".into(),
            epoch: Some(Epoch(1)),
            leader: true,
            store: "store".into(),
            bus: "bus".into(),
            replica: "b-1".into(),
            leading: None,
            findings: FindingCounts::default(),
            secrets: Vec::new(),
        }
    }

    async fn term(&self) -> Result<Epoch, Refusal> {
        Ok(Epoch(1))
    }

    fn watch(&self, _secret: Option<SecretName>) -> BoxStream<'static, Result<SecretStatus, Refusal>> {
        let secrets = self.secrets;
        let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(CHANGE_EVERY)).enumerate();
        let changes = ticks.map(move |(count, _)| {
            let count = u32::try_from(count).expect("the test ends before");
            Ok(status(count % secrets.max(1), 2 + u64::from(count)))
        });
        if secrets == 0 { futures::stream::pending().boxed() } else { changes.boxed() }
    }

    async fn instances(&self, _secret: Option<SecretName>, _not_on: Option<Version>) -> Result<Instances, Refusal> {
        // A hundred are on version 1.
        let instance = |number: u32| {
            let number_of_version = 1 + u64::from(!number.is_multiple_of(self.instances / 100));
            let version = Version::new(number_of_version).expect("1 or 2");
            InstanceStatus {
                key: InstanceKey::new(
                    format!("service-{:03}", number % 200).parse().unwrap(),
                    format!("pod-{number:06}").parse().unwrap(),
                    Incarnation(u128::from(number)),
                ),
                secret: name(number % self.secrets.max(1)),
                version: Some(version),
                stage: Some(Stage::Released),
                held: vec![version],
                standing: Standing::Live,
                silent_for_ms: Some(u64::from(number % 3000)),
                lease_left_ms: 60_000,
                last_failure: None,
            }
        };
        Ok(Instances { found: (0..self.instances).map(instance).collect(), unanswered: Vec::new() })
    }

    async fn command(&self, _operator: OperatorName, _command: OperatorCommand) -> Result<CommandReply, Refusal> {
        Err(Refusal::Forbidden("nothing is done here".into()))
    }

    async fn put_on_record(&self, _entry: Entry) -> Result<(), Refusal> {
        Ok(())
    }

    async fn accept_audit_loss(&self, _operator: OperatorName, _loss: AcceptedLoss) -> Result<(), Refusal> {
        Err(Refusal::Invalid("it has no audit log".into()))
    }

    async fn doctor(&self) -> v1::DoctorReply {
        v1::DoctorReply::default()
    }
}

/// Serves the dashboard of such a broadcaster, as a broadcaster does.
async fn serve(crowd: Crowd, scratch: &Scratch) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let operators = watch::Sender::new(Arc::new(Operators::default())).subscribe();
    let options = WebOptions {
        viewers: Viewers::new(operators.clone(), true),
        hosts: Vec::new(),
        tls: false,
        audit: scratch.path().join("audit.jsonl"),
        metrics: rotacast_broadcaster::metrics::Metrics::default(),
        findings: rotacast_broadcaster::findings::Findings::default(),
    };
    let crowd = Arc::new(crowd);
    let desk = Arc::new(Desk::new(Arc::clone(&crowd) as _, operators));
    let routes = Routes::from(router(crowd, desk, "crowd".into(), options, CancellationToken::new()));
    let server = Server::builder().accept_http1(true).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    format!("http://{address}")
}

async fn rows(browser: &Browser, table: &str) -> u64 {
    let count = "return document.querySelectorAll(arguments[0]).length";
    browser.script(count, vec![format!("[data-testid={table}] tbody tr").into()]).await.as_u64().expect("a count")
}

/// Remembers the longest time for which the page did not react.
const WATCH_LONG_TASKS: &str = "window.longest = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((it) => { window.longest = Math.max(window.longest, it.duration) }))
        .observe({ entryTypes: ['longtask'] })";

async fn longest(browser: &Browser) -> f64 {
    browser
        .script("const longest = window.longest; window.longest = 0; return longest", Vec::new())
        .await
        .as_f64()
        .expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_secrets_and_very_many_instances_stay_usable() {
    let Some(browser) = Browser::start().await else { return };
    let scratch = Scratch::new("crowd");
    let home = serve(Crowd { secrets: SECRETS, instances: instances() }, &scratch).await;

    let begun = Instant::now();
    browser.open(&home).await;
    browser.until_text("[data-testid=secrets] tbody tr", |text| !text.is_empty()).await;
    println!("10,000 secrets: first rows after {:?}", begun.elapsed());
    browser.until_text("[data-testid=shown]", |text| text.contains("10,000 secrets")).await;
    println!("10,000 secrets: all known after {:?}", begun.elapsed());
    // The list comes in pieces, by name.
    let stuck = name(4_200);
    browser.until_text("[data-testid=secrets] tbody tr", |first| first.starts_with(stuck.as_str())).await;
    browser.script(WATCH_LONG_TASKS, Vec::new()).await;
    assert!(rows(&browser, "secrets").await <= MAX_ROWS);

    let begun = Instant::now();
    browser.press("/").await;
    browser.press("service-04217").await;
    browser.until_text("[data-testid=shown]", |text| text.starts_with("1 secret")).await;
    println!("a search among them, 14 keys typed: {:?}", begun.elapsed());
    // Escape.
    browser.press("\u{e00c}").await;
    browser.until_text("[data-testid=shown]", |text| text.contains("10,000 secrets")).await;
    browser.click("[data-testid=filter-rotating]").await;
    browser.until_text("[data-testid=shown]", |text| text.contains("100 secrets")).await;
    println!("longest time without a reaction, with 200 changes a second: {:.0} ms", longest(&browser).await);

    let begun = Instant::now();
    browser.open(&format!("{home}/#/instances")).await;
    let shown = usual("10,000", "100,000");
    browser.until_text("main", |text| text.contains(&format!("{shown} instances"))).await;
    println!("{shown} instances: first page after {:?}", begun.elapsed());
    assert!(rows(&browser, "instances").await <= MAX_ROWS);
    let begun = Instant::now();
    browser.fill("[data-testid=filter-not_on]", "2").await;
    browser
        .until_text("main", |text| text.contains("of 100 instances") || text.contains(&format!("100 of {shown}")))
        .await;
    println!("who is not on version 2, of {shown}: {:?}", begun.elapsed());
    println!("longest time without a reaction: {:.0} ms", longest(&browser).await);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_without_secrets_says_how_to_begin() {
    let Some(browser) = Browser::start().await else { return };
    let scratch = Scratch::new("crowd");
    let home = serve(Crowd { secrets: 0, instances: 0 }, &scratch).await;
    browser.open(&home).await;
    browser.until_text("[data-testid=empty]", |text| text.contains("rotacast put")).await;
    for theme in [Theme::Light, Theme::Dark] {
        browser.prefer(theme).await;
        assert_eq!(browser.accessibility().await, Vec::<String>::new());
    }
    browser.open(&format!("{home}/#/instances")).await;
    browser.until_text("[data-testid=nothing-found]", |text| !text.is_empty()).await;
    assert_eq!(browser.accessibility().await, Vec::<String>::new());
    // What does not exist is named, and is not shown as loading.
    browser.open(&format!("{home}/#/nowhere")).await;
    browser.until_text("main", |text| text.contains("no such page")).await;
    assert_eq!(browser.script("return 1", Vec::new()).await, json!(1));
    browser.close().await;
}
