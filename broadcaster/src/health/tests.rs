//! The decision.

use super::*;
use crate::findings::Topic;

fn follower() -> Facts {
    Facts {
        replica: "b".into(),
        leads: false,
        leader: Some("a".into()),
        stopping: false,
        since_beat: Duration::from_secs(1),
        since_store: Some(Duration::from_secs(1)),
        foreign: false,
        audit_fails: false,
        findings: Vec::new(),
    }
}

#[test]
fn leader_and_follower_are_ready_and_know_the_leader() {
    let report = decide(&follower());
    assert_eq!(
        (report.alive, report.ready, report.role, report.leader.as_deref()),
        (true, true, "follower", Some("a"))
    );
    assert_eq!((report.problems, report.warnings), (vec![], vec![]));
    let report = decide(&Facts { leads: true, ..follower() });
    assert_eq!((report.ready, report.role, report.leader.as_deref()), (true, "leader", Some("b")));
}

#[test]
fn without_the_store_it_is_not_ready_and_alive_all_the_same() {
    for (since, told) in [(None, "yet"), (Some(STORE_WITHIN + Duration::from_secs(1)), "for 17 s")] {
        let report = decide(&Facts { since_store: since, ..follower() });
        assert_eq!((report.alive, report.ready), (true, false));
        assert!(report.problems[0].contains("store") && report.problems[0].contains(told), "{report:?}");
    }
    // One unanswered question is no outage.
    assert!(decide(&Facts { since_store: Some(PROBE_EVERY * 2 + PROBE_LIMIT * 2), ..follower() }).ready);
}

#[test]
fn a_broadcaster_that_stops_is_not_ready_and_alive() {
    let report = decide(&Facts { foreign: true, ..follower() });
    assert!(report.alive && !report.ready && report.problems[0].contains("another cluster"), "{report:?}");
    let report = decide(&Facts { stopping: true, ..follower() });
    assert_eq!((report.alive, report.ready), (true, false));
    assert_eq!(report.problems, ["it is stopping"]);
}

#[test]
fn a_loop_that_does_not_turn_is_not_alive() {
    let report = decide(&Facts { since_beat: ALIVE_WITHIN + Duration::from_secs(1), ..follower() });
    assert_eq!((report.alive, report.ready), (false, false));
    assert!(decide(&Facts { since_beat: ALIVE_WITHIN, ..follower() }).alive);
}

/// A broadcaster that is out of service would leave the services without leases.
#[test]
fn an_audit_log_that_fails_and_an_election_are_warnings() {
    let report = decide(&Facts { audit_fails: true, leads: true, ..follower() });
    assert!(report.ready && report.warnings[0].contains("audit"), "{report:?}");
    let report = decide(&Facts { leader: None, ..follower() });
    assert!(report.ready && report.warnings[0].contains("no leader"), "{report:?}");
    let report = decide(&Facts { findings: vec![(Topic::OutOfService, 2)], ..follower() });
    assert!(report.ready && report.warnings[0].starts_with("out of service: 2"), "{report:?}");
}

#[test]
fn a_report_is_small_json() {
    let json = serde_json::to_value(decide(&follower())).unwrap();
    assert_eq!(json, serde_json::json!({"alive": true, "ready": true, "role": "follower", "leader": "a"}));
}
