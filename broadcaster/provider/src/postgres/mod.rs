//! PostgreSQL: a login role per version inside a group role that owns the objects.

mod admin;
mod foreign;
mod login;
mod mark;
mod provider;
mod refusals;
mod role;
mod settings;
mod value;

pub use provider::PostgresProvider;
pub use settings::{Endpoint, InvalidSettings, OnLiveSessions, PostgresSettings};
