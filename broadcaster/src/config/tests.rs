//! The documented example is valid, and an error names the line and the fix.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use rotacast_proto::SigningKey;
use rotacast_protocol::policy::{OnDeadline, WhenUnreachable};
use rotacast_protocol::{OperatorName, Phase, Policy, SecretName};
use rotacast_seal::SealingKey;

use super::*;
use crate::operators::{Decision, OrderKind, Reading};

const EXAMPLE: &str = include_str!("../../../docs/operate/rotacast.example.toml");

fn parse(text: &str) -> Result<Config, String> {
    // Texts that test something else need not name a cluster.
    let cluster = (!text.contains("cluster = ")).then(|| "test".to_owned());
    let environment = move |name: &str| cluster.clone().filter(|_| name == "ROTACAST_CLUSTER");
    Config::parse(Path::new("rotacast.toml"), text, &environment).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err()
}

fn secret(name: &str) -> SecretName {
    SecretName::new(name).unwrap()
}

/// Every TOML block of a page that is a broadcaster's configuration. Blocks for Cargo are left out.
fn documented(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.filter(|block| !block.contains("[dependencies]")).collect()
}

#[test]
fn every_configuration_that_the_documentation_shows_is_taken() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = vec![top.join("README.md")];
    let mut folders = vec![top.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let mut blocks = 0;
    for page in &pages {
        for block in documented(page) {
            let outcome = parse(&block);
            assert!(outcome.is_ok(), "{}: {}\n{block}", page.display(), outcome.unwrap_err());
            blocks += 1;
        }
    }
    assert!(blocks >= 4, "{blocks} blocks in {} pages: are they still found?", pages.len());
    assert!(parse("").is_ok(), "an empty file stands for the defaults, beside the cluster");
}

#[test]
fn the_documented_example_parses_to_what_it_says() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.cluster.as_str(), "prod");
    assert!(
        matches!(&config.store, StoreConfig::Etcd { layout: Layout::Plain { source_prefix }, .. } if source_prefix == "/secrets")
    );
    let db = config.secret(&secret("payments/db"));
    assert_eq!(db.provider.as_ref().unwrap().as_str(), "payments-pg");
    assert!(db.policy.approval);
    assert_eq!(db.policy.min_overlap, Duration::from_secs(120), "inherited from [defaults]");
    assert_eq!(db.policy.deadlines[&Phase::Preparing].then, OnDeadline::RollBack);
    assert_eq!(db.policy.required.values().copied().collect::<Vec<_>>(), [2]);
    let internal = config.secret(&secret("internal/token"));
    assert_eq!(internal.policy.when_unreachable, WhenUnreachable::PresumeDeadAfter(Duration::from_secs(900)));
    assert_eq!(config.secret(&secret("other")).policy, config.defaults);
    assert_eq!(config.named_secrets().collect::<Vec<_>>(), [secret("payments/db")]);
}

/// The lines `# name = value` of the example are defaults: uncommented, they change nothing.
#[test]
fn the_defaults_shown_in_the_example_are_the_defaults() {
    let shown: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest
                    .split_once(" = ")
                    .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
                    && !rest.starts_with("replica")
                    && !rest.starts_with("length")
                    && !rest.starts_with("alphabet")
                    && !rest.starts_with("role_name") =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(shown, EXAMPLE);
    assert_eq!(parse(&shown).unwrap(), parse(EXAMPLE).unwrap());
}

#[test]
fn an_empty_file_is_a_working_configuration() {
    let config = parse("").unwrap();
    assert_eq!(
        config.listen,
        Listen { grpc: DEFAULT_LISTEN, tls: None, advertise: None, limits: ListenLimits::default() }
    );
    assert_eq!(config.defaults, Policy::default());
    assert_eq!(
        config.store,
        StoreConfig::Embedded { file: "rotacast-data/store.db".into(), prefix: "rotacast".into() }
    );
    assert_eq!(config.listen.advertised().unwrap(), "http://127.0.0.1:7400");
    let elsewhere = Config::parse(Path::new("/etc/rotacast/rotacast.toml"), "cluster = \"a\"", &|_| None).unwrap();
    assert_eq!(elsewhere.audit.file, Path::new("/etc/rotacast/rotacast-data/audit.jsonl"));
}

