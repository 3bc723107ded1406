//! What a scrape returns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rotacast_protocol::coordinator::Overlay;
use rotacast_protocol::{Instant, Phase};

use super::*;
use crate::audit::AppendObserver as _;
use crate::config::ListenLimits;

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn everything_is_there_from_the_start() {
    let text = Metrics::default().render();
    assert_eq!(value(&text, "rotacast_rotations_finished_total{outcome=\"rolled_back\"}"), Some(0.0), "{text}");
    assert_eq!(value(&text, "rotacast_store_errors_total{operation=\"commit\",kind=\"unreachable\"}"), Some(0.0));
    assert_eq!(value(&text, "rotacast_audit_writable"), Some(1.0));
    assert!(value(&text, "process_start_time_seconds").is_some_and(|started| started > 1.7e9));
    assert!(text.contains(concat!("rotacast_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
}

#[test]
fn secrets_are_summed_up_and_forgotten_with_their_tasks() {
    let metrics = Metrics::default();
    let now = clock::now();
    let until = |used: u64, whole: u64| {
        let began = Instant::from_nanos(now.instant.since(Instant::ZERO).as_nanos() as u64 - used * 1_000_000_000);
        Some((Duration::from_secs(whole), began + Duration::from_secs(whole)))
    };
    let slots: Vec<FiguresSlot> = (0..3).map(|_| metrics.figures()).collect();
    let started = rotacast_protocol::WallTime(now.wall.0 - 100_000);
    slots[0].tell(Figures {
        rotation: Some((Phase::Preparing, now.wall)),
        deadline: until(10, 100),
        blocking_instances: 2,
        standings: Standings { live: 3, silent: 1, ..Standings::default() },
        ..Figures::default()
    });
    slots[1].tell(
        Figures {
            rotation: Some((Phase::Draining, started)),
            deadline: until(90, 120),
            standings: Standings { live: 2, left: 4, ..Standings::default() },
            auth_failures: 5,
            ..Figures::default()
        }
        .with_overlay(Overlay::Paused),
    );
    // A deadline that has passed does not hide one that is still to come.
    slots[2].tell(Figures { deadline: until(50, 20), ..Figures::default() }.with_overlay(Overlay::Stuck));
    let text = metrics.render();
    for (series, expected) in [
        ("rotacast_secrets", 3.0),
        ("rotacast_secrets_overlaid{overlay=\"paused\"}", 1.0),
        ("rotacast_secrets_overlaid{overlay=\"stuck\"}", 1.0),
        ("rotacast_secrets_overlaid{overlay=\"safe_mode\"}", 0.0),
        ("rotacast_rotations_in_flight{phase=\"preparing\"}", 1.0),
        ("rotacast_rotations_in_flight{phase=\"draining\"}", 1.0),
        ("rotacast_blocking_instances", 2.0),
        ("rotacast_instances{standing=\"live\"}", 5.0),
        ("rotacast_instances{standing=\"left\"}", 4.0),
        ("rotacast_rotating_authentication_failures", 5.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in {text}");
    }
    let near = |series: &str, low: f64, high: f64| {
        let found = value(&text, series).unwrap();
        assert!((low..high).contains(&found), "{series}: {found}");
    };
    near("rotacast_nearest_deadline_seconds", 0.0, 30.001);
    near("rotacast_deadline_used_ratio", 0.749, 1.0);
    near("rotacast_oldest_rotation_age_seconds", 100.0, 100_000.0);
    drop(slots);
    let text = metrics.render();
    assert_eq!(value(&text, "rotacast_secrets"), Some(0.0));
    assert_eq!(value(&text, "rotacast_nearest_deadline_seconds"), None);
    assert_eq!(value(&text, "rotacast_oldest_rotation_age_seconds"), Some(0.0));
}

#[test]
fn a_scrape_is_as_long_with_ten_thousand_secrets_as_with_none() {
    let metrics = Metrics::default();
    let before = metrics.render();
    let slots: Vec<FiguresSlot> = (0..10_000).map(|_| metrics.figures()).collect();
    for slot in &slots {
        slot.tell(Figures { rotation: Some((Phase::Draining, clock::wall())), ..Figures::default() });
    }
    let began = std::time::Instant::now();
    let after = metrics.render();
    eprintln!("10,000 secrets in {} bytes, rendered in {:?}", after.len(), began.elapsed());
    assert_eq!(value(&after, "rotacast_rotations_in_flight{phase=\"draining\"}"), Some(10_000.0));
    assert_eq!(before.lines().count(), after.lines().count());
}

/// `docs/operate/metrics.md` names every metric with its type and labels, and no other.
#[test]
fn the_documentation_lists_what_there_is() {
    let metrics = Metrics::default();
    metrics.count_connections_of(&Connections::new(&ListenLimits::default()));
    let slot = metrics.figures();
    let soon = clock::instant() + Duration::from_secs(60);
    slot.tell(Figures { deadline: Some((Duration::from_secs(20), soon)), ..Figures::default() });
    metrics.expiries().set(crate::certificates::Expiring::Listen, Some(clock::wall()));
    let text = metrics.render();
    let mut expected: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            expected.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.split_once('}').unwrap().0.split(',').map(|label| label.split_once('=').unwrap().0);
            let suffix = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let name = suffix.filter(|name| expected.contains_key(*name)).unwrap_or(name);
            let entry = expected.get_mut(name).unwrap_or_else(|| panic!("{name} has no type"));
            entry.1.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    let mut documented = BTreeMap::new();
    for line in include_str!("../../../docs/operate/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let labels = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let before = documented.insert(cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels));
        assert!(before.is_none(), "{} is listed twice", cells[0]);
        assert!(cells[3].len() > 10, "{} has no meaning", cells[0]);
    }
    assert_eq!(documented, expected);
}

#[test]
fn an_audit_log_that_takes_nothing_shows() {
    let metrics = Metrics::default();
    let counts = metrics.audit();
    let full = crate::audit::AuditError::Io {
        path: "a".into(),
        action: "write",
        kind: std::io::ErrorKind::StorageFull,
        problem: "no space".into(),
    };
    counts.appended(Duration::from_millis(1), Err(&full));
    let text = metrics.render();
    assert_eq!(value(&text, "rotacast_audit_writable"), Some(0.0));
    assert_eq!(value(&text, "rotacast_audit_failures_total{kind=\"io\"}"), Some(1.0));
    counts.appended(Duration::from_millis(1), Ok(()));
    let text = metrics.render();
    assert_eq!(value(&text, "rotacast_audit_writable"), Some(1.0));
    assert_eq!(value(&text, "rotacast_audit_entries_total"), Some(1.0));
}
