//! `rotacast watch`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rotacast_protocol::SecretName;

use super::Context;
use super::follow::{Follow, News};
use super::output::note;
use super::progress::LOST;
use super::stop::Stop;
use super::summary;
use super::times::moment;
use crate::view::SecretView;

/// Rotations that get a moving line of their own: as many as fit below what scrolls.
const MAX_BARS: usize = 10;
/// How often the moving lines move.
const TICK: Duration = Duration::from_millis(120);

pub(super) async fn run(context: &Context, secret: Option<&SecretName>) -> Result<(), Stop> {
    let mut watch = Watch::new(context);
    let follow = Follow { context, secret, timeout: None, may_be_missing: false };
    let mut tell = |news| match news {
        News::Status(status) => watch.tell(*status),
        News::Lost => {
            watch.tell_lost();
            Ok(())
        }
    };
    follow.run(|news| tell(news).map(|()| ControlFlow::<()>::Continue(()))).await
}

struct Watch<'a> {
    context: &'a Context,
    json: BTreeMap<String, SecretView>,
    told: BTreeMap<String, String>,
    bars: Option<(MultiProgress, BTreeMap<String, ProgressBar>)>,
}

impl<'a> Watch<'a> {
    fn new(context: &'a Context) -> Self {
        let moving = !context.output.is_json() && std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        Self {
            context,
            json: BTreeMap::new(),
            told: BTreeMap::new(),
            bars: moving.then(|| (MultiProgress::new(), BTreeMap::new())),
        }
    }

    fn tell(&mut self, status: SecretView) -> Result<(), Stop> {
        let output = self.context.output;
        if output.is_json() {
            // When a follower has read the record is no change of it.
            let content = SecretView { record_read_at: None, ..status.clone() };
            if self.json.get(&status.secret) == Some(&content) {
                return Ok(());
            }
            output.json_line(&status)?;
            self.json.insert(status.secret, content);
            return Ok(());
        }
        let line = summary::line(&status);
        if self.told.get(&status.secret) == Some(&line) {
            return Ok(());
        }
        let stamped = format!("{}  {line}", moment(rotacast_clock::wall().0));
        match &self.bars {
            Some((all, _)) => all.suspend(|| output.line(&stamped))?,
            None => output.line(&stamped)?,
        }
        self.move_bar(&status, &line);
        self.told.insert(status.secret, line);
        Ok(())
    }

    fn tell_lost(&self) {
        match &self.bars {
            Some((all, _)) => all.suspend(|| note(LOST)),
            None => note(LOST),
        }
    }

    /// A rotation in flight has a moving line; one that is over has none.
    fn move_bar(&mut self, status: &SecretView, line: &str) {
        let Some((all, bars)) = &mut self.bars else { return };
        if status.rotation.is_none() {
            if let Some(bar) = bars.remove(&status.secret) {
                bar.finish_and_clear();
                all.remove(&bar);
            }
            return;
        }
        if !bars.contains_key(&status.secret) && bars.len() >= MAX_BARS {
            return;
        }
        let bar = bars.entry(status.secret.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4}  {wide_msg}")
                .expect("the template is a constant that is shown in use");
            let bar = all.add(ProgressBar::new_spinner().with_style(style));
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_message(line.to_owned());
    }
}
