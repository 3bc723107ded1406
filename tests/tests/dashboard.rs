//! The dashboard in a real browser, before a real broadcaster and real rotations.
//!
//! With `ROTACAST_SCREENSHOTS=FOLDER` the screenshots stay there; those of the documentation are made this way.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use rotacast_tests::browser::{Browser, Theme};
use rotacast_tests::programs;
use rotacast_tests::world::{CLUSTER, Options, SECRET, World};
use serde_json::json;

/// Most bytes of a page load.
const MAX_LOAD: u64 = 300_000;
/// The page's head: whether what is shown is live.
const LINK: &str = "[data-testid=link-state]";
const BLOCKER: &str = "[data-testid=blocker]";
const CONFIRM: &str = "[data-testid=confirm]";

/// Where screenshots go.
fn screenshots(world: &World) -> PathBuf {
    match std::env::var_os("ROTACAST_SCREENSHOTS") {
        Some(folder) => folder.into(),
        None => world.folder().to_owned(),
    }
}

/// Looks at the page in both themes and on a phone: what axe finds, and a picture of each.
async fn look(browser: &Browser, world: &World, name: &str) {
    for (theme, word) in [(Theme::Light, "light"), (Theme::Dark, "dark")] {
        browser.prefer(theme).await;
        assert_eq!(browser.accessibility().await, Vec::<String>::new(), "{name}, {word}");
        browser.screenshot(&screenshots(world).join(format!("{name}-{word}.png"))).await;
    }
    browser.size(390, 844).await;
    assert_eq!(browser.accessibility().await, Vec::<String>::new(), "{name} on a phone");
    // Nothing makes the page itself wider than the phone.
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

/// The status of an order as the page's own script would give it.
async fn order(browser: &Browser, body: &serde_json::Value) -> u64 {
    let script = "return fetch('/api/action', { method: 'POST', body: arguments[0],
        headers: { 'content-type': 'application/json', 'x-rotacast-action': '1' } }).then((it) => it.status)";
    browser.script(script, vec![body.to_string().into()]).await.as_u64().expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_followed_live_steered_and_survives_a_restart() {
    let Some(browser) = Browser::start().await else { return };
    // Long enough that a stopped process holds a rotation up for as long as this test looks at it.
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
    browser.click("[data-testid=action-rotate]").await;
    sign_in(&browser, "rotacast-token_guessed").await;
    browser
        .until_text("[data-testid=sign-in-form] [data-testid=problem]", |text| text.contains("has this token"))
        .await;
    sign_in(&browser, world.token()).await;

    // With them: what the dialog says happens.
    two.pause();
    browser.until_text(CONFIRM, |text| text.contains("Nobody is cut off")).await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_gone(CONFIRM).await;
    let told = browser.until_text(BLOCKER, |text| text.contains("ledger/two")).await;
    println!("what blocks, as the page tells it:\n{told}");
    browser.until_text("[data-testid=timeline]", |text| text.to_lowercase().contains("preparing")).await;
    look(&browser, &world, "blocked").await;

    browser.click("[data-testid=action-pause]").await;
    browser.fill("[data-testid=confirm-reason]", "a look").await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_text("[data-testid=overlay-paused]", |text| text.contains("a look") || text.contains("paused")).await;
    browser.until_gone(CONFIRM).await;
    browser.click("[data-testid=action-resume]").await;
    browser.click("[data-testid=confirm-go]").await;
    browser.until_gone("[data-testid=overlay-paused]").await;
    let audit = world.audit();
    assert_eq!((audit.count("paused"), audit.count("resumed")), (1, 1));

    // The instance that blocks goes on, and so does the rotation, all the way to its end.
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
    // Those are what this test has provoked: orders and sign-ins without credentials.
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
