//! Consul: policies in HCL.

use std::fmt::Write as _;
use std::path::Path;

use rotacast_broadcaster::permissions::{ConsulAccess, ConsulRule, Span};

use super::{comment, shell};
use crate::error::{Exit, Stop};
use crate::output::Output;

/// Makes a policy and a token for it, or gives a policy that is there these rules.
const LOGIN: &str = r#"# login POLICY DESCRIPTION: reads the rules.
login() {
    if consul acl policy read -name "$1" >/dev/null 2>&1; then
        consul acl policy update -name "$1" -rules -
    else
        consul acl policy create -name "$1" -rules -
        consul acl token create -policy-name "$1" -description "$2"
    fi
}
"#;

pub(super) fn commands(title: &str, tokens: &[ConsulAccess]) -> String {
    let mut text = "#!/bin/sh\n".to_owned() + &comment("#", title);
    text += &comment(
        "#",
        "\nSet CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN to a token with acl = \"write\". Consul draws each token and prints it as\n\
         SecretID: put the broadcasters' into the file of store.token_file, a service's where its .consul_token(...) reads\n\
         it. Rights count with acl { enabled = true, default_policy = \"deny\" }.\n\
         Services that get their values from broadcasters need no token here, and operators' tools need none either.\n\
         It can be run again, also after a change: each policy then has what is printed, and nothing else; its token stays. A\n\
         service that is configured no more keeps its policy: consul acl policy delete -name POLICY. That takes its tokens'\n\
         rights too.",
    );
    text += "set -eu\n";
    text += LOGIN;
    for token in tokens {
        text += &comment("#", &about(token));
        write!(
            text,
            "login {} {} <<'RULES'\n{}RULES\n",
            shell(&token.policy),
            shell(&format!("Rotacast: {}", token.login)),
            rules(token),
        )
        .expect("into a String");
    }
    text
}

/// Each policy into a file of its own.
pub(super) fn write(output: Output, folder: &Path, tokens: &[ConsulAccess]) -> Result<(), Stop> {
    for token in tokens {
        let file = folder.join(format!("{}.hcl", token.policy));
        let text = comment("#", &about(token)) + &rules(token);
        std::fs::write(&file, text).map_err(|error| {
            let problem = format!("{} cannot be written: {error}", file.display());
            Stop::failed(Exit::Failed, "failed", problem, "name a folder that is there and may be written")
        })?;
        output.line(file.display())?;
    }
    Ok(())
}

/// What is said about a token.
fn about(token: &ConsulAccess) -> String {
    format!("For {}.{}", token.login, super::below(&token.wider))
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
