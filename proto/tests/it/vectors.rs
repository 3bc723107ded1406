//! The byte vectors under `proto/vectors/`, to which any implementation can be held.
//!
//! The tests make every vector anew and compare, then read the checked-in files as another
//! implementation would. To write the files anew after a deliberate change of the contract:
//!
//! ```text
//! ROTACAST_WRITE_VECTORS=1 cargo test -p rotacast-proto vectors
//! ```
//!
//! which rewrites them and fails, so that no run with the variable set passes for a check.

mod accepted;
mod fields;
mod file;
mod refused;
mod samples;
