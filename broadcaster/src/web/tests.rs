//! The routes over a [`Control`] that records the calls to it.

mod api_types;
mod rights;

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Method, header};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use rotacast_proto::{Level, v1};
use rotacast_protocol::coordinator::Standing;
use rotacast_protocol::message::Stage;
use rotacast_protocol::status::{BroadcasterStatus, FindingCounts, InstanceStatus, Leading, SecretStatus};
use rotacast_protocol::{
    ClusterName, Epoch, Incarnation, InstanceKey, OperatorName, Revision, RotationNumber, Version,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::*;
use crate::api::{AcceptedLoss, Action, AdminFront, CommandReply, Instances, OperatorCommand};
use crate::audit::{AuditLog, AuditOptions, AuditSigner, Entry};
use crate::findings::Topic;
use crate::operators::{Operator, Operators, OrderKind, Role, Terms};
use crate::token::Token;

const SECRETS: usize = 1201;
const INSTANCES: u64 = 250;
const HERE: &str = "127.0.0.1:7400";

#[derive(Default)]
struct Notebook {
    commands: Mutex<Vec<String>>,
    entries: Mutex<Vec<Entry>>,
    asked: Mutex<u32>,
}

/// Secret 0 has every field, and secret 1 has a version that waits.
fn status(number: usize, revision: u64) -> SecretStatus {
    let secret = format!("team/{number:05}").parse().unwrap();
    let known = match number {
        0 => api_types::full(secret),
        1 => api_types::waiting(secret),
        _ => SecretStatus { current: Some(Version::FIRST), ..SecretStatus::new(secret) },
    };
    SecretStatus { revision: Revision(revision), ..known }
}

#[async_trait]
impl Control for Notebook {
    async fn status(&self, secret: Option<SecretName>) -> Result<BroadcasterStatus, Refusal> {
        let secrets = match secret {
            None => (0..SECRETS).map(|number| status(number, 1)).collect(),
            Some(name) if name.as_str() == "team/00000" => vec![status(0, 1)],
            Some(name) => return Err(Refusal::NotFound { what: format!("secret {name}"), fix: "look".into() }),
        };
        Ok(BroadcasterStatus { secrets, ..self.broadcaster().await })
    }

    async fn broadcaster(&self) -> BroadcasterStatus {
        BroadcasterStatus {
            cluster: "prod".into(),
            epoch: Some(Epoch(3)),
            leader: true,
            store: "etcd".into(),
            bus: "NATS".into(),
            replica: "b-1".into(),
            leading: Some(Leading { replica: "b-1".into(), address: Some("https://b-1:7400".into()) }),
            findings: FindingCounts::default(),
            secrets: Vec::new(),
        }
    }

    async fn term(&self) -> Result<Epoch, Refusal> {
        Ok(Epoch(3))
    }

    fn watch(&self, _secret: Option<SecretName>) -> BoxStream<'static, Result<SecretStatus, Refusal>> {
        // The same secret twice at once, another one, and then no more changes.
        let changes = [Ok(status(7, 2)), Ok(status(7, 3)), Ok(status(8, 2))];
        futures::stream::iter(changes).chain(futures::stream::pending()).boxed()
    }

    async fn instances(&self, _secret: Option<SecretName>, _not_on: Option<Version>) -> Result<Instances, Refusal> {
        *self.asked.lock().unwrap() += 1;
        let instance = |number: u64| {
            let version = Version::new(1 + number % 2).unwrap();
            let service = if number.is_multiple_of(5) { "ledger" } else { "api" };
            InstanceStatus {
                key: InstanceKey::new(
                    service.parse().unwrap(),
                    format!("pod-{number}").parse().unwrap(),
                    Incarnation(u128::from_be_bytes([1; 16])),
                ),
                secret: "team/00000".parse().unwrap(),
                version: Some(version),
                stage: Some(Stage::Switched),
                held: vec![version],
                standing: if number.is_multiple_of(10) { Standing::Silent } else { Standing::Live },
                silent_for_ms: Some(3_000),
                lease_left_ms: 0,
                last_failure: Some("could not fetch the value".into()),
            }
        };
        Ok(Instances { found: (0..INSTANCES).map(instance).collect(), unanswered: vec!["billing/db".parse().unwrap()] })
    }

    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal> {
        let OperatorCommand { secret, action, .. } = command;
        let reason = match &action {
            Action::Order(order) => order.reason().map(|reason| format!(": {reason}")).unwrap_or_default(),
            Action::Put(_) => String::new(),
        };
        self.commands.lock().unwrap().push(format!("{operator} {} {secret}{reason}", action.name()));
        Ok(CommandReply { version: Some(Version::FIRST), number: Some(RotationNumber(4)) })
    }

    async fn put_on_record(&self, entry: Entry) -> Result<(), Refusal> {
        self.entries.lock().unwrap().push(entry);
        Ok(())
    }

    async fn accept_audit_loss(&self, _operator: OperatorName, _loss: AcceptedLoss) -> Result<(), Refusal> {
        Err(Refusal::Invalid("it has no audit log".into()))
    }

    async fn doctor(&self) -> v1::DoctorReply {
        v1::DoctorReply::default()
    }
}

