//! What only the Consul store has: indexes that decrease, sessions, access control, TLS, limits, odd keys.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use rotacast_store::{
    Check, ClientTls, Commit, Committed, ConsulOptions, ConsulStore, Cursor, Finding, Key, Leadership, Level,
    LoginSecret, MAX_COMMIT_OPS, Prefix, ReadStore, SecretReader, SecretTree, Store, StoreError, StoreEvent,
    VersionEvent, Write,
};
use rotacast_test_servers::{Consul, ConsulCertificates, ConsulConfig, Proxy, Scratch, make_certificates, until};
use tokio_util::sync::CancellationToken;

/// A wait that takes longer than this hangs.
const LONG: Duration = Duration::from_secs(60);
const MANAGEMENT: &str = "6b1f0f3c-5f2b-4d4e-9a51-0c6f1d2e3a4b";

type Watch = BoxStream<'static, Result<StoreEvent, StoreError>>;

fn at(address: String) -> ConsulStore {
    ConsulStore::new(ConsulOptions { address, ..ConsulOptions::default() }).unwrap()
}

fn store(consul: &Consul) -> ConsulStore {
    at(consul.endpoint())
}

fn with_token(consul: &Consul, token: &str) -> ConsulStore {
    let token = Some(token.to_owned().into());
    ConsulStore::new(ConsulOptions { address: consul.endpoint(), token, ..ConsulOptions::default() }).unwrap()
}

fn prefix() -> Prefix {
    Prefix::new("rotacast").unwrap()
}

fn put(key: &str, bytes: &[u8]) -> Commit {
    Commit { checks: vec![], writes: vec![Write::Put(Key::new(key), SecretValue::new(bytes.to_vec()))] }
}

async fn write(store: &ConsulStore, key: &str, bytes: &[u8]) -> Cursor {
    match store.commit(put(key, bytes)).await.unwrap() {
        Committed::Done(cursor) => cursor,
        Committed::Conflict => panic!("a commit without checks met a conflict"),
    }
}

async fn campaign(store: &ConsulStore, name: &str) -> Leadership {
    store.campaign(&Key::new("rotacast/leader"), name, Duration::from_secs(1), CancellationToken::new()).await.unwrap()
}

async fn until_ready(watch: &mut Watch) {
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Ready(_)) {}
}

async fn until_put(watch: &mut Watch, key: &str) {
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Put(entry) if entry.key == Key::new(key)) {}
}

async fn until_error(watch: &mut Watch) -> StoreError {
    tokio::time::timeout(LONG, async {
        loop {
            if let Err(error) = watch.next().await.expect("a watch ends with an error") {
                return error;
            }
        }
    })
    .await
    .expect("the watch goes on as if nothing had happened")
}

fn worst(findings: &[Finding], subject: &str) -> Level {
    let about = findings.iter().filter(|finding| finding.subject.starts_with(subject));
    about.map(|finding| finding.level).max().unwrap_or_else(|| panic!("nothing about {subject}: {findings:?}"))
}

