//! One secret's policy, over another's.

use std::collections::BTreeMap;

use rotacast_protocol::policy::{Deadline, OnDeadline, OnFailure, WhenEmpty, WhenUnreachable};
use rotacast_protocol::{Phase, Policy, ServiceName};

use super::reader::Section;

/// Reads what is set, takes the rest from `base`, and checks that it fits together. Does not finish the section.
pub(super) fn read(section: &Section<'_, '_>, base: &Policy) -> Policy {
    let empties = [("hold", WhenEmpty::Hold), ("proceed", WhenEmpty::Proceed)];
    let failures = [("rollback", OnFailure::RollBack), ("hold", OnFailure::Hold)];
    let lease_idle = section.duration("lease_idle").unwrap_or(base.lease_idle);
    let policy = Policy {
        lease_idle,
        // Not longer than the other, unless that is what is written.
        lease_rotating: section.duration("lease_rotating").unwrap_or(base.lease_rotating.min(lease_idle)),
        self_lease: section.duration("self_lease").unwrap_or(base.self_lease),
        max_use: section.duration("max_use").unwrap_or(base.max_use),
        sync_idle: section.duration("sync_idle").unwrap_or(base.sync_idle),
        sync_rotating: section.duration("sync_rotating").unwrap_or(base.sync_rotating),
        min_overlap: section.duration("min_overlap").unwrap_or(base.min_overlap),
        when_unreachable: when_unreachable(section).unwrap_or(base.when_unreachable),
        missed_syncs: section.integer("missed_syncs").unwrap_or(base.missed_syncs),
        stuck_after: section.duration("stuck_after").unwrap_or(base.stuck_after),
        when_empty: section.choice("when_empty", &empties).unwrap_or(base.when_empty),
        required: required(section).unwrap_or_else(|| base.required.clone()),
        approval: section.flag("approval").unwrap_or(base.approval),
        deadlines: deadlines(section, &base.deadlines),
        failure_budget: section.integer("failure_budget").unwrap_or(base.failure_budget),
        auth_failure_budget: section.integer("auth_failure_budget").unwrap_or(base.auth_failure_budget),
        on_failure: section.choice("on_failure", &failures).unwrap_or(base.on_failure),
        max_live_versions: section.integer("max_live_versions").unwrap_or(base.max_live_versions),
        // The section of a secret names it.
        provider: None,
    };
    if let Err(invalid) = policy.validate() {
        section.problem(invalid.setting, invalid.problem);
    }
    policy
}

fn when_unreachable(section: &Section<'_, '_>) -> Option<WhenUnreachable> {
    const EXPECTED: &str = "expected \"fence\", \"hold\" or { presume_dead_after = \"15m\" }";
    match section.text_or_section("when_unreachable")? {
        Ok(text) => match text.as_str() {
            "fence" => Some(WhenUnreachable::Fence),
            "hold" => Some(WhenUnreachable::Hold),
            _ => {
                section.problem("when_unreachable", format!("{text:?} is not one of the choices; {EXPECTED}"));
                None
            }
        },
        Err(table) => {
            let after = table.duration("presume_dead_after");
            table.finish();
            if after.is_none_or(|after| after.is_zero()) {
                section.problem("when_unreachable", format!("names no time; {EXPECTED}"));
                return None;
            }
            after.map(WhenUnreachable::PresumeDeadAfter)
        }
    }
}

fn required(section: &Section<'_, '_>) -> Option<BTreeMap<ServiceName, u32>> {
    let table = section.section("required");
    table.exists().then(|| {
        let mut required = BTreeMap::new();
        for (name, minimum) in table.named_integers() {
            match ServiceName::new(name.as_str()) {
                Ok(service) => {
                    required.insert(service, minimum);
                }
                Err(error) => table.problem(&name, error.to_string()),
            }
        }
        required
    })
}

/// A phase that is named replaces the base's deadline of that phase.
fn deadlines(section: &Section<'_, '_>, base: &BTreeMap<Phase, Deadline>) -> BTreeMap<Phase, Deadline> {
    let choices = [("extend", OnDeadline::Extend), ("hold", OnDeadline::Hold), ("rollback", OnDeadline::RollBack)];
    let mut deadlines = base.clone();
    let table = section.section("deadlines");
    for phase in Phase::ALL.iter().copied() {
        let deadline = table.section(phase.as_str());
        if !deadline.exists() {
            continue;
        }
        let after = deadline.duration("after");
        let then = deadline.choice("then", &choices);
        if after.is_none() || then.is_none() {
            deadline.problem_here("expected such as { after = \"10m\", then = \"hold\" }".into());
        }
        if then == Some(OnDeadline::RollBack) && matches!(phase, Phase::Retiring | Phase::RollingBack) {
            deadline.problem("then", format!("there is no way back from {phase}; expected \"extend\" or \"hold\""));
        }
        deadline.finish();
        if let (Some(after), Some(then)) = (after, then) {
            deadlines.insert(phase, Deadline { after, then });
        }
    }
    table.finish();
    deadlines
}
