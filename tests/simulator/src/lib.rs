//! A deterministic world in which the broadcaster's rules and the holders' rules meet: broadcasters that crash, stop,
//! are deposed and take over; instances that crash, stop, join and leave, on clocks that drift; a network that loses,
//! doubles, delays and reorders; streams that are cut back, replaced or split; a store whose answers get lost, that turns
//! read-only or is restored; a provider that answers late, never or by half; an audit disk that is full; operators who
//! interfere. After every step the promises are checked; after the faults have stopped, everything must end.
//!
//! A seed makes a world. `ROTACAST_SEED=n cargo test -p rotacast-simulator` runs it again. A world that fails is
//! shrunk, and its events are printed as a story.

// An internal crate: a doc comment is there where it says more than the name.
#![allow(missing_docs)]

#[allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench of the tests: what fails there fails the test")]
#[path = "../../../core/protocol/src/bench.rs"]
mod bench;
pub mod chaos;
pub mod clock;
pub mod counts;
pub mod directed;
pub mod effect;
pub mod event;
pub mod fault;
mod forger;
pub mod instance;
pub mod judge;
pub mod kill;
pub mod leader;
pub mod mutant;
mod network;
mod operator;
pub mod outside;
pub mod profile;
mod restored;
pub mod rng;
mod saving;
pub mod scenario;
pub mod setup;
pub mod shrink;
pub mod small;
pub mod table;
pub mod world;

pub use counts::Counts;
pub use mutant::Mutant;
pub use rng::Rng;
pub use setup::Setup;
pub use world::World;