#[test]
fn what_peers_may_hold_is_configured_and_never_nothing() {
    let limits = parse("[listen]\nmax_connections = 200\nmax_calls_per_peer = 7\nidle_timeout = \"1m\"\n").unwrap();
    let limits = limits.listen.limits;
    assert_eq!(limits.connections.map(NonZeroUsize::get), Some(200));
    assert_eq!((limits.calls_per_peer.get(), limits.idle_timeout), (7, Duration::from_secs(60)));
    assert_eq!(limits.calls, ListenLimits::default().calls);
    for (wrong, told) in [
        ("max_connections = 0", "listen.max_connections"),
        ("max_instance_calls = -1", "listen.max_instance_calls"),
        ("first_request_timeout = \"2m\"", "out of range; expected 1s to 1m"),
    ] {
        let found = refused(&format!("[listen]\n{wrong}\n"));
        assert!(found.contains(told), "{found}");
    }
}

#[test]
fn a_cluster_is_called_what_its_operator_calls_it() {
    let none = Config::parse(Path::new("rotacast.toml"), "replica = \"a\"\n", &|_| None).unwrap_err().to_string();
    assert!(none.contains("cluster: is missing"), "{none}");
    assert!(none.contains("`cluster = \"production\"` at the top of the file, or ROTACAST_CLUSTER"), "{none}");
    assert!(refused("cluster = \"No Such Name\"\n").contains("cluster"));
}

#[test]
fn what_a_replica_advertises_is_an_address() {
    let tls = "tls = { cert = \"c\", key = \"k\" }\n";
    let every = parse(&format!("[listen]\ngrpc = \"0.0.0.0:7400\"\n{tls}")).unwrap();
    assert_eq!(every.listen.advertised(), None);
    let named = parse(&format!("[listen]\ngrpc = \"0.0.0.0:7400\"\nadvertise = \"https://a:7400\"\n{tls}")).unwrap();
    assert_eq!(named.listen.advertised().unwrap(), "https://a:7400");
    for wrong in ["a:7400", "ftp://a", "https://", "https://a b", &format!("https://{}", "a".repeat(200))] {
        let told = refused(&format!("[listen]\nadvertise = \"{wrong}\"\n"));
        assert!(told.contains("listen.advertise"), "{told}");
    }
}

#[test]
fn an_unknown_setting_is_named_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        refused("[defaults]\n\nleese_idle = \"1h\"\n"),
        "rotacast.toml:3: defaults.leese_idle: unknown setting; did you mean `lease_idle`?"
    );
    assert!(
        refused("[stroe]\nkind = \"etcd\"\n")
            .contains("rotacast.toml:1: stroe: unknown setting; did you mean `store`?")
    );
    assert!(refused("[leader]\nxyz = 1\n").contains("known here: ttl"));
    assert!(
        refused("[secrets.\"a/b\"]\nprovider = \"x\"\n[providers.xx]\nkind = \"generate\"\n")
            .contains("did you mean `xx`?")
    );
}

#[test]
fn numbers_without_a_unit_are_refused_with_the_fix() {
    let expected = "rotacast.toml:2: leader.ttl: 30 has no unit; write \"30s\" for seconds (units: ms, s, m, h, d)";
    assert_eq!(refused("[leader]\nttl = 30\n"), expected);
    assert_eq!(refused("[leader]\nttl = \"30\"\n"), expected);
    assert!(refused("[audit]\nmax_file_size = 1000000\n").contains("write \"1000000B\""));
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let problems =
        refused("clustr = \"x\"\n[leader]\nttl = 5\n[secrets.\"Pay\"]\nsync_idle = \"1d\"\n[bus]\nkind = \"kafkaa\"\n");
    let lines: Vec<&str> = problems.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        lines,
        ["rotacast.toml:1", "rotacast.toml:3", "rotacast.toml:4", "rotacast.toml:5", "rotacast.toml:7"],
        "{problems}"
    );
}

