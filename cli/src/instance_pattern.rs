//! How people name an instance, or one incarnation of it.

use std::str::FromStr;

use rotacast_proto::instance_subject;
use rotacast_protocol::coordinator::Standing;
use rotacast_protocol::status::InstanceStatus;
use rotacast_protocol::{InstanceName, ServiceName};

use crate::error::{Exit, Stop};

/// Fewest digits that tell incarnations apart: as many as the tables show.
const MIN_INCARNATION_DIGITS: usize = 8;
const INCARNATION_DIGITS: usize = 32;

/// `SERVICE/INSTANCE`, with the beginning of an incarnation behind `/` or `#` if one incarnation is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InstancePattern {
    service: ServiceName,
    instance: InstanceName,
    incarnation: Option<String>,
}

impl FromStr for InstancePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected SERVICE/INSTANCE or SERVICE/INSTANCE/INCARNATION";
        let (service, rest) = text.split_once('/').ok_or(EXPECTED)?;
        let (instance, incarnation) = match rest.split_once(['/', '#']) {
            Some((instance, incarnation)) => (instance, Some(incarnation)),
            None => (rest, None),
        };
        let digits = MIN_INCARNATION_DIGITS..=INCARNATION_DIGITS;
        if let Some(incarnation) = incarnation
            && !(digits.contains(&incarnation.len())
                && incarnation.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        {
            return Err(
                "expected 8 to 32 lower-case hexadecimal digits as incarnation, as `rotacast instances` shows them"
                    .into(),
            );
        }
        Ok(Self {
            service: service.parse().map_err(|error| format!("{error}; {EXPECTED}"))?,
            instance: instance.parse().map_err(|error| format!("{error}; {EXPECTED}"))?,
            incarnation: incarnation.map(ToOwned::to_owned),
        })
    }
}

impl std::fmt::Display for InstancePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.instance)?;
        self.incarnation.iter().try_for_each(|incarnation| write!(f, "#{incarnation}"))
    }
}

impl InstancePattern {
    fn matches(&self, found: &InstanceStatus) -> bool {
        let begins = |digits: &String| found.key.incarnation.to_string().starts_with(digits);
        found.key.service == self.service
            && found.key.instance == self.instance
            && self.incarnation.as_ref().is_none_or(begins)
    }

    /// The incarnations that are meant, without those that left.
    pub(crate) fn find<'a>(&self, all: &'a [InstanceStatus]) -> Result<Vec<&'a InstanceStatus>, Stop> {
        let found: Vec<_> = all.iter().filter(|it| it.standing != Standing::Left && self.matches(it)).collect();
        if found.is_empty() {
            let fix = "`rotacast instances` lists who uses the secret; those that left need no command";
            return Err(Stop::failed(Exit::NotFound, "not_found", format!("instance {self}: not found"), fix));
        }
        Ok(found)
    }

    /// The one incarnation that is meant.
    pub(crate) fn find_one<'a>(&self, all: &'a [InstanceStatus]) -> Result<&'a InstanceStatus, Stop> {
        match self.find(all)?.as_slice() {
            [one] => Ok(one),
            several => {
                let names: Vec<String> = several.iter().map(|it| instance_subject(&it.key)).collect();
                let problem = format!("{self} is {} incarnations: {}", names.len(), names.join(", "));
                Err(Stop::failed(Exit::Usage, "usage", problem, "name one of them"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_with_or_without_its_life() {
        let plain: InstancePattern = "api/pod-1".parse().unwrap();
        assert_eq!(plain.to_string(), "api/pod-1");
        for text in ["api/pod-1/0a1b2c3d", "api/pod-1#0a1b2c3d"] {
            let life: InstancePattern = text.parse().unwrap();
            assert_eq!(life.to_string(), "api/pod-1#0a1b2c3d");
        }
        for text in ["", "api", "api/", "/pod", "api/pod/xyz", "api/pod/0a1b", "api/pod/0A1B2C3D", "A/pod"] {
            assert!(text.parse::<InstancePattern>().is_err(), "{text:?}");
        }
    }
}
