//! The audit log: who did what to which secret, on disk before anything irreversible happens.
//!
//! JSON lines, each carrying the hash of the one before, so that a changed, removed, inserted or
//! swapped line shows. [`AuditLog::append`] returns once the entry is durable; an action that
//! cannot be undone waits for that, and does not happen without it. See `docs/operate/audit.md` for the format.

mod anchor;
mod change;
mod checkpoint;
mod doubt;
mod entry;
mod error;
mod files;
mod line;
mod log;
mod loss;
mod medium;
mod order;
mod scan;
mod search;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use anchor::Anchor;
pub use checkpoint::AuditSigner;
pub use doubt::{Doubt, LogName};
pub use entry::{Entry, Recorded};
pub use error::{AuditError, Broken};
pub use line::{Hash, Head, Receipt};
pub use log::{AppendObserver, AuditLog, AuditOptions};
pub use loss::Loss;
pub use order::{ACCEPT_LOSS, OrderProof};
pub(crate) use order::{APPROVAL_WITHDRAWN, APPROVED, REQUESTED, WITHDRAWN};
pub use search::{Admits, Found, Search, search};
pub use verify::{Expectations, Verified, compare, files_of, read, verify, verify_telling};
