//! What only the etcd store has: a full database, authentication, a restored backup, old servers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rotacast_proto::{SecretValue, ServerFault};
use rotacast_protocol::{SecretName, Version};
use rotacast_store::{
    Check, Commit, Committed, EtcdOptions, EtcdStore, EtcdUser, Finding, Key, Level, LoginSecret, Prefix, ReadStore,
    SecretReader, SecretTree, Store, StoreError, StoreEvent, VersionEvent, Write,
};
use rotacast_test_servers::{Etcd, Proxy, Scratch, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

fn options(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions { endpoints: vec![etcd.endpoint()], ..EtcdOptions::default() }
}

fn store(etcd: &Etcd) -> EtcdStore {
    EtcdStore::new(options(etcd)).unwrap()
}

fn with_user(etcd: &Etcd, name: &str, password: &str) -> EtcdStore {
    let user = EtcdUser { name: name.into(), password: password.to_owned().into() };
    EtcdStore::new(EtcdOptions { user: Some(user), ..options(etcd) }).unwrap()
}

fn put(key: &str, bytes: Vec<u8>) -> Commit {
    Commit { checks: vec![], writes: vec![Write::Put(Key::new(key), SecretValue::new(bytes))] }
}

fn worst(findings: &[Finding], subject: &str) -> Level {
    let about = findings.iter().filter(|finding| finding.subject.starts_with(subject));
    about.map(|finding| finding.level).max().unwrap_or_else(|| panic!("nothing about {subject}: {findings:?}"))
}

#[tokio::test]
async fn a_full_database_takes_no_writes_and_says_so() {
    let Some(etcd) = Etcd::start_with(&["--quota-backend-bytes=4194304"]).await else { return };
    let store = store(&etcd);
    assert_eq!(worst(&store.examine().await, "etcd alarms"), Level::Ok);
    let mut refused = None;
    for at in 0..100 {
        if let Err(error) = store.commit(put(&format!("fill/{at}"), vec![7; 200 * 1024])).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("the quota is 4 MiB");
    assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
    assert!(refused.is_transient() && refused.to_string().contains("NOSPACE"), "{refused}");
    let findings = until("the alarm", std::time::Duration::from_secs(60), async || {
        let findings = store.examine().await;
        (worst(&findings, "etcd alarms") == Level::Error).then_some(findings)
    })
    .await;
    assert!(findings.iter().any(|finding| finding.text.contains("NOSPACE") && !finding.fix.is_empty()));
    assert_eq!(refused.server_fault(), Some(ServerFault::Full));
    // Reads still work.
    assert!(store.get(&Key::new("fill/0")).await.unwrap().is_some());
    // What the finding says to do.
    etcd.ctl(&["del", "--prefix", "fill/"]).await;
    etcd.compact().await;
    etcd.ctl(&["defrag"]).await;
    etcd.ctl(&["alarm", "disarm"]).await;
    store.commit(put("after", b"x".to_vec())).await.unwrap();
    assert_eq!(worst(&store.examine().await, "etcd alarms"), Level::Ok);
}

#[tokio::test]
async fn users_and_their_rights_are_kept_to() {
    let Some(etcd) = Etcd::start().await else { return };
    for command in [
        &["user", "add", "root:root-pw"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "rotacast"],
        &["role", "grant-permission", "rotacast", "--prefix=true", "readwrite", "rotacast/"],
        &["user", "add", "rotacast:canary-pw"],
        &["user", "grant-role", "rotacast", "rotacast"],
        &["role", "add", "payments-api"],
        &["role", "grant-permission", "payments-api", "--prefix=true", "read", "rotacast/versions/payments/db/"],
        &["role", "grant-permission", "payments-api", "--prefix=true", "read", "rotacast/readers/payments/db/"],
        &["role", "grant-permission", "payments-api", "read", "rotacast/records/payments/db"],
        &["user", "add", "payments-api:service-pw"],
        &["user", "grant-role", "payments-api", "payments-api"],
        &["auth", "enable"],
    ] {
        etcd.ctl(command).await;
    }
    let anonymous = store(&etcd).get(&Key::new("rotacast/x")).await.err().unwrap();
    assert!(matches!(anonymous, StoreError::Denied { .. }), "{anonymous}");
    let wrong = with_user(&etcd, "rotacast", "canary-wrong").get(&Key::new("rotacast/x")).await.err().unwrap();
    assert!(matches!(wrong, StoreError::Denied { .. }), "{wrong}");
    assert!(!wrong.to_string().contains("canary"), "{wrong}");

    let store = with_user(&etcd, "rotacast", "canary-pw");
    let tree = SecretTree::new(Arc::new(store.clone()), Prefix::new("rotacast").unwrap());
    let secret = SecretName::new("payments/db").unwrap();
    tree.put_next(&secret, SecretValue::new(b"x".to_vec()), None).await.unwrap();
    let leadership = tree
        .campaign("test", std::time::Duration::from_secs(5), tokio_util::sync::CancellationToken::new())
        .await
        .unwrap();
    assert!(leadership.epoch.0 > 0);
    let elsewhere = store.commit(put("elsewhere/x", vec![1])).await.err().unwrap();
    assert!(matches!(elsewhere, StoreError::Denied { .. }), "{elsewhere}");
    // A watch without the right to it ends instead of retrying for ever.
    let told = store.watch(&Key::new("elsewhere")).next().await.unwrap().err().unwrap();
    assert!(matches!(told, StoreError::Denied { .. }), "{told}");
    let findings = tree.examine().await;
    assert_eq!(worst(&findings, "etcd access"), Level::Ok, "{findings:?}");
    assert_eq!(worst(&findings, "store prefix"), Level::Ok, "{findings:?}");
    let elsewhere = SecretTree::new(Arc::new(store.clone()), Prefix::new("elsewhere").unwrap());
    assert_eq!(worst(&elsewhere.examine().await, "store prefix"), Level::Error);
    // A service reads what belongs to its own secrets, and nothing else.
    let service = with_user(&etcd, "payments-api", "service-pw");
    let reader = SecretReader::new(Arc::new(service.clone()), Prefix::new("rotacast").unwrap());
    assert!(reader.read_version(&secret, Version::FIRST).await.unwrap().is_some());
    assert!(reader.read_record(&secret).await.unwrap().is_none());
    for key in
        ["roster/payments-api/pod-1/0", "versions/mail/smtp/1", "readers/mail/smtp/1", "records/mail/smtp", "leader"]
    {
        let refused = service.get(&Key::new(format!("rotacast/{key}"))).await.err();
        assert!(matches!(refused, Some(StoreError::Denied { .. })), "{key}: {refused:?}");
    }
    let refused = service.commit(put("rotacast/records/payments/db", vec![1])).await.err().unwrap();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");
    let denied = with_user(&etcd, "rotacast", "canary-wrong").examine().await;
    assert!(denied.iter().any(|finding| finding.level == Level::Error && finding.fix.contains("password")));
    assert!(denied.iter().all(|finding| !finding.text.contains("canary")));
}

#[tokio::test]
async fn a_wiped_server_is_not_mistaken_for_the_old_one() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let store = store(&etcd);
    let root = Key::new("rotacast");
    for at in 0..20 {
        store.commit(put(&format!("rotacast/{at}"), vec![1])).await.unwrap();
    }
    let mut watch = store.watch(&root);
    while !matches!(watch.next().await.unwrap().unwrap(), rotacast_store::StoreEvent::Ready(_)) {}
    etcd.stop().await;
    std::fs::remove_dir_all(etcd.scratch().path().join("data")).unwrap();
    etcd.restart().await;
    let read = until("an answer", std::time::Duration::from_secs(60), async || match store.get(&root).await {
        Err(error) if error.is_transient() => None,
        answer => Some(answer),
    })
    .await;
    // If the watch was first, this call began after the setback was known.
    let told = matches!(read, Err(StoreError::WentBackwards { .. })) || read.is_ok() && store.setback().is_some();
    assert!(told, "the wiped server was believed: {:?}", read.map(|entry| entry.is_some()));
    let told = watch.next().await.unwrap().err().unwrap();
    assert!(matches!(told, StoreError::WentBackwards { .. }), "{told}");
    // Later callers find it, too, and it counts once, although two have found it.
    assert_eq!(store.setback().unwrap().count, 1);
    // The note about it can be written over what is there now.
    let noted = store
        .commit(Commit { checks: vec![Check::Absent(Key::new("rotacast/note"))], ..put("rotacast/note", vec![1]) })
        .await
        .unwrap();
    let Committed::Done(cursor) = noted else { panic!("nothing is there") };
    assert_eq!(store.get(&Key::new("rotacast/note")).await.unwrap().unwrap().modified, cursor);
    let mut watch = store.watch(&root);
    assert!(matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Init));
    // The second time is reported too. No client writes meanwhile: revisions that caught up would hide it.
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Ready(_)) {}
    etcd.stop().await;
    std::fs::remove_dir_all(etcd.scratch().path().join("data")).unwrap();
    etcd.restart().await;
    let told = async {
        loop {
            if let Err(error) = watch.next().await.unwrap() {
                break error;
            }
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(60), told).await.expect("the watch tells");
    assert!(matches!(told, StoreError::WentBackwards { .. }), "{told}");
    assert_eq!(store.setback().unwrap().count, 2);
}

