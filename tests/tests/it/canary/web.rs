//! What the dashboard's address and the support bundle say, searched like every other place.
//!
//! A pause's reason appears where people's own texts appear. It must be found there: otherwise the search would be
//! blind.

use std::collections::BTreeSet;
use std::path::Path;

use rotacast_tests::http;
use rotacast_tests::world::{SECRET, World};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Canary, Hunt, OPAQUE, OPAQUE_VALUE};

/// The operator's reason for the pause: as hard to recognise as the value.
pub(super) const REASON: &str = "ROTACAST-mark/reason+Zq8%7\"\u{fc}&=end";

/// The routes of JSON and health that are asked once. Streams are read all the time.
const ROUTES: [&str; 10] = [
    "/api/about",
    "/api/instances?limit=500",
    "/api/instances?secret=payments/db&not_on=2&standing=live&q=ledger",
    "/api/fleet",
    "/api/fleet?secret=payments/db",
    "/api/audit?limit=500",
    "/api/audit?secret=apps/token&limit=500",
    "/healthz",
    "/readyz",
    "/metrics",
];

fn address(world: &World) -> String {
    world.broadcaster.url().trim_start_matches("http://").to_owned()
}

/// A status and a body.
type Told = std::io::Result<(u16, String)>;

/// Streams of events, kept open as a browser keeps them.
pub(super) struct Streams(Vec<(String, JoinHandle<Told>)>);

impl Streams {
    /// Reads every stream until the broadcaster ends it.
    pub(super) fn listen(world: &World) -> Self {
        let paths = [
            "/api/overview/events".to_owned(),
            format!("/api/secret/events?secret={SECRET}"),
            format!("/api/secret/events?secret={OPAQUE}"),
        ];
        Self(paths.map(|path| (path.clone(), listen(address(world), path))).into())
    }

    /// Searches what was sent, after the broadcaster has stopped.
    pub(super) async fn end(self, hunt: &mut Hunt) {
        let reason = Canary::new("the reason", REASON);
        for (path, stream) in self.0 {
            let told = stream.await.expect("listening does not panic");
            let (status, text) = told.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(status, 200, "{path}: {text:.200}");
            if !path.ends_with(OPAQUE) {
                let phases = ["verifying", "preparing", "draining", "rolled_back"];
                let missing: Vec<&str> = phases.into_iter().filter(|phase| !text.contains(phase)).collect();
                // A phase that lasts milliseconds may be over between two events.
                assert!(text.contains("draining") && missing.len() <= 2, "{path} never told of {missing:?}");
                assert!(reason.is_in(text.as_bytes()), "the pause's reason is not found in {path}");
            }
            hunt.look(format!("the events of {path}"), text.as_bytes());
        }
    }
}

fn listen(address: String, path: String) -> JoinHandle<Told> {
    tokio::spawn(async move { http::get(&address, &path).await })
}

/// The files in a folder of the repository and below it, by their paths below `folder`.
fn list(folder: &Path, prefix: &str, files: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the page's files are in the repository") {
        let entry = entry.expect("the folder can be listed");
        let name = format!("{prefix}{}", entry.file_name().to_str().expect("a name in UTF-8"));
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name);
        }
    }
}

/// Everything that is asked once: the page's files, JSON, health and metrics.
pub(super) async fn pages(world: &World, hunt: &mut Hunt, when: &str) {
    let address = address(world);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../broadcaster/src/web/assets");
    let mut files = BTreeSet::new();
    list(&folder, "", &mut files);
    assert!(files.contains("index.html"), "{files:?}");
    let assets = files.iter().map(|name| format!("/assets/{name}"));
    let all = ROUTES.map(str::to_owned).into_iter().chain(["/".to_owned()]).chain(assets);
    let mut told = String::new();
    for path in all {
        let (status, body) = http::get(&address, &path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(status == 200 && !body.is_empty(), "{path}: {status}: {body:.200}");
        if path.starts_with("/api/audit") || path.starts_with("/api/instances") {
            told.push_str(&body);
        }
        assert!(path != "/metrics" || body.contains("rotacast_rotations_started_total"), "{body}");
        hunt.look(format!("GET {path} ({when})"), body.as_bytes());
    }
    assert!(told.contains("ledger") && told.contains(OPAQUE), "neither instances nor entries: {told:.500}");
}

/// A pause and a resume on the dashboard, and orders that carry a value, which no order may.
pub(super) async fn orders(world: &World, hunt: &mut Hunt) {
    let address = address(world);
    let bearer = format!("Bearer {}", world.token());
    let headers = [("Authorization", bearer.as_str()), ("x-rotacast-action", "1")];
    let token = world.token();
    let guess = format!("rotacast-token_{OPAQUE_VALUE}");
    let sent = [
        ("/api/sign-in", 204, json!({ "token": token })),
        ("/api/sign-in", 401, json!({ "token": guess })),
        ("/api/sign-in", 401, json!({ "token": OPAQUE_VALUE })),
        ("/api/action", 200, json!({ "secret": SECRET, "action": "pause", "reason": REASON })),
        ("/api/action", 400, json!({ "secret": OPAQUE, "action": "put", "value": OPAQUE_VALUE })),
        ("/api/action", 400, json!({ "secret": OPAQUE, "action": "pause", "reason": "x", "value": OPAQUE_VALUE })),
        ("/api/sign-out", 204, json!({})),
    ];
    for (path, expected, body) in sent {
        let answer = http::post(&address, path, &headers, &body.to_string()).await.expect("the broadcaster answers");
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
        hunt.look(format!("POST {path}, answered {expected}"), format!("{}\n{}", answer.head, answer.body).as_bytes());
    }
}

/// Ends the pause of [`orders`].
pub(super) async fn resume(world: &World) {
    let bearer = format!("Bearer {}", world.token());
    let headers = [("Authorization", bearer.as_str()), ("x-rotacast-action", "1")];
    let body = json!({ "secret": SECRET, "action": "resume" }).to_string();
    let answer = http::post(&address(world), "/api/action", &headers, &body).await.expect("the broadcaster answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// `rotacast support-bundle`, with the configuration and the end of the audit log.
pub(super) async fn bundle(world: &World, hunt: &mut Hunt) {
    let file = world.folder().join("support-bundle.json");
    let (out, config) = (file.display().to_string(), world.broadcaster.config().display().to_string());
    let output = world.cli(&["support-bundle", "--out", &out, "--config", &config]).await;
    assert!(output.status.success(), "{output:?}");
    hunt.look("what support-bundle says", &[output.stdout, output.stderr].concat());
    let text = std::fs::read_to_string(&file).expect("it was just written");
    let bundle: serde_json::Value = serde_json::from_str(&text).expect("the bundle is JSON");
    for section in ["status", "instances", "doctor", "health", "metrics", "operator_key", "configuration", "audit"] {
        let found = &bundle[section];
        assert!(!found.is_null() && found.get("missing").is_none(), "the bundle lacks {section}: {found}");
    }
    assert!(Canary::new("the reason", REASON).is_in(text.as_bytes()), "the pause's reason is not in the bundle");
    hunt.look("the support bundle", text.as_bytes());
}
