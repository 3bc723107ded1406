//! Consul: policies in HCL.

use std::fmt::Write as _;
use std::path::Path;

use rotacast_broadcaster::permissions::{ConsulAccess, ConsulRule, Span};

use super::{comment, shell};
use crate::error::{Exit, Stop};
use crate::output::Output;

pub(super) fn commands(title: &str, tokens: &[ConsulAccess]) -> String {
    let mut text = "#!/bin/sh\n".to_owned() + &comment("#", title);
    text += &comment(
        "#",
        "\nSet CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN to a token with acl = \"write\". Consul draws each token and prints it as\n\
         SecretID: put the broadcasters' into the file of store.token_file, a service's where its .consul_token(...) reads\n\
         it. Rights count with acl { enabled = true, default_policy = \"deny\" }.\n\
         Services that get their values from broadcasters need no token here, and operators' tools need none either.",
    );
    text += "set -eu\n";
    for token in tokens {
        let policy = shell(&token.policy);
        text += &comment("#", &format!("For {}.", token.who));
        write!(
            text,
            "consul acl policy create -name {policy} -rules - <<'RULES'\n{}RULES\nconsul acl token create -policy-name {policy} \
             -description {}\n",
            rules(token),
            shell(&format!("Rotacast: {}", token.who)),
        )
        .expect("into a String");
    }
    text
}

/// Each policy into a file of its own.
pub(super) fn write(output: Output, folder: &Path, tokens: &[ConsulAccess]) -> Result<(), Stop> {
    for token in tokens {
        let file = folder.join(format!("{}.hcl", token.policy));
        let text = comment("#", &format!("For {}.", token.who)) + &rules(token);
        std::fs::write(&file, text).map_err(|error| {
            let problem = format!("{} cannot be written: {error}", file.display());
            Stop::failed(Exit::Failed, "failed", problem, "name a folder that is there and may be written")
        })?;
        output.line(file.display())?;
    }
    Ok(())
}

fn rules(token: &ConsulAccess) -> String {
    token.rules.iter().map(rule).collect()
}

/// Names hold no quote and no backslash: `rotacast_broadcaster::permissions` refuses them. HCL reads `${` in a text.
fn rule(rule: &ConsulRule) -> String {
    let (resource, name, policy) = match rule {
        ConsulRule::Read(Span::Key(key)) => ("key", key.as_str(), "read"),
        ConsulRule::Read(Span::Beginning(key)) => ("key_prefix", key.as_str(), "read"),
        ConsulRule::Write(Span::Key(key)) => ("key", key.as_str(), "write"),
        ConsulRule::Write(Span::Beginning(key)) => ("key_prefix", key.as_str(), "write"),
        ConsulRule::Sessions => ("session_prefix", "", "write"),
        ConsulRule::Agents => ("agent_prefix", "", "read"),
    };
    format!("{resource} \"{}\" {{\n  policy = \"{policy}\"\n}}\n", name.replace("${", "$${"))
}
