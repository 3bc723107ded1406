//! Commands that need no broadcaster, and commands that find none.

use std::os::unix::fs::PermissionsExt as _;

use rotacast_broadcaster::audit::{AuditLog, AuditOptions, AuditSigner, Entry};
use rotacast_proto::{SigningKey, VerifyingKey};

use super::scripted_broadcaster::{Ran, program, run};

async fn alone(folder: &tempfile::TempDir, arguments: &[&str]) -> Ran {
    run(program(folder.path().to_owned(), arguments), b"").await
}

#[tokio::test]
async fn a_broadcaster_that_is_not_there_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    // Bound, but not listening, while this test runs: no other process can take the port.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = taken.local_addr().unwrap().to_string();
    for command in [&["status"][..], &["why", "a"], &["watch"], &["wait", "a", "--for", "idle"], &["doctor"]] {
        let ran = alone(&folder, &[command, &["--server", &server]].concat()).await.exits(3);
        assert!(ran.err.contains(&format!("broadcaster at {server} cannot be reached")), "{}", ran.err);
        assert!(ran.err.contains("fix: start it"), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_dev_whose_port_is_taken_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = alone(&folder, &["dev", "--listen", &address]).await.exits(1);
    assert!(ran.err.contains(&format!("cannot listen on {address}")), "{}", ran.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn wrong_usage_is_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["why"],
        &["why", "Not A Name"],
        &["wait", "a"],
        &["pause", "a"],
        &["rotate", "a", "--timeout", "5s"],
        &["rotate", "a", "--wait", "--timeout", "5"],
        &["retire", "a", "--version", "0", "--override", "--reason", "x", "--sessions"],
        &["status", "--server", "ftp://x"],
        &["status", "--server", "https://127.0.0.1:1"],
        &["status", "--server", "127.0.0.1:1", "--ca", "x.pem"],
        &["dev", "--rotations", "3"],
        &["serve", "--config", "missing.toml"],
    ] {
        let ran = alone(&folder, arguments).await.exits(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{arguments:?}: {}{}", ran.out, ran.err);
    }
    assert!(alone(&folder, &["--help"]).await.exits(0).out.contains("Exit codes: 0 done"));
    assert!(alone(&folder, &["--version"]).await.exits(0).out.starts_with("rotacast "));
    let told = alone(&folder, &["version", "-o", "json"]).await.exits(0).out;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert!(told["rustc"].as_str().is_some_and(|rustc| rustc.starts_with("rustc ")), "{told}");
    let commit = told["commit"].as_str();
    assert!(
        commit.is_none_or(|commit| commit.len() >= 40 && commit.bytes().all(|it| it.is_ascii_hexdigit())),
        "{told}"
    );
}

#[tokio::test]
async fn keygen_makes_a_pair_and_never_overwrites() {
    let folder = tempfile::tempdir().unwrap();
    let ran = alone(&folder, &["keygen", "--out", "ada"]).await.exits(0);
    let file = |name: &str| folder.path().join(name);
    assert_eq!(file("ada.key").metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let private = SigningKey::read_file(file("ada.key")).ok().unwrap();
    assert_eq!(private.public(), &VerifyingKey::read_file(file("ada.pub")).unwrap());
    let public = private.public().to_text();
    assert!(ran.out.contains(&format!("[operators.ada]\nkeys = [\"{public}\"]\n")), "{}", ran.out);
    let sealing = std::fs::read_to_string(file("ada.sealing.pub")).unwrap();
    let sealing = sealing.trim_end();
    let service = format!("[services.ada]\nkeys = [\"{public}\"]\nsealing_key = \"{sealing}\"\n");
    assert!(ran.out.contains(&service), "{}", ran.out);
    // The command prints a valid configuration.
    let start = ran.out.find("[operators.ada]").unwrap();
    let printed = ran.out[start..].replace("or for a service:\n", "").replacen("ada", "bob", 1);
    let printed = format!("cluster = \"test\"\n{printed}");
    std::fs::write(file("rotacast.toml"), printed).unwrap();
    alone(&folder, &["config", "check", "--without-files", "rotacast.toml"]).await.exits(0);
    assert!(!ran.out.contains("private-1:"), "{}", ran.out);
    alone(&folder, &["keygen", "--out", "ada"]).await.exits(1);
    for public in ["ada.pub", "ada.sealing.pub"] {
        std::fs::remove_file(file(public)).unwrap();
    }
    alone(&folder, &["keygen", "--out", "ada"]).await.exits(1);
    assert_eq!(SigningKey::read_file(file("ada.key")).ok().unwrap().public(), private.public());
    let json = alone(&folder, &["keygen", "--out", "bob", "-o", "json"]).await.exits(0).json();
    assert_eq!(json["private_file"], "bob.key");
}

fn signer() -> AuditSigner {
    AuditSigner::new(SigningKey::generate(), "test".parse().unwrap())
}

#[tokio::test]
async fn the_audit_log_is_shown_and_a_changed_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let log = AuditLog::open(&file, AuditOptions::default(), signer()).unwrap();
    for secret in ["a", "b", "a"] {
        let entry = Entry::new("ada", "paused").secret(secret.parse().unwrap()).detail("reason", "\x1b[2Jfreeze");
        log.append(entry).await.unwrap();
    }
    drop(log);
    let verify = ["audit", "verify", "--file", "audit.log"];
    let ran = alone(&folder, &verify).await.exits(0);
    assert!(ran.out.contains("audit log audit.log: whole, 3 entries in one file\nhead 3:"), "{}", ran.out);
    let json = alone(&folder, &[&verify[..], &["-o", "json"]].concat()).await.exits(0).json();
    assert_eq!((json["entries"].as_u64(), json["head"]["sequence"].as_u64()), (Some(3), Some(3)));
    let hash = json["head"]["hash"].as_str().unwrap();
    let ran = alone(&folder, &[&verify[..], &["--head", hash]].concat()).await.exits(0);
    assert!(ran.out.contains("with 0 entries behind it"), "{}", ran.out);
    alone(&folder, &[&verify[..], &["--head", &"ab".repeat(32)]].concat()).await.exits(1);

    let show = ["audit", "show", "--file", "audit.log", "--secret", "a"];
    let ran = alone(&folder, &show).await.exits(0);
    assert_eq!(ran.out.lines().count(), 3, "{}", ran.out);
    assert!(ran.out.contains("ada  paused  a       -         reason=\\u{1b}[2Jfreeze"), "{}", ran.out);
    let json = alone(&folder, &[&show[..], &["--last", "1", "-o", "json"]].concat()).await.exits(0).json();
    assert_eq!(json["entries"][0]["sequence"], 3);

    let text = std::fs::read_to_string(&file).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    std::fs::write(&file, format!("{first}\n{}", second.replacen("ada", "eve", 1))).unwrap();
    let ran = alone(&folder, &verify).await.exits(1);
    assert!(ran.err.contains("audit.log:2: the line was changed"), "{}", ran.err);
    let ran = alone(&folder, &show).await.exits(1);
    assert_eq!(ran.out.lines().count(), 2, "what stands before it is shown: {}", ran.out);
    alone(&folder, &["audit", "verify"]).await.exits(5);
}

#[tokio::test]
async fn a_check_and_a_start_refuse_what_would_cross_a_network_in_the_clear() {
    let folder = tempfile::tempdir().unwrap();
    alone(&folder, &["keygen", "--out", "broadcaster"]).await.exits(0);
    let file = |name: &str| folder.path().join(name);
    let written = |text: &str| {
        let keys = "[keys]\nsigning_key = \"broadcaster.key\"\n";
        std::fs::write(file("rotacast.toml"), format!("cluster = \"test\"\n{keys}{text}")).unwrap();
    };
    written(
        "[store]\nkind = \"consul\"\naddress = \"http://consul:8500\"\n[bus]\nkind = \"nats\"\nurl = \"nats://nats:4222\"\n",
    );
    for command in
        [&["config", "check", "--without-files", "rotacast.toml"][..], &["serve", "--config", "rotacast.toml"]]
    {
        let ran = alone(&folder, command).await.exits(2);
        for (line, setting, way) in [(6, "store.address", "https://"), (9, "bus.url", "tls://")] {
            let told = format!("rotacast.toml:{line}: {setting}: ");
            let told = ran.err.lines().find(|line| line.contains(&told)).unwrap_or_else(|| panic!("{}", ran.err));
            assert!(told.contains(&format!("; use {way}")) && told.contains("in_the_clear = true"), "{told}");
        }
    }
    // What is in a file is checked with the files. The password in it is not repeated.
    std::fs::write(file("pg-admin"), "postgres://root:canary@pg.internal:5432/app").unwrap();
    let provider = "[providers.p]\nkind = \"postgres\"\nadmin_file = \"pg-admin\"\ngroup_role = \"g\"\ndatabase = \"app\"\nhost = \"pg.internal\"\n";
    written(provider);
    let ran = alone(&folder, &["config", "check", "rotacast.toml"]).await.exits(2);
    assert!(ran.err.contains("[providers.p]: the administrator's connection"), "{}", ran.err);
    assert!(ran.err.contains("\"pg.internal\" is not encrypted") && !ran.err.contains("canary"), "{}", ran.err);
    written(&format!("{provider}in_the_clear = true\n"));
    alone(&folder, &["config", "check", "rotacast.toml"]).await.exits(0);
}

#[tokio::test]
async fn a_configuration_is_checked_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "clutser = \"prod\"\n").unwrap();
    let ran = alone(&folder, &["config", "check", "bad.toml"]).await.exits(2);
    assert!(ran.err.contains("bad.toml:1: clutser"), "{}", ran.err);
    assert!(ran.err.contains("cluster"), "with a suggestion: {}", ran.err);
    std::fs::write(folder.path().join("good.toml"), "cluster = \"prod\"\n").unwrap();
    let check = ["config", "check", "--without-files", "good.toml"];
    let ran = alone(&folder, &check).await.exits(0);
    assert!(ran.out.contains("good.toml: ok. Cluster prod"), "{}", ran.out);
    let json = alone(&folder, &[&check[..], &["-o", "json"]].concat()).await.exits(0).json();
    assert_eq!(json["cluster"], "prod");
}