#[test]
fn what_cannot_be_safe_is_refused_with_the_fix() {
    assert!(
        refused("[listen]\ngrpc = \"0.0.0.0:7400\"\n")
            .contains("set [listen.tls] cert and key, or listen on 127.0.0.1:7400")
    );
    let admin = "[providers.p]\nkind = \"postgres\"\ngroup_role = \"g\"\ndatabase = \"d\"\nhost = \"h\"\n";
    let told = refused(&format!("{admin}admin = \"postgres://root:hunter2@h/d\"\n"));
    assert!(told.contains("admin_file") && !told.contains("hunter2"), "{told}");
    let told = refused(&format!("{admin}admin = \"host=h user=u password=hunter2\"\n"));
    assert!(told.contains("admin_file") && !told.contains("hunter2"), "{told}");
    let told = refused("[bus]\nkind = \"nats\"\nurl = \"nats://u:hunter2@h:4222\"\n");
    assert!(told.contains("credentials") && !told.contains("hunter2"), "{told}");
    assert!(
        refused("[defaults.deadlines]\nretiring = { after = \"1h\", then = \"rollback\" }\n").contains("no way back")
    );
    let same = "rotacast-public-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let keys = format!("keys = [\"{same}\"]\n");
    assert!(refused(&format!("[operators.a]\n{keys}[operators.b]\n{keys}")).contains("same key as a"));
    assert!(refused(&format!("[operators.schedule]\n{keys}")).contains("operators.schedule"));
    let told = refused("[secrets.\"payments/db\"]\nrotate_every = \"30s\"\n");
    assert!(told.contains("rotate_every") && told.contains("expected 1m to 3650d"), "{told}");
    assert!(refused("[defaults]\nrotate_every = \"30d\"\n").contains("rotate_every"));
    assert!(refused("[secrets.\"payments/db\"]\nrotate_every = \"30d\"\n").contains("needs a provider"));
    let told = refused(&format!(
        "{admin}admin = \"host=h user=u\"\nmax_connections = 1\nsettle = \"1m\"\ntest_every = \"1s\"\n"
    ));
    assert!(told.contains("expected 2 to 100") && told.contains("settle"), "{told}");
    assert!(told.contains("test_every") && told.contains("expected 1m to 365d"), "{told}");
    let etcd = "[store]\nkind = \"etcd\"\nendpoints = [\"http://h:1\"]\nlayout = \"plain\"\nprefix = \"/s/r\"\nsource_prefix = \"/s\"\n";
    assert!(refused(etcd).contains("overlap"));
}

