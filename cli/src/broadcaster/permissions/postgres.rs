//! PostgreSQL: the administrator that is no superuser.

use std::fmt::Write as _;

use rotacast_broadcaster::permissions::PostgresAccess;

use super::comment;
use crate::error::Stop;

/// A role's name that can be quoted.
pub(super) fn role(name: &str) -> Result<String, Stop> {
    let fits = !name.is_empty() && !name.chars().any(|c| c.is_control() || matches!(c, '"' | '\'' | '\\'));
    if fits {
        Ok(name.to_owned())
    } else {
        Err(Stop::usage(format!("--admin {name:?} is no role's name"), "expected such as rotacast_admin"))
    }
}

pub(super) fn sql(title: &str, providers: &[PostgresAccess], admin: &str) -> String {
    let mut text = comment("--", title);
    text += &comment(
        "--",
        "\nA superuser runs each part in psql. The role cannot log in until it has a password: \\password asks for it\n\
         and sends its verifier alone. Put the connection with that password into the file of admin_file.\n\
         Objects that services use belong to the group role: ALTER TABLE ... OWNER TO it. It can be run again: a role that is\n\
         there stays, with its password. A provider that is configured no more: REVOKE its group role FROM the administrator.",
    );
    let (admin_name, admin) = (text_of(admin), quoted(admin));
    for provider in providers {
        let (group_name, group) = (text_of(&provider.group), quoted(&provider.group));
        text += &comment("--", &format!("For provider {}.", provider.provider));
        write!(
            text,
            "\\connect {database}\n\
             SELECT count(*) = 0 AS new FROM pg_roles WHERE rolname = {group_name} \\gset\n\
             \\if :new\n\
             CREATE ROLE {group} NOLOGIN;\n\
             \\endif\n\
             GRANT CREATE, USAGE ON SCHEMA public TO {group};\n\
             SELECT count(*) = 0 AS new FROM pg_roles WHERE rolname = {admin_name} \\gset\n\
             \\if :new\n\
             CREATE ROLE {admin} LOGIN CREATEROLE;\n\
             \\password {admin}\n\
             \\endif\n\
             -- Makes each version's login a member of the group.\n\
             GRANT {group} TO {admin} WITH ADMIN OPTION;\n\
             -- Sees the sessions of every login.\n\
             GRANT pg_read_all_stats TO {admin};\n\
             -- Ends sessions, where on_live_sessions or an operator's override says so.\n\
             GRANT pg_signal_backend TO {admin};\n",
            database = quoted(&provider.database),
        )
        .expect("into a String");
    }
    text
}

/// A text. Names hold no quote, see below.
fn text_of(name: &str) -> String {
    format!("'{name}'")
}

/// An identifier. Names hold no quote: `rotacast_broadcaster::permissions` and [`role`] refuse them.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}
