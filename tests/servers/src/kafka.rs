//! Apache Kafka.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::probe::Probe;
use crate::server::{DATA, Plan, copy_anew};
use crate::{Scratch, Server, Shared, find, free_port};

/// Any cluster id will do. All tests use the same one, since their nodes never meet.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// A quick start matters more than speed: no second compiler, one collector thread.
const JVM: [&str; 4] = ["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"];

/// A Kafka node that is broker and controller (KRaft), with its data in a scratch folder. [`Server`] has everything
/// about its process.
#[derive(Debug)]
pub struct Kafka {
    server: Server,
    port: u16,
    secured_port: u16,
}

/// What differs from a plain broker.
#[derive(Debug, Clone, Copy, Default)]
pub struct KafkaConfig<'a> {
    /// Lines to add to `server.properties`.
    pub properties: &'a str,
    /// The protocol of a second listener ([`Kafka::secured`]), such as `SASL_PLAINTEXT`, `SSL`; its settings are
    /// lines of `properties` that begin with `listener.name.secured.`.
    pub secured: Option<&'a str>,
    /// The port on loopback that this listener announces to its clients; none: its own.
    pub announced: Option<u16>,
    /// Users that log in by SCRAM-SHA-512, each with its password.
    pub scram: &'a [(&'a str, &'a str)],
    /// Further options of the JVM, which is tuned for a quick start; of two that contradict each other the later wins.
    pub jvm: &'a [&'a str],
}

