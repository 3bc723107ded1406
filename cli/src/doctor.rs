//! `rotacast doctor`.

use rotacast_protocol::WallTime;

use crate::Context;
use crate::client::Signer;
use crate::error::{Exit, Stop};
use crate::output::{Mark, shown};
use crate::summary::count as counted;
use crate::table::{Cell, Table};
use rotacast_admin::view::{DoctorView, FindingView};

/// Clocks that far apart, in milliseconds, are as good as equal: people read times to the second.
const CLOCKS_AGREE: u64 = 2_000;

pub(crate) async fn run(context: &Context) -> Result<(), Stop> {
    let client = context.client().await?;
    let asked = rotacast_clock::wall();
    let reply = client.doctor().await?;
    let clock = clock_finding(reply.now_ms, asked, rotacast_clock::wall());
    let mut found = DoctorView::from(reply);
    found.findings.insert(0, key_finding(context));
    found.findings.extend(clock);
    let output = context.output;
    let count = |level: &str| found.findings.iter().filter(|it| it.level == level).count();
    let (warnings, errors) = (count("warning"), count("error"));
    if output.is_data() {
        output.data(&found)?;
    } else {
        let mut table = Table::new(["LEVEL", "SUBJECT", "FINDING"]);
        for it in &found.findings {
            let mark = match it.level.as_str() {
                "ok" => Mark::Good,
                "warning" => Mark::Warn,
                _ => Mark::Bad,
            };
            table.row([Cell::marked(&it.level, mark), (&it.subject).into(), (&it.text).into()]);
        }
        table.print(output, "")?;
        for it in &found.findings {
            if let Some(fix) = &it.fix {
                output.line(format_args!("fix for {}: {}", shown(&it.subject), shown(fix)))?;
            }
        }
        output.line(format_args!(
            "{} ok, {}, {}",
            found.findings.len() - warnings - errors,
            counted(warnings, "warning"),
            counted(errors, "error")
        ))?;
    }
    match errors {
        0 => Ok(()),
        errors => {
            Err(Stop::failed(Exit::Failed, "findings", format!("the doctor found {}", counted(errors, "error")), ""))
        }
    }
}

/// How far the broadcaster's clock and this machine's are apart, as far as the time for the question lets it be known.
fn clock_finding(theirs_ms: u64, asked: WallTime, answered: WallTime) -> Option<FindingView> {
    // An earlier release does not tell.
    let theirs = Some(theirs_ms).filter(|theirs| *theirs != 0)?;
    let (ahead, behind) = (theirs.saturating_sub(answered.0), asked.0.saturating_sub(theirs));
    let (apart, word) = if ahead > 0 { (ahead, "ahead of") } else { (behind, "behind") };
    let subject = "clocks".to_owned();
    Some(match apart {
        0..CLOCKS_AGREE => FindingView {
            level: "ok".into(),
            subject,
            text: "the broadcaster's clock and this machine's agree".into(),
            fix: None,
        },
        _ => FindingView {
            level: "warning".into(),
            subject,
            text: format!("the broadcaster's clock is {} {word} this machine's", crate::human_time::span(apart)),
            fix: Some("set the one that is wrong: orders are refused from 5 minutes on. No wait depends on it".into()),
        },
    })
}

/// Whether orders could be signed from here.
pub(crate) fn key_finding(context: &Context) -> FindingView {
    let subject = "operator's key (here)".to_owned();
    match Signer::open(&context.global) {
        Ok(signer) => FindingView { level: "ok".into(), subject, text: signer.describe(), fix: None },
        Err(Stop::Failed(failure)) => FindingView {
            level: "warning".into(),
            subject,
            text: failure.problem,
            fix: Some(failure.fix).filter(|fix| !fix.is_empty()),
        },
        Err(Stop::Unread) => unreachable!("nothing is written while a key is read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_as_far_as_the_question_lets_them() {
        let told = |theirs, asked, answered| {
            let finding = clock_finding(theirs, WallTime(asked), WallTime(answered)).unwrap();
            (finding.level, finding.text)
        };
        assert_eq!(told(1_000_500, 1_000_000, 1_009_000).0, "ok");
        assert_eq!(told(999_000, 1_000_000, 1_000_001).0, "ok");
        let (level, text) = told(1_130_000, 1_000_000, 1_010_000);
        assert_eq!(
            (level.as_str(), text.as_str()),
            ("warning", "the broadcaster's clock is 2 min ahead of this machine's")
        );
        let (_, text) = told(940_000, 1_000_000, 1_010_000);
        assert_eq!(text, "the broadcaster's clock is 1 min behind this machine's");
        assert!(clock_finding(0, WallTime(1), WallTime(2)).is_none());
    }
}
