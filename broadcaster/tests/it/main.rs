//! The broadcaster's stores, buses and providers with what measures them.

#![allow(clippy::unwrap_used)]

mod measured;