struct Rig {
    control: Arc<Notebook>,
    router: Router,
    operator: Token,
    reader: Token,
    operators: watch::Sender<Arc<Operators>>,
    findings: Findings,
    stop: CancellationToken,
    folder: tempfile::TempDir,
}

/// A role for these secrets that reads everything of them.
fn role(secrets: &str, orders: &[OrderKind]) -> Role {
    Role {
        secrets: vec![secrets.parse().unwrap()],
        orders: orders.iter().copied().collect(),
        read: Reading::ALL.into(),
        terms: Terms::Alone,
    }
}

impl Rig {
    /// With roles, one of the two operators may only look; without, there is only the other.
    fn new(open: bool, roles: bool) -> Self {
        let (operator, reader) = (Token::generate(), Token::generate());
        let person = |token: &Token, role: &str| Operator {
            tokens: vec![token.digest()],
            roles: roles.then(|| role.parse().unwrap()).into_iter().collect(),
            ..Operator::default()
        };
        let mut people = BTreeMap::from([(OperatorName::new("ada").unwrap(), person(&operator, "all"))]);
        let mut known = BTreeMap::new();
        if roles {
            people.insert(OperatorName::new("grafana").unwrap(), person(&reader, "viewer"));
            known.insert("viewer".parse().unwrap(), role("*", &[]));
            known.insert("all".parse().unwrap(), role("*", &OrderKind::all().collect::<Vec<_>>()));
        }
        let operators = watch::Sender::new(Arc::new(Operators::new(people, known)));
        let findings = Findings::default();
        let viewers = Viewers::new(operators.subscribe(), open);
        let folder = tempfile::tempdir().unwrap();
        let options = WebOptions {
            viewers: viewers.clone(),
            hosts: Vec::new(),
            tls: false,
            audit: folder.path().join("audit.jsonl"),
            metrics: Metrics::default(),
            findings: findings.clone(),
        };
        let control = Arc::new(Notebook::default());
        let stop = CancellationToken::new();
        let desk = Arc::new(Desk::new(Arc::clone(&control) as Arc<dyn Control>, operators.subscribe()));
        let control_of_web = Arc::clone(&control) as Arc<dyn Control>;
        let router = router(control_of_web, Arc::clone(&desk), "prod".into(), options, stop.clone());
        let cluster = ClusterName::new("prod").unwrap();
        let admin = AdminFront::new(Arc::clone(&control) as Arc<dyn Control>, desk, cluster, viewers);
        let router = Routes::from(router).add_service(admin.into_service()).into_axum_router();
        Self { control, router, operator, reader, operators, findings, stop, folder }
    }

