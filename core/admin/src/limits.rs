//! How large an order may be.

use rotacast_protocol::coordinator::Reason;

/// Longest reason, in bytes: it goes into the rotation record and the audit log.
pub const MAX_REASON_BYTES: usize = Reason::MAX_BYTES;
/// Longest value a command may carry, in bytes: a signed message's 256 KiB, less names and reason.
pub const MAX_PUT_BYTES: usize = 255 * 1024;
