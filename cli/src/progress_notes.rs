//! Progress while a command waits, on standard error: moving lines on a terminal, plain lines otherwise.

use std::io::IsTerminal as _;

use crate::output::note;
use crate::progress_bars::Bars;
use crate::summary;
use rotacast_protocol::status::SecretStatus;

/// Shown while the broadcaster does not answer.
pub(crate) const LOST: &str = "connection lost; trying again";

/// Tells of one secret.
pub(crate) struct Progress {
    bars: Option<Bars>,
    told: String,
    silent: bool,
}

impl Progress {
    /// `silent`: a program reads the result, so plain lines are left out.
    pub(crate) fn new(silent: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { bars: terminal.then(Bars::new), told: String::new(), silent: silent && !terminal }
    }

    /// Tells it if there is something new.
    pub(crate) fn tell(&mut self, status: &SecretStatus) {
        match &mut self.bars {
            Some(bars) => bars.tell(status),
            None => self.line(summary::line(status)),
        }
    }

    /// Tells that there is nothing to be seen for the moment.
    pub(crate) fn tell_lost(&mut self) {
        match &self.bars {
            Some(bars) => bars.say(LOST),
            None => self.line(LOST.to_owned()),
        }
    }

    fn line(&mut self, line: String) {
        if line != self.told && !self.silent {
            note(&line);
        }
        self.told = line;
    }
}
