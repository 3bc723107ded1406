//! Free loopback ports.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below the range that systems draw outgoing ports from (Linux: from 32768). A client that keeps
/// redialling a stopped server could otherwise be given that very port and connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Ports that this process has given out. The port of a stopped server is not given out again.
static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A loopback TCP port on which no process listens, and which this process has not given out before.
///
/// # Panics
/// If every port of the range is taken.
#[must_use]
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    let span = u64::from(PORTS.end - PORTS.start);
    let random = RandomState::new().hash_one(std::process::id()) % span;
    for step in 0..span {
        let offset = u16::try_from((random + step) % span).expect("span fits in u16");
        let port = PORTS.start + offset;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("expected a free loopback port in {PORTS:?}, found none");
}
