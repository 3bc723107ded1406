//! One suite for every bus: what [`LeaderBus`](crate::LeaderBus) and [`InstanceBus`](crate::InstanceBus) promise.
//!
//! An implementation joins with a [`Fixture`] and one line, `rotacast_bus::conformance!(MyFixture);`, which
//! makes a test of every case.

// Test code: a failed unwrap fails the test that it is in.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, clippy::print_stderr, missing_docs)]

pub mod cases;
mod fixture;
mod sample;
mod watching;

pub use fixture::{Fixture, run};

/// Makes a `#[test]` of every case for one [`Fixture`](crate::conformance::Fixture). Put it in a module of its own.
#[macro_export]
macro_rules! conformance {
    ($fixture:ty) => {
        $crate::conformance!(@cases $fixture, alone:
            states_and_registrations_survive_a_restart,
            a_bus_that_is_down_says_so,
        );
        $crate::conformance!(@cases $fixture, fresh:
            a_newcomer_gets_the_last_state_of_each_secret,
            a_newcomer_gets_the_last_registration_and_report_of_each_incarnation,
            empty_logs_are_caught_up,
            a_watch_of_absent_secrets_is_caught_up,
            only_the_watched_secrets_arrive,
            many_keys_arrive_once_each,
            duplicates_are_harmless,
            a_recreated_log_is_read_anew,
            a_log_whose_records_are_all_gone_is_read_to_its_end,
            s27_a_slow_reader_ends_with_the_newest,
            what_is_too_large_is_refused_and_the_largest_passes,
            a_sync_without_leader_says_so,
            a_sync_is_answered,
            syncs_are_answered_out_of_order,
            a_leader_that_goes_mid_call_is_no_leader,
            a_dropped_sync_stream_leads_no_more,
            dropped_watches_leave_the_bus_working,
            an_older_revision_is_fenced,
            s22_a_later_leader_fences_an_earlier_one,
            a_state_that_is_none_of_ours_is_read_and_overwritten_and_no_other,
            a_claim_stays_and_is_no_state,
            a_registration_that_was_acknowledged_reaches_a_watch_that_begins_later,
            a_pruned_incarnation_is_gone_and_may_return,
            a_leave_replaces_the_registration,
            a_thousand_instances_register_at_once,
            signatures_and_attributes_survive,
            names_with_dots_and_slashes_stay_apart,
            random_traffic_converges,
        );
    };
    (@cases $fixture:ty, $how:ident: $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                use $crate::conformance::{Fixture, cases, run};
                run(stringify!($case), <$fixture as Fixture>::$how(), cases::$case);
            }
        )*
    };
}