    async fn send(&self, request: axum::http::request::Builder, body: impl Into<Body>) -> Response {
        let request = request.header(header::HOST, HERE).body(body.into()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str, cookie: &str) -> Response {
        self.send(Request::builder().uri(path).header(header::COOKIE, cookie), ()).await
    }

    async fn act(&self, cookie: &str, body: &Value) -> Response {
        let request = Request::builder().method(Method::POST).uri("/api/action").header(header::COOKIE, cookie);
        let request = request.header(ACTION_HEADER, "1").header(header::CONTENT_TYPE, "application/json");
        self.send(request, body.to_string()).await
    }

    /// The cookie of a sign-in.
    async fn sign_in(&self, token: &str) -> Result<String, Response> {
        let request = Request::builder().method(Method::POST).uri("/api/sign-in");
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let response = self.send(request, json!({ "token": token }).to_string()).await;
        match response.headers().get(SET_COOKIE) {
            Some(cookie) => Ok(cookie.to_str().unwrap().split(';').next().unwrap().to_owned()),
            None => Err(response),
        }
    }
}

async fn read(response: Response) -> Value {
    serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
}

async fn refused(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = read(response).await;
    assert!(body["error"]["problem"].is_string(), "{body}");
    (status, body["error"]["kind"].as_str().unwrap().to_owned())
}

/// The events of a stream, up to the one that `last` accepts.
async fn events(response: Response, last: impl Fn(&str, &Value) -> bool) -> Vec<(String, Value)> {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let (mut text, mut events) = (String::new(), Vec::new());
    while let Some(bytes) = stream.next().await {
        text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            let (name, data) = (field("event:").to_owned(), serde_json::from_str(field("data:")).unwrap());
            let done = last(&name, &data);
            events.push((name, data));
            if done {
                return events;
            }
            text = rest.to_owned();
        }
    }
    events
}

