//! The broadcaster's stores, buses and providers inside the decorators that measure them.

#![allow(clippy::unwrap_used)]

mod measured;
