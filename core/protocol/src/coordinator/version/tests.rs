use crate::bench::{Bench, managed, seconds, v};
use crate::coordinator::{Input, Order, Rejection};
use crate::message::Stage;
use crate::policy::Policy;

#[test]
fn a_replaced_version_counts_as_valid_until_it_is_retired() {
    let policy = Policy { max_live_versions: 2, ..managed() };
    let mut bench = Bench::preparing(policy, &["api/a"]);
    bench.seen(3);
    let new = |bench: &Bench| bench.coordinator.record().rotation.as_ref().unwrap().new;
    assert_eq!(new(&bench), v(2), "versions 1 and 2 are valid, and no more than two may be: version 3 waits");
    let mut roomy = Bench::preparing(Policy { max_live_versions: 3, ..managed() }, &["api/a"]);
    roomy.seen(3);
    assert_eq!(new(&roomy), v(3));
}

#[test]
fn a_flood_of_versions_is_refused_while_the_record_can_still_be_read() {
    let mut bench = Bench::preparing(Policy { max_live_versions: 2, ..managed() }, &["api/a"]);
    let mut refused = 0;
    for version in 3..3000 {
        if let Err(rejection) = bench.input(Input::VersionSeen { version: v(version) }) {
            assert!(rejection.to_string().contains("the record would have"), "{rejection}");
            refused += 1;
            break;
        }
    }
    assert_eq!(refused, 1);
    // All of them are skipped at once, and the record can still be read: the bench decodes each one that it saves.
    bench.order(Order::rollback("no").unwrap()).unwrap();
    bench.report("api/a", 1, Stage::Released, &[1]).unwrap();
    assert!(bench.drains(2, seconds(8000)));
    bench.destroy(2);
    assert!(bench.coordinator.record().versions.len() > 300);
    assert!(bench.coordinator.record().retirements.len() > 300);
}

#[test]
fn a_version_that_leaves_a_gap_is_refused() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    let gap = bench.input(Input::VersionSeen { version: v(3) });
    assert_eq!(gap, Err(Rejection::Gap { expected: v(2), found: v(3) }));
    bench.seen(2);
    bench.seen(3);
}

#[test]
fn a_version_that_fails_its_test_login_is_never_activated() {
    let mut bench = Bench::running(managed(), &["api/a"]);
    bench.seen(2);
    bench.input(Input::VerifyFailed { version: v(2), reason: "password refused".into() }).unwrap();
    bench.sync("api/a", 1, Stage::Released, &[1]);
    assert_eq!(bench.current(), Some(1));
    assert!(bench.drains(2, seconds(4000)));
}
