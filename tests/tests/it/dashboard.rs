//! The dashboard in a real browser, before a real broadcaster and real rotations.
//!
//! With `ROTACAST_SCREENSHOTS=FOLDER` the screenshots stay there; those of the documentation are made this way.

use std::path::PathBuf;

use rotacast_tests::browser::{Browser, Theme};
use rotacast_tests::programs;
use rotacast_tests::world::{BusKind, CLUSTER, Database, Options, SECRET, StoreKind, World};
use serde_json::json;

/// Most bytes of a page load.
const MAX_LOAD: u64 = 300_000;
/// The page's header: whether the data on it are live.
const LINK: &str = "[data-testid=link-state]";
const BLOCKER: &str = "[data-testid=blocker]";
const CONFIRM: &str = "[data-testid=confirm]";
/// The dialog's text about the instances that are cut off.
const CUT_OFF: &str = "[data-testid=cut-off]";

/// The folder for screenshots.
fn screenshots(world: &World) -> PathBuf {
    match std::env::var_os("ROTACAST_SCREENSHOTS") {
        Some(folder) => folder.into(),
        None => world.folder().to_owned(),
    }
}

/// Checks the page in both themes and on a phone: the findings of axe, and a screenshot of each.
async fn look(browser: &Browser, world: &World, name: &str) {
    for (theme, word) in [(Theme::Light, "light"), (Theme::Dark, "dark")] {
        browser.prefer(theme).await;
        assert_eq!(browser.accessibility().await, Vec::<String>::new(), "{name}, {word}");
        browser.screenshot(&screenshots(world).join(format!("{name}-{word}.png"))).await;
    }
    browser.size(390, 844).await;
    assert_eq!(browser.accessibility().await, Vec::<String>::new(), "{name} on a phone");
    // The page itself is no wider than the phone.
    let width = browser.script("return document.documentElement.scrollWidth", Vec::new()).await;
    assert!(width.as_u64().is_some_and(|width| width <= 390), "{name}: {width} pixels wide");
    browser.screenshot(&screenshots(world).join(format!("{name}-phone.png"))).await;
    browser.size(1280, 900).await;
    browser.prefer(Theme::Light).await;
}

async fn sign_in(browser: &Browser, token: &str) {
    browser.fill("[data-testid=sign-in-form] input[name=token]", token).await;
    browser.click("[data-testid=sign-in-form] button.primary").await;
}

