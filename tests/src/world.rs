//! A whole Rotacast on real servers: a store, a bus, PostgreSQL, the broadcaster and sample services, each a process of
//! its own.
//!
//! ```no_run
//! # use rotacast_tests::world::{Options, Programs, World};
//! # async fn example(programs: Programs) -> Option<()> {
//! let mut world = World::start(programs, Options::default()).await?; // None: servers are missing
//! world.broadcaster.start(&world.operator).await;
//! world.first_version().await;
//! let mut service = world.service("payments-api", "one", &[]);
//! let ended = world.rotate().await;
//! # Some(())
//! # }
//! ```
//!
//! The programs are those of this very build: an integration test names them with [`programs!`](crate::programs).
//! Everything ends with the test, however the test ends. A failed test prints the ends of all logs.

mod audit;
mod broadcaster;
mod bus;
mod commands;
mod database;
mod judgement;
mod observer;
mod operator;
pub mod permissions;
mod server_log;
mod service;
mod settings;
mod store;
mod way;

use std::path::PathBuf;
use std::time::Duration;

use rotacast_proto::v1;

use crate::servers::{Network, Scratch, make_certificates, until};

pub use audit::AuditTrail;
pub use broadcaster::Broadcaster;
pub use bus::{BusKind, BusServer, TLS};
pub use commands::Commands;
pub use database::{Database, GROUP};
pub use judgement::{number, usual};
pub use observer::{Observer, RoleLife};
pub use operator::{Action, Operator};
pub use server_log::SessionLog;
pub use service::Service;
pub use settings::{CLUSTER, Keys, OPERATOR, OTHER_OPERATORS, Options, PREFIX, Roles, SECRET, SERVICES};
pub use store::{StoreKind, StoreServer};
pub use way::Way;

/// Timeout of everything that must happen: far more than a busy machine needs, so only a fault takes this long.
pub const LIMIT: Duration = Duration::from_secs(90);

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `rotacast`.
    pub rotacast: PathBuf,
    /// The sample service.
    pub pool_service: PathBuf,
}

/// The [`Programs`] of this build; for integration tests, which cargo tells where they are.
#[macro_export]
macro_rules! programs {
    () => {
        $crate::world::Programs {
            rotacast: env!("CARGO_BIN_EXE_rotacast-under-test").into(),
            pool_service: env!("CARGO_BIN_EXE_pool-service").into(),
        }
    };
}

/// Everything, started. Fields are dropped in order: clients before servers.
pub struct World {
    /// The broadcaster's process; the first of several.
    pub broadcaster: Broadcaster,
    /// The other broadcasters.
    pub standbys: Vec<Broadcaster>,
    /// How each broadcaster reaches store and bus, if the world is [cuttable](Options::cuttable).
    pub ways: Vec<Way>,
    /// An operator, who sends orders to it.
    pub operator: Operator,
    /// What PostgreSQL itself shows.
    pub observer: Observer,
    /// PostgreSQL, with the rights Rotacast needs.
    pub database: Database,
    /// The bus.
    pub bus: BusServer,
    /// The store.
    pub store: StoreServer,
    keys: Keys,
    collector: Option<String>,
    permissions: bool,
    programs: Programs,
    folder: Scratch,
}

