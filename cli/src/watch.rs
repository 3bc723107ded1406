//! `rotacast watch`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::ops::ControlFlow;

use rotacast_protocol::SecretName;
use rotacast_protocol::status::SecretStatus;

use crate::Context;
use crate::error::Stop;
use crate::follow::{Follow, News};
use crate::human_time::moment;
use crate::output::note;
use crate::progress_bars::Bars;
use crate::progress_notes::LOST;
use crate::summary;

pub(crate) async fn run(context: &Context, secret: Option<&SecretName>) -> Result<(), Stop> {
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
    json: BTreeMap<SecretName, SecretStatus>,
    told: BTreeMap<SecretName, String>,
    bars: Option<Bars>,
}

impl<'a> Watch<'a> {
    fn new(context: &'a Context) -> Self {
        let moving = !context.output.is_data() && std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        Self { context, json: BTreeMap::new(), told: BTreeMap::new(), bars: moving.then(Bars::new) }
    }

    fn tell(&mut self, status: SecretStatus) -> Result<(), Stop> {
        let output = self.context.output;
        if output.is_data() {
            // When a follower has read the record is no change of it.
            let content = SecretStatus { record_read_at: None, ..status.clone() };
            if self.json.get(&status.secret) == Some(&content) {
                return Ok(());
            }
            output.data_item(&status)?;
            self.json.insert(status.secret, content);
            return Ok(());
        }
        let line = summary::line(&status);
        if self.told.get(&status.secret) == Some(&line) {
            return Ok(());
        }
        let stamped = format!("{}  {line}", moment(rotacast_clock::wall()));
        match &mut self.bars {
            Some(bars) => {
                bars.above(|| output.line(&stamped))?;
                bars.tell(&status);
            }
            None => output.line(&stamped)?,
        }
        self.told.insert(status.secret, line);
        Ok(())
    }

    fn tell_lost(&self) {
        match &self.bars {
            Some(bars) => bars.above(|| note(LOST)),
            None => note(LOST),
        }
    }
}