#[test]
fn what_would_cross_a_network_in_the_clear_is_refused_unless_that_is_allowed_by_name() {
    let login = "user = \"u\"\npassword_file = \"/p\"\n";
    let etcd = "[store]\nkind = \"etcd\"\nendpoints = [\"http://127.0.0.1:2379\", \"http://etcd-2:2379\"]\n";
    let consul = "[store]\nkind = \"consul\"\naddress = \"http://10.0.0.1:8500\"\n";
    let nats = "[bus]\nkind = \"nats\"\nurl = \"tls://nats-1:4222, nats://nats-2:4222\"\n";
    let kafka = "[bus]\nkind = \"kafka\"\nbrokers = [\"localhost:9092\", \"kafka-2:9092\"]\nmechanism = \"PLAIN\"\n";
    let refusals = [
        (etcd.to_owned(), "store.endpoints: \"http://etcd-2:2379\"", "the values of secrets"),
        (
            format!("{etcd}{login}"),
            "store.endpoints: \"http://etcd-2:2379\"",
            "the values of secrets and the password of store.user",
        ),
        (consul.to_owned(), "store.address: \"http://10.0.0.1:8500\"", "the values of secrets"),
        (
            format!("{consul}token_file = \"/t\"\n"),
            "store.address: \"http://10.0.0.1:8500\"",
            "the values of secrets and the token of store.token_file",
        ),
        (
            nats.to_owned(),
            "bus.url: \"nats://nats-2:4222\"",
            "the names, states and reports of all secrets and services",
        ),
        (
            format!("{nats}nkey_file = \"/n\"\n"),
            "bus.url: \"nats://nats-2:4222\"",
            "the names, states and reports of all secrets and services, over a connection that is logged in,",
        ),
        (format!("{nats}token_file = \"/t\"\n"), "bus.url: \"nats://nats-2:4222\"", "the token of bus.token_file"),
        (format!("{nats}{login}"), "bus.url: \"nats://nats-2:4222\"", "the password of bus.user"),
        (
            format!("{kafka}{login}"),
            "bus.brokers: \"kafka-2:9092\"",
            "the password of bus.user, which \"PLAIN\" sends as it is,",
        ),
    ];
    for (text, address, carries) in refusals {
        let (encrypt, section, variable) = match text.lines().nth(1).unwrap() {
            "kind = \"nats\"" => {
                ("use tls://, with [bus.tls] ca for an authority of your own", "bus", "ROTACAST_BUS_IN_THE_CLEAR")
            }
            "kind = \"kafka\"" => {
                ("set [bus.tls] ca, or mechanism = \"SCRAM-SHA-512\"", "bus", "ROTACAST_BUS_IN_THE_CLEAR")
            }
            _ => ("use https:// with [store.tls] ca", "store", "ROTACAST_STORE_IN_THE_CLEAR"),
        };
        assert_eq!(
            refused(&text),
            format!(
                "rotacast.toml:3: {address} is not encrypted and not on this machine: {carries} would cross the network in \
                 the clear; {encrypt}, or set in_the_clear = true in [{section}] (or {variable}=true) if something else \
                 protects the way there"
            )
        );
        parse(&format!("{text}in_the_clear = true\n")).unwrap_or_else(|told| panic!("{told}"));
        let from_environment = |value: &'static str| {
            let text = format!("cluster = \"a\"\n{text}");
            Config::parse(Path::new("r.toml"), &text, &|asked| (asked == variable).then(|| value.into()))
        };
        from_environment("true").unwrap();
        let told = from_environment("yes").unwrap_err().to_string();
        assert!(told.contains(&format!("environment variable {variable}: \"yes\"; expected true or false")), "{told}");
    }
    for encrypted in [
        "[store]\nkind = \"etcd\"\nendpoints = [\"https://etcd-2:2379\"]\n[store.tls]\nca = \"c\"\n",
        "[store]\nkind = \"consul\"\naddress = \"https://10.0.0.1:8500\"\n[store.tls]\nca = \"c\"\n",
        &format!("{nats}[bus.tls]\nca = \"c\"\n"),
        &format!("{kafka}{login}[bus.tls]\nca = \"c\"\n"),
        &format!("{}{login}", kafka.replace("PLAIN", "SCRAM-SHA-256")),
    ] {
        parse(encrypted).unwrap_or_else(|told| panic!("{told}"));
    }
}

#[test]
fn the_environment_goes_over_the_file_and_its_mistakes_are_named() {
    let with = |name: &'static str, value: &'static str| {
        Config::parse(Path::new("r.toml"), "cluster = \"a\"\n", &move |asked| (asked == name).then(|| value.into()))
    };
    assert_eq!(with("ROTACAST_CLUSTER", "b").unwrap().cluster.as_str(), "b");
    assert_eq!(with("ROTACAST_DATA_DIR", "/d").unwrap().signing_key, Path::new("/d/keys/broadcaster.key"));
    let told = with("ROTACAST_LISTEN_GRPC", "nowhere").unwrap_err().to_string();
    assert!(told.contains("environment variable ROTACAST_LISTEN_GRPC"), "{told}");
}

#[test]
fn a_reload_tells_what_takes_effect_at_once() {
    let old = parse("").unwrap();
    assert_eq!(changes(&old, &old), []);
    let new =
        parse("[listen]\ngrpc = \"127.0.0.1:1\"\n[defaults]\napproval = true\n[log]\nlevel = \"debug\"\n").unwrap();
    let changed: Vec<(&str, bool)> = changes(&old, &new).iter().map(|change| (change.setting, change.live)).collect();
    assert_eq!(changed, [("listen", false), ("defaults", true), ("log.level", false)]);
}

