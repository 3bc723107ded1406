//! `api.d.ts`, against which the dashboard's scripts are checked, matches what the routes answer: every field of an
//! answer is declared with its type, and every declared field is in an answer.

use std::collections::{BTreeMap, BTreeSet};

use rotacast_protocol::coordinator::{ConditionName, Overlay, StageCounts};
use rotacast_protocol::record::Label;
use rotacast_protocol::status::{
    BlockerStatus, ConditionStatus, FindingStatus, FinishedStatus, GuardStatus, PhaseStatus, RotationStatus,
    ServiceStatus, Severity, VersionStatus,
};
use rotacast_protocol::word::vocabulary;
use rotacast_protocol::{Generation, Outcome, Phase, RotationNumber, WallTime};

use super::*;
use crate::operators::{Credential, SignedIn};
use crate::orders::{self, Approval, OrderDigest, RequestId, Waiting};

const TYPES: &str = include_str!("../api.d.ts");

/// A secret with every field.
pub(super) fn full(secret: SecretName) -> SecretStatus {
    let (one, two) = (Version::FIRST, Version::FIRST.next());
    let at = WallTime(1_795_392_000_000);
    let phases = vec![PhaseStatus { phase: Phase::Verifying, since: at }];
    SecretStatus {
        secret,
        provider: "postgres main".into(),
        revision: Revision(12),
        generation: Generation(4),
        current: Some(two),
        versions: vec![VersionStatus { version: two, label: Label::Current, sealed: false, seen_at: at }],
        rotation: Some(RotationStatus {
            number: RotationNumber(4),
            phase: Phase::RollingBack,
            old: Some(one),
            new: two,
            started_at: at,
            phase_since: at,
            trigger: "ada".into(),
            rollback_reason: Some("logins fail".into()),
            phases: phases.clone(),
        }),
        services: vec![ServiceStatus {
            service: "api".parse().unwrap(),
            counts: StageCounts { members: 3, seen: 3, prepared: 3, switched: 2, released: 1, fenced: 0 },
        }],
        overlays: Overlay::ALL.to_vec(),
        blockers: vec![BlockerStatus {
            condition: ConditionName::MembersReleased,
            who: Some("api/pod-1#01010101".into()),
            why: "still holds version 2".into(),
            since: Some(at),
            next: "it releases the version".into(),
            command: Some("rotacast why team/00000".into()),
        }],
        guards: vec![GuardStatus {
            version: two,
            conditions: vec![ConditionStatus { name: ConditionName::Leads, met: true, evidence: "epoch 3".into() }],
        }],
        history: vec![FinishedStatus {
            number: RotationNumber(3),
            outcome: Outcome::Retired,
            old: Some(one),
            new: two,
            started_at: at,
            ended_at: at,
            took_ms: Some(0),
            reason: Some("as it should".into()),
            phases,
        }],
        record_read_at: Some(at),
        next_rotation_at: Some(at),
        findings: vec![FindingStatus {
            level: Severity::Error,
            subject: "credential".into(),
            text: "version 2, which services use, does not work any more".into(),
            fix: "rotate it".into(),
            since: at,
        }],
    }
}

/// A secret with a version whose rotation has yet to begin.
pub(super) fn waiting(secret: SecretName) -> SecretStatus {
    let pending = VersionStatus { version: Version::FIRST, label: Label::Pending, sealed: false, seen_at: WallTime(1) };
    SecretStatus { versions: vec![pending], ..SecretStatus::new(secret) }
}

