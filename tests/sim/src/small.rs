//! Small worlds, searched exhaustively: every order in which a handful of things can happen, over the same cores.
//!
//! The search is breadth-first over the states of the world, so that what it finds is the shortest way there. It is our
//! own and not a library's: what there is to it is a queue and a set of hashes, and a state here is two whole coordinators
//! and holders, of which the frontier alone is kept. A state is known by 64 bits of its hash: with a million states, the
//! chance that one is taken for another is below one in ten million.

mod action;
mod model;
mod node;
mod search;

pub use action::Action;
pub use model::{Bounds, Model};
pub use search::{Found, Reached, search};

use crate::clock::MS;

/// The small worlds that are looked through.
#[must_use]
pub fn configurations() -> Vec<Bounds> {
    let none = Bounds {
        name: "",
        running: 1,
        joiners: 0,
        stops: 0,
        kills: 0,
        faults: 2,
        uses: 0,
        rollbacks: 0,
        versions: 0,
        restarts: 0,
        cuts: 0,
        horizon: 5000 * MS,
        drift: true,
    };
    vec![
        Bounds { name: "one instance, a stopped leader, its successor", stops: 1, uses: 1, cuts: 1, ..none.clone() },
        Bounds { name: "one instance and a joiner", joiners: 1, uses: 1, ..none.clone() },
        Bounds { name: "two instances, a killed leader", running: 2, kills: 1, cuts: 1, ..none.clone() },
        Bounds { name: "doubled and late messages and a restart", faults: 3, restarts: 1, uses: 1, ..none.clone() },
        Bounds { name: "rollback", rollbacks: 1, cuts: 1, uses: 1, ..none.clone() },
        Bounds { name: "a newer version", versions: 1, cuts: 1, ..none },
    ]
}
