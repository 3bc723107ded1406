//! Servers that tests start, stop, kill and cut off.

mod lives;