impl World {
    /// Starts the servers and prepares everything; neither broadcaster nor services run yet. `None` if a server is
    /// missing, after counting the test as skipped.
    ///
    /// # Panics
    /// If something that is there does not start.
    pub async fn start(programs: Programs, options: Options) -> Option<Self> {
        let folder = Scratch::new("world");
        let tls = folder.path().join(TLS);
        if options.bus_tls {
            std::fs::create_dir(&tls).expect("the scratch folder is new");
            if !make_certificates(&tls, &["server", "client"]).await {
                return None;
            }
        }
        let tls = options.bus_tls.then_some(tls.as_path());
        let variables = if options.permissions { permissions::variables() } else { Vec::new() };
        let (store, bus, database) = tokio::join!(
            StoreServer::start(options.store, folder.path(), options.quota),
            BusServer::start(options.bus, tls, &variables),
            Database::start()
        );
        let (store, bus, database) = (store?, bus?, database?);
        let keys = Keys::make(folder.path());
        let mut ways = Vec::new();
        for _ in 0..if options.cuttable { 1 + options.standbys } else { 0 } {
            ways.push(Way::to(&store, &bus).await);
        }
        let broadcaster = |which: usize, name: &str| {
            Broadcaster::new(&programs, &folder, name, |port| {
                let servers = (&store, &bus, ways.get(which));
                settings::write(folder.path(), &keys, &options, (name, port), servers, &database)
            })
        };
        let mut standbys: Vec<Broadcaster> =
            (1..=options.standbys).map(|at| broadcaster(at, &format!("standby-{at}"))).collect();
        let mut broadcaster = broadcaster(0, settings::FIRST);
        if let Some(bytes) = options.disk {
            for one in std::iter::once(&mut broadcaster).chain(&mut standbys) {
                one.mount(bytes).await;
            }
        }
        if options.permissions {
            permissions::enforce(&programs, broadcaster.config(), bus.nats()).await;
        }
        let urls = std::iter::once(&broadcaster).chain(&standbys).map(Broadcaster::url).collect();
        let operator = Operator::new(urls, keys.operator.clone(), &keys.token);
        let observer = Observer::start(&database).await;
        let (collector, permissions) = (options.collector, options.permissions);
        Some(Self {
            broadcaster,
            standbys,
            ways,
            operator,
            observer,
            database,
            bus,
            store,
            keys,
            collector,
            permissions,
            programs,
            folder,
        })
    }

    /// One of the broadcasters; 0 is the first.
    pub fn replica(&mut self, which: usize) -> &mut Broadcaster {
        if which == 0 { &mut self.broadcaster } else { &mut self.standbys[which - 1] }
    }

