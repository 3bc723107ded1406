//! The rules on a bench: stories, attacks and what holds for every input.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod attacks;
mod bench;
mod gone;
mod late;
mod lost_history;
mod properties;
mod restored_again;
mod scenarios;
mod stories;
mod vocabulary;
mod wall_clock;
