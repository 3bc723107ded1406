//! `rotacast token`.

use std::path::Path;

use serde::Serialize;

use crate::error::{Exit, Stop};
use crate::keygen::{owner, with_ending};
use crate::output::Output;
use rotacast_broadcaster::token::Token;

#[derive(Serialize)]
struct TokenView {
    file: String,
    digest: String,
}

/// Makes the file, which must not be there.
pub(crate) fn make(output: Output, name: &Path) -> Result<(), Stop> {
    let file = with_ending(name, ".token");
    let token = Token::generate();
    token.create_file(&file).map_err(|error| {
        let fix = "name another file, or move this one away; a token is never overwritten";
        Stop::failed(Exit::Failed, "key_file", format!("cannot write {}: {error}", file.display()), fix)
    })?;
    let digest = token.digest().to_string();
    if output.is_data() {
        return output.data(&TokenView { file: file.display().to_string(), digest });
    }
    let owner = owner(&file);
    output.line(format_args!(
        "token  {}  (only its owner may read it; any person who has it can sign in)",
        file.display()
    ))?;
    output.line("")?;
    output.line(
        "In the broadcaster's configuration, for a person or program; what they may do and read is in their roles:",
    )?;
    output.line(format_args!("[operators.{owner}]\ntokens = [\"{digest}\"]"))
}