    /// Gives all broadcasters other roles, in the file; SIGHUP has it read.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn change_roles(&mut self, old: &Roles, new: &Roles) {
        let (old, new) = (self.keys.operators(Some(old)), self.keys.operators(Some(new)));
        for one in std::iter::once(&self.broadcaster).chain(&self.standbys) {
            let text = std::fs::read_to_string(one.config()).expect("the configuration is there");
            assert!(text.contains(&old), "{text}");
            std::fs::write(one.config(), text.replace(&old, &new)).expect("the configuration is ours");
        }
    }

    /// The token with which the operator signs in to the dashboard.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.keys.token
    }

    /// Where all broadcasters listen, joined by commas.
    #[must_use]
    pub fn urls(&self) -> String {
        let all = std::iter::once(&self.broadcaster).chain(&self.standbys);
        all.map(Broadcaster::url).collect::<Vec<_>>().join(",")
    }

    /// A sample service, started, which reads values from the store itself where it can; `arguments` as its command line
    /// takes them.
    #[must_use]
    pub fn service(&self, service: &str, instance: &str, arguments: &[&str]) -> Service {
        let store = self.store.arguments(None).unwrap_or_default();
        let all: Vec<&str> = store.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        self.start_service(service, instance, (&self.bus_url(service), &self.urls()), &all)
    }

    /// A sample service as [`World::service`], and how it reaches store and bus.
    ///
    /// # Panics
    /// If they cannot stand behind a proxy.
    pub async fn cuttable_service(&self, service: &str, instance: &str) -> (Service, Way) {
        let way = Way::to(&self.store, &self.bus).await;
        let store = self.store.arguments(Some(way.store.port())).unwrap_or_default();
        let arguments: Vec<&str> = store.iter().map(String::as_str).collect();
        let bus = format!("nats://127.0.0.1:{}", way.bus.port());
        (self.start_service(service, instance, (&bus, &self.urls()), &arguments), way)
    }

    /// The same in a network of its own, except for PostgreSQL, if a network can be made: with its cable pulled it
    /// reaches nothing else.
    ///
    /// # Panics
    /// If store or bus cannot stand behind a proxy.
    pub async fn networked_service(&self, service: &str, instance: &str) -> (Service, Way, Option<Network>) {
        let Some(mut network) = Network::make(self.folder.path()).await else {
            let (service, way) = self.cuttable_service(service, instance).await;
            return (service, way, None);
        };
        let way = Way::to(&self.store, &self.bus).await;
        let broadcasters = std::iter::once(&self.broadcaster).chain(&self.standbys).map(Broadcaster::port);
        for port in [way.store.port(), way.bus.port()].into_iter().chain(broadcasters) {
            network.join(port);
        }
        // The credential says where PostgreSQL is.
        network.share(self.database.port());
        let there = |text: &str| text.replace("127.0.0.1", &Network::GATEWAY.to_string());
        let store = self.store.arguments(Some(way.store.port())).unwrap_or_default();
        let arguments: Vec<String> = store.iter().map(|argument| there(argument)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let bus = there(&format!("nats://127.0.0.1:{}", way.bus.port()));
        let servers = (bus.as_str(), there(&self.urls()));
        let started = self.start_service_in(service, instance, (servers.0, &servers.1), &arguments, Some(&network));
        (started, way, Some(network))
    }

    /// A sample service, started, which asks broadcasters for values. The first address that it gets does not answer.
    #[must_use]
    pub fn service_without_store(&self, service: &str, instance: &str, arguments: &[&str]) -> Service {
        // No process listens on port 1.
        let broadcasters = format!("http://127.0.0.1:1,{}", self.urls());
        self.start_service(service, instance, (&self.bus_url(service), &broadcasters), arguments)
    }

    /// A sample service, started, that reaches everything through the broadcasters.
    #[must_use]
    pub fn service_over_grpc(&self, service: &str, instance: &str) -> Service {
        let hosts = self.urls().replace("http://", "");
        self.start_service(service, instance, (&format!("grpc://{hosts}"), &self.urls()), &[])
    }

    /// What this service connects to.
    fn bus_url(&self, service: &str) -> String {
        let url = self.bus.url(&self.broadcaster.url());
        if self.permissions { permissions::with_login(&url, service) } else { url }
    }

    fn start_service(&self, service: &str, instance: &str, servers: (&str, &str), arguments: &[&str]) -> Service {
        self.start_service_in(service, instance, servers, arguments, None)
    }

    fn start_service_in(
        &self,
        service: &str,
        instance: &str,
        (url, broadcasters): (&str, &str),
        arguments: &[&str],
        network: Option<&Network>,
    ) -> Service {
        let mut all = vec![
            format!("--service={service}"),
            format!("--instance={instance}"),
            format!("--secret={SECRET}"),
            format!("--cluster={CLUSTER}"),
            format!("--url={url}"),
            format!("--broadcaster={broadcasters}"),
            format!("--identity={}", self.keys.service(service).display()),
            format!("--trust={}", self.keys.broadcaster.display()),
        ];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Service::start(&self.programs, &self.folder, (service, instance), all, self.collector.as_deref(), network)
    }

    /// The settings of an instance inside the test itself, which asks broadcasters for values, and the bus to connect it to.
    #[must_use]
    pub fn subscriber(&self, service: &str, instance: &str) -> (rotacast_subscriber::Builder, String) {
        let builder = rotacast_subscriber::Subscriber::builder()
            .service(service)
            .instance(instance)
            .cluster(CLUSTER)
            .identity_file(self.keys.service(service))
            .trust_file(&self.keys.broadcaster)
            .broadcasters(self.urls().split(','));
        (builder, self.bus_url(service))
    }

    /// What instances trust.
    ///
    /// # Panics
    /// If the world's own file is broken.
    #[must_use]
    pub fn broadcaster_key(&self) -> rotacast_proto::VerifyingKey {
        rotacast_proto::VerifyingKey::read_file(&self.keys.broadcaster).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `rotacast` with these arguments as the operator would, in the world's folder.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn cli(&self, arguments: &[&str]) -> std::process::Output {
        self.commands().run(arguments).await
    }

    /// Runs `rotacast` as [`World::cli`] does, while the world can change.
    #[must_use]
    pub fn commands(&self) -> Commands {
        Commands {
            program: self.programs.rotacast.clone(),
            servers: self.urls(),
            operator: OPERATOR,
            folder: self.folder.path().to_owned(),
        }
    }

    /// The audit log as it is on disk, checked.
    ///
    /// # Panics
    /// If it does not verify.
    #[must_use]
    pub fn audit(&self) -> AuditTrail {
        AuditTrail::read(&self.audit_file())
    }

    /// The audit logs of all broadcasters that have one, checked.
    ///
    /// # Panics
    /// If one does not verify.
    #[must_use]
    pub fn audits(&self) -> Vec<AuditTrail> {
        let all = std::iter::once(&self.broadcaster).chain(&self.standbys);
        let files = all.map(|one| one.data().join("audit.jsonl"));
        files.filter(|file| file.exists()).map(|file| AuditTrail::read(&file)).collect()
    }

    /// Where the audit log is.
    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        self.broadcaster.data().join("audit.jsonl")
    }

    /// The folder of keys, configuration, logs and the broadcaster's data.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Makes a login role by hand and writes its credential into the store as this version.
    pub async fn put_by_hand(&self, version: u64) {
        let value = self.database.make_login(version).await;
        self.store.put(version, &value).await;
    }

    /// A session with a version's credential that no service knows of. It lasts as long as the client.
    ///
    /// # Panics
    /// If the version is not stored or does not log in.
    pub async fn session(&self, version: u64) -> tokio_postgres::Client {
        self.database.session(&self.value(version).await).await
    }

    /// The value of this version, opened with the broadcaster's key.
    ///
    /// # Panics
    /// If it is not stored or does not open.
    pub async fn value(&self, version: u64) -> String {
        self.store.get(version, self.keys.sealing()).await
    }

    /// Brings version 1 in by hand and waits until it is current.
    pub async fn first_version(&self) {
        self.put_by_hand(1).await;
        self.until("version 1 to be current", |status| (status.current == 1).then_some(())).await;
    }

    /// Gives the order to rotate and waits for the end of that rotation.
    ///
    /// # Panics
    /// If the order is refused or the rotation does not end within [`LIMIT`].
    pub async fn rotate(&self) -> v1::FinishedRotation {
        let started = self.operator.order(Action::Rotate(v1::Rotate {})).await;
        let version = started.unwrap_or_else(|status| panic!("rotate was refused: {status:?}")).version;
        self.ended(version).await
    }

    /// Waits for the end of the rotation to this version.
    pub async fn ended(&self, version: u64) -> v1::FinishedRotation {
        let what = format!("the end of the rotation to version {version}");
        self.until(&what, |status| status.history.iter().find(|ended| ended.new == version).cloned()).await
    }

    /// The lowest number that no version has used.
    pub async fn next_version(&self) -> u64 {
        let highest = |status: &v1::SecretStatus| {
            let listed = status.versions.iter().map(|info| info.version);
            listed.chain(status.history.iter().map(|ended| ended.new)).max()
        };
        self.until("a version", highest).await + 1
    }

    /// Waits until the secret's status matches. Waits on while no broadcaster answers.
    ///
    /// # Panics
    /// After [`LIMIT`], with the last status.
    pub async fn until<T>(&self, what: &str, mut fits: impl FnMut(&v1::SecretStatus) -> Option<T>) -> T {
        let mut last = String::from("none");
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                match self.operator.status().await {
                    Ok(status) => {
                        if let Some(found) = fits(&status) {
                            return found;
                        }
                        last = format!("{status:#?}");
                    }
                    Err(error) => last = format!("{last}\n(now: {error})"),
                }
                last.truncate(20_000);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("waited {LIMIT:?} in vain for {what}; the last status was:\n{last}"))
    }

    /// Waits until PostgreSQL shows exactly these versions' login roles.
    pub async fn until_roles_are(&self, expected: &[String]) {
        let what = format!("PostgreSQL to have exactly the login roles {expected:?}");
        until(&what, LIMIT, async || (self.database.logins().await == expected).then_some(())).await;
    }
}
