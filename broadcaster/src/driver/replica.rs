//! What a replica calls itself in the election, and what others learn from it.

use rotacast_protocol::status::Leading;

/// Longest name and address taken over from the store, in characters: they go into refusals, which travel in headers.
const MAX_SHOWN: usize = 256;

/// A replica's name, and where it is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    /// How it is called.
    pub name: String,
    /// Where operators and instances reach it, `https://host:port`; none: followers name no address.
    pub address: Option<String>,
}

impl Replica {
    /// The text it campaigns with: its name, and behind the last space its address.
    #[must_use]
    pub fn candidate(&self) -> String {
        match &self.address {
            Some(address) => format!("{} {address}", self.name),
            None => self.name.clone(),
        }
    }

    /// Reads such a text; anything is a name at least.
    #[must_use]
    pub fn of_candidate(text: &str) -> Self {
        let cut = |text: &str| text.chars().take(MAX_SHOWN).collect::<String>();
        match text.rsplit_once(' ') {
            Some((name, address)) if address.contains("://") => Self { name: cut(name), address: Some(cut(address)) },
            _ => Self { name: cut(text), address: None },
        }
    }

    /// As a status shows the leader.
    pub(super) fn leading(self) -> Leading {
        Leading { replica: self.name, address: self.address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_address_come_back() {
        for (name, address) in
            [("a", None), ("broadcaster a", None), ("a", Some("https://a:7400")), ("a b", Some("http://127.0.0.1:1"))]
        {
            let replica = Replica { name: name.into(), address: address.map(str::to_owned) };
            assert_eq!(Replica::of_candidate(&replica.candidate()), replica);
        }
        // Whatever stands there.
        assert_eq!(Replica::of_candidate(&"x".repeat(10_000)).name.len(), MAX_SHOWN);
    }
}
