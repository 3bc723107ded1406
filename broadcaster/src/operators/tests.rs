//! Who may do and read what.

use rotacast_protocol::coordinator::OrderName;

use super::*;

fn name(text: &str) -> OperatorName {
    OperatorName::new(text).unwrap()
}

fn secret(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

fn role(orders: &[&str], secrets: &[&str], read: &[&str]) -> Role {
    Role {
        secrets: secrets.iter().map(|text| text.parse().unwrap()).collect(),
        orders: orders.iter().map(|text| text.parse().unwrap()).collect(),
        read: read.iter().map(|text| text.parse().unwrap()).collect(),
        terms: Terms::Alone,
    }
}

fn operators(people: &[(&str, &[&str])], roles: &[(&str, Role)]) -> Operators {
    let operator = |roles: &[&str]| Operator {
        roles: roles.iter().map(|text| text.parse().unwrap()).collect(),
        ..Operator::default()
    };
    Operators::new(
        people.iter().map(|(text, roles)| (name(text), operator(roles))).collect(),
        roles.iter().map(|(text, role)| (text.parse().unwrap(), role.clone())).collect(),
    )
}

fn payments() -> Operators {
    let roles = [
        ("dba", role(&["rotate", "override"], &["payments/*"], &["status"])),
        ("viewer", role(&[], &["*"], &["status", "fleet"])),
        ("log-keeper", role(&["accept_audit_loss"], &["*"], &["audit"])),
    ];
    operators(&[("ada", &["dba"]), ("bob", &["viewer"]), ("eve", &[]), ("kim", &["log-keeper", "dba"])], &roles)
}

#[test]
fn without_roles_every_operator_may_do_and_read_everything_and_no_stranger_may() {
    let all = operators(&[("ada", &[])], &[]);
    for order in OrderKind::all() {
        assert_eq!(all.decide(&name("ada"), order, None, false), Decision::Granted { role: None });
        assert!(matches!(all.decide(&name("eve"), order, None, false), Decision::Denied { .. }), "{order}");
    }
    for what in Reading::ALL {
        assert!(all.may_read(&name("ada"), what, None) && !all.may_read(&name("eve"), what, None), "{what}");
    }
}

#[test]
fn an_order_needs_a_role_that_names_it_and_its_secret() {
    let all = payments();
    let (db, billing) = (secret("payments/db"), secret("billing/db"));
    let rotate = OrderKind::Secret(OrderName::Rotate);
    let granted =
        |operator, order, secret| matches!(all.decide(&name(operator), order, secret, false), Decision::Granted { .. });
    assert!(granted("ada", rotate, Some(&db)));
    for (operator, order, secret) in [
        ("ada", rotate, Some(&billing)),
        ("ada", OrderKind::Put, Some(&db)),
        ("ada", OrderKind::AcceptAuditLoss, None),
        ("bob", rotate, Some(&db)),
        ("eve", rotate, Some(&db)),
        ("mallory", rotate, Some(&db)),
    ] {
        assert!(!granted(operator, order, secret), "{operator} {order} {secret:?}");
    }
    assert!(granted("kim", OrderKind::AcceptAuditLoss, None));
}

#[test]
fn a_denied_order_says_what_is_needed_and_who_has_it() {
    let Decision::Denied { problem, fix } =
        payments().decide(&name("bob"), OrderKind::Secret(OrderName::Override), Some(&secret("payments/db")), false)
    else {
        panic!("a viewer overrides");
    };
    assert_eq!(problem, "bob may not override payments/db (roles: viewer)");
    assert!(fix.contains("a role with \"override\" in orders and payments/db in secrets, such as dba"), "{fix}");
    let Decision::Denied { fix, .. } =
        payments().decide(&name("bob"), OrderKind::Put, Some(&secret("payments/db")), false)
    else {
        panic!("a viewer writes");
    };
    assert!(fix.contains("there is none"), "{fix}");
}

#[test]
fn an_order_about_no_secret_needs_a_role_for_all_secrets() {
    let narrow = operators(&[("ada", &["log"])], &[("log", role(&["accept_audit_loss"], &["a*"], &[]))]);
    assert!(matches!(narrow.decide(&name("ada"), OrderKind::AcceptAuditLoss, None, false), Decision::Denied { .. }));
}

#[test]
fn reading_needs_a_role_for_what_is_read_and_for_the_secret() {
    let all = payments();
    let (payments, billing) = (secret("payments/db"), secret("billing/db"));
    let reads = |operator, what, secret| all.may_read(&name(operator), what, secret);
    assert!(reads("ada", Reading::Status, Some(&payments)));
    assert!(!reads("ada", Reading::Status, Some(&billing)) && !reads("ada", Reading::Status, None));
    assert!(!reads("ada", Reading::Fleet, Some(&payments)));
    assert!(reads("bob", Reading::Fleet, Some(&billing)) && reads("bob", Reading::Status, None));
    assert!(!reads("bob", Reading::Audit, None) && !reads("eve", Reading::Status, Some(&payments)));
    assert!(all.may_read_some(&name("ada"), Reading::Status) && !all.may_read_some(&name("ada"), Reading::Fleet));
    assert!(all.may_order_some(&name("ada")) && !all.may_order_some(&name("bob")));
    let monitor = operators(&[("prom", &["m"])], &[("m", role(&[], &[], &["metrics"]))]);
    assert!(monitor.may_read(&name("prom"), Reading::Metrics, None));
    assert!(!monitor.may_read_some(&name("prom"), Reading::Status));
}

#[test]
fn unknown_rights_are_refused_with_those_there_are() {
    let told = "rotat".parse::<OrderKind>().unwrap_err().to_string();
    assert!(told.starts_with("\"rotat\" is no order") && told.contains("accept_audit_loss"), "{told}");
    assert!("value".parse::<Reading>().unwrap_err().to_string().contains("status, fleet, audit, metrics"));
    for kind in OrderKind::all() {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
}

#[test]
fn what_was_shown_earlier_counts_only_while_it_is_configured() {
    let (old, new) = (rotacast_proto::SigningKey::generate(), rotacast_proto::SigningKey::generate());
    let shown = SignedIn { name: name("ada"), credential: Credential::Key(old.public().id().to_string()) };
    let with = |key: &rotacast_proto::SigningKey| Operators::with_keys([(name("ada"), key.public().clone())]);
    assert!(with(&old).holds(&shown));
    assert!(!with(&new).holds(&shown) && !Operators::default().holds(&shown));
}

/// Which terms a person's roles have, and what becomes of an order without and with `--emergency`.
#[test]
fn of_several_roles_the_one_that_asks_for_least_counts_and_emergencies_only_where_the_order_says_so() {
    let needed = |count| std::num::NonZeroU32::new(count).unwrap();
    let within = std::time::Duration::from_secs(60);
    let all = |terms| Role { orders: OrderKind::all().collect(), ..Role { terms, ..role(&[], &["payments/*"], &[]) } };
    let roles = [
        ("alone", all(Terms::Alone)),
        ("one", all(Terms::Approvals { needed: needed(1), within })),
        ("two", all(Terms::Approvals { needed: needed(2), within })),
        ("first-aid", all(Terms::Emergency)),
        ("elsewhere", Role { secrets: vec!["billing/*".parse().unwrap()], ..all(Terms::Alone) }),
    ];
    let db = secret("payments/db");
    for (mine, without, with) in [
        (&["alone"][..], "alone", "denied"),
        (&["one"], "one", "denied"),
        (&["two", "one"], "one", "denied"),
        (&["two", "alone"], "alone", "denied"),
        (&["two", "elsewhere"], "two", "denied"),
        (&["first-aid"], "denied", "first-aid"),
        (&["two", "first-aid"], "two", "first-aid"),
        (&["alone", "first-aid"], "alone", "first-aid"),
        (&["elsewhere"], "denied", "denied"),
    ] {
        let all = operators(&[("ada", mine)], &roles);
        for order in [OrderName::Override, OrderName::Rotate, OrderName::LeaveSafeMode].map(OrderKind::Secret) {
            for (emergency, expected) in [(false, without), (true, with)] {
                let told = match all.decide(&name("ada"), order, Some(&db), emergency) {
                    Decision::Granted { role } => role.unwrap().to_string(),
                    Decision::NeedsApprovals(rule) => rule.role.to_string(),
                    Decision::Denied { problem, fix } => {
                        assert!(!problem.is_empty() && !fix.is_empty());
                        "denied".into()
                    }
                };
                assert_eq!(told, expected, "{mine:?} {order} {emergency}");
            }
        }
    }
    let alone = operators(&[("ada", &["first-aid"])], &roles);
    let Decision::Denied { fix, .. } =
        alone.decide(&name("ada"), OrderKind::Secret(OrderName::Rotate), Some(&db), false)
    else {
        panic!("an emergency that no one has declared");
    };
    assert!(fix.contains("--emergency and --reason"), "{fix}");
}

#[test]
fn who_may_give_an_order_may_approve_it() {
    let all = payments();
    let db = secret("payments/db");
    let rotate = OrderKind::Secret(OrderName::Rotate);
    assert!(all.may_approve(&name("ada"), rotate, Some(&db)).is_ok());
    for (who, order, about) in [
        ("ada", OrderKind::Put, db.clone()),
        ("ada", rotate, secret("billing/db")),
        ("bob", rotate, db.clone()),
        ("mallory", rotate, db),
    ] {
        let (problem, _) = all.may_approve(&name(who), order, Some(&about)).unwrap_err();
        assert!(problem.contains("cannot approve it"), "{problem}");
    }
}
