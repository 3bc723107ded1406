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
    /// Tells two broadcasters of one name apart.
    pub run: Option<RunId>,
}

/// One run of one broadcaster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunId(pub u64);

impl RunId {
    /// For this run.
    #[must_use]
    pub fn drawn() -> Self {
        Self(rand::random())
    }
}

impl Replica {
    /// The text it campaigns with: its name, and behind spaces its address and its run.
    #[must_use]
    pub fn candidate(&self) -> String {
        let mut text = self.name.clone();
        if let Some(address) = &self.address {
            text = format!("{text} {address}");
        }
        match self.run {
            Some(RunId(run)) => format!("{text} #{run:016x}"),
            None => text,
        }
    }

    /// Reads such a text; anything is a name at least.
    #[must_use]
    pub fn of_candidate(text: &str) -> Self {
        let cut = |text: &str| text.chars().take(MAX_SHOWN).collect::<String>();
        let run = text.rsplit_once(" #").and_then(|(text, run)| Some((text, u64::from_str_radix(run, 16).ok()?)));
        let (text, run) = run.map_or((text, None), |(text, run)| (text, Some(RunId(run))));
        match text.rsplit_once(' ') {
            Some((name, address)) if address.contains("://") => {
                Self { name: cut(name), address: Some(cut(address)), run }
            }
            _ => Self { name: cut(text), address: None, run },
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
            for run in [None, Some(RunId(u64::MAX)), Some(RunId(1))] {
                let replica = Replica { name: name.into(), address: address.map(str::to_owned), run };
                assert_eq!(Replica::of_candidate(&replica.candidate()), replica);
            }
        }
        // Whatever stands there.
        assert_eq!(Replica::of_candidate(&"x".repeat(10_000)).name.len(), MAX_SHOWN);
    }
}