#[tokio::test]
async fn the_overview_begins_with_everything_and_goes_on_with_what_changes() {
    let rig = Rig::new(true, false);
    let response = rig.get("/api/overview/events", "").await;
    let told = events(response, |name, data| name == "secrets" && data["secrets"].as_array().unwrap().len() == 2).await;
    assert_eq!(told[0].0, "about");
    assert_eq!((&told[0].1["cluster"], &told[0].1["epoch"]), (&json!("prod"), &json!(3)));
    let pieces: Vec<_> = told[1..].iter().map(|(_, data)| data).collect();
    let shape = |data: &Value| {
        (data["reset"].as_bool().unwrap(), data["more"].as_bool().unwrap(), data["secrets"].as_array().unwrap().len())
    };
    let shapes: Vec<_> = pieces.iter().map(|data| shape(data)).collect();
    assert_eq!(shapes, [(true, true, 500), (false, true, 500), (false, false, 201), (false, false, 2)]);
    let changed = &pieces[3]["secrets"];
    assert_eq!((&changed[0]["secret"], &changed[0]["revision"]), (&json!("team/00007"), &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn the_overview_lists_what_stands_errors_first_and_again_when_it_changes() {
    let rig = Rig::new(true, false);
    let raise = |topic, subject: &str, level| {
        rig.findings.raise(topic, subject, level, "it is not well".into(), "mend it");
    };
    raise(Topic::Import, "/secrets/a b", Level::Warning);
    raise(Topic::OutOfService, "team/00003", Level::Error);
    let response = rig.get("/api/overview/events", "").await;
    let told = events(response, |name, _| name == "findings").await;
    let listed = &told.last().unwrap().1;
    assert_eq!(listed["total"], 2);
    let first = &listed["findings"][0];
    assert_eq!((&first["level"], &first["subject"]), (&json!("error"), &json!("out of service team/00003")));
    assert_eq!((&first["text"], &first["fix"]), (&json!("it is not well"), &json!("mend it")));
    assert_eq!(listed["findings"][1]["subject"], "import /secrets/a b");
    // The findings are sent again only when they have changed: the next event has none.
    let response = rig.get("/api/overview/events", "").await;
    let mut heard = 0;
    let over = |name: &str, data: &Value| {
        if name == "secrets" && data["secrets"].as_array().unwrap().len() == 2 {
            rig.findings.clear_all(Topic::Import);
            rig.findings.clear_all(Topic::OutOfService);
        }
        name == "findings" && data["total"] == 0
    };
    for (name, _) in events(response, over).await {
        heard += u32::from(name == "findings");
    }
    assert_eq!(heard, 2);
}

#[tokio::test]
async fn one_secret_is_sent_in_full_and_an_unknown_one_is_refused() {
    let rig = Rig::new(true, false);
    let response = rig.get("/api/secret/events?secret=team/00000", "").await;
    let told = events(response, |name, _| name == "secret").await;
    assert_eq!(told[1].1["secret"], "team/00000");
    assert!(told[1].1["guards"].is_array() && told[1].1["history"].is_array());
    let response = rig.get("/api/secret/events?secret=team/none", "").await;
    let told = events(response, |name, _| name == "problem").await;
    assert_eq!(told[1].1["error"]["kind"], "not_found");
    assert_eq!(refused(rig.get("/api/secret/events?secret=No%20Name", "").await).await, (400, "invalid".into()));
    assert_eq!(refused(rig.get("/api/secret/events", "").await).await, (400, "invalid".into()));
}

#[tokio::test]
async fn streams_end_with_the_broadcaster() {
    let rig = Rig::new(true, false);
    let response = rig.get("/api/secret/events?secret=team/00000", "").await;
    rig.stop.cancel();
    // Returns only because the stream ends.
    events(response, |_, _| false).await;
}

#[tokio::test]
async fn instances_are_searched_and_paged_here_and_the_tasks_are_asked_once() {
    let rig = Rig::new(true, false);
    let page = read(rig.get("/api/instances?not_on=2&service=ledger&offset=2&limit=5", "").await).await;
    assert_eq!((&page["total"], &page["matching"]), (&json!(250), &json!(25)));
    let names: Vec<_> = page["instances"].as_array().unwrap().iter().map(|it| it["instance"].clone()).collect();
    assert_eq!(names, ["pod-20", "pod-30", "pod-40", "pod-50", "pod-60"]);
    let page = read(rig.get("/api/instances?q=POD-24&standing=silent", "").await).await;
    assert_eq!(page["matching"], 1);
    let fleet = read(rig.get("/api/fleet", "").await).await;
    assert_eq!(fleet["total"], 250);
    let groups = fleet["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(groups.iter().map(|group| group["instances"].as_u64().unwrap()).sum::<u64>(), 250);
    assert_eq!(groups[2]["standings"], json!({ "silent": 25 }));
    assert_eq!(*rig.control.asked.lock().unwrap(), 1);
    // Whose instances are not known, among those that were asked for.
    for (query, named) in
        [("", json!(["billing/db"])), ("?secret=billing/db", json!(["billing/db"])), ("?secret=a", json!([]))]
    {
        for path in ["/api/instances", "/api/fleet"] {
            let told = read(rig.get(&format!("{path}{query}"), "").await).await;
            let total = json!(named.as_array().unwrap().len());
            assert_eq!((&told["unanswered"], &told["unanswered_total"]), (&named, &total), "{path}{query}");
        }
    }
    for bad in ["limit=0", "limit=501", "not_on=0", "offset=-1", "version=x"] {
        let told = refused(rig.get(&format!("/api/instances?{bad}"), "").await).await;
        assert_eq!(told, (400, "invalid".into()), "{bad}");
    }
}

#[tokio::test]
async fn orders_need_an_operator_who_may_act() {
    let rig = Rig::new(true, true);
    let pause = json!({ "secret": "team/00000", "action": "pause", "reason": "a look" });
    assert_eq!(refused(rig.act("", &pause).await).await, (401, "unauthenticated".into()));
    assert_eq!(refused(rig.act("rotacast-session=00", &pause).await).await, (401, "unauthenticated".into()));
    let reader = rig.sign_in(rig.reader.text()).await.unwrap();
    assert_eq!(refused(rig.act(&reader, &pause).await).await, (403, "forbidden".into()));
    let operator = rig.sign_in(rig.operator.text()).await.unwrap();
    assert_eq!(read(rig.act(&operator, &pause).await).await, json!({ "version": 1, "number": 4, "request": null }));
    assert_eq!(*rig.control.commands.lock().unwrap(), ["ada pause team/00000: a look"]);

    // The operator has signed out, or its token was withdrawn.
    let request = Request::builder().method(Method::POST).uri("/api/sign-out").header(header::COOKIE, &operator);
    assert_eq!(rig.send(request, ()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(refused(rig.act(&operator, &pause).await).await.0, 401);
    let again = rig.sign_in(rig.operator.text()).await.unwrap();
    rig.operators.send_replace(Arc::default());
    assert_eq!(refused(rig.act(&again, &pause).await).await.0, 401);
    assert_eq!(rig.control.commands.lock().unwrap().len(), 1);
    let wrong = rig.sign_in(Token::generate().text()).await.unwrap_err();
    assert_eq!(refused(wrong).await, (401, "unauthenticated".into()));
}

#[tokio::test]
async fn what_another_site_makes_a_browser_send_is_refused() {
    let rig = Rig::new(true, false);
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    let request = || {
        let request = Request::builder().method(Method::POST).uri("/api/action").header(header::COOKIE, &cookie);
        request.header(header::CONTENT_TYPE, "application/json")
    };
    let resume = || json!({ "secret": "team/00000", "action": "resume" }).to_string();
    let foreign = request().header(ACTION_HEADER, "1").header(header::ORIGIN, "https://evil.example");
    assert_eq!(refused(rig.send(foreign, resume()).await).await, (403, "forbidden".into()));
    assert_eq!(refused(rig.send(request(), resume()).await).await, (403, "forbidden".into()), "without our header");
    // A form cannot send JSON.
    let form = Request::builder().method(Method::POST).uri("/api/action").header(header::COOKIE, &cookie);
    let form = form.header(ACTION_HEADER, "1").header(header::CONTENT_TYPE, "text/plain");
    assert_eq!(refused(rig.send(form, resume()).await).await.0, 400);
    let rebound = Request::builder().uri("/api/about").header(header::HOST, "evil.example").body(Body::empty());
    let answer = rig.router.clone().oneshot(rebound.unwrap()).await.unwrap();
    assert_eq!(refused(answer).await, (403, "forbidden".into()));
    assert!(rig.control.commands.lock().unwrap().is_empty());
    let own = request().header(ACTION_HEADER, "1").header(header::ORIGIN, format!("http://{HERE}"));
    assert_eq!(rig.send(own, resume()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn orders_that_make_no_sense_never_reach_the_broadcaster() {
    let rig = Rig::new(true, false);
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    let instance = json!({ "service": "api", "instance": "a", "incarnation": "01".repeat(16) });
    let about = "team/00000";
    for bad in [
        json!({ "secret": about, "action": "put", "value": "x" }),
        json!({ "secret": about, "action": "destroy" }),
        json!({ "secret": "No Name", "action": "resume" }),
        json!({ "secret": about, "action": "pause" }),
        json!({ "secret": about, "action": "leave_safe_mode" }),
        json!({ "secret": about, "action": "rollback", "reason": " " }),
        json!({ "secret": about, "action": "pause", "reason": "x".repeat(1025) }),
        json!({ "secret": about, "action": "excuse" }),
        json!({ "secret": about, "action": "excuse", "instances": [instance, instance] }),
        json!({ "secret": about, "action": "excuse", "instances": [{ "service": "a", "instance": "b", "incarnation": "1" }] }),
        json!({ "secret": about, "action": "override", "reason": "why", "version": 1 }),
        json!({ "secret": about, "action": "override", "reason": "why", "sessions": true }),
        json!({ "secret": about, "action": "override", "version": 1, "sessions": true }),
        json!({ "secret": about, "action": "override", "reason": "why", "version": 0, "sessions": true }),
        json!({ "secret": about, "action": "override", "reason": "why", "version": 1, "instances": vec![&instance; 1025] }),
        json!("no object"),
    ] {
        assert_eq!(refused(rig.act(&cookie, &bad).await).await, (400, "invalid".into()), "{bad}");
    }
    assert!(rig.control.commands.lock().unwrap().is_empty());
    for good in [
        json!({ "secret": about, "action": "excuse", "instances": [instance] }),
        json!({ "secret": about, "action": "override", "reason": "why", "version": 1, "instances": [instance], "sessions": true }),
        json!({ "secret": about, "action": "leave_safe_mode", "reason": "why" }),
        json!({ "secret": about, "action": "gone", "reason": "why", "instances": [instance] }),
        json!({ "secret": about, "action": "abandon", "reason": "why", "version": 1 }),
    ] {
        assert_eq!(rig.act(&cookie, &good).await.status(), StatusCode::OK, "{good}");
    }
}

#[tokio::test]
async fn what_does_not_parse_is_refused_by_name_and_a_token_never_quoted() {
    let rig = Rig::new(false, true);
    let cookie = rig.sign_in(rig.reader.text()).await.unwrap();
    let answer = read(rig.get("/api/instances?not_on=seven", &cookie).await).await;
    assert_eq!(answer["error"]["problem"], "query parameter not_on: invalid digit found in string");
    let token = rig.operator.text();
    for body in [json!(token).to_string(), json!({ token: 1 }).to_string(), token.to_owned()] {
        let request = Request::builder().method(Method::POST).uri("/api/sign-in");
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let answer = read(rig.send(request, body).await).await.to_string();
        assert!(answer.contains("a sign-in is JSON") && !answer.contains(token), "{answer}");
    }
}

#[tokio::test]
async fn where_reading_needs_a_sign_in_nothing_is_sent_before_it() {
    for rig in [Rig::new(false, true), Rig::new(true, true)] {
        for path in [
            "/api/overview/events",
            "/api/secret/events?secret=team/00000",
            "/api/instances",
            "/api/fleet",
            "/api/audit",
        ] {
            assert_eq!(refused(rig.get(path, "").await).await, (401, "unauthenticated".into()), "{path}");
        }
        let about = read(rig.get("/api/about", "").await).await;
        assert_eq!((&about["sign_in_needed"], &about["store"]), (&json!(true), &json!("")));
        let cookie = rig.sign_in(rig.reader.text()).await.unwrap();
        assert_eq!(rig.get("/api/fleet", &cookie).await.status(), StatusCode::OK);
        let about = read(rig.get("/api/about", &cookie).await).await;
        assert_eq!((&about["store"], &about["signed_in"]["may_act"]), (&json!("etcd"), &json!(false)));
        // Programs send the token itself.
        let bearer = format!("Bearer {}", rig.reader.text());
        let request = Request::builder().uri("/api/fleet").header(header::AUTHORIZATION, bearer);
        assert_eq!(rig.send(request, ()).await.status(), StatusCode::OK);
    }
}

fn small_files() -> AuditOptions {
    AuditOptions { max_file_bytes: 2_000, ..AuditOptions::default() }
}

fn signer() -> AuditSigner {
    AuditSigner::new(rotacast_proto::SigningKey::generate(), rotacast_protocol::ClusterName::new("test").unwrap())
}

#[tokio::test]
async fn the_audit_log_is_searched_from_its_end() {
    let rig = Rig::new(true, false);
    let path = rig.folder.path().join("audit.jsonl");
    // Several files.
    let log = AuditLog::open(&path, small_files(), signer()).unwrap();
    for number in 1..=50_u64 {
        let secret: SecretName = if number.is_multiple_of(2) { "team/even" } else { "team/odd" }.parse().unwrap();
        log.append(Entry::new("ada", "paused").secret(secret).detail("why", format!("Reason {number}"))).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let page = read(rig.get(&format!("/api/audit?secret=team/odd&limit=7{before}"), "").await).await;
        seen.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["sequence"].as_u64().unwrap()));
        match page["next_before"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=50).rev().filter(|number| number % 2 == 1).collect::<Vec<_>>());
    let page = read(rig.get("/api/audit?q=reason%2041", "").await).await;
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    assert_eq!(page["entries"][0]["details"]["why"], "Reason 41");
    assert_eq!(read(rig.get("/api/audit?q=nothing", "").await).await["entries"], json!([]));
    drop(log);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("Reason 5", "Raison 5")).unwrap();
    assert_eq!(refused(rig.get("/api/audit?q=raison", "").await).await, (503, "unavailable".into()));
}

#[tokio::test]
async fn headers_say_what_the_page_may_do() {
    let rig = Rig::new(true, false);
    for path in ["/", "/api/about", "/assets/none.js", "/api/audit?limit=0"] {
        let response = rig.get(path, "").await;
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'self'"), "{path}");
        assert_eq!((header("x-content-type-options"), header("x-frame-options")), ("nosniff".into(), "DENY".into()));
    }
}

#[tokio::test]
async fn metrics_are_shown_to_those_who_may_read_them() {
    let response = Rig::new(true, false).get("/metrics", "").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], Metrics::CONTENT_TYPE);
    let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(text.starts_with(b"# HELP "), "{text:?}");
    // Elsewhere with a token, as a scrape configuration sends it.
    let rig = Rig::new(false, true);
    assert_eq!(refused(rig.get("/metrics", "").await).await, (401, "unauthenticated".into()));
    let bearer = format!("Bearer {}", rig.reader.text());
    let request = Request::builder().uri("/metrics").header(header::AUTHORIZATION, bearer);
    assert_eq!(rig.send(request, ()).await.status().as_u16(), 200);
}

/// The routes that read something, without a body.
const READ_OVER_HTTP: [&str; 7] = [
    "/api/overview/events",
    "/api/secret/events?secret=team/00000",
    "/api/instances",
    "/api/fleet",
    "/api/audit",
    "/api/requests",
    "/metrics",
];

/// Every call of the admin service that changes nothing, as the contract lists them.
fn read_over_grpc() -> Vec<String> {
    let contract = FileDescriptorSet::decode(v1::DESCRIPTORS).unwrap();
    let services = contract.file.iter().flat_map(|file| &file.service);
    let admin = services.filter(|service| service.name() == "Admin").flat_map(|service| &service.method);
    let reading = admin.filter(|method| method.name() != "Command");
    reading.map(|method| format!("/rotacast.v1.Admin/{}", method.name())).collect()
}

impl Rig {
    /// Whether a listener answers a program that sends these credentials.
    async fn opens(&self, path: &str, token: Option<&str>) -> bool {
        let grpc = path.starts_with("/rotacast.v1.");
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = match grpc {
            // An empty message in its frame.
            true => {
                let request = request.method(Method::POST).header(header::CONTENT_TYPE, "application/grpc");
                self.send(request, vec![0; 5]).await
            }
            false => self.send(request, ()).await,
        };
        let status = response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
        match (response.status().as_u16(), status.as_deref()) {
            (200, None) => true,
            // Unauthenticated.
            (200, Some("16")) if grpc => false,
            (401, None) if !grpc => false,
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn every_door_of_an_address_asks_for_the_same_token() {
    let doors: Vec<String> = READ_OVER_HTTP.map(str::to_owned).into_iter().chain(read_over_grpc()).collect();
    assert_eq!(doors.len(), 13, "{doors:?}");
    // A listener beyond loopback without client certificates, one with them but with roles configured, and one that
    // is open.
    for (open, readers, protected) in [(false, true, true), (true, true, true), (true, false, false)] {
        let rig = Rig::new(open, readers);
        let wrong = Token::generate();
        for door in &doors {
            for (token, knows) in
                [(None, false), (Some(wrong.text()), false), (Some("guess"), false), (Some(rig.operator.text()), true)]
            {
                assert_eq!(rig.opens(door, token).await, knows || !protected, "{door} {open} {readers} {token:?}");
            }
            assert!(rig.opens(door, Some(rig.reader.text())).await, "{door}");
        }
    }
}

#[tokio::test]
async fn without_a_token_the_brief_status_says_only_what_an_order_needs() {
    let rig = Rig::new(false, true);
    let request = v1::StatusRequest { secret: String::new(), brief: true }.encode_to_vec();
    let frame = [&[0, 0, 0, 0, u8::try_from(request.len()).unwrap()], &*request].concat();
    for (token, store) in [(None, ""), (Some(rig.reader.text()), "etcd")] {
        let mut asked = Request::builder().method(Method::POST).uri("/rotacast.v1.Admin/Status");
        asked = asked.header(header::CONTENT_TYPE, "application/grpc");
        if let Some(token) = token {
            asked = asked.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = rig.send(asked, frame.clone()).await;
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let status = v1::StatusReply::decode(&body[5..]).unwrap();
        assert_eq!((&*status.cluster, status.epoch, status.leader, &*status.store), ("prod", 3, true, store));
    }
}
