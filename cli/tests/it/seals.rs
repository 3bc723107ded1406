//! `rotacast seal`: over an embedded store that no broadcaster holds.

use std::path::Path;
use std::sync::Arc;

use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use rotacast_seal::{Reader, ReaderName, ReaderSet, SealingKeys, SealingPublicKey};
use rotacast_store::{EmbeddedStore, Prefix, Readers, SecretTree};

use super::scripted_broadcaster::{Ran, program, run};

async fn rotacast(folder: &Path, arguments: &[&str]) -> Ran {
    run(program(folder.to_owned(), arguments), b"").await
}

/// These readers for every secret.
struct Fixed(Vec<Reader>);

impl Readers for Fixed {
    fn readers(&self, _secret: &SecretName) -> ReaderSet {
        ReaderSet::new(self.0.clone())
    }
}

/// A tree that seals for the broadcaster and one service, as both were configured then.
async fn tree(folder: &Path, service: Option<&str>) -> SecretTree {
    let keys = SealingKeys::read_file(folder.join("broadcaster.key")).ok().unwrap();
    let mut readers = vec![Reader { name: ReaderName::Broadcasters, key: keys.first().unwrap().public().clone() }];
    if let Some(service) = service {
        let key = std::fs::read_to_string(folder.join(format!("{service}.sealing.pub"))).unwrap();
        readers.push(Reader {
            name: ReaderName::Service(service.parse().unwrap()),
            key: SealingPublicKey::parse(&key).unwrap(),
        });
    }
    let store = EmbeddedStore::open(folder.join("data/store.db")).await.unwrap();
    let tree = SecretTree::new(Arc::new(store), Prefix::new("rotacast").unwrap());
    tree.sealed("test".parse().unwrap(), keys, Some(Arc::new(Fixed(readers))))
}

fn configure(folder: &Path, services: &[&str]) {
    let mut text = "cluster = \"test\"\ndata_dir = \"data\"\n[keys]\nsigning_key = \"broadcaster.key\"\n".to_owned();
    for service in services {
        let read = |ending: &str| std::fs::read_to_string(folder.join(format!("{service}.{ending}"))).unwrap();
        let (key, sealing) = (read("pub"), read("sealing.pub"));
        let (key, sealing) = (key.trim_end(), sealing.trim_end());
        text.push_str(&format!(
            "[services.{service}]\nkeys = [\"{key}\"]\nsealing_key = \"{sealing}\"\nsecrets = [\"*\"]\n"
        ));
    }
    std::fs::write(folder.join("rotacast.toml"), text).unwrap();
}

#[tokio::test]
async fn status_names_who_can_open_what_and_rewrap_adds_readers_and_takes_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["broadcaster", "ledger", "mailer"] {
        rotacast(path, &["keygen", "--out", name]).await.exits(0);
    }
    std::fs::create_dir(path.join("data")).unwrap();
    let secret = SecretName::new("payments/db").unwrap();
    let sealing = tree(path, Some("ledger")).await;
    sealing.put_next(&secret, SecretValue::new(b"canary one".to_vec()), None).await.unwrap();
    let plain = SecretTree::new(Arc::clone(sealing.store()), sealing.prefix().clone());
    plain.put_next(&secret, SecretValue::new(b"canary two".to_vec()), None).await.unwrap();
    drop((sealing, plain));

    configure(path, &["ledger"]);
    let status = ["seal", "status", "--config", "rotacast.toml"];
    let ran = rotacast(path, &status).await.exits(0);
    assert!(ran.out.starts_with("2 versions in the store, 1 of them sealed\n"), "{}", ran.out);
    assert!(ran.out.contains("payments/db version 2: in the clear"), "{}", ran.out);
    assert!(!ran.out.contains("rotate these") && !ran.out.contains("canary"), "{}", ran.out);

    // One service goes, another comes.
    configure(path, &["mailer"]);
    let ran = rotacast(path, &status).await.exits(0);
    for expected in [
        "payments/db version 1: service ledger (key ",
        "can open it and is no reader any more",
        "payments/db version 1: service mailer (key ",
        "cannot open it yet",
        "rotate these",
        "\n  rotacast rotate payments/db\n",
    ] {
        assert!(ran.out.contains(expected), "{expected:?} is missing: {}", ran.out);
    }
    let ran = rotacast(path, &["seal", "rewrap", "--config", "rotacast.toml"]).await.exits(0);
    assert!(ran.out.contains("payments/db version 1: wrapped for 1 more reader\n"), "{}", ran.out);
    let ran = rotacast(path, &["seal", "rewrap", "--config", "rotacast.toml", "-o", "json"]).await.exits(0).json();
    assert_eq!((&ran[0]["added_readers"], &ran[1]["added_readers"]), (&0.into(), &0.into()), "{ran}");
    let json = rotacast(path, &[&status[..], &["-o", "json"]].concat()).await.exits(0).json();
    let version = &json["versions"][0];
    assert_eq!((&version["state"], version["missing_readers"].as_array().unwrap().len()), (&"sealed".into(), 0));
    assert_eq!(version["former_readers"][0]["reader"], "service ledger", "{json}");
    assert_eq!(json["rotate"][0], "payments/db", "re-wrapping alone is no answer: {json}");
    // The old wrapped key still opens the old ciphertext.
    for service in ["ledger", "mailer"] {
        let keys = SealingKeys::read_file(path.join(format!("{service}.key"))).ok().unwrap();
        let own = tree(path, None).await.sealed("test".parse().unwrap(), keys, None);
        let stored = own.read_version(&secret, Version::FIRST).await.unwrap().unwrap();
        assert!(stored.value.expose() == b"canary one", "{service}");
    }
}

