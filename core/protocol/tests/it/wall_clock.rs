//! A leader whose wall clock is set while it leads.

use rotacast_protocol::coordinator::Input;
use rotacast_protocol::{Policy, WallTime};

use crate::bench::{Bench, seconds};

const DAY: u64 = 86_400;

/// Its last change was written by a clock that was two days ahead, as far as its own clock says.
fn ahead() -> Bench {
    let mut bench = Bench::running(Policy::default(), &["api/a"]);
    bench.now.wall = WallTime(bench.now.wall.0 - 2 * DAY * 1000);
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, Some(bench.now.wall));
    bench
}

#[test]
fn a_clock_that_is_put_right_finds_that_the_last_change_was_right() {
    let mut bench = ahead();
    bench.pass(seconds(60));
    bench.now.wall = WallTime(bench.now.wall.0 + 2 * DAY * 1000);
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, None);
}

#[test]
fn that_the_wrong_time_comes_does_not_make_it_right() {
    let mut bench = ahead();
    let noted = bench.coordinator.record().ahead_since;
    bench.pass(seconds(3 * DAY));
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, noted);
    bench.take_over();
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, noted);
}