/// An order that waits, with every field.
fn waits() -> Waiting {
    let by = |name: &str| SignedIn { name: OperatorName::new(name).unwrap(), credential: Credential::Key("k".into()) };
    let at = WallTime(1_795_392_000_000);
    let action = Some(v1::operator_command::Action::Abandon(v1::Abandon { version: 2 }));
    let command = v1::OperatorCommand { reason: "it leaked".into(), action, ..v1::OperatorCommand::default() };
    let request = orders::Request {
        id: RequestId(7),
        by: by("ada"),
        order: "abandon".parse().unwrap(),
        secret: Some("team/00000".parse().unwrap()),
        role: "dba".parse().unwrap(),
        needed: std::num::NonZeroU32::MIN,
        generation: Some(Generation(4)),
        command: command.encode_to_vec().into(),
        signed: None,
        asked: at,
        expires: at,
        approvals: vec![Approval { by: by("bob"), at, signed: None }],
    };
    Waiting { request, standing: orders::Standing::Void { why: "no right".into() }, digest: OrderDigest([7; 32]) }
}

/// The declarations, and the fields that were answered.
struct Types<'t> {
    interfaces: BTreeMap<&'t str, BTreeMap<&'t str, &'t str>>,
    aliases: BTreeMap<&'t str, &'t str>,
    words: BTreeMap<String, BTreeSet<&'static str>>,
    /// Fields that were answered with a value.
    seen: BTreeSet<(&'t str, &'t str)>,
}

impl<'t> Types<'t> {
    fn read(text: &'t str) -> Self {
        let mut interfaces: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        let mut aliases = BTreeMap::new();
        let mut inside = None;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("interface ") {
                inside = name.strip_suffix(" {");
                interfaces.insert(inside.expect("an interface begins with its name on a line"), BTreeMap::new());
            } else if line == "}" {
                inside = None;
            } else if let (Some(name), Some((field, kind))) = (inside, line.split_once(": ")) {
                let kind = kind.strip_suffix(';').expect("a field ends with its line");
                interfaces.get_mut(name).expect("it was begun").insert(field, kind);
            } else if let Some((name, kind)) = line.strip_prefix("type ").and_then(|line| line.split_once(" = ")) {
                aliases.insert(name, kind.trim_end_matches(';'));
            }
        }
        let words = vocabulary().into_iter().map(|set| {
            let names = set.words.iter().map(|word| word.name).collect();
            (set.noun.to_uppercase().replace(' ', "_"), names)
        });
        Self { interfaces, aliases, words: words.collect(), seen: BTreeSet::new() }
    }

    /// Whether a declared type allows a value; if not, the place of the first one that it does not allow.
    fn check(&mut self, kind: &'t str, value: &Value, at: &str) -> Result<(), String> {
        if let Some(kind) = kind.strip_suffix(" | null") {
            return if value.is_null() { Ok(()) } else { self.check(kind, value, at) };
        }
        if let Some(kind) = kind.strip_suffix("[]") {
            let items = value.as_array().ok_or_else(|| format!("{at} is no list: {value}"))?;
            return items.iter().try_for_each(|item| self.check(kind, item, &format!("{at}[]")));
        }
        if let Some(fields) = self.interfaces.get(kind).cloned() {
            let object = value.as_object().ok_or_else(|| format!("{at} is no {kind}: {value}"))?;
            if let Some(name) = object.keys().find(|name| !fields.contains_key(name.as_str())) {
                return Err(format!("{at}.{name} is answered, and {kind} does not declare it"));
            }
            for (name, declared) in &fields {
                let at = format!("{at}.{name}");
                let value = object.get(*name).ok_or_else(|| format!("{at} is declared in {kind} and not answered"))?;
                self.check(declared, value, &at)?;
                if !value.is_null() {
                    self.seen.insert((self.interfaces.get_key_value(kind).expect("found above").0, name));
                }
            }
            return Ok(());
        }
        let fits = match kind {
            "string" => value.is_string(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "Record<string, unknown>" => value.is_object(),
            "Moment" => value.as_str().is_some_and(|text| text.starts_with("20") && text.ends_with('Z')),
            _ if kind.starts_with("Partial<Record<Standing, ") => {
                let known = &self.words["STANDING"];
                value.as_object().is_some_and(|counts| counts.keys().all(|name| known.contains(name.as_str())))
            }
            _ => {
                let set =
                    self.aliases.get(kind).and_then(|alias| alias.strip_prefix("keyof Words[\"")?.strip_suffix("\"]"));
                let set = set.ok_or_else(|| format!("{at}: the type {kind} is not declared"))?;
                value.as_str().is_some_and(|word| self.words[set].contains(word))
            }
        };
        if fits { Ok(()) } else { Err(format!("{at} is declared as {kind} and answered as {value}")) }
    }
}