/// The checker reports, all at once, what would end `serve`.
#[tokio::test]
async fn the_files_that_a_configuration_names_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"
        cluster = "test"
        [keys]
        signing_key = "absent.key"
        [store]
        kind = "consul"
        address = "https://127.0.0.1:8501"
        token_file = "token"
        [store.tls]
        ca = "ca.pem"
        [bus]
        kind = "nats"
        url = "tls://127.0.0.1:4222"
        credentials = "absent.creds"
        [providers.pg]
        kind = "postgres"
        admin_file = "absent.admin"
        group_role = "app"
        database = "app"
        host = "127.0.0.1"
    "#;
    std::fs::write(folder.path().join("rotacast.toml"), text).unwrap();
    std::fs::write(folder.path().join("token"), "t\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), "no certificate\n").unwrap();
    let check = ["config", "check", "rotacast.toml"];
    let ran = alone(&folder, &check).await.exits(2);
    for expected in ["keys.signing_key", "ca.pem holds no certificate", "bus.credentials", "absent.admin"] {
        assert!(ran.err.contains(expected), "{expected}: {}", ran.err);
    }
    alone(&folder, &["config", "check", "--without-files", "rotacast.toml"]).await.exits(0);

    alone(&folder, &["keygen", "--out", "absent"]).await.exits(0);
    let plain = text.replace("https", "http").replace("[store.tls]\n        ca = \"ca.pem\"", "");
    std::fs::write(folder.path().join("rotacast.toml"), plain).unwrap();
    for name in ["absent.creds", "absent.admin"] {
        std::fs::write(folder.path().join(name), "host=127.0.0.1 user=admin password=p dbname=app").unwrap();
    }
    let ran = alone(&folder, &check).await.exits(0);
    assert!(ran.out.contains("rotacast.toml: ok"), "{}", ran.out);
}

#[tokio::test]
async fn completions_and_manual_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(alone(&folder, &["completions", shell]).await.exits(0).out.contains("leave-safe-mode"));
    }
    assert!(alone(&folder, &["man"]).await.exits(0).out.starts_with(".ie "), "a manual page in roff");
    alone(&folder, &["man", "--dir", "man"]).await.exits(0);
    assert!(folder.path().join("man/rotacast-why.1").exists());
}

#[tokio::test]
async fn the_audit_log_of_a_configuration_is_found() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rotacast.toml"), "cluster = \"prod\"\n[audit]\nfile = \"who.jsonl\"\n").unwrap();
    let log = AuditLog::open(folder.path().join("who.jsonl"), AuditOptions::default(), signer()).unwrap();
    log.append(Entry::new("ada", "paused")).await.unwrap();
    drop(log);
    let ran = alone(&folder, &["audit", "verify", "--config", "rotacast.toml"]).await.exits(0);
    assert!(ran.out.contains("one entry in one file"), "{}", ran.out);
}
