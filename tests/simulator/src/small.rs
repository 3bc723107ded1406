//! Small worlds, searched exhaustively: every order in which a handful of things can happen, over the same cores.
//!
//! The search is breadth-first over the states of the world, so it finds the shortest way to a broken promise. It is
//! written here and no library is used: it is a queue and a set of hashes, while a state is two whole coordinators and
//! holders, of which only the frontier is kept. A state is known by 64 bits of its hash: with a million states, the
//! chance that two have the same one is below one in ten million.

mod action;
mod model;
mod node;
mod restored;
mod search;

pub use action::Action;
pub use model::{Bounds, Model};
pub use search::{Found, Reached, search};

use crate::clock::MS;

/// The small worlds to search; `deeper`: with one fault of the network more in each.
#[must_use]
pub fn configurations(deeper: bool) -> Vec<Bounds> {
    let none = Bounds {
        name: "",
        running: 1,
        storebound: 0,
        joiners: 0,
        stops: 0,
        kills: 0,
        faults: 0,
        uses: 0,
        rollbacks: 0,
        versions: 0,
        restores: 0,
        most: None,
        restarts: 0,
        cuts: 1,
        horizon: 3500 * MS,
        drift: true,
    };
    let mut all = vec![
        Bounds { name: "a stopped leader and its successor", stops: 1, cuts: 0, ..none.clone() },
        Bounds { name: "an instance and a joiner", joiners: 1, uses: 1, ..none.clone() },
        Bounds { name: "two instances and a killed leader", running: 2, kills: 1, horizon: 3600 * MS, ..none.clone() },
        Bounds { name: "a restarted instance", restarts: 1, faults: 1, cuts: 0, horizon: 2300 * MS, ..none.clone() },
        Bounds { name: "a rollback", rollbacks: 1, uses: 1, faults: 1, ..none.clone() },
        Bounds { name: "a newer version", versions: 1, faults: 1, horizon: 2800 * MS, ..none.clone() },
        Bounds { name: "an instance on self-leases", running: 2, storebound: 1, faults: 1, uses: 1, cuts: 0, ..none },
    ];
    let restored = Bounds { restores: 1, stops: 0, cuts: 0, horizon: 5500 * MS, ..all[0].clone() };
    let part = Bounds { most: Some(10_000), ..restored.clone() };
    all.extend([
        Bounds { name: "a restored store", running: 2, ..restored },
        Bounds { name: "a restored store and a rollback", rollbacks: 1, most: Some(30_000), ..part.clone() },
        Bounds { name: "a restored store and a joiner", joiners: 1, ..part.clone() },
        Bounds { name: "a restored store and a restart", restarts: 1, ..part.clone() },
        Bounds { name: "a restored store and a newer version", versions: 1, ..part.clone() },
        Bounds { name: "a restored store and a killed leader", kills: 1, ..part.clone() },
        Bounds { name: "a restored store and a fault", faults: 1, horizon: 4500 * MS, ..part },
    ]);
    for bounds in all.iter_mut().filter(|_| deeper) {
        bounds.faults += 1;
    }
    all
}
