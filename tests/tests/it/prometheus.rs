//! Metrics, alert rules and dashboard, checked with Prometheus' own tools and with a real Prometheus that scrapes a
//! real broadcaster.

mod outages;
mod rig;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rotacast_tests::servers::{Prometheus, Promtool, until};
use rotacast_tests::world::LIMIT;
use rotacast_tests::{http, programs};
use yaml_rust2::{Yaml, YamlLoader};

use rig::{Rig, a_life, value};
use series::{Series, speaks_of_something};

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file).canonicalize().expect("it is part of the source")
}

fn yaml(file: &str) -> Yaml {
    let text = std::fs::read_to_string(deployed(file)).expect("it is readable");
    YamlLoader::load_from_str(&text).expect("it is YAML").remove(0)
}

/// The alerts, by name.
fn alerts() -> BTreeMap<String, Yaml> {
    let rules = yaml("prometheus/rotacast.rules.yml");
    let groups = rules["groups"].as_vec().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_vec().expect("rules").clone());
    rules.map(|rule| (rule["alert"].as_str().expect("an alert").to_owned(), rule)).collect()
}

/// Every expression of the dashboard, with where it stands.
fn dashboard_expressions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deployed("grafana/rotacast.json")).expect("it is readable");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a panel has a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            found.push((title.to_owned(), target["expr"].as_str().expect("an expression").to_owned()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            let query = variable["query"]["query"].as_str().expect("a query");
            found.push((format!("variable {}", variable["name"]), query.to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        found.push(("annotation".to_owned(), annotation["expr"].as_str().expect("an expression").to_owned()));
    }
    found
}

fn passes(tool: &Promtool, arguments: &[&str], input: &str) {
    let output = tool.run(&deployed("prometheus"), arguments, input);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("promtool {}: {out}{err}", arguments.join(" "));
    assert!(output.status.success(), "promtool {}: {out}{err}", arguments.join(" "));
    // Older versions report a lint and exit with success.
    assert!(arguments[1] != "metrics" || (out.trim().is_empty() && err.trim().is_empty()), "{out}{err}");
}

#[test]
fn the_rules_are_valid_and_fire_when_they_should() {
    let Some(tool) = Promtool::find() else { return };
    passes(&tool, &["check", "rules", "rotacast.rules.yml"], "");
    passes(&tool, &["test", "rules", "rotacast.test.yml"], "");
}

#[test]
fn every_alert_says_what_to_do_and_is_tested_both_ways() {
    let tests = yaml("prometheus/rotacast.test.yml");
    let mut tested: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for case in tests["tests"].as_vec().expect("tests") {
        for check in case["promql_expr_test"].as_vec().expect("checks") {
            let expression = check["expr"].as_str().expect("an expression");
            let name =
                expression.split_once("alertname=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a name").0;
            assert!(expression.contains("alertstate=\"firing\""), "{expression}");
            let fires = !check["exp_samples"].as_vec().expect("samples").is_empty();
            tested.entry(name.to_owned()).or_default().insert(fires);
        }
    }
    let alerts = alerts();
    let both: BTreeMap<String, BTreeSet<bool>> =
        alerts.keys().map(|name| (name.clone(), BTreeSet::from([false, true]))).collect();
    assert_eq!(tested, both);
    let page =
        std::fs::read_to_string(deployed("../docs/operate/OPERATIONS.md")).expect("the operations page is there");
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: BTreeSet<String> = headings.map(|text| text.to_lowercase().replace(' ', "-")).collect();
    for (name, rule) in &alerts {
        for annotation in ["summary", "description", "runbook", "runbook_url"] {
            assert!(
                rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 20),
                "{name}: {annotation}"
            );
        }
        let runbook = rule["annotations"]["runbook"].as_str().expect("it was just looked at");
        assert!(["What it means:", "Look at:", "Do:"].iter().all(|part| runbook.contains(part)), "{name}: {runbook}");
        let url = rule["annotations"]["runbook_url"].as_str().expect("it was just looked at");
        let anchor = url.split_once("/docs/operate/OPERATIONS.md#").expect("it leads to the operations page").1;
        assert!(sections.contains(anchor), "{name}: {url}; the page has {sections:?}");
        assert!(rule["labels"]["severity"].as_str().is_some(), "{name}");
        // The commands that an alert names exist.
        for command in runbook.split('`').skip(1).step_by(2).filter_map(|text| text.strip_prefix("rotacast ")) {
            let words: Vec<&str> = command
                .split(' ')
                .take_while(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
                .collect();
            let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
            let help = std::process::Command::new(programs!().rotacast).args(&words).arg("--help").output();
            assert!(help.expect("it was built").status.success(), "{name}: rotacast {command}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_dashboard_name_what_a_real_broadcaster_shows() {
    let rig = Rig::start(programs!()).await;
    let (text, subscriber) = a_life(&rig).await;
    for (series, least) in [
        ("rotacast_nearest_deadline_seconds", 1.0),
        ("rotacast_deadline_used_ratio", 0.0),
        ("rotacast_rotations_started_total", 5.0),
        ("rotacast_rotation_duration_seconds_count{outcome=\"retired\"}", 3.0),
        ("rotacast_rotation_phase_duration_seconds_count{phase=\"verifying\"}", 4.0),
        ("rotacast_rotation_phase_duration_seconds_count{phase=\"draining\"}", 1.0),
        ("rotacast_versions_retired_total", 2.0),
        ("rotacast_leases_granted_total{kind=\"first\"}", 2.0),
        ("rotacast_leases_granted_total{kind=\"renewal\"}", 1.0),
        ("rotacast_syncs_total{outcome=\"answered\"}", 2.0),
        ("rotacast_lease_requests_total{outcome=\"granted\"}", 2.0),
        ("rotacast_sync_duration_seconds_count", 2.0),
        ("rotacast_reports_total{outcome=\"taken\"}", 1.0),
        ("rotacast_report_lag_seconds_count", 1.0),
        ("rotacast_store_watch_lag_seconds_count", 5.0),
        ("rotacast_store_watch_listings_total", 1.0),
        ("rotacast_store_call_duration_seconds_count{operation=\"commit\"}", 10.0),
        ("rotacast_bus_call_duration_seconds_count{operation=\"publish_state\"}", 5.0),
        ("rotacast_bus_messages_total{log=\"registrations\"}", 1.0),
        ("rotacast_provider_call_duration_seconds_count{operation=\"test\"}", 4.0),
        ("rotacast_provider_call_duration_seconds_count{operation=\"create\"}", 2.0),
        ("rotacast_audit_entries_total", 10.0),
        ("rotacast_version_events_total{event=\"added\"}", 3.0),
        ("rotacast_orders_total{order=\"rotate\",outcome=\"taken\"}", 2.0),
        ("rotacast_orders_total{order=\"approve\",outcome=\"refused\"}", 1.0),
        ("rotacast_leader_epoch", 1.0),
        ("rotacast_leader_terms_total", 1.0),
        ("rotacast_leader_since_timestamp_seconds", 1.7e9),
        ("rotacast_secrets", 3.0),
        ("rotacast_blockers{condition=\"approval\"}", 1.0),
        ("rotacast_blockers{condition=\"command\"}", 1.0),
        ("rotacast_command_failures_total{command=\"create\"}", 3.0),
        ("rotacast_provider_errors_total{operation=\"create\",kind=\"unreachable\"}", 3.0),
        ("rotacast_store_answers", 1.0),
        ("rotacast_bus_answers", 1.0),
    ] {
        assert!(value(&text, series).is_some_and(|found| found >= least), "{series}, expected {least} or more: {text}");
    }
    for secret in [rig::FREE, rig::APPROVED, "one", "api"] {
        assert!(!text.contains(&format!("\"{secret}\"")), "{secret} is a label's value: {text}");
    }

    let series = Series::of(&text);
    let expressions = dashboard_expressions();
    let rules =
        alerts().into_iter().map(|(name, rule)| (name, rule["expr"].as_str().expect("an expression").to_owned()));
    let mut missing = Vec::new();
    let mut looked = 0;
    for (place, expression) in expressions.into_iter().chain(rules) {
        assert!(speaks_of_something(&expression), "{place}: {expression}");
        looked += 1;
        missing.extend(series.missing(&expression).into_iter().map(|missing| format!("{place}: {missing}")));
    }
    println!("looked at {looked} expressions");
    assert_eq!(missing, Vec::<String>::new());

    if let Some(tool) = Promtool::find() {
        passes(&tool, &["check", "metrics"], &text);
    }
    subscriber.leave().await.expect("the broadcaster takes the leave");
}

/// The answer of Prometheus' API.
async fn api(prometheus: &Prometheus, path: &str) -> serde_json::Value {
    let (status, body) = http::get(&prometheus.address(), path).await.expect("Prometheus answers");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("Prometheus answers in JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_a_real_broadcaster_and_loads_the_rules() {
    let rig = Rig::start(programs!()).await;
    let config = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: ['{}']\nscrape_configs:\n  - job_name: rotacast\n    \
         static_configs:\n      - targets: ['{}']\n",
        deployed("prometheus/rotacast.rules.yml").display(),
        rig.address(),
    );
    let Some(prometheus) = Prometheus::start(&config).await else { return };
    let up = async || {
        let answer = api(&prometheus, "/api/v1/query?query=rotacast_leader").await;
        let result = answer["data"]["result"].as_array().expect("a vector").first()?.clone();
        (result["value"][1] == "1" && result["metric"]["job"] == "rotacast").then_some(result)
    };
    until("Prometheus to have scraped the leader", LIMIT, up).await;
    let targets = api(&prometheus, "/api/v1/targets").await;
    assert_eq!(targets["data"]["activeTargets"][0]["health"], "up", "{targets}");

    // Evaluated against the scraped data, without an error, and no alert fires.
    let evaluated = async || {
        let answer = api(&prometheus, "/api/v1/rules").await;
        let rules = answer["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    };
    let rules = until("every rule to be evaluated", LIMIT, evaluated).await;
    let names: BTreeSet<String> = rules.iter().map(|rule| rule["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(names, alerts().into_keys().collect());
    assert!(rules.iter().all(|rule| rule["state"] == "inactive"), "{rules:?}");

    // Prometheus parses every expression of the dashboard, with the variables that Grafana fills in.
    for (place, expression) in dashboard_expressions() {
        if place.starts_with("variable") {
            continue;
        }
        let expression = expression.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", "1m");
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = api(&prometheus, &format!("/api/v1/query?query={encoded}")).await;
        assert_eq!(answer["status"], "success", "{place}: {expression}: {answer}");
    }
}
