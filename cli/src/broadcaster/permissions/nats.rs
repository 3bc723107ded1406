//! NATS: nats.conf, or commands for nsc.

use std::fmt::Write as _;

use rotacast_broadcaster::permissions::{NatsAccess, Variables};

use super::{UNNAMED, comment, shell};

/// What is said about a login.
fn about(login: &NatsAccess) -> String {
    let mut text = format!("For {}.", login.login);
    for pattern in &login.widened {
        write!(
            text,
            "\nA wildcard of NATS stands for whole segments of a name: for {pattern} it may also read the states of\n\
             secrets beside them. A state holds no value."
        )
        .expect("into a String");
    }
    text
}

/// The `authorization` section.
pub(super) fn conf(title: &str, logins: &[NatsAccess], unnamed: bool) -> String {
    let mut text = comment("#", title);
    text += &comment(
        "#",
        "\nPut this into a file beside nats.conf and name it there: include \"rotacast-permissions.conf\"\n\
         The passwords are not here. Each $ROTACAST_... is a variable in nats-server's environment (with systemd: in\n\
         an EnvironmentFile, one of digits alone in double quotes); the server does not start while one is missing. Put the same password where the login is\n\
         used: the broadcasters' into the file of bus.password_file, a service's where its .nats_credentials(...) reads it.\n\
         Instead of user and password, an entry may have the public key of an nkey: nkey: U...\n\
         Replies arrive under rotacast.<cluster>.inbox.<login>. Programs of Rotacast use that by themselves.\n\
         Operators' tools need no login here: the rotacast command line talks to broadcasters only.",
    );
    if unnamed {
        text += &comment("#", UNNAMED);
    }
    text += "authorization {\n  users = [\n";
    let mut variables = Variables::default();
    for login in logins {
        text += &comment("    #", &about(login));
        let variable = variables.of("NATS", &login.user);
        write!(
            text,
            "    {{\n      user: {user}\n      password: ${variable}\n      permissions {{\n        publish {{\n{publish}        \
             }}\n        subscribe {{\n{subscribe}        }}\n      }}\n    }}\n",
            user = quoted(&login.user),
            publish = allow(&login.rights.publish),
            subscribe = allow(&login.rights.subscribe),
        )
        .expect("into a String");
    }
    text + "  ]\n}\n"
}

fn allow(subjects: &[String]) -> String {
    let lines: String = subjects.iter().map(|subject| format!("            {}\n", quoted(subject))).collect();
    format!("          allow: [\n{lines}          ]\n")
}

/// A text of nats.conf. Names hold no quote and no backslash: `rotacast_broadcaster::permissions` refuses them.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// Commands that make the users in the current operator's account.
pub(super) fn nsc(title: &str, logins: &[NatsAccess], unnamed: bool) -> String {
    let mut text = "#!/bin/sh\n".to_owned() + &comment("#", title);
    text += &comment(
        "#",
        "\nSet ACCOUNT to the account with JetStream that Rotacast uses. Each user gets a key of its own: nothing here is a\n\
         secret. Afterwards write each login's file and give it to its owner alone:\n\
         \x20 nsc generate creds --account \"$ACCOUNT\" --name USER --output-file USER.creds\n\
         The broadcasters' is named in bus.credentials, a service's in ROTACAST_NATS_CREDS.\n\
         It can be run again, also after a change: a user that is there gets what it lacks, and needs a new file. Nothing is\n\
         taken away: see what a user has with nsc describe user, and take what is not printed here with\n\
         nsc edit user --account \"$ACCOUNT\" --name USER --rm SUBJECT. A service that is configured no more keeps its user:\n\
         nsc delete user --account \"$ACCOUNT\" --name USER.",
    );
    if unnamed {
        text += &comment("#", UNNAMED);
    }
    text += "set -eu\n: \"${ACCOUNT:?set it to the account that Rotacast uses}\"\n";
    for login in logins {
        text += &comment("#", &about(login));
        write!(
            text,
            "nsc describe user --account \"$ACCOUNT\" --name {name} >/dev/null 2>&1 || nsc add user --account \"$ACCOUNT\" \
             --name {name}\nnsc edit user --account \"$ACCOUNT\" --name {name} \\\n  --allow-pub {} \\\n  --allow-sub {}\n",
            shell(&login.rights.publish.join(",")),
            shell(&login.rights.subscribe.join(",")),
            name = shell(&login.user),
        )
        .expect("into a String");
    }
    text + "nsc push --account \"$ACCOUNT\"\n"
}
