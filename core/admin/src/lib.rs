//! The admin service as both of its ends see it, the broadcaster and its clients: views of what it answers, how it refuses,
//! the limits of an order, and how people write durations and sizes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod limits;
mod refusal;
mod unit;
pub mod view;

pub use refusal::{RefusalKind, fix_of};
pub use unit::{parse_duration, parse_size, show_duration};