#[tokio::test]
async fn sealing_keys_are_replaced_with_both_trusted_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    rotacast(path, &["keygen", "--out", "broadcaster"]).await.exits(0);
    std::fs::create_dir(path.join("data")).unwrap();
    configure(path, &[]);
    let secret = SecretName::new("payments/db").unwrap();
    let sealing = tree(path, None).await;
    sealing.put_next(&secret, SecretValue::new(b"one".to_vec()), None).await.unwrap();
    drop(sealing);

    let file = ["--file", "broadcaster.key", "-o", "json"];
    let keys = rotacast(path, &[&["keys", "new", "--for", "sealing"][..], &file].concat()).await.exits(0).json();
    let id = |at: usize| keys[at]["key_id"].as_str().unwrap().to_owned();
    let (signing, old, new) = (id(0), id(1), id(2));
    let in_use: Vec<_> = (0..3).map(|at| keys[at]["in_use"].as_bool().unwrap()).collect();
    assert_eq!(in_use, [true, true, false], "{keys}");
    let drop =
        async |key: &str, rest: &[&str]| rotacast(path, &[&["keys", "drop", key][..], rest, &file].concat()).await;
    let config = ["--config", "rotacast.toml"];
    // Neither the key in use, nor one that a value needs, nor one of which that is not known.
    let ran = drop(&old, &config).await.exits(1);
    assert!(ran.err.contains("is the sealing key in use"), "{}", ran.err);
    drop(&signing, &[]).await.exits(1);
    rotacast(path, &[&["keys", "use", &new][..], &file].concat()).await.exits(0);
    let ran = drop(&old, &config).await.exits(1);
    assert!(ran.err.contains("payments/db version 1") && ran.err.contains("seal rewrap"), "{}", ran.err);
    let ran = drop(&old, &[]).await.exits(1);
    assert!(ran.err.contains("--config"), "{}", ran.err);

    let status = ["seal", "status", "--config", "rotacast.toml"];
    let ran = rotacast(path, &status).await.exits(0);
    assert!(ran.out.contains(&format!("the broadcasters (key {new}) cannot open it yet")), "{}", ran.out);
    rotacast(path, &["seal", "rewrap", "--config", "rotacast.toml"]).await.exits(0);
    drop(&old, &config).await.exits(0);
    let stored = tree(path, None).await.read_version(&secret, Version::FIRST).await.unwrap().unwrap();
    assert!(stored.value.expose() == b"one", "the new key opens it alone");

    // A key that is not there, and what happens to values whose key is lost.
    drop(&old, &config).await.exits(5);
    rotacast(path, &[&["keys", "use", "x"][..], &file].concat()).await.exits(2);
    let keys = rotacast(path, &[&["keys", "new", "--for", "sealing"][..], &file].concat()).await.exits(0).json();
    let last = keys[2]["key_id"].as_str().unwrap();
    drop(&new, &["--force"]).await.exits(0);
    let ran = rotacast(path, &["seal", "rewrap", "--config", "rotacast.toml"]).await.exits(1);
    assert!(ran.out.contains("payments/db version 1: unchanged: ") && ran.out.contains(&new), "{}", ran.out);
    let ran = rotacast(path, &status).await.exits(0);
    assert!(ran.out.contains("payments/db version 1: does not open: "), "{}", ran.out);
    // Without any, the broadcaster does not start, unless sealing is off by name.
    drop(last, &["--force"]).await.exits(0);
    let ran = rotacast(path, &["config", "check", "rotacast.toml"]).await.exits(2);
    assert!(
        ran.err.contains("keys.signing_key: ") && ran.err.contains("rotacast keys new --for sealing"),
        "{}",
        ran.err
    );
    let text = std::fs::read_to_string(path.join("rotacast.toml")).unwrap();
    std::fs::write(path.join("rotacast.toml"), format!("{text}[sealing]\nenabled = false\n")).unwrap();
    rotacast(path, &["config", "check", "rotacast.toml"]).await.exits(0);
}

#[tokio::test]
async fn with_sealing_off_the_readers_are_still_those_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["broadcaster", "ledger", "mailer"] {
        rotacast(path, &["keygen", "--out", name]).await.exits(0);
    }
    std::fs::create_dir(path.join("data")).unwrap();
    let secret = SecretName::new("payments/db").unwrap();
    let sealing = tree(path, Some("ledger")).await;
    sealing.put_next(&secret, SecretValue::new(b"one".to_vec()), None).await.unwrap();
    drop(sealing);
    configure(path, &["ledger", "mailer"]);
    let text = std::fs::read_to_string(path.join("rotacast.toml")).unwrap();
    std::fs::write(path.join("rotacast.toml"), format!("{text}[sealing]\nenabled = false\n")).unwrap();
    let status = ["seal", "status", "--config", "rotacast.toml"];
    let ran = rotacast(path, &status).await.exits(0);
    assert!(ran.out.contains("sealing is off"), "{}", ran.out);
    assert!(!ran.out.contains("is no reader any more") && !ran.out.contains("rotate these"), "{}", ran.out);
    assert!(ran.out.contains("payments/db version 1: service mailer (key "), "{}", ran.out);
    // A service that came meanwhile gets the values that are sealed.
    let ran = rotacast(path, &["seal", "rewrap", "--config", "rotacast.toml"]).await.exits(0);
    assert!(ran.out.contains("payments/db version 1: wrapped for 1 more reader\n"), "{}", ran.out);
}