#[tokio::test]
async fn the_declared_types_are_what_the_routes_answer() {
    let rig = Rig::new(true, false);
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    let log = AuditLog::open(rig.folder.path().join("audit.jsonl"), small_files(), signer()).unwrap();
    for _ in 0..2 {
        let entry = Entry::new("ada", "paused").secret("team/00000".parse().unwrap()).rotation(Some(RotationNumber(4)));
        log.append(entry.detail("why", "a look")).await.unwrap();
    }
    let mut types = Types::read(TYPES);
    let mut check = |kind, value: &Value| types.check(kind, value, kind).unwrap();
    for (path, kind) in [
        ("/api/about", "AboutView"),
        ("/api/instances", "PageView"),
        ("/api/fleet", "FleetView"),
        ("/api/audit?limit=1", "EntriesView"),
    ] {
        check(kind, &read(rig.get(path, &cookie).await).await);
    }
    let told = events(rig.get("/api/overview/events", &cookie).await, |name, _| name == "secrets").await;
    check("AboutView", &told[0].1);
    check("SecretsView", &told[1].1);
    rig.findings.raise(Topic::Import, "/secrets/a", Level::Warning, "it is empty".into(), "write a value");
    let told = events(rig.get("/api/overview/events", &cookie).await, |name, _| name == "findings").await;
    check("FindingsView", &told.last().unwrap().1);
    let told = events(rig.get("/api/secret/events?secret=team/00000", &cookie).await, |name, _| name == "secret").await;
    check("SecretStatus", &told[1].1);
    check("DoneView", &read(rig.act(&cookie, &json!({ "secret": "team/00000", "action": "rotate" })).await).await);
    check("RequestsView", &read(rig.get("/api/requests", &cookie).await).await);
    let waiting = orders::Outcome::Waits(Box::new(waits()));
    check("DoneView", &serde_json::to_value(DoneView::from(waiting)).unwrap());
    let viewer = Viewers::new(rig.operators.subscribe(), true).admit(None).unwrap();
    check("RequestsView", &serde_json::to_value(RequestsView::of(&[waits()], &viewer)).unwrap());
    let told = events(rig.get("/api/secret/events?secret=team/none", &cookie).await, |name, _| name == "problem").await;
    check("ProblemBody", &told[1].1["error"]);

    let fields = types.interfaces.iter().flat_map(|(name, fields)| fields.keys().map(move |field| (*name, *field)));
    let unseen: Vec<_> = fields.filter(|field| !types.seen.contains(field)).collect();
    assert!(unseen.is_empty(), "declared, and never answered with a value: {unseen:?}");
}

#[test]
fn a_field_too_many_one_too_few_and_another_type_are_found() {
    let mut types = Types::read("  interface LeadingView {\n    replica: string;\n    address: string | null;\n  }\n");
    let mut told = |value| types.check("LeadingView", &value, "it").err().unwrap_or_default();
    assert_eq!(told(json!({ "replica": "b-1", "address": null })), "");
    assert_eq!(told(json!({ "replica": "b-1" })), "it.address is declared in LeadingView and not answered");
    assert!(told(json!({ "replica": "b-1", "address": null, "port": 1 })).contains("it.port is answered"));
    assert!(told(json!({ "replica": 1, "address": null })).contains("declared as string and answered as 1"));
    assert!(told(json!({ "replica": null, "address": null })).contains("declared as string"));
}
