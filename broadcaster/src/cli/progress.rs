//! What happens while somebody waits: a moving line on a terminal, plain lines otherwise. On standard error.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::note;
use super::summary;
use crate::view::SecretView;

/// How often the moving line moves.
const TICK: Duration = Duration::from_millis(120);

/// What is told when the broadcaster is gone for the moment.
pub(super) const LOST: &str = "connection lost; trying again";

/// Tells of one secret.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    told: String,
    silent: bool,
}

impl Progress {
    /// `silent`: a program reads the result and nobody watches.
    pub(super) fn new(silent: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4}  {wide_msg}")
                .expect("the template is a constant that is shown in use");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, told: String::new(), silent: silent && !terminal }
    }

    /// Tells it if there is something new.
    pub(super) fn tell(&mut self, status: &SecretView) {
        self.say(summary::line(status));
    }

    /// Tells that there is nothing to be seen for the moment.
    pub(super) fn tell_lost(&mut self) {
        self.say(LOST.to_owned());
    }

    fn say(&mut self, line: String) {
        if line == self.told {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(line.clone()),
            None if self.silent => {}
            None => note(&line),
        }
        self.told = line;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