#[tokio::test]
async fn a_restored_snapshot_is_reported_and_what_has_to_be_noted_can_be() {
    let Some(consul) = Consul::start().await else { return };
    let store = store(&consul);
    for number in 0..5 {
        write(&store, &format!("rotacast/{number}"), b"before").await;
    }
    let mut watch = store.watch(&Key::new("rotacast"));
    until_ready(&mut watch).await;
    consul.ctl(&["snapshot", "save", "backup.snap"]).await;
    let leader = campaign(&store, "first").await;
    write(&store, "rotacast/0", b"after").await;
    write(&store, "rotacast/new", b"after").await;
    until_put(&mut watch, "rotacast/new").await;
    assert!(store.setback().is_none());
    consul.ctl(&["snapshot", "restore", "backup.snap"]).await;
    let told = until_error(&mut watch).await;
    assert!(matches!(told, StoreError::WentBackwards { .. }), "{told}");
    assert_eq!(store.setback().unwrap().count, 1);
    // The restored state has no leader's session.
    leader.lost.cancelled().await;
    let stale = Check::Leads(Key::new("rotacast/leader"), leader.epoch);
    let refused = store.commit(Commit { checks: vec![stale], ..put("rotacast/0", b"stale") }).await.unwrap();
    assert_eq!(refused, Committed::Conflict);
    // From here on the watch reports what is there now.
    let next = campaign(&store, "second").await;
    assert!(next.epoch > leader.epoch);
    let found = store.get(&Key::new("rotacast/0")).await.unwrap().unwrap();
    assert!(found.value == SecretValue::new(b"before".to_vec()));
    let checks = vec![
        Check::Leads(Key::new("rotacast/leader"), next.epoch),
        Check::Unchanged(found.key.clone(), found.modified),
    ];
    let noted = store.commit(Commit { checks, ..put("rotacast/0", b"noted") }).await.unwrap();
    assert!(matches!(noted, Committed::Done(_)));
    let mut watch = store.watch(&Key::new("rotacast"));
    until_ready(&mut watch).await;
    write(&store, "rotacast/later", b"x").await;
    until_put(&mut watch, "rotacast/later").await;
    assert_eq!(store.setback().unwrap().count, 1);
}

/// The index has caught up when the watch resumes. Only the stored keys show that the history is another one.
#[tokio::test]
async fn a_snapshot_restored_unseen_and_written_over_is_reported() {
    let Some(consul) = Consul::start().await else { return };
    let proxy = Proxy::start(consul.port()).await;
    let direct = store(&consul);
    let watching = at(format!("http://127.0.0.1:{}", proxy.port()));
    write(&direct, "rotacast/a", b"before").await;
    consul.ctl(&["snapshot", "save", "backup.snap"]).await;
    write(&direct, "rotacast/a", b"after").await;
    let mut watch = watching.watch(&Key::new("rotacast"));
    until_ready(&mut watch).await;
    proxy.refuse();
    consul.ctl(&["snapshot", "restore", "backup.snap"]).await;
    for number in 0..50 {
        write(&direct, &format!("rotacast/{number}"), b"x").await;
    }
    proxy.heal();
    let told = until_error(&mut watch).await;
    assert!(matches!(told, StoreError::WentBackwards { .. }), "{told}");
    assert!(watching.setback().is_some());
}

