//! Where the servers are, and what happens when one is missing.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A server binary: by variable, in `.servers/bin`, on PATH.
pub(crate) fn binary(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(named(variable, PathBuf::from(path)));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(servers_folder().join("bin"))
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|p| p.is_file())
}

/// The folder with `initdb` and `postgres`: by variable, in `.servers`, where Debian puts it, on PATH.
pub(crate) fn postgres_folder() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ROTACAST_POSTGRES") {
        return Some(named("ROTACAST_POSTGRES", PathBuf::from(path)));
    }
    let mut system: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    system.sort_unstable_by(|a, b| b.cmp(a));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(servers_folder().join("postgres"))
        .chain(system.into_iter().map(|(_, folder)| folder))
        .chain(std::env::split_paths(&path))
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .map(|folder| folder.canonicalize().unwrap_or(folder))
}

/// The folder with Apache Kafka's jars: by variable, in `.servers`.
pub(crate) fn kafka_folder() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ROTACAST_KAFKA") {
        return Some(named("ROTACAST_KAFKA", PathBuf::from(path)));
    }
    Some(servers_folder().join("kafka")).filter(|folder| folder.is_dir())
}

/// axe-core's script: by variable, in `.servers`.
pub(crate) fn axe() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ROTACAST_AXE") {
        return Some(named("ROTACAST_AXE", PathBuf::from(path)));
    }
    Some(servers_folder().join("axe.min.js")).filter(|file| file.is_file())
}

/// Fails a test that lacks `missing`: a test that did not run did not pass. With `ROTACAST_SKIP_SERVERS=1` the test is
/// skipped instead: it says so, and a line is added to the file that `ROTACAST_SKIPPED` names, which tools/test counts.
///
/// # Panics
/// Unless `ROTACAST_SKIP_SERVERS=1`.
pub fn skip(missing: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        std::env::var_os("ROTACAST_SKIP_SERVERS").is_some_and(|value| value == *"1"),
        "{test}: {missing} is missing: run 'tools/servers install', or skip such tests with ROTACAST_SKIP_SERVERS=1"
    );
    eprintln!("SKIPPED: {test}: {missing} is missing; run 'tools/servers install'");
    if let Some(file) = std::env::var_os("ROTACAST_SKIPPED") {
        count(&file, &format!("{test}|{missing} is missing\n"));
    }
}

fn count(file: &OsString, line: &str) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap_or_else(|error| panic!("cannot count a skipped test in {}: {error}", file.display()));
    file.write_all(line.as_bytes()).expect("the file was just opened for appending");
}

fn named(variable: &str, path: PathBuf) -> PathBuf {
    // Through links, so that the libraries fetched along with it are found.
    path.canonicalize().unwrap_or_else(|error| panic!("{variable} names {}: {error}", path.display()))
}

/// `.servers` at the top of the source tree this was compiled from.
fn servers_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.servers")
}
