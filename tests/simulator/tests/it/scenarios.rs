//! The rows of docs/understand/scenarios.md that the simulator shows: the promises hold in each. `mutants` shows that
//! none of them holds without its rules.

use rotacast_simulator::scenario::{Scenario, scenarios};

fn named(name: &str) -> Scenario {
    scenarios().into_iter().find(|scenario| scenario.name == name).unwrap()
}

macro_rules! rows {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(named(stringify!($name)).holds(), Ok(()));
        })*

        #[test]
        fn every_scenario_is_run() {
            let run = [$(stringify!($name)),*];
            assert_eq!(scenarios().iter().map(|scenario| scenario.name).collect::<Vec<_>>(), run);
        }
    };
}

rows! {
    s01_leader_killed_between_effects
    s02_leader_stopped_between_guard_and_save
    s03_leader_stopped_before_the_disable
    s04_old_leader_grants_after_a_takeover
    s06_two_that_believe_to_lead
    s07_leadership_flaps
    s12_store_restored_from_a_backup
    s14_leaders_key_taken_away
    s15_versions_within_one_wait
    s16_store_read_only
    s17_all_reports_lost
    s19_stream_cut_back
    s20_half_see_an_old_log
    s21_streams_made_anew
    s25_bus_down
    s28_cut_off_from_the_broadcaster
    s29_cut_off_for_an_hour
    s30_paused_inside_a_checkout
    s31_machine_suspended
    s32_clocks_at_the_bound
    s33_wall_clock_set
    s34_crash_and_restart_under_the_same_name
    s35_two_processes_of_one_name
    s36_joins_in_each_phase
    s37_endless_joiners
    s38_scaled_to_zero
    s39_a_pool_holds_on
    s42_announcement_missed_under_a_long_lease
    s43_create_and_no_answer
    s44_bad_credential
    s45_disable_by_half
    s46_credential_deleted_by_somebody
    s47_newer_version_in_each_phase
    s48_rollback_in_each_phase
    s49_rollback_and_old_reports
    s50_override_with_live_holders
    s59_audit_disk_full
}