#[tokio::test]
async fn a_wiped_server_is_not_mistaken_for_the_old_one() {
    let Some(mut consul) = Consul::start().await else { return };
    let store = store(&consul);
    for number in 0..20 {
        write(&store, &format!("rotacast/{number}"), b"x").await;
    }
    let mut watch = store.watch(&Key::new("rotacast"));
    until_ready(&mut watch).await;
    consul.stop().await;
    std::fs::remove_dir_all(consul.scratch().path().join("data")).unwrap();
    consul.restart().await;
    let told = until_error(&mut watch).await;
    assert!(matches!(told, StoreError::WentBackwards { .. }), "{told}");
    assert_eq!(store.setback().unwrap().count, 1);
    assert!(store.get(&Key::new("rotacast/1")).await.unwrap().is_none());

    // A commit finds it as well if there is no watch.
    let other = self::store(&consul);
    for number in 0..20 {
        write(&other, &format!("rotacast/{number}"), b"x").await;
    }
    consul.stop().await;
    std::fs::remove_dir_all(consul.scratch().path().join("data")).unwrap();
    consul.restart().await;
    let told = other.commit(put("rotacast/x", b"x")).await.err();
    assert!(matches!(told, Some(StoreError::WentBackwards { .. })), "{told:?}");
    assert_eq!(other.setback().unwrap().count, 1);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_killed_server() {
    let Some(mut consul) = Consul::start().await else { return };
    let store = store(&consul);
    for round in 0..3 {
        let mut cursors = Vec::new();
        for number in 0..20 {
            cursors.push(write(&store, &format!("rotacast/{round}-{number}"), b"x").await);
        }
        consul.kill().await;
        consul.restart().await;
        for (number, cursor) in cursors.into_iter().enumerate() {
            let kept = store.get(&Key::new(format!("rotacast/{round}-{number}"))).await.unwrap().unwrap();
            assert_eq!((kept.created, kept.modified), (cursor, cursor));
        }
    }
    assert!(store.setback().is_none());
}

#[tokio::test]
async fn versions_written_while_no_watch_ran_are_all_seen_in_order() {
    let Some(consul) = Consul::start().await else { return };
    let proxy = Proxy::start(consul.port()).await;
    let tree = SecretTree::new(Arc::new(store(&consul)), prefix());
    let secret = SecretName::new("payments/db").unwrap();
    let put = async || tree.put_next(&secret, SecretValue::new(b"x".to_vec()), None).await.unwrap();
    let away = SecretTree::new(Arc::new(at(format!("http://127.0.0.1:{}", proxy.port()))), prefix());
    let mut written = vec![put().await];
    let mut interrupted = away.watch_versions();
    while !matches!(interrupted.next().await.unwrap().unwrap(), VersionEvent::Resynced(_)) {}
    proxy.refuse();
    for _ in 0..10 {
        written.push(put().await);
    }
    proxy.heal();
    let mut seen = vec![written[0]];
    while seen.len() < written.len() {
        match interrupted.next().await.unwrap().unwrap() {
            VersionEvent::Added { stamp, .. } => seen.push(stamp.version),
            VersionEvent::Listed { .. } | VersionEvent::Resynced(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(seen, written);
    // A handle that was not there at the time finds it too.
    let mut watch = tree.watch_versions();
    let mut seen = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            VersionEvent::Listed { stamp, .. } => seen.push(stamp.version),
            VersionEvent::Resynced(_) => break,
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(seen, written);
}

#[tokio::test]
async fn a_session_destroyed_by_hand_is_a_lost_leadership() {
    let Some(consul) = Consul::start().await else { return };
    let (store, other) = (self::store(&consul), self::store(&consul));
    let first = campaign(&store, "first").await;
    let http = request(&consul, "GET", "/v1/session/list").await;
    let sessions: serde_json::Value = serde_json::from_str(&http).unwrap();
    let [session] = sessions.as_array().unwrap().as_slice() else { panic!("{sessions}") };
    // No health checks, and no time-to-live below Consul's minimum.
    assert_eq!((&session["TTL"], &session["Behavior"]), (&"10s".into(), &"delete".into()));
    assert!(session["NodeChecks"].as_array().is_none_or(Vec::is_empty), "{session}");
    assert!(session["ServiceChecks"].as_array().is_none_or(Vec::is_empty), "{session}");
    let id = session["ID"].as_str().unwrap().to_owned();
    request(&consul, "PUT", &format!("/v1/session/destroy/{id}")).await;
    // The former leader changes nothing from that moment on, even if it takes itself to lead.
    let stale = Check::Leads(Key::new("rotacast/leader"), first.epoch);
    let refused = store.commit(Commit { checks: vec![stale], ..put("rotacast/x", b"stale") }).await.unwrap();
    assert_eq!(refused, Committed::Conflict);
    let valid_until = *first.valid_until.borrow();
    let second = campaign(&other, "second").await;
    assert!(rotacast_clock::instant() >= valid_until, "two leaders at once, by the first one's clock");
    assert!(second.epoch > first.epoch);
    first.lost.cancelled().await;
}

#[tokio::test]
async fn rights_are_kept_to_and_their_lack_is_named() {
    let config = ConsulConfig { management_token: Some(MANAGEMENT), ..ConsulConfig::default() };
    let Some(consul) = Consul::start_with(config).await else { return };
    let rules = include_str!("../../../../docs/operate/stores/consul-policy.hcl");
    let make = async |name: &str, rules: &str| {
        consul.ctl(&["acl", "policy", "create", "-name", name, "-rules", rules]).await;
        let made = consul.ctl(&["acl", "token", "create", "-policy-name", name, "-format=json"]).await;
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        made["SecretID"].as_str().unwrap().to_owned()
    };
    let token = make("rotacast", rules).await;
    let service_rules = include_str!("../../../../docs/operate/stores/consul-service-policy.hcl");
    let service = make("payments-api", service_rules).await;
    let narrow = make("narrow", "key_prefix \"rotacast/\" { policy = \"read\" }").await;
    let blind = make("blind", "key_prefix \"elsewhere/\" { policy = \"write\" }").await;

    let granted = with_token(&consul, &token);
    let tree = SecretTree::new(Arc::new(granted.clone()), prefix());
    let secret = SecretName::new("payments/db").unwrap();
    tree.put_next(&secret, SecretValue::new(b"x".to_vec()), None).await.unwrap();
    assert!(campaign(&granted, "granted").await.epoch.0 > 0);
    let elsewhere = granted.commit(put("elsewhere/x", b"x")).await.err().unwrap();
    assert!(matches!(elsewhere, StoreError::Denied { .. }), "{elsewhere}");
    let findings = tree.examine().await;
    for subject in ["consul access", "consul leader", "consul sessions", "store prefix"] {
        assert_eq!(worst(&findings, subject), Level::Ok, "{findings:?}");
    }
    assert!(findings.iter().any(|finding| finding.subject == "consul version" && finding.text.contains("1.")));

    // A service reads what belongs to its own secrets, and nothing else.
    let service = with_token(&consul, &service);
    let reader = SecretReader::new(Arc::new(service.clone()), prefix());
    assert!(reader.read_version(&secret, Version::FIRST).await.unwrap().is_some());
    assert!(reader.read_record(&secret).await.unwrap().is_none());
    for key in
        ["roster/payments-api/pod-1/0", "versions/mail/smtp/1", "readers/mail/smtp/1", "records/mail/smtp", "leader"]
    {
        let refused = service.get(&Key::new(format!("rotacast/{key}"))).await.err();
        assert!(matches!(refused, Some(StoreError::Denied { .. })), "{key}: {refused:?}");
    }
    let refused = service.commit(put("rotacast/records/payments/db", b"x")).await.err().unwrap();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");

    // A token that may read may not write.
    let narrow = with_token(&consul, &narrow);
    assert!(narrow.list(&Key::new("rotacast")).await.unwrap().entries.len() > 1);
    let refused = narrow.commit(put("rotacast/x", b"x")).await.err().unwrap();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");
    let refused = narrow
        .campaign(&Key::new("rotacast/leader"), "narrow", Duration::from_secs(1), CancellationToken::new())
        .await
        .err();
    // If another leader has the lock already, the campaign waits and is refused then.
    assert!(matches!(refused, Some(StoreError::Denied { .. })), "{refused:?}");
    let findings = SecretTree::new(Arc::new(narrow), prefix()).examine().await;
    assert_eq!(worst(&findings, "store prefix"), Level::Error, "{findings:?}");
    assert_eq!(worst(&findings, "consul sessions"), Level::Error, "{findings:?}");

    // Consul answers a listing without permission with an empty one.
    for store in [with_token(&consul, &blind), store(&consul)] {
        let refused = store.list(&Key::new("rotacast")).await.err();
        assert!(matches!(refused, Some(StoreError::Denied { .. })), "{refused:?}");
        let told = until_error(&mut store.watch(&Key::new("rotacast"))).await;
        assert!(matches!(told, StoreError::Denied { .. }), "{told}");
        let refused = store.get(&Key::new("rotacast/x")).await.err();
        assert!(matches!(refused, Some(StoreError::Denied { .. })), "{refused:?}");
    }
    let wrong = with_token(&consul, "0000canary-0000");
    let refused = wrong.get(&Key::new("rotacast/x")).await.err().unwrap();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");
    assert!(refused.to_string().contains("store.token_file"), "{refused}");
    let findings = wrong.examine().await;
    assert!(findings.iter().any(|finding| finding.level == Level::Error && finding.fix.contains("store.token_file")));
    assert!(!format!("{refused}{findings:?}").contains("canary"));
}

#[tokio::test]
async fn both_sides_show_certificates() {
    let scratch = Scratch::new("consul-tls");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "client"]).await {
        return;
    }
    let certificates = ConsulCertificates {
        authority: folder.join("ca.pem"),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        ask_clients: true,
    };
    let Some(consul) = Consul::start_with(ConsulConfig { tls: Some(certificates), ..ConsulConfig::default() }).await
    else {
        return;
    };
    let file = |name: &str| LoginSecret::File(folder.join(name));
    let tls = ClientTls {
        authority: file("ca.pem"),
        identity: Some((file("client.pem"), file("client.key"))),
        server_name: None,
    };
    let with = |tls: ClientTls| {
        let address = consul.https_endpoint().unwrap();
        ConsulStore::new(ConsulOptions { address, tls: Some(tls), ..ConsulOptions::default() }).unwrap()
    };
    write(&with(tls.clone()), "rotacast/x", b"x").await;
    let named = with(ClientTls { server_name: Some("localhost".into()), ..tls.clone() });
    assert!(named.get(&Key::new("rotacast/x")).await.unwrap().is_some());
    for (what, broken) in [
        ("no certificate of our own", ClientTls { identity: None, ..tls.clone() }),
        ("another authority", ClientTls { authority: file("client.pem"), ..tls.clone() }),
        ("another server's name", ClientTls { server_name: Some("elsewhere.example".into()), ..tls.clone() }),
    ] {
        let store = with(broken);
        let refused = store.get(&Key::new("rotacast/x")).await.err();
        assert!(matches!(refused, Some(StoreError::Unreachable { .. })), "{what}: {refused:?}");
        let findings = store.examine().await;
        assert!(findings.iter().any(|finding| finding.fix.contains("store.tls")), "{what}: {findings:?}");
    }
}

#[tokio::test]
async fn values_are_any_bytes_and_keys_any_text() {
    let Some(consul) = Consul::start().await else { return };
    let store = store(&consul);
    let bytes: Vec<u8> = (0..=255).chain([0, 0xff, 0xfe, 0xc3, 0x28]).collect();
    let odd = ["rotacast/a b", "rotacast/a%2Fb", "rotacast/ü?x=1&y#z", "rotacast/+;:@=$,", "rotacast/\"quoted\\"];
    let mut watch = store.watch(&Key::new("rotacast"));
    until_ready(&mut watch).await;
    for key in odd {
        write(&store, key, &bytes).await;
        let entry = store.get(&Key::new(key)).await.unwrap().unwrap();
        assert!(entry.key == Key::new(key) && entry.value == SecretValue::new(bytes.clone()), "{key}");
        until_put(&mut watch, key).await;
    }
    // A folder whose name needs encoding is listed, too.
    write(&store, "rotacast/a b/c", b"").await;
    let below = store.list(&Key::new("rotacast/a b")).await.unwrap();
    assert_eq!(below.entries.len(), 1);
    assert!(below.entries[0].value.is_empty());
    assert_eq!(store.list(&Key::new("rotacast")).await.unwrap().entries.len(), odd.len() + 1);
    // The key that Consul's web interface makes for an empty folder is no key of a secret.
    request(&consul, "PUT", "/v1/kv/rotacast/folder/").await;
    assert_eq!(store.list(&Key::new("rotacast")).await.unwrap().entries.len(), odd.len() + 1);
    for bad in ["/rotacast/x", "rotacast//x", "rotacast/../x"] {
        let refused = store.commit(put(bad, b"x")).await.err();
        assert!(matches!(refused, Some(StoreError::Invalid { .. })), "{bad}: {refused:?}");
        let refused = store.get(&Key::new(bad)).await.err();
        assert!(matches!(refused, Some(StoreError::Invalid { .. })), "{bad}: {refused:?}");
    }
}

#[tokio::test]
async fn a_commit_beyond_what_consul_takes_is_refused_by_name() {
    let Some(consul) =
        Consul::start_with(ConsulConfig { hcl: "limits { txn_max_req_len = 524288 }", ..ConsulConfig::default() })
            .await
    else {
        return;
    };
    let store = store(&consul);
    let leader = campaign(&store, "first").await;
    // The largest commit: each check of the term takes two operations.
    let leads = Check::Leads(Key::new("rotacast/leader"), leader.epoch);
    let writes = |count: usize| {
        (0..count)
            .map(|at| Write::Put(Key::new(format!("rotacast/{at}")), SecretValue::new(vec![7])))
            .collect::<Vec<_>>()
    };
    let mut checks = vec![leads.clone()];
    checks.extend((0..MAX_COMMIT_OPS - 1).map(|at| Check::Absent(Key::new(format!("rotacast/{at}")))));
    let most = Commit { checks, writes: writes(MAX_COMMIT_OPS) };
    assert!(matches!(store.commit(most).await.unwrap(), Committed::Done(_)));
    let too_many = Commit { checks: vec![leads; MAX_COMMIT_OPS], writes: writes(MAX_COMMIT_OPS) };
    let refused = store.commit(too_many).await.err().unwrap();
    assert!(matches!(refused, StoreError::Invalid { .. }) && refused.to_string().contains("64"), "{refused}");

    let Some(small) = Consul::start_with(ConsulConfig {
        hcl: "limits { txn_max_req_len = 65536 kv_max_value_size = 65536 }",
        ..ConsulConfig::default()
    })
    .await
    else {
        return;
    };
    let refused = self::store(&small).commit(put("rotacast/x", &vec![7; 100_000])).await.err().unwrap();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    assert!(refused.to_string().contains("txn_max_req_len"), "{refused}");
}

#[tokio::test]
async fn a_deletion_is_no_setback() {
    let Some(consul) = Consul::start().await else { return };
    let store = store(&consul);
    write(&store, "rotacast/stays", b"x").await;
    write(&store, "rotacast/goes", b"x").await;
    let mut watch = store.watch(&Key::new("rotacast"));
    until_ready(&mut watch).await;
    let delete = Commit { checks: vec![], writes: vec![Write::Delete(Key::new("rotacast/goes"))] };
    let Committed::Done(deleted) = store.commit(delete).await.unwrap() else { panic!("nothing was checked") };
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Deleted { .. }) {}
    let listed = store.list(&Key::new("rotacast")).await.unwrap().cursor;
    assert!(listed <= deleted);
    let changed = write(&store, "rotacast/stays", b"y").await;
    assert!(changed > deleted);
    until_put(&mut watch, "rotacast/stays").await;
    assert!(store.setback().is_none());
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong() {
    let Some(consul) = Consul::start().await else { return };
    let findings = store(&consul).examine().await;
    let version = findings.iter().find(|finding| finding.subject == "consul version").unwrap();
    assert!(version.text.starts_with("1."), "{version:?}");
    assert_eq!(worst(&findings, "consul servers"), Level::Warning);
    assert_eq!(worst(&findings, "consul access"), Level::Warning);
    let findings = at("http://127.0.0.1:1".into()).examine().await;
    assert!(findings.iter().any(|finding| finding.level == Level::Error && finding.fix.contains("store.address")));

    // A server that grants no leadership as short as the one that is asked for.
    let strict = ConsulConfig { hcl: "session_ttl_min = \"60s\"", ..ConsulConfig::default() };
    let Some(strict) = Consul::start_with(strict).await else { return };
    let findings = store(&strict).examine().await;
    let sessions = findings.iter().find(|finding| finding.subject == "consul sessions").unwrap();
    assert!(sessions.level == Level::Error && sessions.text.contains("session_ttl_min"), "{sessions:?}");
}

#[tokio::test]
async fn a_key_of_another_client_that_is_named_like_our_probe_ends_no_watch() {
    let Some(consul) = Consul::start().await else { return };
    let store = store(&consul);
    let folder = Key::new("rotacast/versions");
    write(&store, "rotacast/versions/~", b"x").await;
    let mut watch = store.watch(&folder);
    until_ready(&mut watch).await;
    write(&store, "rotacast/versions/payments/db/1", b"one").await;
    until_put(&mut watch, "rotacast/versions/payments/db/1").await;
    // A deletion has the watch ask whether it still may read there.
    consul.ctl(&["kv", "delete", "rotacast/versions/payments/db/1"]).await;
    loop {
        let event = watch.next().await.unwrap().unwrap();
        if matches!(&event, StoreEvent::Deleted { key, .. } if key.as_str().ends_with("db/1")) {
            break;
        }
    }
    // Below it, where nothing else is.
    assert!(store.list(&Key::new("rotacast/empty")).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn keys_that_may_not_be_read_any_more_are_not_taken_for_deleted() {
    let config = ConsulConfig { management_token: Some(MANAGEMENT), ..ConsulConfig::default() };
    let Some(consul) = Consul::start_with(config).await else { return };
    let whole = "key_prefix \"rotacast/\" { policy = \"write\" }";
    let part = format!("{whole} key_prefix \"rotacast/versions/payments/\" {{ policy = \"deny\" }}");
    consul.ctl(&["acl", "policy", "create", "-name", "it", "-rules", whole]).await;
    let made = consul.ctl(&["acl", "token", "create", "-policy-name", "it", "-format=json"]).await;
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let store = with_token(&consul, made["SecretID"].as_str().unwrap());
    write(&store, "rotacast/versions/payments/db/1", b"one").await;
    write(&store, "rotacast/versions/web/api/1", b"one").await;
    let mut watch = store.watch(&Key::new("rotacast/versions"));
    until_ready(&mut watch).await;

    consul.ctl(&["acl", "policy", "update", "-name", "it", "-rules", &part]).await;
    until("the right to be gone", LONG, async || {
        let read = store.get(&Key::new("rotacast/versions/payments/db/1")).await;
        matches!(read, Err(StoreError::Denied { .. })).then_some(())
    })
    .await;
    // It wakes the watch, which sees a part of the tree.
    write(&store, "rotacast/versions/web/api/2", b"two").await;
    consul.ctl(&["acl", "policy", "update", "-name", "it", "-rules", whole]).await;
    write(&store, "rotacast/versions/web/api/3", b"three").await;
    let told = tokio::time::timeout(LONG, async {
        let mut told = Vec::new();
        loop {
            let event = watch.next().await.unwrap();
            match event.unwrap_or_else(|error| panic!("{error}; told so far: {told:?}")) {
                StoreEvent::Deleted { key, .. } => panic!("{key} was not deleted; told so far: {told:?}"),
                StoreEvent::Put(entry) | StoreEvent::Listed(entry) => told.push(entry.key.as_str().to_owned()),
                StoreEvent::Init | StoreEvent::Ready(_) => {}
            }
            if told.last().is_some_and(|key| key.ends_with("web/api/3")) {
                return told;
            }
        }
    });
    assert!(told.await.unwrap().iter().any(|key| key.ends_with("web/api/2")));
    assert!(store.setback().is_none(), "{:?}", store.setback());
}

#[tokio::test]
async fn a_leaders_key_that_another_clients_session_holds_is_named() {
    let Some(consul) = Consul::start().await else { return };
    let other = request_with(&consul, "PUT", "/v1/session/create", "{\"Name\":\"nightly job\"}").await;
    let other: serde_json::Value = serde_json::from_str(&other).unwrap();
    let id = other["ID"].as_str().unwrap().to_owned();
    request_with(&consul, "PUT", &format!("/v1/kv/rotacast/leader?acquire={id}"), "me").await;
    let election = Key::new("rotacast/leader");
    let refused = store(&consul)
        .campaign(&election, "one", Duration::from_secs(1), CancellationToken::new())
        .await
        .err()
        .unwrap();
    let text = refused.to_string();
    assert!(text.contains("nightly job") && text.contains(&format!("session/destroy/{id}")), "{text}");
    // One of ours is waited for.
    request(&consul, "PUT", &format!("/v1/session/destroy/{id}")).await;
    let first = campaign(&store(&consul), "first").await;
    let epoch = first.epoch;
    let second = store(&consul);
    let waits = tokio::spawn(async move { campaign(&second, "second").await });
    drop(first);
    assert!(waits.await.unwrap().epoch > epoch);
}

/// Requests as an operator makes them with curl.
async fn request(consul: &Consul, method: &str, path: &str) -> String {
    request_with(consul, method, path, "").await
}

async fn request_with(consul: &Consul, method: &str, path: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let text = until("an answer", LONG, async || {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", consul.port())).await.ok()?;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.contains(" 200 OK").then_some(answer)
    })
    .await;
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_token_that_is_renewed_in_its_file_is_used() {
    let config = ConsulConfig { management_token: Some(MANAGEMENT), ..ConsulConfig::default() };
    let Some(consul) = Consul::start_with(config).await else { return };
    let rules = include_str!("../../../../docs/operate/stores/consul-policy.hcl");
    consul.ctl(&["acl", "policy", "create", "-name", "rotacast", "-rules", rules]).await;
    let make = async || {
        let made = consul.ctl(&["acl", "token", "create", "-policy-name", "rotacast", "-format=json"]).await;
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("AccessorID"), text("SecretID"))
    };
    let ((first, token), (_, second)) = (make().await, make().await);
    let scratch = Scratch::new("consul-token");
    let file = scratch.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let token = Some(LoginSecret::File(file.clone()));
    let options = ConsulOptions { address: consul.endpoint(), token, ..ConsulOptions::default() };
    let store = ConsulStore::new(options).unwrap();
    store.commit(put("rotacast/x", b"first")).await.unwrap();
    consul.ctl(&["acl", "token", "delete", "-id", &first]).await;
    let refused = store.get(&Key::new("rotacast/x")).await.err().unwrap();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");
    std::fs::write(&file, format!("{second}\n")).unwrap();
    assert!(store.get(&Key::new("rotacast/x")).await.unwrap().is_some());
    store.commit(put("rotacast/x", b"second")).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(
        store.get(&Key::new("rotacast/x")).await.unwrap().is_some(),
        "the one in use is not read again without need"
    );
}

/// The authority, the agent's certificate and the client's are all replaced: the store uses the new files without being
/// opened again.
#[tokio::test]
async fn renewed_certificates_count_for_the_next_connection() {
    let scratch = Scratch::new("consul-renewed");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "client"]).await {
        return;
    }
    let certificates = ConsulCertificates {
        authority: folder.join("ca.pem"),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        ask_clients: true,
    };
    let config = ConsulConfig { tls: Some(certificates), ..ConsulConfig::default() };
    let Some(mut consul) = Consul::start_with(config).await else { return };
    let file = |name: &str| LoginSecret::File(folder.join(name));
    let tls = ClientTls {
        authority: file("ca.pem"),
        identity: Some((file("client.pem"), file("client.key"))),
        server_name: None,
    };
    let address = consul.https_endpoint().unwrap();
    let store = ConsulStore::new(ConsulOptions { address, tls: Some(tls), ..ConsulOptions::default() }).unwrap();
    write(&store, "rotacast/x", b"x").await;
    consul.stop().await;
    assert!(make_certificates(folder, &["server", "client"]).await);
    consul.restart().await;
    let read = async || store.get(&Key::new("rotacast/x")).await.ok().flatten();
    until("Consul by its new certificates", Duration::from_secs(60), read).await;
}
