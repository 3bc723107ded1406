//! How much one broadcaster takes on.

use super::reader::Section;

/// Most secrets that a configuration may allow one broadcaster: as many as were measured.
const MAX_SECRETS: usize = 20_000;

/// How many secrets one broadcaster serves unless configured. Bounds tasks and memory. `put` refuses the first version of
/// one more before anything is written; one that another program writes is not served, which is a finding.
pub const DEFAULT_SECRETS: usize = 10_000;

/// How much one broadcaster takes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Secrets that it serves at most.
    pub secrets: usize,
}

pub(super) fn read(section: &Section<'_, '_>) -> Limits {
    let secrets = section.integer::<usize>("secrets").filter(|&secrets| {
        let fits = (1..=MAX_SECRETS).contains(&secrets);
        if !fits {
            section.problem(
                "secrets",
                format!("{secrets}: expected 1 to {MAX_SECRETS}, which is as many as were measured"),
            );
        }
        fits
    });
    section.finish();
    Limits { secrets: secrets.unwrap_or(DEFAULT_SECRETS) }
}