/// Ten versions are written while there is no watch, and their history is compacted.
#[tokio::test]
async fn versions_written_while_no_watch_ran_are_all_seen_in_order() {
    let Some(etcd) = Etcd::start().await else { return };
    let tree = SecretTree::new(Arc::new(store(&etcd)), Prefix::new("rotacast").unwrap());
    let secret = SecretName::new("payments/db").unwrap();
    let put = async || tree.put_next(&secret, SecretValue::new(b"x".to_vec()), None).await.unwrap();
    let first = put().await;
    let mut watch = tree.watch_versions();
    assert!(
        matches!(watch.next().await.unwrap().unwrap(), VersionEvent::Listed { stamp, .. } if stamp.version == first)
    );
    drop(watch);
    let mut written = vec![first];
    for _ in 0..10 {
        written.push(put().await);
    }
    etcd.compact().await;
    let later = SecretTree::new(Arc::new(store(&etcd)), Prefix::new("rotacast").unwrap());
    let mut watch = later.watch_versions();
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
async fn the_doctor_names_the_version() {
    let Some(etcd) = Etcd::start().await else { return };
    let findings = store(&etcd).examine().await;
    let version = findings.iter().find(|finding| finding.subject.starts_with("etcd version")).unwrap();
    assert!(version.text.starts_with("3."), "{version:?}");
    assert_eq!(worst(&findings, "etcd members"), Level::Warning);
    let absent = EtcdOptions { endpoints: vec!["http://127.0.0.1:1".into()], ..EtcdOptions::default() };
    let findings = EtcdStore::new(absent).unwrap().examine().await;
    assert!(findings.iter().any(|finding| finding.level == Level::Error && finding.fix.contains("address")));
}

/// Passes so many bytes of answers on each connection and then closes it, with the next limit for each further
/// connection: a network that fails in the middle of a message.
async fn cut_after(target: u16, limits: &'static [usize]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut limits = limits.iter().copied().cycle();
        while let Ok((client, _)) = listener.accept().await {
            let mut left = limits.next().unwrap_or(usize::MAX);
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", target)).await.ok()?;
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let up = async move { drop(tokio::io::copy(&mut from_client, &mut to_server).await) };
                let down = async move {
                    let mut chunk = [0; 4096];
                    while left > 0
                        && let Ok(length @ 1..) = from_server.read(&mut chunk).await
                        && to_client.write_all(&chunk[..length.min(left)]).await.is_ok()
                    {
                        left = left.saturating_sub(length);
                    }
                };
                tokio::select! {
                    () = up => {}
                    () = down => {}
                }
                Some(())
            });
        }
    });
    port
}

