//! etcd: commands for `etcdctl`.

use std::fmt::Write as _;

use rotacast_broadcaster::permissions::{EtcdAccess, Span};

use super::{comment, shell};

pub(super) fn commands(title: &str, users: &[EtcdAccess]) -> String {
    let mut text = "#!/bin/sh\n".to_owned() + &comment("#", title);
    text += &comment(
        "#",
        "\nRun it as etcd's root user: set ETCDCTL_ENDPOINTS, ETCDCTL_CACERT and ETCDCTL_USER=root. etcdctl asks for the\n\
         password of each new user twice. Put the broadcasters' into the file of store.password_file, a service's where its\n\
         .etcd_user(...) reads it. Rights count once authentication is on: etcdctl auth enable.\n\
         Services that get their values from broadcasters need no user here, and operators' tools need none either.",
    );
    text += "set -eu\n";
    for user in users {
        let name = shell(&user.user);
        text += &comment("#", &format!("For {}.", user.who));
        writeln!(text, "etcdctl role add {name}").expect("into a String");
        for grant in &user.grants {
            let (prefix, key) = match &grant.span {
                Span::Beginning(key) => (" --prefix=true", key),
                Span::Key(key) => ("", key),
            };
            let right = if grant.write { "readwrite" } else { "read" };
            writeln!(text, "etcdctl role grant-permission{prefix} {name} {right} {}", shell(key))
                .expect("into a String");
        }
        write!(text, "etcdctl user add {name}\netcdctl user grant-role {name} {name}\n").expect("into a String");
    }
    text
}