impl Kafka {
    /// Starts one; `None` if Kafka or Java is missing, after counting the test as skipped ([`crate::skip`]).
    ///
    /// # Panics
    /// If it is there and does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(KafkaConfig::default()).await
    }

    /// Starts one with further settings.
    ///
    /// # Panics
    /// As [`Kafka::start`].
    pub async fn start_with(config: KafkaConfig<'_>) -> Option<Self> {
        let program = Program::find()?;
        let (mut port, mut secured_port) = (0, 0);
        let server = Server::start(Scratch::new("kafka"), |scratch| {
            (port, secured_port) = (free_port(), free_port());
            let node = Node { id: 1, port, controller_port: free_port(), secured_port };
            program.plan(scratch, &node, std::slice::from_ref(&node), config)
        })
        .await;
        Some(Self { server, port, secured_port })
    }

    /// The one all tests of this binary share; `None` as with [`Kafka::start`].
    ///
    /// # Panics
    /// As [`Kafka::start`].
    pub async fn shared() -> Option<Shared<Self>> {
        static SHARED: OnceCell<Option<Kafka>> = OnceCell::const_new();
        match SHARED.get_or_init(Self::start).await {
            Some(server) => Some(Shared::new(server)),
            None => {
                find::skip("Apache Kafka");
                None
            }
        }
    }

    /// The client port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its logs.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.scratch().path().join(DATA)
    }

    /// `127.0.0.1:<port>`, without encryption or authentication.
    #[must_use]
    pub fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:<port>` of the listener that [`KafkaConfig::secured`] asked for.
    #[must_use]
    pub fn secured(&self) -> String {
        format!("127.0.0.1:{}", self.secured_port)
    }
}

impl Deref for Kafka {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Kafka {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// Three nodes, each broker and controller, so that one can be lost.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<Kafka>,
}

impl KafkaCluster {
    /// Starts them; `None` as with [`Kafka::start`].
    ///
    /// # Panics
    /// As [`Kafka::start`].
    pub async fn start() -> Option<Self> {
        const NODES: u16 = 3;
        let program = Program::find()?;
        let nodes: Vec<Node> = (1..=NODES)
            .map(|id| Node { id, port: free_port(), controller_port: free_port(), secured_port: free_port() })
            .collect();
        let config = KafkaConfig {
            properties: "default.replication.factor=3\nmin.insync.replicas=2\n",
            ..KafkaConfig::default()
        };
        // No node is ready before most of them run, so they start in parallel.
        let start = |node: usize| {
            let (program, nodes) = (&program, &nodes);
            async move {
                let node = nodes.get(node).expect("counted from the same list");
                let server =
                    Server::start(Scratch::new("kafka"), |scratch| program.plan(scratch, node, nodes, config)).await;
                Kafka { server, port: node.port, secured_port: node.secured_port }
            }
        };
        let (first, second, third) = tokio::join!(start(0), start(1), start(2));
        Some(Self { nodes: vec![first, second, third] })
    }

    /// `127.0.0.1:<port>` of every node.
    #[must_use]
    pub fn brokers(&self) -> Vec<String> {
        self.nodes.iter().map(Kafka::broker).collect()
    }

    /// One of the three, from 0.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn node(&mut self, index: usize) -> &mut Kafka {
        self.nodes.get_mut(index).unwrap_or_else(|| panic!("expected a node below 3, found {index}"))
    }
}

/// What is needed to run Kafka.
struct Program {
    java: PathBuf,
    jars: PathBuf,
}

struct Node {
    id: u16,
    port: u16,
    controller_port: u16,
    secured_port: u16,
}

impl Program {
    fn find() -> Option<Self> {
        let Some(jars) = find::kafka_folder() else {
            find::skip("Apache Kafka");
            return None;
        };
        let Some(java) = find::binary("ROTACAST_JAVA", "java") else {
            find::skip("java");
            return None;
        };
        Some(Self { java, jars })
    }

    /// Writes the settings, formats the data folder if it is new, and says how to run the node.
    fn plan(&self, scratch: &Scratch, node: &Node, all: &[Node], config: KafkaConfig<'_>) -> Plan {
        let file = scratch.path().join("server.properties");
        write(&file, &settings(&scratch.path().join(DATA), node, all, config));
        let data = scratch.path().join(DATA);
        if !data.exists() {
            if config.scram.is_empty() {
                copy_anew(self.formatted(node.id).path(), &data);
            } else {
                self.format(&file, config.scram);
            }
        }
        let mut arguments: Vec<OsString> = JVM.iter().chain(config.jvm).map(Into::into).collect();
        arguments.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
        arguments.extend(["-cp".into(), self.classes(), "kafka.Kafka".into(), file.into()]);
        Plan {
            name: "kafka",
            program: self.java.clone(),
            arguments,
            variables: Vec::new(),
            probe: Probe::Kafka { port: node.port },
            stop: Signal::TERM,
        }
    }

    /// A formatted data folder of a node of this number, to copy: formatting starts a JVM, so it is done once per test binary.
    fn formatted(&self, id: u16) -> &'static Scratch {
        static FORMATTED: Mutex<BTreeMap<u16, &'static Scratch>> = Mutex::new(BTreeMap::new());
        let mut formatted = FORMATTED.lock().unwrap_or_else(PoisonError::into_inner);
        formatted.entry(id).or_insert_with(|| {
            let (folder, settings) = (Scratch::new("kafka-formatted"), Scratch::new("kafka-format"));
            let node = Node { id, port: free_port(), controller_port: free_port(), secured_port: 0 };
            let file = settings.path().join("server.properties");
            let text = self::settings(folder.path(), &node, std::slice::from_ref(&node), KafkaConfig::default());
            write(&file, &text);
            self.format(&file, &[]);
            // The watchdog removes it with everything else of this process.
            Box::leak(Box::new(folder))
        })
    }

    fn format(&self, settings: &Path, scram: &[(&str, &str)]) {
        let users = scram.iter().flat_map(|(user, password)| {
            ["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")]
        });
        let output = Command::new(&self.java)
            .args(JVM)
            .arg("-cp")
            .arg(self.classes())
            .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"])
            .arg(settings)
            .args(users)
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.java.display()));
        assert!(
            output.status.success(),
            "Kafka's data folder cannot be formatted: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn classes(&self) -> OsString {
        self.jars.join("*").into()
    }
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
}

fn settings(data: &Path, node: &Node, all: &[Node], config: KafkaConfig<'_>) -> String {
    let voters: Vec<String> =
        all.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller_port)).collect();
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{}", node.port);
    let mut announced = listeners.clone();
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    if let Some(protocol) = config.secured {
        write!(listeners, ",SECURED://127.0.0.1:{}", node.secured_port).expect("writing to a String cannot fail");
        let port = config.announced.unwrap_or(node.secured_port);
        write!(announced, ",SECURED://127.0.0.1:{port}").expect("writing to a String cannot fail");
        write!(protocols, ",SECURED:{protocol}").expect("writing to a String cannot fail");
    }
    let copies = all.len().min(3);
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={announced}
listener.security.protocol.map={protocols}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
{more}
",
        id = node.id,
        voters = voters.join(","),
        controller = node.controller_port,
        data = data.display(),
        in_sync = copies.div_ceil(2),
        more = config.properties,
    )
}
