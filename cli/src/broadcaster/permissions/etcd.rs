//! etcd: commands for `etcdctl`.

use std::fmt::Write as _;
use std::hash::Hasher as _;

use rotacast_broadcaster::permissions::{EtcdAccess, EtcdGrant, Span};

use super::{comment, shell};

/// Gives a user exactly this role. The new role is given before others are taken, so that no request fails in between.
const LOGIN: &str = r#"# login USER ROLE: the user, made if it is not there, has this role and no other.
login() {
    etcdctl user get "$1" >/dev/null 2>&1 || etcdctl user add "$1"
    etcdctl user grant-role "$1" "$2"
    etcdctl user get "$1" | sed -n 's/^Roles: *//p' | tr ' ' '\n' | while read -r role; do
        [ -z "$role" ] || [ "$role" = "$2" ] || etcdctl user revoke-role "$1" "$role"
    done
}
"#;

pub(super) fn commands(title: &str, users: &[EtcdAccess]) -> String {
    let mut text = "#!/bin/sh\n".to_owned() + &comment("#", title);
    text += &comment(
        "#",
        "\nRun it as etcd's root user: set ETCDCTL_ENDPOINTS, ETCDCTL_CACERT and ETCDCTL_USER=root. etcdctl asks for the\n\
         password of each new user twice. Put the broadcasters' into the file of store.password_file, a service's where its\n\
         .etcd_user(...) reads it. Rights count once authentication is on: etcdctl auth enable.\n\
         Services that get their values from broadcasters need no user here, and operators' tools need none either.\n\
         It can be run again, also after a change: each user then has what is printed, and nothing else. The name of a role\n\
         ends in a digest of its rights; roles of earlier runs have no user any more (etcdctl role delete ROLE). A service\n\
         that is configured no more keeps its user: etcdctl user delete USER.",
    );
    text += "set -eu\n";
    text += LOGIN;
    for user in users {
        let (name, role) = (shell(&user.user), shell(&role(user)));
        text += &comment("#", &about(user));
        writeln!(text, "etcdctl role get {role} >/dev/null 2>&1 || etcdctl role add {role}").expect("into a String");
        for grant in &user.grants {
            let (prefix, key) = match &grant.span {
                Span::Beginning(key) => (" --prefix=true", key),
                Span::Key(key) => ("", key),
            };
            let right = if grant.write { "readwrite" } else { "read" };
            writeln!(text, "etcdctl role grant-permission{prefix} {role} {right} {}", shell(key))
                .expect("into a String");
        }
        writeln!(text, "login {name} {role}").expect("into a String");
    }
    text
}

/// What is said about a user.
fn about(user: &EtcdAccess) -> String {
    format!("For {}.{}", user.login, super::below(&user.wider))
}

/// The role's name: a role that was made has these rights and is never changed, so two runs agree about it.
fn role(user: &EtcdAccess) -> String {
    let mut digest = Fnv::default();
    for EtcdGrant { span, write } in &user.grants {
        let (kind, key) = match span {
            Span::Beginning(key) => (b'p', key),
            Span::Key(key) => (b'k', key),
        };
        digest.write(&[kind, u8::from(*write)]);
        digest.write(key.as_bytes());
        digest.write(&[0]);
    }
    format!("{}-{:016x}", user.user, digest.finish())
}

/// FNV-1a: the same in every build, for names that need not withstand anyone.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
