//! Whether the tests notice a broken rule.

use crate::directed::directed;
use crate::mutant::Mutant;
use crate::setup::Setup;
use crate::world::World;

/// How a broken rule was noticed.
#[derive(Clone, Debug)]
pub struct Kill {
    /// In the world of this seed; none: in the directed test of the rule.
    pub seed: Option<u64>,
    /// The promise that was broken, and how.
    pub violation: String,
}

/// The first seed whose world breaks a promise under the mutant and keeps it without the mutant; or the rule's directed
/// test.
#[must_use]
pub fn kill(mutant: Mutant, seeds: impl IntoIterator<Item = u64>) -> Option<Kill> {
    if let Some(Err(violation)) = directed(mutant, true)
        && directed(mutant, false) == Some(Ok(()))
    {
        return Some(Kill { seed: None, violation });
    }
    seeds.into_iter().find_map(|seed| {
        let setup = Setup::broken(seed, mutant);
        let violation = World::new(setup.clone()).run().err()?;
        let violation = violation.lines().next().unwrap_or_default().to_owned();
        let progress = violation.starts_with("L ") || violation.starts_with("L:");
        if progress && !mutant.is_about_progress() {
            return None;
        }
        World::new(setup.control()).run().ok()?;
        Some(Kill { seed: Some(seed), violation })
    })
}
