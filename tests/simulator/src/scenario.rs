//! Scenarios: a fault at a moment, given by a script, and the rules that protect against it.

use rotacast_protocol::coordinator::ConditionName;
use rotacast_protocol::{Phase, Policy};

use crate::clock::{MS, SECOND};
use crate::fault::{Act, Fault, When};
use crate::kill::kill;
use crate::mutant::{Around, HolderRule, Mutant, Rule};
use crate::setup::Setup;
use crate::world::World;

/// A row of docs/understand/scenarios.md.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name; the number is the row's.
    pub name: &'static str,
    /// The faults, each in a world of its own.
    pub scripts: Vec<Vec<Act>>,
    /// Whether the provider sees sessions.
    pub sessions: bool,
    /// The rules without which a promise is broken; none: no single rule is enough to break it.
    pub rules: Vec<Mutant>,
}

/// Seeds in which each script runs: they draw the policy, the clocks and the network's times.
const SEEDS: u64 = 4;

/// Seeds in which a broken rule must show. The rarest one, an audit entry that outlasts a rollback and a further
/// rotation (`AuditOfSeal`), shows in one of a hundred and twenty.
const KILL_SEEDS: u64 = 600;

impl Scenario {
    /// Checks that the promises hold, and that the faults do happen.
    ///
    /// # Errors
    /// The promise or the fault.
    pub fn holds(&self) -> Result<(), String> {
        for (number, script) in self.scripts.iter().enumerate() {
            let mut struck = false;
            for seed in 0..SEEDS {
                let policy = patient(seed);
                let setup = Setup {
                    policy: Some(policy),
                    instances: 3,
                    sessions: Some(self.sessions),
                    ..Setup::script(seed, script)
                };
                let mut world = World::new(setup);
                world.run().map_err(|violation| format!("{} ({number}), seed {seed}: {violation}", self.name))?;
                struck |= script.iter().all(|act| world.counts.faults.contains_key(&act.fault));
            }
            if !struck {
                return Err(format!("{} ({number}): what it is about never happened", self.name));
            }
        }
        Ok(())
    }

    /// Checks that without its rules a promise is broken.
    ///
    /// # Errors
    /// The rule whose absence does not show.
    pub fn needs_its_rules(&self) -> Result<(), String> {
        match self.rules.iter().find(|rule| kill(**rule, 0..KILL_SEEDS).is_none()) {
            Some(rule) => Err(format!("{}: nothing shows that {rule} is broken", self.name)),
            None => Ok(()),
        }
    }
}

/// A policy of a seed in which nothing waits for an operator.
fn patient(seed: u64) -> Policy {
    let mut policy = crate::setup::policy(&mut crate::rng::Rng::new(seed));
    policy.approval = false;
    policy.required.clear();
    policy.deadlines.clear();
    policy.when_unreachable = rotacast_protocol::policy::WhenUnreachable::Fence;
    policy
}

const LEADER: usize = usize::MAX;

fn at(time: u64, fault: Fault, length: u64) -> Act {
    Act { when: When::At(time * MS), after: 0, fault, target: 0, length: length * SECOND }
}

fn then(when: When, after: u64, fault: Fault, length: u64) -> Act {
    Act { when, after: after * MS, fault, target: 0, length: length * SECOND }
}

fn to(target: usize, act: Act) -> Act {
    Act { target, ..act }
}

/// The same in every phase.
fn in_each_phase(fault: Fault, target: usize, length: u64) -> Vec<Vec<Act>> {
    let phases = [Phase::Verifying, Phase::Preparing, Phase::Activating, Phase::Draining, Phase::Retiring];
    phases.into_iter().map(|phase| vec![to(target, then(When::Phase(phase), 10, fault, length))]).collect()
}

/// To every instance.
fn all(act: Act) -> Vec<Act> {
    (0..3).map(|target| to(target, act)).collect()
}