/// The status of an order that is sent as the page's own script sends it.
async fn order(browser: &Browser, body: &serde_json::Value) -> u64 {
    let script = "return fetch('/api/action', { method: 'POST', body: arguments[0],
        headers: { 'content-type': 'application/json', 'x-rotacast-action': '1' } }).then((it) => it.status)";
    browser.script(script, vec![body.to_string().into()]).await.as_u64().expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_followed_live_steered_and_survives_a_restart() {
    let Some(browser) = Browser::start().await else { return };
    // Long enough that a stopped process holds a rotation up for the whole test.
    let options = Options::default().policy("lease_idle", "\"5m\"").policy("lease_rotating", "\"4m\"");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    let home = world.broadcaster.url();
    let line = format!("tr[data-secret='{SECRET}']");
    browser.open(&home).await;
    browser.until_text(&line, |text| text.contains("no current version")).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    let mut two = world.service("ledger", "two", &[]);
    one.uses(1).await;
    two.uses(1).await;
    browser.until_text(&line, |text| text.contains("idle")).await;
    browser.until_text("[data-testid=cluster]", |text| text == CLUSTER).await;
    // Lost if the page is ever loaded again.
    browser.script("window.neverLoadedAgain = true", Vec::new()).await;
    browser.click(&format!("{line} a")).await;

    // Without credentials.
    let rotate = json!({ "secret": SECRET, "action": "rotate" });
    assert_eq!(order(&browser, &rotate).await, 401);
    browser.click_until("[data-testid=action-rotate]", "[data-testid=sign-in-form]").await;
    sign_in(&browser, "rotacast-token_guessed").await;
    browser
        .until_text("[data-testid=sign-in-form] [data-testid=problem]", |text| text.contains("is not a token"))
        .await;
    sign_in(&browser, world.token()).await;

    // With credentials, the order does what the dialog says.
    two.pause();
    browser.until_text(CONFIRM, |text| text.contains("No instance is cut off")).await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_gone(CONFIRM).await;
    let told = browser.until_text(BLOCKER, |text| text.contains("ledger/two")).await;
    println!("what blocks, as the page tells it:\n{told}");
    browser.until_text("[data-testid=timeline]", |text| text.to_lowercase().contains("preparing")).await;
    look(&browser, &world, "blocked").await;

    browser.click_until("[data-testid=action-pause]", CONFIRM).await;
    browser.fill("[data-testid=confirm-reason]", "a look").await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_text("[data-testid=overlay-paused]", |text| text.contains("a look") || text.contains("paused")).await;
    browser.until_gone(CONFIRM).await;
    browser.click_until("[data-testid=action-resume]", CONFIRM).await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_gone("[data-testid=overlay-paused]").await;
    let audit = world.audit();
    assert_eq!((audit.count("paused"), audit.count("resumed")), (1, 1));

    // The instance that blocks goes on, and so does the rotation, to its end.
    two.resume();
    browser.until_gone(BLOCKER).await;
    browser.until_text("main", |text| text.contains("retired")).await;
    assert_eq!(world.ended(2).await.outcome, "retired");
    look(&browser, &world, "done").await;

    browser.open(&format!("{home}/#/instances")).await;
    browser.until_text("main", |text| text.contains("payments-api") && text.contains("ledger")).await;
    look(&browser, &world, "who-runs-what").await;
    browser.open(&format!("{home}/#/audit")).await;
    browser.until_text("main", |text| text.contains("retired")).await;
    look(&browser, &world, "audit").await;
    browser.open(&format!("{home}/#/")).await;
    browser.until_text(&line, |text| text.contains("idle")).await;
    look(&browser, &world, "overview").await;
    assert_eq!(browser.script("return window.neverLoadedAgain", Vec::new()).await, json!(true), "a page reload");
    let complaints = browser.complaints().await;
    // The errors that this test causes: orders and sign-ins without credentials.
    let others: Vec<_> = complaints.iter().filter(|it| !it.contains("401")).collect();
    assert!(others.is_empty(), "{others:#?}");

    // A restart ends the sign-in, and the page comes back by itself.
    world.broadcaster.kill().await;
    browser.until_text(LINK, |text| text.contains("unreachable")).await;
    browser.screenshot(&screenshots(&world).join("unreachable-light.png")).await;
    world.broadcaster.start(&world.operator).await;
    browser.until_text(LINK, |text| text.contains("live")).await;
    browser.until_text("[data-testid=sign-in]", |text| text.contains("Sign in")).await;
    assert_eq!(order(&browser, &rotate).await, 401);

    browser.open(&home).await;
    browser.until_text(&line, |text| text.contains("idle")).await;
    let loaded = "return performance.getEntries().reduce((sum, it) => sum + (it.encodedBodySize || 0), 0)";
    let bytes = browser.script(loaded, Vec::new()).await.as_u64().expect("a number");
    println!("a page load: {bytes} bytes");
    assert!(bytes > 0 && bytes < MAX_LOAD, "{bytes} bytes");
    browser.close().await;
}

/// Whether the dialog's order can be sent as it is filled in.
async fn can_go(browser: &Browser) -> bool {
    let script = "return !document.querySelector('[data-testid=confirm-go]').disabled";
    browser.script(script, Vec::new()).await.as_bool().expect("a boolean")
}

