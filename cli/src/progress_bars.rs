//! Moving lines on a terminal: one for each rotation in flight, and below it a bar for each service.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rotacast_protocol::coordinator::Overlay;
use rotacast_protocol::status::{SecretStatus, ServiceStatus};
use rotacast_protocol::{SecretName, ServiceName};

use crate::summary;

/// How often the moving lines move.
const TICK: Duration = Duration::from_millis(120);
/// Rotations that get lines of their own: as many as fit below what scrolls.
const MAX_ROTATIONS: usize = 10;
/// Services of one rotation that get a bar; those that are behind come first.
const MAX_SERVICES: usize = 8;

const BAR: &str = "        {bar:24.green/white.dim} {pos:>4} of {len} {msg}";
/// Of a secret that is stuck.
const HELD_BAR: &str = "        {bar:24.yellow/white.dim} {pos:>4} of {len} {msg}";

/// See the module.
pub(crate) struct Bars {
    all: MultiProgress,
    rotations: BTreeMap<SecretName, Lines>,
}

/// The lines of one rotation.
struct Lines {
    head: ProgressBar,
    services: BTreeMap<ServiceName, ProgressBar>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { all: MultiProgress::new(), rotations: BTreeMap::new() }
    }

    /// Writes something above the lines.
    pub(crate) fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        self.all.suspend(write)
    }

    /// A rotation in flight has lines; one that is over has none.
    pub(crate) fn tell(&mut self, status: &SecretStatus) {
        if status.rotation.is_none() {
            if let Some(lines) = self.rotations.remove(&status.secret) {
                self.remove(&lines);
            }
            return;
        }
        if !self.rotations.contains_key(&status.secret) {
            if self.rotations.len() >= MAX_ROTATIONS {
                return;
            }
            let head = self.all.add(ProgressBar::new_spinner().with_style(style("{spinner} {elapsed:>4}  {wide_msg}")));
            head.enable_steady_tick(TICK);
            self.rotations.insert(status.secret.clone(), Lines { head, services: BTreeMap::new() });
        }
        let lines = self.rotations.get_mut(&status.secret).expect("it was just put there");
        lines.head.set_message(summary::line(status));
        services(&self.all, lines, status);
    }

    /// Says something in place of what is not known at the moment.
    pub(crate) fn say(&self, text: &str) {
        for lines in self.rotations.values() {
            lines.head.set_message(text.to_owned());
        }
    }

    fn remove(&self, lines: &Lines) {
        for bar in lines.services.values().chain([&lines.head]) {
            bar.finish_and_clear();
            self.all.remove(bar);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for lines in self.rotations.values() {
            self.remove(lines);
        }
    }
}

fn services(all: &MultiProgress, lines: &mut Lines, status: &SecretStatus) {
    let stage = status.rotation.as_ref().and_then(|rotation| Some((rotation.phase, rotation.phase.stage()?)));
    let mut wanted: Vec<(&ServiceStatus, u32)> = match stage {
        // A follower does not know.
        Some((_, stage)) if status.record_read_at.is_none() => {
            let present = status.services.iter().filter(|it| it.counts.members > 0);
            present.map(|it| (it, it.counts.reached(stage))).collect()
        }
        _ => Vec::new(),
    };
    wanted.sort_by_key(|(service, done)| (done >= &service.counts.members, service.service.clone()));
    wanted.truncate(MAX_SERVICES);
    lines.services.retain(|name, bar| {
        let stays = wanted.iter().any(|(service, _)| &service.service == name);
        if !stays {
            bar.finish_and_clear();
            all.remove(bar);
        }
        stays
    });
    let word = stage.map_or("", |(phase, stage)| summary::reached(phase, stage));
    for (service, done) in wanted {
        let bar = lines.services.entry(service.service.clone()).or_insert_with(|| {
            let bar = ProgressBar::new(0);
            all.insert_after(&lines.head, bar)
        });
        // However many are there: what is stuck is not shown as if it went well.
        let stuck = status.overlays.contains(&Overlay::Stuck);
        bar.set_style(style(if stuck { HELD_BAR } else { BAR }));
        bar.set_length(service.counts.members.into());
        bar.set_position(done.into());
        bar.set_message(format!("{word}  {}", service.service));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant that is shown in use")
}
