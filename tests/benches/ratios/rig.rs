//! A broadcaster's process with many secrets, its store and its bus. What the store and `/proc` show of it is measured.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rotacast_proto::{SecretValue, SigningKey};
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Epoch, SecretName, Version};
use rotacast_seal::{SealingKey, create_key_file};
use rotacast_store::{
    Commit, EmbeddedStore, EtcdOptions, EtcdStore, Key, MAX_COMMIT_OPS, Prefix, SecretTree, Store, StoreEvent, Write,
};
use rotacast_tests::servers::{Etcd, Nats, Process, Scratch, free_port};
use rustix::process::Signal;

/// A measurement that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(900);

/// The broadcaster to measure. The variable names another build of it.
const PROGRAM: &str = "ROTACAST_BROADCASTER";

/// Ticks per second in `/proc/PID/stat`: the same on every Linux that Rust builds for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) const SOURCE: &str = "source";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Servers {
    Embedded,
    EtcdAndNats,
}

impl Servers {
    pub(super) const ALL: [Self; 2] = [Self::Embedded, Self::EtcdAndNats];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::EtcdAndNats => "etcd and NATS",
        }
    }
}

pub(super) struct Rig {
    process: Option<Process>,
    pub(super) tree: SecretTree,
    folder: Scratch,
    config: PathBuf,
    _servers: Option<(Etcd, Nats)>,
}

impl Rig {
    /// Servers and a configuration; the broadcaster is not running yet. `None`: a server is missing. With `import`, the
    /// broadcaster imports what lies below [`SOURCE`].
    pub(super) async fn new(servers: Servers, import: bool) -> Option<Self> {
        let folder = Scratch::new("bench");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let key = folder.path().join("broadcaster.key");
        create_key_file(&key, &SigningKey::generate(), &SealingKey::generate()).unwrap();
        let service = SigningKey::generate().public().to_text();
        let sealing = SealingKey::generate().public().to_text();
        let (store, started, sections): (Arc<dyn Store>, _, _) = match servers {
            Servers::Embedded => {
                let store = EmbeddedStore::open(data.join("store.db")).await.unwrap();
                (Arc::new(store), None, "[store]\nkind = \"embedded\"\n[bus]\nkind = \"embedded\"\n".to_owned())
            }
            Servers::EtcdAndNats => {
                let (etcd, nats) = (Etcd::start().await?, Nats::start().await?);
                let options = EtcdOptions { endpoints: vec![etcd.endpoint()], ..EtcdOptions::default() };
                let (endpoint, url) = (etcd.endpoint(), nats.url());
                let layout =
                    if import { format!("layout = \"plain\"\nsource_prefix = \"{SOURCE}\"\n") } else { String::new() };
                let text = format!(
                    "[store]\nkind = \"etcd\"\nendpoints = [\"{endpoint}\"]\n{layout}[bus]\nkind = \"nats\"\nurl = \"{url}\"\n"
                );
                (Arc::new(EtcdStore::new(options).unwrap()), Some((etcd, nats)), text)
            }
        };
        let config = folder.path().join("rotacast.toml");
        let text = format!(
            "cluster = \"bench\"\nreplica = \"bench\"\ndata_dir = \"{}\"\n[listen]\ngrpc = \"127.0.0.1:{}\"\n{sections}\
             [leader]\nttl = \"5s\"\n[keys]\nsigning_key = \"{}\"\n\
             [services.payments-api]\nkeys = [\"{service}\"]\nsealing_key = \"{sealing}\"\nsecrets = [\"*\"]\n[limits]\nsecrets = 20_000\n\
             [log]\nlevel = \"warn\"\n",
            data.display(),
            free_port(),
            key.display(),
        );
        std::fs::write(&config, text).unwrap();
        let tree = SecretTree::new(store, Prefix::new("rotacast").unwrap());
        Some(Self { process: None, tree, folder, config, _servers: started })
    }

    pub(super) fn start(&mut self) {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| env!("CARGO_BIN_EXE_rotacast-under-test").into());
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&self.config);
        self.process = Some(Process::spawn("broadcaster", command, &self.folder.path().join("broadcaster.log"), None));
    }

    /// A crash: the leadership ends only when it expires.
    pub(super) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    pub(super) async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM, LIMIT).await;
        }
    }

    /// A value for each of so many secrets, at `key`.
    pub(super) async fn write(&self, count: usize, key: impl Fn(&SecretName) -> Key) {
        let secrets: Vec<SecretName> = (0..count).map(secret).collect();
        for chunk in secrets.chunks(MAX_COMMIT_OPS) {
            let value = |secret| SecretValue::new(format!("password of {secret}, {:0>200}", "").into_bytes());
            let writes = chunk.iter().map(|secret| Write::Put(key(secret), value(secret))).collect();
            self.tree.store().commit(Commit { checks: vec![], writes }).await.unwrap();
        }
    }

    pub(super) fn version_key(&self, secret: &SecretName) -> Key {
        self.tree.prefix().key().child("versions").child(secret).child(Version::FIRST)
    }

    /// How long it takes from now until the records of so many secrets are of an epoch after `before`, each with a
    /// current version, and that epoch.
    pub(super) async fn all_led(&mut self, count: usize, before: Epoch) -> (Duration, Epoch) {
        let began = Instant::now();
        let folder = self.tree.prefix().key().child("records");
        let (mut led, mut newest) = (BTreeSet::new(), before);
        let watching = async {
            let mut watch = self.tree.store().watch(&folder);
            while led.len() < count {
                let (StoreEvent::Listed(entry) | StoreEvent::Put(entry)) = watch.next().await.unwrap().unwrap() else {
                    continue;
                };
                let record = SecretRecord::decode(entry.value.expose()).unwrap();
                if record.epoch > before && record.current.is_some() {
                    newest = newest.max(record.epoch);
                    led.insert(record.secret);
                }
            }
        };
        let process = self.process.as_mut().unwrap();
        let ending = async {
            while process.ended().is_none() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let done = tokio::time::timeout(LIMIT, async {
            tokio::select! {
                () = watching => true,
                () = ending => false,
            }
        })
        .await;
        let elapsed = began.elapsed();
        let ended = process.ended();
        assert!(
            done == Ok(true),
            "{} of {count} records after {LIMIT:?}; ended: {ended:?}\n{}",
            led.len(),
            process.log_tail()
        );
        (elapsed, newest)
    }

    /// How often the log has warnings and errors.
    pub(super) fn complaints(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("broadcaster.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count()
    }

    /// The share of one core that the broadcaster uses, measured for so long, and its resident memory in bytes.
    pub(super) async fn processor_share(&mut self, during: Duration) -> (f64, u64) {
        let id = self.process.as_ref().unwrap().id();
        let (began, before) = (Instant::now(), ticks(id));
        tokio::time::sleep(during).await;
        let used = (ticks(id) - before) as f64 / TICKS_PER_SECOND;
        (used / began.elapsed().as_secs_f64(), resident(id))
    }
}

pub(super) fn secret(number: usize) -> SecretName {
    SecretName::new(format!("app-{}/secret-{number:05}", number % 100)).unwrap()
}

/// Of a process, in user and kernel mode.
fn ticks(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // After the name, which may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
