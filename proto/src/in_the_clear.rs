//! What would cross a network unencrypted. One rule for every address that a broadcaster or a service connects to.

use std::net::IpAddr;

use thiserror::Error;

/// Whether a host is this machine: `localhost`, or a loopback address written out, also in brackets. Any other name is
/// not, whatever it resolves to now: that can change.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether what is sent to `address` (`host`, `host:port` or a URL) goes over a network.
#[must_use]
pub fn leaves_this_machine(address: &str) -> bool {
    !is_loopback(host(place(address)))
}

/// A connection without encryption.
#[derive(Clone, Copy, Debug)]
pub struct Unencrypted<'a> {
    /// What it carries, for the message.
    pub carries: &'a str,
    /// How to encrypt it, as an order: `use https://`.
    pub encrypt: &'a str,
    /// How to allow it by name, as an order: `set in_the_clear = true in [store]`.
    pub allow: &'a str,
}

impl Unencrypted<'_> {
    /// `address` is `host`, `host:port` or a URL.
    ///
    /// # Errors
    /// [`InTheClear`] if it is not this machine's.
    pub fn to(&self, address: &str) -> Result<(), InTheClear> {
        if !leaves_this_machine(address) {
            return Ok(());
        }
        let scheme = address.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
        // Without what says who we are: it may be a password.
        let address = scheme + place(address);
        let problem = format!(
            "{address:?} is not encrypted and not on this machine: {} would cross the network in the clear",
            self.carries
        );
        let fix = format!("{}, or {} if something else protects the way there", self.encrypt, self.allow);
        Err(InTheClear { problem, fix })
    }
}

/// Host and port of an address.
fn place(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, place)| place)
}

/// Without the port.
fn host(place: &str) -> &str {
    if place.parse::<IpAddr>().is_ok() {
        return place;
    }
    if let Some((address, _)) = place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    place.rsplit_once(':').map_or(place, |(host, _)| host)
}

/// An address beyond this machine that is neither encrypted nor allowed by name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{problem}; {fix}")]
pub struct InTheClear {
    /// The address, and what would be sent there.
    pub problem: String,
    /// Both ways out.
    pub fix: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: Unencrypted<'_> =
        Unencrypted { carries: "values", encrypt: "use https://", allow: "set in_the_clear = true in [store]" };

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "127.0.0.1", "127.3.2.1", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "localhost.example", "127.example", "10.0.0.1", "[::]", "0.0.0.0", "example", "[localhost]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_address_of_this_machine_needs_no_encryption_in_any_form() {
        for address in [
            "localhost",
            "localhost:1",
            "127.0.0.1:9092",
            "::1",
            "[::1]:5432",
            "http://localhost:2379",
            "http://127.9.9.9",
            "nats://user:password@127.0.0.1:4222",
            "http://[::1]:8500/v1?a=@example#b",
        ] {
            assert_eq!(HTTP.to(address), Ok(()), "{address}");
        }
        for address in [
            "http://10.0.0.1:2379",
            "http://localhost.example:1",
            "http://127.example.com:8500",
            "http://localhost@10.0.0.1",
            "http://10.0.0.1/localhost",
            "http://10.0.0.1?@localhost",
            "kafka-1:9092",
            "2001:db8::1",
            "",
        ] {
            assert!(HTTP.to(address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_refusal_names_the_address_what_would_be_sent_and_both_ways_out() {
        assert_eq!(
            HTTP.to("http://ada:hunter2@10.0.0.1:2379").unwrap_err().to_string(),
            "\"http://10.0.0.1:2379\" is not encrypted and not on this machine: values would cross the network in the \
             clear; use https://, or set in_the_clear = true in [store] if something else protects the way there"
        );
    }
}
