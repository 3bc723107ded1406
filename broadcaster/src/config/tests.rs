//! The documented example is what it says, and mistakes are told with line and fix.

use std::path::Path;
use std::time::Duration;

use rotacast_protocol::policy::{OnDeadline, WhenUnreachable};
use rotacast_protocol::{Phase, Policy, SecretName};

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/rotacast.example.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("rotacast.toml"), text, &|_| None).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err()
}

fn secret(name: &str) -> SecretName {
    SecretName::new(name).unwrap()
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

/// The lines `# name = value` of the example claim to be defaults: uncommented, they change nothing.
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
    assert_eq!(config.listen, Listen { grpc: DEFAULT_LISTEN, tls: None });
    assert_eq!(config.defaults, Policy::default());
    assert_eq!(
        config.store,
        StoreConfig::Embedded { file: "rotacast-data/store.db".into(), prefix: "rotacast".into() }
    );
    let elsewhere = Config::parse(Path::new("/etc/rotacast/rotacast.toml"), "", &|_| None).unwrap();
    assert_eq!(elsewhere.audit.file, Path::new("/etc/rotacast/rotacast-data/audit.jsonl"));
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
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let problems =
        refused("clustr = \"x\"\n[leader]\nttl = 5\n[secrets.\"Pay\"]\nsync_idle = \"1d\"\n[bus]\nkind = \"kafka\"\n");
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
    assert!(refused(&format!("[operators]\na = \"{same}\"\nb = \"{same}\"\n")).contains("same key as a"));
    let etcd = "[store]\nkind = \"etcd\"\nendpoints = [\"http://h:1\"]\nlayout = \"plain\"\nprefix = \"/s/r\"\nsource_prefix = \"/s\"\n";
    assert!(refused(etcd).contains("overlap"));
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
fn text_that_is_no_toml_is_told_with_its_line() {
    let told = refused("cluster = \"a\"\n[store\n");
    assert!(told.starts_with("rotacast.toml:2: not TOML"), "{told}");
}
