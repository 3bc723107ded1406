//! Kafka: commands for `kafka-acls.sh`.

use std::fmt::Write as _;

use rotacast_broadcaster::permissions::{KafkaAccess, KafkaResource};

use super::{comment, shell};

pub(super) fn commands(title: &str, principals: &[KafkaAccess]) -> String {
    let mut text = "#!/bin/sh\n".to_owned() + &comment("#", title);
    text += &comment(
        "#",
        "\nSet BROKERS to one or more brokers (host:port), and ADMIN to a file with the login of Kafka's administrator\n\
         (security.protocol, sasl.mechanism, sasl.jaas.config). Principals are User:NAME; with certificates put the name of\n\
         the certificate in place of NAME. Passwords are set apart, each from a file that only you may read:\n\
         \x20 kafka-configs.sh --bootstrap-server \"$BROKERS\" --command-config \"$ADMIN\" --alter \\\n\
         \x20   --entity-type users --entity-name NAME --add-config-file FILE   # SCRAM-SHA-512=[password=...]\n\
         Operators' tools need nothing here: the rotacast command line talks to broadcasters only.\n\
         It can be run again: what is there stays. A service that is configured no more keeps its ACLs: list them with\n\
         kafka-acls.sh ... --list --principal User:NAME, and remove each with --remove in place of --add.",
    );
    text += "set -eu\n: \"${BROKERS:?set it to brokers, host:port}\" \"${ADMIN:?set it to a file with the administrator's login}\"\n\
             acl() { kafka-acls.sh --bootstrap-server \"$BROKERS\" --command-config \"$ADMIN\" --add \"$@\"; }\n";
    for principal in principals {
        text += &comment("#", &format!("For {}.", principal.login));
        for acl in &principal.acls {
            let (option, name) = match &acl.resource {
                KafkaResource::Topic(name) => ("--topic", name),
                KafkaResource::TransactionalId(name) => ("--transactional-id", name),
                KafkaResource::Group(name) => ("--group", name),
            };
            let operations: Vec<_> =
                acl.operations.iter().map(|operation| format!("--operation {operation}")).collect();
            writeln!(
                text,
                "acl --allow-principal {} {} {option} {}",
                shell(&format!("User:{}", principal.user)),
                operations.join(" "),
                shell(name)
            )
            .expect("into a String");
        }
    }
    text
}