#[test]
fn a_name_counts_before_a_beginning_and_a_longer_beginning_before_a_shorter() {
    let section = |pattern: &str, budget: u32| format!("[secrets.\"{pattern}\"]\nfailure_budget = {budget}\n");
    let text = [("*", 1), ("payments/*", 2), ("payments/db/*", 3), ("payments/db", 4)].map(|(p, b)| section(p, b));
    for text in [text.concat(), text.iter().rev().cloned().collect()] {
        let config = parse(&text).unwrap();
        let budget = |name: &str| config.secret(&secret(name)).policy.failure_budget;
        assert_eq!(["x", "payments/a", "payments/db/a", "payments/db"].map(budget), [1, 2, 3, 4]);
    }
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    let told = refused("cluster = \"a\"\n[store\n");
    assert!(told.starts_with("rotacast.toml:2: not TOML"), "{told}");
}

#[test]
fn consul_settings_are_read_and_mistakes_in_them_are_named() {
    let with = |more: &str| parse(&format!("[store]\nkind = \"consul\"\n{more}"));
    let config = with("address = \"http://127.0.0.1:8500\"\ntoken_file = \"/t\"\ndatacenter = \"dc2\"\n").unwrap();
    let expected = StoreConfig::Consul {
        address: "http://127.0.0.1:8500".into(),
        prefix: "rotacast".into(),
        layout: Layout::Versioned,
        token_file: Some("/t".into()),
        datacenter: Some("dc2".into()),
        tls: None,
    };
    assert_eq!(config.store, expected);
    let plain = with("address = \"http://[::1]:1\"\nlayout = \"plain\"\nsource_prefix = \"apps\"\n").unwrap();
    assert_eq!(plain.store.source_prefix(), Some("apps"));
    let told = [
        ("", "r", "store.address: is missing"),
        ("address = \"127.0.0.1:8500\"", "", "expected to begin with http:// or https://"),
        ("address = \"https://h:1\"", "", "needs [store.tls] ca"),
        ("address = \"http://h:1\"\n[store.tls]\nca = \"c\"", "", "not encrypted although [store.tls] is set"),
        ("address = \"http://h:1\"\ntoken = \"hunter2\"", "hunter2", "name it in token_file"),
        ("address = \"http://u:hunter2@h:1\"", "hunter2", "token_file"),
        ("address = \"http://h:1\"\nendpoints = [\"http://h:2\"]", "", "store.endpoints: unknown setting"),
    ];
    for (text, hidden, expected) in told {
        let told = with(text).unwrap_err();
        assert!(told.contains(expected), "{text}: {told}");
        assert!(hidden != "hunter2" || !told.contains(hidden), "{told}");
    }
}

