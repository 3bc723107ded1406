//! A deterministic world in which the broadcaster's rules and the holders' rules meet: broadcasters that crash, stop,
//! are deposed and take over; instances that crash, stop, join and leave, on clocks that drift; a network that loses,
//! doubles, delays and reorders; a store whose answers get lost; a provider that answers late or never; operators who
//! interfere. After every step the promises are checked; after the faults have stopped, everything must end.
//!
//! A seed makes a world. `ROTACAST_SEED=n cargo test -p rotacast-simulator` runs one again, and `ROTACAST_TRACE=1` says
//! everything that happens in it.

pub mod clock;
pub mod instance;
pub mod leader;
pub mod mutant;
pub mod outside;
pub mod rng;
pub mod world;

pub use mutant::Mutant;
pub use rng::Rng;
pub use world::{Counts, World};
