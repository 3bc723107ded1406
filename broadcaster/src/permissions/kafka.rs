//! Kafka: the ACLs of each principal.

use super::{Login, NoPermissions, broadcasters_user};
use crate::config::{BusConfig, Config};

/// One principal of Kafka.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaAccess {
    /// Whose.
    pub login: Login,
    /// Its name, without `User:`.
    pub user: String,
    /// What it may do.
    pub acls: Vec<KafkaAcl>,
}

/// Operations on one resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaAcl {
    /// On what.
    pub resource: KafkaResource,
    /// As `kafka-acls` calls them.
    pub operations: &'static [&'static str],
}

/// A resource, by its exact name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KafkaResource {
    /// A topic.
    Topic(String),
    /// The transactional id of the broadcasters' producer.
    TransactionalId(String),
    /// The group whose name clients give; none joins it.
    Group(String),
}

/// The principals of Kafka: the broadcasters', then one for each service.
///
/// # Errors
/// [`NoPermissions`] if the bus is another one, or a user cannot be named.
pub fn kafka(config: &Config) -> Result<Vec<KafkaAccess>, NoPermissions> {
    let BusConfig::Kafka { login, .. } = &config.bus else {
        return Err(NoPermissions::AnotherServer {
            setting: "bus.kind",
            found: config.bus.kind().to_owned(),
            expected: "kafka",
        });
    };
    let name = format!("rotacast.{}", config.cluster);
    let topic =
        |log: &str, operations| KafkaAcl { resource: KafkaResource::Topic(format!("{name}.{log}")), operations };
    let group = || KafkaAcl { resource: KafkaResource::Group(name.clone()), operations: &["Describe"] };
    let all: &[&str] = &["Create", "Describe", "DescribeConfigs", "Read", "Write"];
    let user = login.as_ref().map(|login| login.user.as_str());
    let broadcasters = KafkaAccess {
        login: Login::Broadcasters,
        user: broadcasters_user(config, "bus.user", user)?,
        acls: vec![
            topic("state", all),
            topic("registrations", all),
            topic("reports", all),
            KafkaAcl { resource: KafkaResource::TransactionalId(name.clone()), operations: &["Describe", "Write"] },
            group(),
        ],
    };
    let services = config.services.keys().map(|service| KafkaAccess {
        login: Login::Service(service.clone()),
        user: service.to_string(),
        acls: vec![
            topic("state", &["Describe", "Read"]),
            topic("registrations", &["Describe", "Write"]),
            topic("reports", &["Describe", "Write"]),
            group(),
        ],
    });
    Ok(std::iter::once(broadcasters).chain(services).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn services_read_states_and_write_registrations_and_reports() {
        let all = kafka(&config("[bus]\nkind = \"kafka\"\nbrokers = [\"127.0.0.1:9092\"]")).unwrap();
        assert_eq!(all.len(), 3);
        let on = |access: &KafkaAccess, topic: &str| {
            let topic = KafkaResource::Topic(format!("rotacast.prod.{topic}"));
            access.acls.iter().find(|acl| acl.resource == topic).map(|acl| acl.operations)
        };
        for service in &all[1..] {
            assert_eq!(on(service, "state"), Some(&["Describe", "Read"][..]));
            assert_eq!(on(service, "registrations"), Some(&["Describe", "Write"][..]));
        }
        assert!(on(&all[0], "state").is_some_and(|operations| operations.contains(&"Write")));
    }
}
