//! `rotacast doctor`.

use super::Context;
use super::client::Signer;
use super::output::{Mark, shown};
use super::stop::{Exit, Stop};
use super::summary::count as counted;
use super::table::{Cell, Table};
use crate::view::{DoctorView, FindingView};

pub(super) async fn run(context: &Context) -> Result<(), Stop> {
    let client = context.client().await?;
    let mut found = DoctorView::from(client.doctor().await?);
    found.findings.insert(0, key_finding(context));
    let output = context.output;
    let count = |level: &str| found.findings.iter().filter(|it| it.level == level).count();
    let (warnings, errors) = (count("warning"), count("error"));
    if output.is_json() {
        output.json(&found)?;
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
            "{} well, {}, {}",
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

/// Whether orders could be signed from here.
fn key_finding(context: &Context) -> FindingView {
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