#[test]
fn kafka_settings_are_read_and_mistakes_in_them_are_named() {
    let with = |more: &str| parse(&format!("[bus]\nkind = \"kafka\"\n{more}"));
    let text = "brokers = [\"a:1\", \"b:2\"]\nreplication = 3\nuser = \"u\"\npassword_file = \"/p\"\n\
                mechanism = \"SCRAM-SHA-256\"\n[bus.tls]\nca = \"/c\"\n[bus.properties]\n\"socket.keepalive.enable\" = \"true\"\n";
    let expected = BusConfig::Kafka {
        brokers: vec!["a:1".into(), "b:2".into()],
        replication: Some(3),
        login: Some(Login { user: "u".into(), password_file: "/p".into() }),
        mechanism: Some(SaslMechanism::ScramSha256),
        tls: Some(ClientTls { ca: "/c".into(), identity: None, server_name: None }),
        properties: BTreeMap::from([("socket.keepalive.enable".into(), "true".into())]),
    };
    assert_eq!(with(text).unwrap().bus, expected);
    let mistakes = [
        ("", "bus.brokers: is missing"),
        ("brokers = []", "bus.brokers: is empty"),
        ("brokers = [\"kafka://h:1\"]", "without a scheme"),
        ("brokers = [\"h\"]", "expected host:port"),
        ("brokers = [\"h:1\"]\nreplication = 0", "bus.replication: expected at least 1"),
        ("brokers = [\"h:1\"]\nmechanism = \"PLAIN\"", "set user and password_file"),
        ("brokers = [\"h:1\"]\nuser = \"u\"", "bus.password_file: is missing"),
        ("brokers = [\"h:1\"]\nurl = \"nats://h:1\"", "bus.url: unknown setting"),
        ("brokers = [\"h:1\"]\n[bus.tls]\nca = \"c\"\nserver_name = \"n\"", "bus.tls.server_name: cannot be set"),
    ];
    for (text, expected) in mistakes {
        let told = with(text).unwrap_err();
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn properties_that_break_safety_or_hold_secrets_are_refused_by_name() {
    let with = |more: &str, name: &str, value: &str| {
        parse(&format!(
            "[bus]\nkind = \"kafka\"\nbrokers = [\"h:1\"]\n{more}\n[bus.properties]\n\"{name}\" = \"{value}\"\n"
        ))
    };
    let always = [
        "acks",
        "enable.idempotence",
        "transactional.id",
        "isolation.level",
        "group.id",
        "bootstrap.servers",
        "sasl.password",
        "ssl.key.password",
        "enable.ssl.certificate.verification",
        "plugin.library.paths",
    ];
    for name in always {
        let told = with("", name, "hunter2").unwrap_err();
        assert!(
            told.contains(&format!("bus.properties.\"{name}\": "))
                || told.contains(&format!("bus.properties.{name}: ")),
            "{told}"
        );
        assert!(!told.contains("hunter2"), "{told}");
    }
    let login = "user = \"u\"\npassword_file = \"p\"";
    for name in ["security.protocol", "sasl.mechanism", "sasl.username"] {
        assert!(with(login, name, "x").unwrap_err().contains("remove it"), "{name}");
        with("", name, "x").unwrap();
    }
}

#[test]
fn a_login_to_nats_is_given_in_one_way_only() {
    let with = |more: &str| parse(&format!("[bus]\nkind = \"nats\"\nurl = \"nats://localhost:1\"\n{more}"));
    let login = |more: &str| match with(more).unwrap().bus {
        BusConfig::Nats { login, .. } => login,
        other => panic!("{other:?}"),
    };
    assert_eq!(login(""), NatsLogin::None);
    assert_eq!(login("nkey_file = \"/n\""), NatsLogin::Nkey("/n".into()));
    assert_eq!(login("token_file = \"/t\""), NatsLogin::Token("/t".into()));
    assert!(matches!(login("user = \"u\"\npassword_file = \"/p\""), NatsLogin::Password(_)));
    let told = with("credentials = \"c\"\nnkey_file = \"n\"").unwrap_err();
    assert!(told.contains("bus.nkey_file") && told.contains("beside credentials"), "{told}");
    assert!(with("[bus.tls]\nca = \"c\"\nserver_name = \"n\"").unwrap_err().contains("cannot be set for a bus"));
}

#[test]
fn servers_may_be_named_by_the_environment() {
    let from = |kinds: [(&'static str, &'static str); 2]| {
        Config::parse(Path::new("r.toml"), "cluster = \"a\"", &move |asked| {
            kinds.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).into())
        })
        .unwrap()
    };
    let consul = from([("ROTACAST_STORE_KIND", "consul"), ("ROTACAST_STORE_ADDRESS", "http://127.0.0.1:1")]);
    assert!(matches!(consul.store, StoreConfig::Consul { address, .. } if address == "http://127.0.0.1:1"));
    let kafka = from([("ROTACAST_BUS_KIND", "kafka"), ("ROTACAST_BUS_BROKERS", "a:1, b:2")]);
    assert_eq!(kafka.bus.missing_from_build().is_none(), cfg!(feature = "kafka"));
    assert!(matches!(kafka.bus, BusConfig::Kafka { brokers, .. } if brokers == ["a:1", "b:2"]));
}