/// A watch has to catch up with more than etcd sends in one piece where fragments are allowed, and every connection
/// ends within it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_an_answer_cut_in_the_middle_of_a_revision_loses_no_half_of_it() {
    const REVISIONS: usize = 100;
    const KEYS: usize = 4;
    const HALF: usize = 4 * 1024;
    // A fragment is this size and at most 512 KiB.
    let Some(etcd) = Etcd::start_with(&["--max-request-bytes=65536"]).await else { return };
    let writer = store(&etcd);
    writer.commit(put("watched/begin", vec![0])).await.unwrap();
    let line = Proxy::start(etcd.port()).await;
    let proxy = cut_after(line.port(), &[256 << 10, 600 << 10, 700 << 10, 900 << 10, 1200 << 10, usize::MAX]).await;
    let reader = EtcdStore::new(EtcdOptions { endpoints: vec![format!("http://127.0.0.1:{proxy}")], ..options(&etcd) });
    let mut watch = reader.unwrap().watch(&Key::new("watched"));
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Ready(_)) {}
    line.refuse();
    for at in 0..REVISIONS {
        let writes = (0..KEYS)
            .map(|half| Write::Put(Key::new(format!("watched/{at:03}/{half}")), SecretValue::new(vec![7; HALF])));
        writer.commit(Commit { checks: vec![], writes: writes.collect() }).await.unwrap();
    }
    line.heal();
    let mut seen = std::collections::BTreeSet::new();
    let all = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while seen.len() < REVISIONS * KEYS {
            if let StoreEvent::Put(entry) | StoreEvent::Listed(entry) = watch.next().await.unwrap().unwrap()
                && !entry.key.as_str().ends_with("begin")
            {
                seen.insert(entry.key);
            }
        }
    });
    assert!(all.await.is_ok(), "{} of {} changes arrived", seen.len(), REVISIONS * KEYS);
}

