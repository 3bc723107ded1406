//! Golden stories: scripts of what happens, and the exact changes and commands it causes, readable as prose.
//!
//! A line that begins with `*` is something that happens; the indented lines below it are what follows and are compared
//! exactly. Lines that begin with `#` are for the reader. `ROTACAST_STORIES=write cargo test -p rotacast-protocol
//! stories` writes what follows anew; read the difference before committing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use crate::bench::{Bench, key, managed, provider, seconds, v};
use rotacast_protocol::Policy;
use rotacast_protocol::coordinator::{Change, CommandKind, Cure, Evidence, Failed, Input, Order};
use rotacast_protocol::message::Stage;
use rotacast_protocol::policy::{Deadline, OnDeadline, OnFailure, WhenEmpty, WhenUnreachable};
use rotacast_protocol::record::{Finished, Origin, ProviderId, RecordChange};
use rotacast_protocol::{Outcome, Phase};

struct Story {
    bench: Option<Bench>,
    owed: BTreeSet<String>,
    told: usize,
}

#[test]
fn stories_come_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stories");
    let write = std::env::var("ROTACAST_STORIES").is_ok_and(|value| value == "write");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 20, "the stories are missing");
    let mut different = Vec::new();
    for path in paths {
        let written = std::fs::read_to_string(&path).unwrap();
        let told = tell(&written);
        if told == written {
            continue;
        }
        if write {
            std::fs::write(&path, told).unwrap();
        } else {
            let (expected, found) = written
                .lines()
                .zip(told.lines())
                .find(|(expected, found)| expected != found)
                .unwrap_or(("(the end differs)", ""));
            different.push(format!("{}:\n  expected: {expected}\n  found:    {found}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn tell(written: &str) -> String {
    let mut story = Story { bench: None, owed: BTreeSet::new(), told: 0 };
    let mut out = String::new();
    for line in written.lines() {
        if let Some(happens) = line.strip_prefix("* ") {
            writeln!(out, "{line}").unwrap();
            story.happens(happens, &mut out);
        } else if !line.starts_with("  ") {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

fn policy(words: &[&str]) -> Policy {
    let mut policy = managed();
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "hold" => policy.when_unreachable = WhenUnreachable::Hold,
            "presume_dead_after" => policy.when_unreachable = WhenUnreachable::PresumeDeadAfter(seconds(number(value))),
            "proceed_when_empty" => policy.when_empty = WhenEmpty::Proceed,
            "approval" => policy.approval = true,
            "without_a_provider" => policy.provider = None,
            "without_logins" => policy.provider = Some(ProviderId { system: String::new(), ..provider() }),
            "hold_on_failure" => policy.on_failure = OnFailure::Hold,
            "min_overlap" => policy.min_overlap = seconds(number(value)),
            "required" => policy.required = BTreeMap::from([(value.parse().unwrap(), 1)]),
            "missed_syncs" => policy.missed_syncs = u32::try_from(number(value)).unwrap(),
            "preparing" | "activating" => {
                let (after, then) = value.split_once(':').unwrap();
                let then = match then {
                    "extend" => OnDeadline::Extend,
                    "hold" => OnDeadline::Hold,
                    _ => OnDeadline::RollBack,
                };
                policy
                    .deadlines
                    .insert(name.parse::<Phase>().unwrap(), Deadline { after: seconds(number(after)), then });
            }
            other => panic!("no policy word {other:?}"),
        }
    }
    policy
}

impl Story {
    fn happens(&mut self, line: &str, out: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "policy" {
            self.bench = Some(Bench::new(policy(&words[1..])));
            return;
        }
        let bench = self.bench.get_or_insert_with(|| Bench::new(managed()));
        let result = match words.as_slice() {
            ["running", names @ ..] => {
                *bench = Bench::running(bench.policy.clone(), names);
                self.told = bench.log.len();
                Ok(())
            }
            ["version", version, "seen"] => bench.input(Input::VersionSeen { version: v(number(version)) }),
            ["created", version] => {
                bench.input(Input::Created { version: v(number(version)), origin: Origin::Managed })
            }
            ["login", "works", version] => bench.input(Input::Verified { version: v(number(version)) }),
            ["login", "fails", version] => {
                bench.input(Input::VerifyFailed { version: v(number(version)), reason: "password refused".into() })
            }
            ["register", name, rest @ ..] => {
                bench.input(Input::Registered { key: key(name), exclusive: rest.contains(&"exclusively"), live: true })
            }
            ["roster", "read"] => bench.input(Input::RosterRead),
            ["leave", name] => bench.input(Input::Left { key: key(name) }),
            [how @ ("sync" | "lost-sync" | "report"), name, stage, version, "holds", held @ ..] => {
                let stage = stage_of(stage);
                let held: Vec<u64> = held.iter().map(|word| number(word)).collect();
                match *how {
                    "sync" => {
                        bench.sync(name, number(version), stage, &held);
                        Ok(())
                    }
                    "lost-sync" => {
                        bench.sync_without_reply(name, number(version), stage, &held);
                        Ok(())
                    }
                    _ => bench.report(name, number(version), stage, &held),
                }
            }
            // Heard every ten seconds for so long, as instances are during a rotation. The story leaves out the leases
            // that it is granted.
            ["hear", name, stage, version, "holds", held @ .., "for", count, "s"] => {
                let held: Vec<u64> = held.iter().map(|word| number(word)).collect();
                for _ in 0..number(count) / 10 {
                    bench.sync(name, number(version), stage_of(stage), &held);
                    bench.pass(seconds(10));
                }
                let told =
                    bench.log[self.told..].iter().filter(|change| !matches!(change, Change::LeaseGranted { .. }));
                told.filter_map(said).for_each(|text| writeln!(out, "  {text}").unwrap());
                self.told = bench.log.len();
                Ok(())
            }
            ["nack", name, version] => {
                bench.refuse(name, number(version));
                Ok(())
            }
            [count, "s", "pass"] => {
                bench.pass(seconds(number(count)));
                Ok(())
            }
            ["usage", version, "sessions", sessions @ ..] => bench.input(Input::UsageRead {
                version: v(number(version)),
                sent: bench.now.instant,
                evidence: Evidence::Sessions(sessions.iter().map(|session| (*session).to_owned()).collect()),
            }),
            ["usage", version, "unavailable"] => bench.input(Input::UsageRead {
                version: v(number(version)),
                sent: bench.now.instant,
                evidence: Evidence::Unavailable(format!("{} is not in the configuration", provider())),
            }),
            ["left", "alone", step, version, why] => {
                let (version, step, why) = (v(number(version)), step.parse().unwrap(), why.parse().unwrap());
                bench.input(Input::LeftAlone { version, step, why })
            }
            ["audited", version] => {
                let revision = bench.revision();
                bench.input(Input::Audited { version: v(number(version)), revision })
            }
            ["done", step, version] => {
                bench.input(Input::StepDone { version: v(number(version)), step: step.parse().unwrap() })
            }
            ["drain", version, "within", count, "s"] => {
                let began = bench.now.instant;
                let drained = bench.drains(number(version), seconds(number(count)));
                let took = bench.now.instant.since(began).as_secs();
                writeln!(out, "  {} after {took} s", if drained { "retiring begins" } else { "still waiting" })
                    .unwrap();
                Ok(())
            }
            ["destroy", version] => {
                bench.destroy(number(version));
                Ok(())
            }
            ["new", "leader"] => {
                bench.take_over();
                self.owed.clear();
                Ok(())
            }
            ["state", "published"] => {
                bench.published();
                Ok(())
            }
            ["store", "went", "back"] => bench.input(Input::StoreWentBack { reason: "another cluster id".into() }),
            ["special"] => {
                let special = bench.coordinator.overlays(bench.now);
                let special: Vec<&str> = special.iter().map(|overlay| overlay.words()).collect();
                writeln!(out, "  {}", if special.is_empty() { "nothing".into() } else { special.join(", ") }).unwrap();
                Ok(())
            }
            ["cannot", "use", version] => {
                let command = CommandKind::ReadUsage { version: v(number(version)) };
                bench.input(Input::Troubled { command, failed: refused(version) })
            }
            ["cannot", step, version, "yet:", why @ ..] => {
                let command = CommandKind::Retire { version: v(number(version)), step: step.parse().unwrap() };
                let cure = if why.contains(&"sessions") { Cure::SessionsEnd } else { Cure::Time };
                bench.input(Input::Troubled { command, failed: Failed { problem: why.join(" "), cure } })
            }
            ["cannot", step, version] => {
                let command = CommandKind::Retire { version: v(number(version)), step: step.parse().unwrap() };
                bench.input(Input::Troubled { command, failed: refused(version) })
            }
            ["why"] => {
                for blocker in bench.coordinator.blockers(bench.now) {
                    let who = if blocker.who.is_empty() { String::new() } else { format!("{}: ", blocker.who) };
                    writeln!(out, "  {}: {who}{}; {}", blocker.condition, blocker.why, blocker.next).unwrap();
                    if let Some(command) = blocker.command {
                        writeln!(out, "    $ {command}").unwrap();
                    }
                }
                Ok(())
            }
            ["versions"] => {
                for (number, version) in &bench.coordinator.record().versions {
                    let unproven = version.unproven.map_or_else(String::new, |why| format!(" ({why})"));
                    writeln!(out, "  version {number}: {}{unproven}", version.label).unwrap();
                }
                let retired = |it: &&Finished| it.outcome == Outcome::Retired && !it.reason.is_empty();
                for finished in bench.coordinator.record().history.iter().filter(retired) {
                    writeln!(out, "  rotation {}: {}", finished.number, finished.reason).unwrap();
                }
                Ok(())
            }
            ["order", order @ ..] => bench.order(order_of(order)),
            _ => panic!("the story says {line:?}, which is no known event"),
        };
        if let Err(refusal) = result {
            writeln!(out, "  refused: {refusal}").unwrap();
        }
        self.follows(out);
    }

    /// What has changed, and which commands are outstanding now that were not before.
    fn follows(&mut self, out: &mut String) {
        let bench = self.bench.as_ref().unwrap();
        for change in &bench.log[self.told..] {
            if let Some(text) = said(change) {
                writeln!(out, "  {text}").unwrap();
            }
        }
        self.told = bench.log.len();
        let owed: BTreeSet<String> =
            bench.coordinator.commands(bench.now).iter().filter_map(|command| owes(&command.kind)).collect();
        for command in owed.difference(&self.owed) {
            writeln!(out, "  -> {command}").unwrap();
        }
        self.owed = owed;
    }
}

fn stage_of(word: &str) -> Stage {
    match word {
        "seen" => Stage::Seen,
        "prepared" => Stage::Prepared,
        "switched" => Stage::Switched,
        "released" => Stage::Released,
        other => panic!("no stage {other:?}"),
    }
}

/// The provider cannot read the value.
fn refused(version: &str) -> Failed {
    Failed { problem: format!("will not touch version {version}: the value is not JSON"), cure: Cure::Operator }
}

fn order_of(words: &[&str]) -> Order {
    let reason = "they said so";
    match words {
        ["rotate"] => Order::Rotate,
        ["pause"] => Order::pause(reason).unwrap(),
        ["resume"] => Order::Resume,
        ["approve"] => Order::Approve,
        ["rollback"] => Order::rollback(reason).unwrap(),
        ["excuse", name] => Order::Excuse { instance: key(name) },
        ["override", version, "sessions"] => Order::cut_off(v(number(version)), BTreeSet::new(), true, reason).unwrap(),
        ["override", version, names @ ..] => {
            let instances = names.iter().map(|name| key(name)).collect();
            Order::cut_off(v(number(version)), instances, false, reason).unwrap()
        }
        ["gone", name] => Order::gone(key(name), reason).unwrap(),
        ["abandon", version] => Order::abandon(v(number(version)), reason).unwrap(),
        ["leave", "safe", "mode"] => Order::LeaveSafeMode,
        other => panic!("no order {other:?}"),
    }
}

fn owes(kind: &CommandKind) -> Option<String> {
    Some(match kind {
        // Published at every change and read every second, so the stories leave them out.
        CommandKind::Publish | CommandKind::ReadUsage { .. } => return None,
        CommandKind::Create { version } => format!("create version {version}"),
        CommandKind::Test { version } => format!("test a login with version {version}"),
        CommandKind::Audit { version } => format!("write the intent to retire version {version} into the audit log"),
        CommandKind::Retire { version, step } => format!("{step} version {version}"),
    })
}

fn said(change: &Change) -> Option<String> {
    let change = match change {
        Change::Record(change) => change,
        Change::MemberRegistered { key, exclusive, .. } => {
            let proves = if *exclusive { " that holds its name alone" } else { "" };
            return Some(format!("{key} is a member{proves}"));
        }
        Change::MemberLeft { key, .. } => return Some(format!("{key} has left")),
        Change::LeaseGranted { key, length, over, .. } => {
            let versions: Vec<String> = over.keys().map(ToString::to_string).collect();
            let versions = if versions.is_empty() { "nothing".into() } else { versions.join(" and ") };
            return Some(format!("{key} is granted {versions} for {} s", length.as_secs()));
        }
        Change::DeadlineExtended { .. } => return Some("the deadline is extended".into()),
        _ => return None,
    };
    Some(match change {
        RecordChange::TermBegan { epoch } => format!("term {epoch} begins"),
        RecordChange::TimingSet { timing } => format!("leases of up to {} s may run", timing.lease_idle.as_secs()),
        RecordChange::LeaseBoundLowered { to } => format!("no lease longer than {} s is running", to.as_secs()),
        RecordChange::VersionAdded { version, .. } => format!("version {version} is pending"),
        RecordChange::VersionSkipped { version, by, .. } => format!("version {version} is skipped for version {by}"),
        RecordChange::RotationStarted { new, trigger, .. } => {
            format!("a rotation to version {new} starts, asked for by {trigger}: verifying")
        }
        RecordChange::CredentialCreated { .. } => "its credential exists".into(),
        RecordChange::PreparingBegan { .. } => "preparing".into(),
        RecordChange::Approved { by } => format!("approved by {by}"),
        RecordChange::Excused { instance } => format!("{instance} is not waited for"),
        RecordChange::Activated { .. } => "the new version becomes current: activating".into(),
        RecordChange::DrainingBegan { .. } => "draining".into(),
        RecordChange::RollbackStarted { reason, .. } => format!("rolling back: {reason}"),
        RecordChange::Sealed { version } => format!("version {version} is sealed"),
        RecordChange::Overridden { version, word } => {
            let who: Vec<&str> = word.instances.iter().map(String::as_str).collect();
            let sessions = if word.sessions { " its sessions" } else { "" };
            format!("{} lets the retire of version {version} cut off{sessions} {}", word.by, who.join(", "))
                .trim_end()
                .to_owned()
        }
        RecordChange::GivenUp { version, word } => format!("{} gives version {version} up", word.by),
        RecordChange::LeftAlone { version, why } => {
            format!("the credential of version {version} is left alone ({why})")
        }
        RecordChange::MayBeInUse { version } => format!("an instance may use version {version} of the lost history"),
        RecordChange::SaidGone { instance, word } => format!("{} says that {instance} is gone", word.by),
        RecordChange::GoneForgotten { instance } => format!("the roster no longer has {instance}"),
        RecordChange::RetireBegan { version, .. } => format!("retiring version {version}: the point of no return"),
        RecordChange::RetireAdvanced { version, step } => format!("next for version {version}: {step}"),
        RecordChange::RetireFinished { version } => format!("version {version} is gone"),
        RecordChange::RotationEnded { outcome, .. } => format!("the rotation ends: {}", outcome.words()),
        RecordChange::Paused(pause) => format!("paused by {}", pause.by),
        RecordChange::Resumed => "resumed".into(),
        RecordChange::SafeModeEntered(mode) => format!("safe mode: {}", mode.reason),
        RecordChange::SafeModeLeft => "safe mode is left".into(),
        RecordChange::ClockNoted { since: Some(at) } => format!("the last change is later than now, {at}"),
        RecordChange::ClockNoted { since: None } => "the last change is no longer later than now".into(),
        RecordChange::VersionProved { version } => format!("version {version} is known to work"),
        RecordChange::ProofFailed { version, reason } => format!("version {version} no longer works: {reason}"),
        RecordChange::NumbersLost { last } => format!("numbers up to {last} are taken"),
    })
}