#[test]
fn the_collector_is_named_by_the_file_or_as_opentelemetry_has_it() {
    let with = |text: &str, variables: &'static [(&'static str, &'static str)]| {
        Config::parse(Path::new("r.toml"), &format!("cluster = \"a\"\n{text}"), &move |asked| {
            variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned())
        })
        .map(|config| config.telemetry.traces_url)
    };
    let file = "[telemetry]\notlp_endpoint = \"http://collector:4318/\"\n";
    assert_eq!(with("", &[]).unwrap(), None);
    assert_eq!(with(file, &[]).unwrap().as_deref(), Some("http://collector:4318/v1/traces"));
    let generic = &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://other:4318/otlp")];
    assert_eq!(with(file, generic).unwrap().as_deref(), Some("https://other:4318/otlp/v1/traces"));
    // Taken literally.
    let exact = &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://exact:1/x")];
    assert_eq!(with(file, exact).unwrap().as_deref(), Some("http://exact:1/x"));
    assert_eq!(with(file, &[("OTEL_SDK_DISABLED", "true")]).unwrap(), None);
    assert_eq!(with(file, &[("OTEL_TRACES_EXPORTER", "none")]).unwrap(), None);
    for wrong in ["collector:4318", "ftp://collector", "http://"] {
        let told = refused(&format!("[telemetry]\notlp_endpoint = \"{wrong}\"\n"));
        assert!(told.contains("telemetry.otlp_endpoint"), "{told}");
    }
    let told = refused("[telemetry]\notlp_endpoint = \"http://me:word@collector:4318\"\n");
    assert!(told.contains("otlp_headers_file") && !told.contains("word"), "{told}");
    // A token is not sent in the clear.
    let headers = "otlp_headers_file = \"h\"\n";
    let in_the_clear = "telemetry.otlp_endpoint: \"http://collector:4318\" is not encrypted and not on this machine: the \
                        request headers, which hold a token, would cross the network in the clear; use https://, or set \
                        in_the_clear = true in [telemetry] if something else protects the way there";
    assert_eq!(refused(&format!("{file}{headers}")), format!("rotacast.toml:2: {in_the_clear}"));
    let told = with(file, &[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=canary")]).unwrap_err().to_string();
    assert!(told.contains(in_the_clear) && !told.contains("canary"), "{told}");
    for safe in [
        format!("{file}{headers}in_the_clear = true\n"),
        format!("{}{headers}", file.replace("http://collector", "https://collector")),
        format!("{}{headers}", file.replace("collector", "127.0.0.1")),
    ] {
        parse(&safe).unwrap_or_else(|told| panic!("{told}"));
    }
}

/// Two operators, of whom one has a role.
fn with_roles(roles: &str) -> String {
    let ada = "[operators.ada]\nkeys = [\"rotacast-public-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo\"]\nroles = [\"dba\"]\n";
    format!("{ada}{roles}")
}

#[test]
fn roles_are_read_into_rights() {
    let text =
        with_roles("[roles.dba]\nsecrets = [\"payments/*\"]\norders = [\"rotate\", \"put\"]\nread = [\"status\"]\n");
    let config = parse(&text).unwrap();
    let ada = OperatorName::new("ada").unwrap();
    let secret = SecretName::new("payments/db").unwrap();
    assert!(config.operators.may_read(&ada, Reading::Status, Some(&secret)));
    assert!(!config.operators.may_read(&ada, Reading::Fleet, Some(&secret)));
    assert!(matches!(config.operators.decide(&ada, OrderKind::Put, Some(&secret), false), Decision::Granted { .. }));
    let places: Vec<String> = config.patterns().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["[roles.dba]"], "a pattern that matches no secret is a finding");
    // All orders, and all readings unless it says otherwise.
    let config = parse(&with_roles("[roles.dba]\nsecrets = [\"*\"]\norders = [\"*\"]\n")).unwrap();
    assert!(matches!(config.operators.decide(&ada, OrderKind::AcceptAuditLoss, None, false), Decision::Granted { .. }));
    assert!(Reading::ALL.iter().all(|what| config.operators.may_read(&ada, *what, None)));
}

