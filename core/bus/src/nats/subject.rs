//! Subjects and stream names of one cluster.

use rotacast_protocol::{ClusterName, InstanceKey, SecretName};

#[cfg(feature = "leader")]
use crate::CLAIM;

/// The subjects and streams of one cluster, so that environments can share a server.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    stream_suffix: String,
}

impl Names {
    pub(super) fn new(cluster: &ClusterName) -> Self {
        let token = token(cluster.as_str());
        // Names are lower case, so that upper case loses nothing.
        Self { prefix: format!("rotacast.{token}"), stream_suffix: token.to_ascii_uppercase() }
    }

    pub(super) fn state(&self, secret: &SecretName) -> String {
        format!("{}.state.{}", self.prefix, token(secret.as_str()))
    }

    #[cfg(feature = "leader")]
    pub(super) fn claim(&self) -> String {
        format!("{}.state.{CLAIM}", self.prefix)
    }

    pub(super) fn states(&self) -> String {
        format!("{}.state.*", self.prefix)
    }

    pub(super) fn registration(&self, key: &InstanceKey) -> String {
        format!("{}.registrations.{}", self.prefix, instance(key))
    }

    pub(super) fn registrations(&self) -> String {
        format!("{}.registrations.*.*.*", self.prefix)
    }

    pub(super) fn report(&self, key: &InstanceKey) -> String {
        format!("{}.report.{}", self.prefix, instance(key))
    }

    pub(super) fn reports(&self) -> String {
        format!("{}.report.*.*.*", self.prefix)
    }

    pub(super) fn sync(&self) -> String {
        format!("{}.sync", self.prefix)
    }

    pub(super) fn stream(&self, base: &str) -> String {
        format!("ROTACAST_{base}_{}", self.stream_suffix)
    }
}

fn instance(key: &InstanceKey) -> String {
    format!("{}.{}.{}", token(key.service.as_str()), token(key.instance.as_str()), key.incarnation)
}

/// A name as one token: NATS parts tokens at '.', and no name of ours contains '%'.
fn token(name: &str) -> String {
    name.replace('.', "%2E")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_dots_is_one_token_and_no_two_names_share_one() {
        let names = Names::new(&ClusterName::new("eu.prod").unwrap());
        assert_eq!(names.state(&SecretName::new("pay.ments/db").unwrap()), "rotacast.eu%2Eprod.state.pay%2Ements/db");
        assert_eq!(names.stream("STATE"), "ROTACAST_STATE_EU%2EPROD");
        let all = ["a.b", "a/b", "a-b", "a_b", "ab", "a.2eb"].map(|name| names.state(&SecretName::new(name).unwrap()));
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
