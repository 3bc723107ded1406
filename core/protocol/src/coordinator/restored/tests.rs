//! A store that was restored: once, more than once, in the middle of a rotation, or to a backup that was itself taken after
//! a restoration.

mod creation;
mod lost_leases;
mod numbers;
mod proof;
mod staying;

use std::time::Duration;

use crate::bench::seconds;

/// Longer than the longest lease of a lost history.
const LONG: Duration = seconds(5000);
