use crate::bench::{Bench, seconds};
use crate::coordinator::Input;
use crate::policy::Policy;
use crate::time::WallTime;

const DAY: u64 = 86_400;

/// By this leader's wall clock, the last change was written two days in the future.
fn two_days_behind() -> Bench {
    let mut bench = Bench::running(Policy::default(), &["api/a"]);
    bench.now.wall = WallTime(bench.now.wall.0 - 2 * DAY * 1000);
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, Some(bench.now.wall));
    bench
}

#[test]
fn a_wall_clock_that_is_put_right_clears_the_note() {
    let mut bench = two_days_behind();
    bench.pass(seconds(60));
    bench.now.wall = WallTime(bench.now.wall.0 + 2 * DAY * 1000);
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, None);
}

#[test]
fn a_change_in_the_future_stays_noted_when_its_time_comes() {
    let mut bench = two_days_behind();
    let noted = bench.coordinator.record().ahead_since;
    bench.pass(seconds(3 * DAY));
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, noted);
    bench.take_over();
    bench.input(Input::ClockRead).unwrap();
    assert_eq!(bench.coordinator.record().ahead_since, noted);
}
