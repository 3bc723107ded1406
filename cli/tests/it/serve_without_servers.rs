//! `rotacast serve` with servers that do not answer: one line says which setting, what was found, and the fix.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

/// Runs `serve` to its end, which `start_timeout` causes.
fn serve(settings: &str) -> Output {
    serve_while(settings, |_| {})
}

/// The same, and does something with its process id meanwhile.
fn serve_while(settings: &str, meanwhile: impl FnOnce(u32)) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    let rotacast = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotacast"));
        command.env_clear().current_dir(folder.path());
        command
    };
    assert!(rotacast().args(["keygen", "--out", "broadcaster"]).output().unwrap().status.success());
    let text = format!(
        "cluster = \"test\"\nstart_timeout = \"1s\"\n[listen]\ngrpc = \"127.0.0.1:0\"\n[keys]\nsigning_key = \"broadcaster.key\"\n{settings}"
    );
    std::fs::write(in_folder("rotacast.toml"), text).unwrap();
    let mut serve = rotacast();
    serve.args(["serve", "--config", "rotacast.toml"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let serve = serve.spawn().unwrap();
    meanwhile(serve.id());
    serve.wait_with_output().unwrap()
}

/// A reload that is asked for while it starts comes after the start, and does not end it.
#[test]
fn a_reload_asked_for_during_the_start_does_not_end_it() {
    // Answers nothing, so that the start waits.
    let store = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!("[store]\nkind = \"etcd\"\nendpoints = [\"http://{}\"]\n", store.local_addr().unwrap());
    let output = serve_while(&settings, |process| {
        let _asked = store.accept().unwrap();
        assert!(Command::new("kill").args(["-HUP", &process.to_string()]).status().unwrap().success());
    });
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "it ends by start_timeout: {told}");
}

/// An address where no process listens: it was free a moment ago, and is not used for anything else.
fn unused_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn tells(settings: &str, setting: &str) {
    let output = serve(settings);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("expected one error, found {errors:?} in {told}") };
    assert!(error.starts_with(&format!("error: {setting}: ")), "{told}");
    assert!(error.contains("cannot be reached"), "{told}");
    assert!(error.contains("start it, or correct the setting"), "{told}");
}

#[test]
fn etcd_that_is_not_there_is_named_by_its_setting() {
    tells(&format!("[store]\nkind = \"etcd\"\nendpoints = [\"http://{}\"]\n", unused_address()), "store.endpoints");
}

#[test]
fn consul_that_is_not_there_is_named_by_its_setting() {
    tells(&format!("[store]\nkind = \"consul\"\naddress = \"http://{}\"\n", unused_address()), "store.address");
}

#[test]
fn nats_that_is_not_there_is_named_by_its_setting() {
    tells(&format!("[bus]\nkind = \"nats\"\nurl = \"nats://{}\"\n", unused_address()), "bus.url");
}

#[cfg(feature = "kafka")]
#[test]
fn kafka_that_is_not_there_is_named_by_its_setting() {
    tells(&format!("[bus]\nkind = \"kafka\"\nbrokers = [\"{}\"]\n", unused_address()), "bus.brokers");
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_build_without_kafka_names_the_feature() {
    let output = serve("[bus]\nkind = \"kafka\"\nbrokers = [\"127.0.0.1:9092\"]\n");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("bus.kind: ") && told.contains("--features kafka"), "{told}");
}