#[test]
fn roles_that_cannot_be_meant_are_refused_with_the_fix() {
    for (roles, expected) in [
        ("[roles.dba]\nsecrets = [\"*\"]\norders = [\"rotat\"]\n", "\"rotat\" is no order"),
        ("[roles.dba]\nsecrets = [\"*\"]\nread = [\"values\"]\n", "\"values\" is no reading"),
        ("[roles.dba]\nsecrets = [\"*/db\"]\n", "names no secrets"),
        ("[roles.dba]\norders = [\"rotate\"]\n", "roles.dba.secrets: is missing"),
        ("[roles.dba]\nsecrets = [\"a/*\"]\norders = [\"accept_audit_loss\"]\n", "it needs secrets = [\"*\"]"),
        ("[roles.dba]\nsecrets = [\"*\"]\norders = [\"*\"]\napprovals = 2\n", "put cannot wait for approvals"),
        ("[roles.dba]\nsecrets = [\"*\"]\napprovals = 9\n", "expected 1 to 8"),
        ("[roles.dba]\nsecrets = [\"*\"]\napprovals = 1\nemergency = true\n", "acts alone"),
        ("[roles.dba]\nsecrets = [\"*\"]\napprovals_within = \"1h\"\n", "needs approvals"),
        ("[roles.dba]\nsecrets = [\"*\"]\napprovals = 1\napprovals_within = \"8d\"\n", "expected 1s to 7d"),
        ("[roles.dbb]\nsecrets = [\"*\"]\n", "there is no [roles.dba]; did you mean `dbb`?"),
        (
            "[roles.dba]\nsecrets = [\"*\"]\n[operators.eve]\ntokens = [\"rotacast-token_x\"]\nroles = [\"dba\"]\n",
            "is a token itself",
        ),
        ("[roles.dba]\nsecrets = [\"*\"]\n[operators.eve]\nroles = [\"dba\"]\n", "can neither sign nor sign in"),
        (
            "[roles.dba]\nsecrets = [\"*\"]\n[operators.eve]\nkeys = [\"rotacast-public-1:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw\"]\n",
            "operators.eve: has no roles",
        ),
    ] {
        let told = refused(&with_roles(roles));
        assert!(told.contains(expected), "{roles}: {told}; expected {expected}");
    }
}

#[test]
fn what_is_likely_a_mistake_in_roles_is_a_warning() {
    let warned = |roles: &str| parse(&with_roles(roles)).unwrap().warnings().join("\n");
    let fine = "[roles.dba]\nsecrets = [\"payments/*\"]\norders = [\"rotate\"]\n[secrets.\"payments/db\"]\n";
    assert_eq!(warned(fine), "");
    let told =
        warned(&fine.replace("[roles.dba]\nsecrets = [\"payments/*\"]", "[roles.dba]\nsecrets = [\"paymnts/*\"]"));
    assert!(told.contains("[roles.dba]: paymnts/* fits no secret"), "{told}");
    assert!(warned(&format!("{fine}[roles.other]\nsecrets = [\"*\"]\n")).contains("[roles.other]: no operator"));
    // Ada is the only one who may rotate: no one is left to approve it.
    let told = warned(&fine.replace("orders = [\"rotate\"]", "orders = [\"rotate\"]\napprovals = 1"));
    assert!(told.contains("approvals = 1, but not enough operators may give rotate"), "{told}");
}

#[test]
fn more_services_with_a_sealing_key_than_a_value_has_room_for_are_refused_by_name() {
    let services = |count: usize, secrets: &str| {
        let one = |at: usize| {
            let (key, sealing) = (SigningKey::generate(), SealingKey::generate());
            format!(
                "[services.api-{at}]\nkeys = [\"{}\"]\nsealing_key = \"{}\"\nsecrets = [\"{secrets}\"]\n",
                key.public().to_text(),
                sealing.public().to_text()
            )
        };
        (0..count).map(one).collect::<String>()
    };
    // Of a pattern it is not known which secrets there will be.
    for (text, taken) in [
        (services(127, "payments/db"), true),
        (services(128, "payments/db"), false),
        (services(128, "payments/*"), true),
        (services(128, "payments/*") + "[secrets.\"payments/db\"]\n", false),
    ] {
        match parse(&text) {
            Ok(_) => assert!(taken),
            Err(told) => {
                assert!(!taken, "{told}");
                assert!(told.contains("services: 128 services") && told.contains("may use payments/db"), "{told}");
            }
        }
    }
}
