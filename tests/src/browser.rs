//! A headless browser in front of the dashboard.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::{By, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver, WebElement};

use crate::servers::{ChromeDriver, axe, until};
use crate::world::LIMIT;

/// Further options of the browser: in a container it runs as root, and it contacts no server outside.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
];

/// Longest script: an accessibility check of a page of a hundred rows takes seconds on a busy machine.
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);

/// The theme of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// A browser with one window. Both end when this is dropped.
pub struct Browser {
    driver: WebDriver,
    driven_by: ChromeDriver,
    axe: String,
}

impl Browser {
    /// Starts one; `None` if something is missing, after counting the test as skipped.
    ///
    /// # Panics
    /// If what is there does not start.
    pub async fn start() -> Option<Self> {
        let axe = axe()?;
        let driven_by = ChromeDriver::start().await?;
        // The client is built for TLS whether or not it is used. An error means that a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut wanted = DesiredCapabilities::chrome();
        let profile = format!("--user-data-dir={}", driven_by.scratch().path().join("profile").display());
        for argument in ARGUMENTS.into_iter().chain([profile.as_str()]) {
            wanted.add_arg(argument).expect("a string serializes");
        }
        let chromium = driven_by.chromium().to_str().expect("a path in UTF-8");
        wanted.set_binary(chromium).expect("a string serializes");
        let driver = WebDriver::new(driven_by.url(), wanted).await.expect("the browser starts");
        driver.set_script_timeout(SCRIPT_LIMIT).await.expect("the browser answers");
        let browser = Self { driver, driven_by, axe };
        browser.size(1280, 900).await;
        Some(browser)
    }

    /// Opens a page.
    ///
    /// # Panics
    /// If it cannot be loaded.
    pub async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The window's size in pixels.
    ///
    /// # Panics
    /// If the browser does not answer, as with everything below.
    pub async fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Sets the theme that the system prefers.
    pub async fn prefer(&self, theme: Theme) {
        let value = match theme {
            Theme::Light => "light",
            Theme::Dark => "dark",
        };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    async fn cdp(&self, command: &str, parameters: Value) -> Value {
        let sent = self.driver.cdp().send_raw(command, parameters).await;
        sent.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The result of a function body in the page.
    pub async fn script(&self, body: &str, arguments: Vec<Value>) -> Value {
        let ran = self.driver.execute(body, arguments).await;
        ran.unwrap_or_else(|error| panic!("{body}: {error}")).json().clone()
    }

    /// The visible texts of all elements that match a CSS selector; empty if none does.
    pub async fn texts(&self, css: &str) -> Vec<String> {
        let body = "return [...document.querySelectorAll(arguments[0])].map((it) => it.innerText)";
        let found = self.script(body, vec![css.into()]).await;
        serde_json::from_value(found).expect("a list of texts")
    }

    /// Waits until the joined text of all elements that match a selector is right.
    pub async fn until_text(&self, css: &str, mut fits: impl FnMut(&str) -> bool) -> String {
        let mut last = String::new();
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                last = self.texts(css).await.join("\n");
                if fits(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if found.await.is_err() {
            let page = self.texts("body").await.join("\n");
            panic!("waited {LIMIT:?} in vain for {css}; its text was {last:?}; the page was:\n{page}");
        }
        last
    }

    /// Waits until no element matches a selector.
    pub async fn until_gone(&self, css: &str) {
        let what = format!("{css} to be gone");
        until(&what, LIMIT, async || self.texts(css).await.is_empty().then_some(())).await;
    }

    /// Waits for a visible element, and clicks it as a person would.
    pub async fn click(&self, css: &str) {
        let what = format!("{css} to be clicked");
        // The page may be drawn again between finding and clicking.
        until(&what, LIMIT, async || self.element(css).await?.click().await.ok()).await;
    }

    /// Clicks until something appears. On a live page the target may move away under the pointer, which loses the click.
    pub async fn click_until(&self, css: &str, appears: &str) {
        let what = format!("{css} to be clicked and {appears} to appear");
        until(&what, LIMIT, async || {
            if self.texts(appears).await.is_empty() {
                self.element(css).await?.click().await.ok()?;
            }
            (!self.texts(appears).await.is_empty()).then_some(())
        })
        .await;
    }

    /// Types into a field, in place of what is there.
    pub async fn fill(&self, css: &str, text: &str) {
        let what = format!("{css} to take text");
        until(&what, LIMIT, async || {
            let field = self.element(css).await?;
            field.clear().await.ok()?;
            field.send_keys(text).await.ok()
        })
        .await;
    }

    /// Presses keys wherever the focus is.
    pub async fn press(&self, keys: &str) {
        self.driver.action_chain().send_keys(keys).perform().await.expect("the browser takes keys");
    }

    async fn element(&self, css: &str) -> Option<WebElement> {
        self.driver.find(By::Css(css)).await.ok()
    }

    /// What axe-core rates serious or critical on the page, one line each.
    pub async fn accessibility(&self) -> Vec<String> {
        self.script(&format!("{};", self.axe), Vec::new()).await;
        let body = "const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations
                .filter((it) => ['serious', 'critical'].includes(it.impact))
                .map((it) => `${it.id} (${it.impact}): ${it.help}: ${it.nodes.map((node) => node.html).join(' | ').slice(0, 600)}`)),
                (error) => done([`axe: ${error}`]))";
        let found = self.driver.execute_async(body, Vec::new()).await.expect("axe runs").json().clone();
        serde_json::from_value(found).expect("a list of texts")
    }

    /// A screenshot of the page, in a PNG file.
    pub async fn screenshot(&self, file: &Path) {
        self.driver.screenshot(file).await.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// The errors in the browser's console.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.driver.browser_log().await.expect("the browser keeps a log");
        log.into_iter().map(|entry| format!("{entry:?}")).collect()
    }

    /// Ends the browser and its driver.
    pub async fn close(self) {
        self.driver.quit().await.expect("the browser ends");
        drop(self.driven_by);
    }
}