async fn approve(browser: &Browser) {
    browser.until_text("[data-testid=overlay-awaiting_approval]", |text| text.contains("approval")).await;
    browser.click_until("[data-testid=action-approve]", CONFIRM).await;
    browser.until_text(CUT_OFF, |text| text.contains("No instance is cut off")).await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_gone("[data-testid=overlay-awaiting_approval]").await;
    browser.until_gone(CONFIRM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_an_override_and_safe_mode_are_each_worked_through() {
    let Some(browser) = Browser::start().await else { return };
    let options = Options::default().on(StoreKind::Consul, BusKind::Nats).policy("approval", "true");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    browser.open(&format!("{}/#/secret/{SECRET}", world.broadcaster.url())).await;
    browser.click("[data-testid=sign-in]").await;
    sign_in(&browser, world.token()).await;
    browser.until_text("[data-testid=signed-in]", |text| !text.is_empty()).await;

    // A first version replaces no version and needs no approval.
    world.first_version().await;
    browser.until_text("[data-testid=sentence]", |text| text.contains("version 1 is current")).await;
    let mut one = world.service("payments-api", "one", &[]);
    one.uses(1).await;
    world.store.consul().ctl(&["snapshot", "save", "backup.snap"]).await;

    // A session that no service knows of holds the retire up, and the page says so.
    let hidden = world.session(1).await;
    world.put_by_hand(2).await;
    approve(&browser).await;
    one.uses(2).await;
    let unmet = "[data-testid=guard] li[data-condition=usage_evidence][data-met=false]";
    let told = browser.until_text(unmet, |text| text.contains("session")).await;
    println!("what the guard waits for, as the page tells it:\n{told}");
    // Opened from the blocker, the dialog names the session and has selected it.
    browser.click_until(".wait-group[data-condition=usage_evidence] button", CONFIRM).await;
    let opened = browser.until_text(CONFIRM, |text| text.contains("The retire waits for")).await;
    assert!(opened.contains("Override the retire guard for"), "{opened}");
    browser.until_text(CUT_OFF, |text| text.contains("Every session of version 1")).await;
    browser.click("[data-testid=confirm-cancel]").await;
    browser.until_gone(CONFIRM).await;
    browser.click_until("[data-testid=action-override]", CONFIRM).await;
    browser.until_text(CUT_OFF, |text| text.contains("No instance yet")).await;
    browser.fill("[data-testid=confirm-reason]", "a console that was left open").await;
    browser.fill("[data-testid=confirm-name]", SECRET).await;
    assert!(!can_go(&browser).await, "an override that names nothing");
    browser.click("[data-testid=override-sessions]").await;
    browser.until_text(CUT_OFF, |text| text.contains("Every session of version 1")).await;
    assert!(can_go(&browser).await);
    for wrong in ["payments", "payments/db2"] {
        browser.fill("[data-testid=confirm-name]", wrong).await;
        assert!(!can_go(&browser).await, "an override of {wrong}");
    }
    assert!(world.database.logins().await.contains(&Database::login_by_hand(1)));
    browser.fill("[data-testid=confirm-name]", SECRET).await;
    look(&browser, &world, "override").await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_gone(CONFIRM).await;
    assert_eq!(world.ended(2).await.outcome, "retired");
    world.until_roles_are(&[Database::login_by_hand(2)]).await;
    drop(hidden);
    let audit = world.audit();
    let named = |version| audit.about("override", version).filter(|it| it.actor == "ada").count();
    assert_eq!((audit.count("approved"), audit.count("override"), named(1)), (1, 1, 1));

    // The store is restored to its state before that rotation: nothing goes on until an operator has looked.
    world.store.consul().ctl(&["snapshot", "restore", "backup.snap"]).await;
    let told =
        browser.until_text("[data-testid=overlay-safe_mode]", |text| text.to_lowercase().contains("safe mode")).await;
    println!("safe mode, as the page tells it:\n{told}");
    let barred = "return document.querySelector('[data-testid=action-rotate]').disabled";
    assert_eq!(browser.script(barred, Vec::new()).await, json!(true), "a rotation can be asked for in safe mode");
    look(&browser, &world, "safe-mode").await;
    // A version that is written in safe mode waits.
    world.put_by_hand(3).await;
    browser.until_text("[data-testid=versions]", |text| text.to_lowercase().contains("pending")).await;
    browser.click_until("[data-testid=action-leave_safe_mode]", CONFIRM).await;
    browser.until_text(CUT_OFF, |text| text.contains("if the store is right")).await;
    browser.fill("[data-testid=confirm-reason]", "the store is as it should be").await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_gone("[data-testid=overlay-safe_mode]").await;
    browser.until_gone(CONFIRM).await;
    // The record says version 1, which has ended: the service stays with what it serves until the version that waits is
    // current.
    browser.until_text("[data-testid=overlay-staying]", |text| text.contains("keep what they serve")).await;
    let on_two = one.uses(2).await.by_version[&2];
    one.until("queries with version 2", |status| status.by_version[&2] > on_two + 100).await;
    approve(&browser).await;
    browser.until_gone("[data-testid=overlay-staying]").await;
    one.uses(3).await;
    let last = one.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    let complaints = browser.complaints().await;
    let others: Vec<_> = complaints.iter().filter(|it| !it.contains("503")).collect();
    assert!(others.is_empty(), "{others:#?}");
    browser.close().await;
}