/// A member that is cut off keeps its connections open and sends nothing. Another member has the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_watch_on_a_member_that_fell_silent_goes_on_at_another() {
    let Some(etcd) = Etcd::start().await else { return };
    let (silent, other) = (Proxy::start(etcd.port()).await, Proxy::start(etcd.port()).await);
    // At first only this member can be reached, so the watch is there.
    other.refuse();
    let endpoints = [&silent, &other].map(|member| format!("http://127.0.0.1:{}", member.port()));
    let reader = EtcdStore::new(EtcdOptions { endpoints: endpoints.into(), ..options(&etcd) }).unwrap();
    let mut watch = reader.watch(&Key::new("watched"));
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Ready(_)) {}
    // Once a change has arrived, the stream is open.
    store(&etcd).commit(put("watched/first", vec![1])).await.unwrap();
    while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Put(_)) {}
    other.heal();
    silent.stall();
    store(&etcd).commit(put("watched/news", vec![1])).await.unwrap();
    let news = async {
        while !matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Put(entry) if entry.key.as_str().ends_with("news"))
        {
        }
    };
    // The partition does not heal: the change arrives all the same.
    assert!(tokio::time::timeout(std::time::Duration::from_secs(100), news).await.is_ok(), "the watch is stuck");
}

#[tokio::test]
async fn a_key_that_is_no_text_hides_no_other() {
    let Some(etcd) = Etcd::start().await else { return };
    let store = store(&etcd);
    // One page of a listing holds 128 keys: the first page ends with the first of the two keys, and the next page
    // begins after it.
    for number in 0..127 {
        store.commit(put(&format!("rotacast/versions/a/{number:03}"), b"x".to_vec())).await.unwrap();
    }
    let put_raw = async |key: &[u8]| {
        etcd.ctl(&[OsStr::new("put"), OsStr::from_bytes(key), OsStr::new("x")]).await;
    };
    put_raw(b"rotacast/versions/z\xfe/1").await;
    put_raw(b"rotacast/versions/z\xff/1").await;
    let listing = store.list(&Key::new("rotacast/versions")).await.unwrap();
    assert_eq!(listing.entries.len(), 129);
    let last: Vec<&str> = listing.entries[127..].iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(last, [r"rotacast/versions/z\xfe/1", r"rotacast/versions/z\xff/1"]);

    let tree = SecretTree::new(Arc::new(store.clone()), Prefix::new("rotacast").unwrap());
    let mut events = tree.watch_versions();
    let mut ignored = Vec::new();
    let resynced = async |events: &mut futures::stream::BoxStream<'static, _>, ignored: &mut Vec<String>| {
        while let Some(event) = events.next().await {
            match event {
                Ok(VersionEvent::Resynced(_)) => return,
                Ok(VersionEvent::Ignored { key, .. }) => ignored.push(key.to_string()),
                Ok(_) => {}
                Err(problem) => panic!("{problem}"),
            }
        }
    };
    resynced(&mut events, &mut ignored).await;
    assert!(ignored.iter().any(|key| key == r"rotacast/versions/z\xff/1"), "{ignored:?}");
    // An open watch does not end either.
    put_raw(b"rotacast/versions/y\xff/1").await;
    let secret = SecretName::new("payments/db").unwrap();
    tree.put_next(&secret, SecretValue::new(b"x".to_vec()), None).await.unwrap();
    loop {
        match events.next().await.unwrap().unwrap() {
            VersionEvent::Added { secret: found, .. } if found == secret => break,
            VersionEvent::Ignored { .. } => {}
            other => panic!("expected version 1 of {secret}, found {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_leaders_key_that_another_client_writes_is_named_and_keeps_nobody_in_office() {
    let Some(etcd) = Etcd::start().await else { return };
    let store: Arc<dyn Store> = Arc::new(EtcdStore::new(options(&etcd)).unwrap());
    let election = Key::new("rotacast/leader");
    let campaign = || store.campaign(&election, "one", Duration::from_secs(2), CancellationToken::new());
    etcd.ctl(&["put", election.as_str(), "stranger"]).await;
    let refused = campaign().await.err().expect("its term never ends");
    let told = "store key \"rotacast/leader\": it names a leader and is bound to no lease";
    assert!(refused.to_string().starts_with(told), "{refused}");
    etcd.ctl(&["del", election.as_str()]).await;
    let leadership = campaign().await.unwrap();
    etcd.ctl(&["put", election.as_str(), "stranger"]).await;
    leadership.lost.cancelled().await;
    leadership.resigned.await.unwrap();
    let next = campaign().await.unwrap();
    assert!(next.epoch > leadership.epoch);
    next.resign.cancel();
    next.resigned.await.unwrap();
}

/// The settings name a user while authentication is off, and it is turned on while the client runs.
#[tokio::test]
async fn authentication_may_be_turned_on_and_off_under_a_client_with_a_user() {
    let Some(etcd) = Etcd::start().await else { return };
    for command in [&["user", "add", "root:root-pw"][..], &["user", "grant-role", "root", "root"]] {
        etcd.ctl(command).await;
    }
    let store = with_user(&etcd, "root", "root-pw");
    store.commit(put("rotacast/x", b"off".to_vec())).await.unwrap();
    etcd.ctl(&["auth", "enable"]).await;
    store.commit(put("rotacast/x", b"on".to_vec())).await.unwrap();
    etcd.ctl(&["--user=root:root-pw", "auth", "disable"]).await;
    store.commit(put("rotacast/x", b"off again".to_vec())).await.unwrap();
    let late = with_user(&etcd, "root", "root-pw");
    assert_eq!(late.get(&Key::new("rotacast/x")).await.unwrap().unwrap().value.expose(), b"off again");
}

#[tokio::test]
async fn a_password_that_is_renewed_in_its_file_is_used() {
    let Some(etcd) = Etcd::start().await else { return };
    for command in [
        &["user", "add", "root:root-pw"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "rotacast:first"],
        &["user", "grant-role", "rotacast", "root"],
        &["auth", "enable"],
    ] {
        etcd.ctl(command).await;
    }
    let scratch = Scratch::new("etcd-password");
    let file = scratch.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let user = EtcdUser { name: "rotacast".into(), password: LoginSecret::File(file.clone()) };
    let store = EtcdStore::new(EtcdOptions { user: Some(user), ..options(&etcd) }).unwrap();
    store.commit(put("rotacast/x", b"first".to_vec())).await.unwrap();
    // The users are exchanged: the one in use is removed, and its file names the next one.
    etcd.ctl(&["--user=root:root-pw", "user", "delete", "rotacast"]).await;
    let refused = store.get(&Key::new("rotacast/x")).await.err().unwrap();
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused}");
    etcd.ctl(&["--user=root:root-pw", "user", "add", "rotacast:second"]).await;
    etcd.ctl(&["--user=root:root-pw", "user", "grant-role", "rotacast", "root"]).await;
    std::fs::write(&file, "second\n").unwrap();
    store.commit(put("rotacast/x", b"second".to_vec())).await.unwrap();
}