/// Every scenario that the simulator can show.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    use Fault::*;
    use Mutant::{Around as A, Holder as H, Leader as L};
    let draining = When::Phase(Phase::Draining);
    let scenario =
        |name, scripts: Vec<Vec<Act>>, rules: Vec<Mutant>| Scenario { name, scripts, sessions: false, rules };
    let between_effects = || {
        let phases = [Phase::Verifying, Phase::Preparing, Phase::Activating, Phase::Draining, Phase::Retiring];
        let moments = phases.into_iter().flat_map(|phase| (0..12).map(move |step| (phase, step * 15)));
        moments.map(|(phase, after)| vec![to(LEADER, then(When::Phase(phase), after, LeaderKilled, 0))]).collect()
    };
    let flapping = (0..6).map(|round| to(LEADER, at(6500 + 6000 * round, LeaderKilled, 0))).collect();
    let rollback_with = |more: Act| vec![then(draining, 20, Rollback, 0), more];
    vec![
        scenario(
            "s01_leader_killed_between_effects",
            between_effects(),
            vec![L(Rule::Guard(ConditionName::InheritedLeasesOver))],
        ),
        scenario(
            "s02_leader_stopped_between_guard_and_save",
            vec![vec![to(LEADER, then(When::Auditing, 0, LeaderStopped, 10))]],
            vec![A(Around::SaveComparesKey)],
        ),
        scenario(
            "s03_leader_stopped_before_the_disable",
            vec![vec![to(LEADER, then(When::Disabling, 0, LeaderStopped, 10))]],
            vec![L(Rule::Leads)],
        ),
        scenario(
            "s04_old_leader_grants_after_a_takeover",
            vec![vec![to(LEADER, at(5000, LeaderCutOff, 20)), at(5000, HalfCutOff, 20)]],
            vec![L(Rule::Leads), A(Around::LeadsFromSend)],
        ),
        scenario(
            "s06_two_that_believe_to_lead",
            in_each_phase(LeaderCutOff, LEADER, 12),
            vec![A(Around::SaveComparesKey), A(Around::SaveComparesRevision)],
        ),
        scenario("s07_leadership_flaps", vec![flapping], vec![]),
        scenario(
            "s12_store_restored_from_a_backup",
            vec![vec![then(draining, 10, StoreRestored, 0)]],
            vec![A(Around::RestoreIsTold), L(Rule::Guard(ConditionName::NotInSafeMode))],
        ),
        scenario(
            "s14_leaders_key_taken_away",
            in_each_phase(KeyLost, LEADER, 0),
            vec![A(Around::SaveComparesKey), A(Around::LeadsFromSend)],
        ),
        scenario(
            "s15_versions_within_one_wait",
            vec![vec![at(6000, NewVersion, 0), at(6001, NewVersion, 0), at(6001, WatchGap, 0)]],
            vec![L(Rule::VersionGap)],
        ),
        scenario("s16_store_read_only", in_each_phase(StoreReadOnly, 0, 8), vec![A(Around::DurableFirst)]),
        scenario(
            "s17_all_reports_lost",
            vec![
                all(then(draining, 5, InstanceCutOff, 10))
                    .into_iter()
                    .chain(all(then(draining, 5, BusCutOff, 10)))
                    .collect(),
            ],
            vec![L(Rule::FenceWaits), L(Rule::Guard(ConditionName::MembersReleased))],
        ),
        scenario(
            "s19_stream_cut_back",
            in_each_phase(RosterCutBack, 2, 0),
            vec![L(Rule::Guard(ConditionName::InheritedLeasesOver))],
        ),
        scenario("s20_half_see_an_old_log", in_each_phase(OldLog, 6, 10), vec![H(HolderRule::NewerState)]),
        scenario(
            "s21_streams_made_anew",
            in_each_phase(StreamsRecreated, 0, 0),
            vec![L(Rule::Guard(ConditionName::InheritedLeasesOver)), H(HolderRule::NewerState)],
        ),
        scenario(
            "s25_bus_down",
            [Phase::Preparing, Phase::Activating, Phase::Draining]
                .into_iter()
                .map(|phase| all(then(When::Phase(phase), 5, BusCutOff, 10)))
                .collect(),
            vec![],
        ),
        scenario(
            "s28_cut_off_from_the_broadcaster",
            in_each_phase(InstanceCutOff, 0, 25),
            vec![L(Rule::FenceWaits), H(HolderRule::ClockOnUse)],
        ),
        scenario(
            "s29_cut_off_for_an_hour",
            vec![vec![at(5000, Alone, 3600)]],
            vec![H(HolderRule::ClockOnUse), H(HolderRule::NoComeback)],
        ),
        scenario("s30_paused_inside_a_checkout", in_each_phase(InstanceStopped, 0, 90), vec![A(Around::UseEnds)]),
        scenario(
            "s31_machine_suspended",
            in_each_phase(InstanceStopped, 0, 600),
            vec![A(Around::ClockCountsInSuspend)],
        ),
        scenario(
            "s32_clocks_at_the_bound",
            vec![vec![at(5000, Alone, 60)]],
            vec![L(Rule::Drift), A(Around::ClocksAreTrue)],
        ),
        scenario("s33_wall_clock_set", in_each_phase(WallClockStep, 0, 0), vec![]),
        scenario(
            "s34_crash_and_restart_under_the_same_name",
            in_each_phase(LateRegistration, 0, 4),
            vec![L(Rule::ProvenOnly), L(Rule::ReleaseRevision)],
        ),
        scenario(
            "s35_two_processes_of_one_name",
            in_each_phase(Twin, 0, 0),
            vec![L(Rule::ExclusiveOnly), L(Rule::HeardLives)],
        ),
        scenario(
            "s36_joins_in_each_phase",
            in_each_phase(Joiner, 0, 0),
            vec![H(HolderRule::RegisteredFirst), H(HolderRule::LeaseFirst), A(Around::EntersFirst)],
        ),
        scenario(
            "s37_endless_joiners",
            vec![(0..4).map(|round| then(draining, round * 400, Rolled, 0)).collect()],
            vec![L(Rule::SealedUnleased)],
        ),
        scenario(
            "s38_scaled_to_zero",
            vec![all(then(draining, 5, Leaves, 0)), all(then(When::Phase(Phase::Preparing), 5, Leaves, 0))],
            vec![
                L(Rule::EmptySet),
                L(Rule::Guard(ConditionName::LiveInstanceConfirmed)),
                L(Rule::Guard(ConditionName::RequiredServices)),
            ],
        ),
        Scenario {
            sessions: true,
            ..scenario(
                "s39_a_pool_holds_on",
                vec![vec![at(5000, LeakedSession, 30)]],
                vec![L(Rule::Guard(ConditionName::UsageEvidence)), L(Rule::UsageAfterSeal)],
            )
        },
        scenario(
            "s42_announcement_missed_under_a_long_lease",
            vec![vec![at(5000, InstanceCutOff, 30), at(5000, BusCutOff, 30)]],
            vec![L(Rule::LongerGrant), H(HolderRule::NewestGrant)],
        ),
        scenario(
            "s43_create_and_no_answer",
            vec![vec![at(5900, ProviderHalf, 8), at(6000, ManagedVersion, 0)]],
            vec![A(Around::JournalFirst)],
        ),
        scenario("s44_bad_credential", vec![vec![at(6000, BadVersion, 0)]], vec![L(Rule::TestLogin)]),
        scenario(
            "s45_disable_by_half",
            vec![vec![then(draining, 0, ProviderHalf, 8)]],
            vec![A(Around::DisableIsTried), L(Rule::StepOrder)],
        ),
        scenario("s46_credential_deleted_by_somebody", in_each_phase(CredentialDeleted, 0, 0), vec![]),
        scenario(
            "s47_newer_version_in_each_phase",
            in_each_phase(NewVersion, 0, 0)
                .into_iter()
                .map(|mut acts| {
                    acts.push(at(6000, NewVersion, 0));
                    acts
                })
                .collect(),
            vec![L(Rule::ReplacedRetires), L(Rule::LiveVersions)],
        ),
        scenario(
            "s48_rollback_in_each_phase",
            in_each_phase(Rollback, 0, 0),
            vec![L(Rule::NoReturn), L(Rule::RollbackSpares)],
        ),
        scenario(
            "s49_rollback_and_old_reports",
            vec![rollback_with(to(5, then(draining, 400, OldLog, 5)))],
            vec![L(Rule::ConfirmedDirection), L(Rule::RollbackGeneration), L(Rule::ReportOrder)],
        ),
        scenario(
            "s50_override_with_live_holders",
            vec![vec![at(5500, Alone, 20), then(draining, 100, Overridden, 0)]],
            vec![L(Rule::OverrideNames)],
        ),
        scenario(
            "s59_audit_disk_full",
            vec![vec![then(draining, 0, AuditFull, 15)]],
            vec![L(Rule::AuditFirst), A(Around::AuditIsWritten), L(Rule::AuditOfSeal)],
        ),
    ]
}
