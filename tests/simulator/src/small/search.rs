//! Breadth-first search over everything that can happen.

use std::collections::HashMap;

use super::action::Action;
use super::model::{Bounds, Fixed, Model};
use crate::mutant::Mutant;

/// What a search has met, which shows that it is not empty.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Reached {
    /// Retires that began.
    pub retired: u64,
    /// Retires in which a member had released.
    pub after_release: u64,
    /// Retires in which a member's lease had expired.
    pub after_expiry: u64,
    /// Retires by a later leader.
    pub after_takeover: u64,
    /// Retires of a version that was rolled back.
    pub after_rollback: u64,
    /// Retires of a version that was replaced before it was activated.
    pub after_supersede: u64,
    /// Retires with more than one member.
    pub with_joiner: u64,
    /// Restored stores that an operator has looked at.
    pub recovered: u64,
}

impl Reached {
    /// Adds another search's.
    pub fn add(&mut self, other: &Reached) {
        self.retired += other.retired;
        self.after_release += other.after_release;
        self.after_expiry += other.after_expiry;
        self.after_takeover += other.after_takeover;
        self.after_rollback += other.after_rollback;
        self.after_supersede += other.after_supersede;
        self.with_joiner += other.with_joiner;
        self.recovered += other.recovered;
    }
}

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: u64,
    /// All states that are at most so many steps from the first one were looked at.
    pub depth: usize,
    /// There are no others within the bounds.
    pub complete: bool,
    /// What the search has met.
    pub reached: Reached,
    /// The shortest way to a broken promise, and the promise.
    pub violation: Option<(Vec<Action>, String)>,
}

/// Looks at every state within the bounds, the nearest first, up to so many.
#[must_use]
pub fn search(bounds: &Bounds, mutant: Option<Mutant>, most: usize) -> Found {
    let _broken = mutant.map(Mutant::breaks);
    let mut fixed = Fixed::new(bounds, mutant);
    let first = Model::first(&mut fixed, bounds.clone());
    // A state's predecessor, and the action that led from it.
    let mut known: HashMap<u64, (u64, Option<Action>)> = HashMap::new();
    let print = first.fingerprint();
    known.insert(print, (0, None));
    // Each state with its fingerprint.
    let mut layer = vec![(print, first)];
    let mut found =
        Found { states: 1, steps: 0, depth: 0, complete: false, reached: Reached::default(), violation: None };
    while !layer.is_empty() {
        let mut next = Vec::new();
        for (from, model) in layer {
            let actions = model.actions(&fixed);
            // From most states only one action is possible: the last action takes the state itself.
            let copies = std::iter::repeat_n(model, actions.len());
            for (action, mut after) in actions.into_iter().zip(copies) {
                after.act(&mut fixed, action);
                found.steps += 1;
                if let Some(violation) = after.violation.take() {
                    let mut way = vec![action];
                    let mut at = from;
                    while let Some((before, Some(action))) = known.get(&at) {
                        way.push(*action);
                        at = *before;
                    }
                    way.reverse();
                    found.violation = Some((way, violation));
                    found.reached = fixed.reached;
                    found.states = known.len();
                    return found;
                }
                let print = after.fingerprint();
                if let std::collections::hash_map::Entry::Vacant(entry) = known.entry(print) {
                    entry.insert((from, Some(action)));
                    next.push((print, after));
                }
            }
            if known.len() >= most {
                found.reached = fixed.reached;
                found.states = known.len();
                return found;
            }
        }
        found.depth += 1;
        layer = next;
    }
    found.complete = true;
    found.reached = fixed.reached;
    found.states = known.len();
    found
}
