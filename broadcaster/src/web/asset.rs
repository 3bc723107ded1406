//! The dashboard's own files: part of the program, so that it works without internet access.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use rotacast_protocol::word;
use sha2::{Digest as _, Sha256};

/// One file, by its name below `/assets/`.
struct Asset {
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        &[$(Asset { name: $name, bytes: include_bytes!(concat!("assets/", $name)) }),*]
    };
}

const ASSETS: &[Asset] = assets![
    "app.css",
    "app.js",
    "audit/audit.js",
    "broadcaster/api.js",
    "broadcaster/session.js",
    "broadcaster/stream.js",
    "elements/badge.js",
    "elements/dom.js",
    "elements/findings.js",
    "elements/form.js",
    "elements/link.js",
    "elements/notice.js",
    "elements/table.js",
    "elements/times.js",
    "frame/announce.js",
    "frame/header.js",
    "frame/leader.js",
    "frame/sign-in.js",
    "icon.svg",
    "index.html",
    "instances/fleet.js",
    "instances/instances.js",
    "orders/access.js",
    "orders/confirm.js",
    "orders/excuse.js",
    "orders/holder.js",
    "orders/override.js",
    "orders/panel.js",
    "orders/plans.js",
    "orders/possible.js",
    "overview/findings.js",
    "overview/overview.js",
    "overview/requests.js",
    "overview/secrets.js",
    "secret/blockers.js",
    "secret/guard.js",
    "secret/history.js",
    "secret/page.js",
    "secret/secret.js",
    "secret/services.js",
    "secret/timeline.js",
    "secret/versions.js",
    "theme.js",
    "words/instance.js",
    "words/numbers.js",
    "words/rotation.js",
    "words/words.js",
];

/// The page itself.
const PAGE: &str = "index.html";
/// The words, for the scripts: no file, since Rust has them.
const VOCABULARY: &str = "words/vocabulary.js";

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// The page.
pub(super) fn page(headers: &HeaderMap) -> Response {
    file(PAGE, headers)
}

/// Any file.
pub(super) fn file(name: &str, headers: &HeaderMap) -> Response {
    static VOCABULARY_SCRIPT: LazyLock<String> = LazyLock::new(word::script);
    let bytes = match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => asset.bytes,
        None if name == VOCABULARY => VOCABULARY_SCRIPT.as_bytes(),
        None => return StatusCode::NOT_FOUND.into_response(),
    };
    // A new release shows at once, and what has not changed is not sent again.
    let tag = format!("\"{}\"", &hex::encode(Sha256::digest(bytes))[..16]);
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|value| value.as_bytes() == tag.as_bytes());
    let head = [(ETAG, tag.as_str()), (CACHE_CONTROL, "no-cache"), (CONTENT_TYPE, media_type(name))];
    match known {
        true => (StatusCode::NOT_MODIFIED, head).into_response(),
        false => (head, Body::from(bytes)).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What a first visit loads, uncompressed; people open this on a phone, in a bad moment.
    const MAX_PAGE_BYTES: usize = 300_000;

    #[test]
    fn the_page_is_small_and_every_file_of_the_folder_is_served() {
        let total: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(total < MAX_PAGE_BYTES, "{total} bytes");
        let mut there = files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/assets")), "");
        there.sort();
        let mut served: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        served.sort_unstable();
        assert_eq!(there, served);
    }

    fn files(folder: &Path, within: &str) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries
            .flat_map(|entry| {
                let name = format!("{within}{}", entry.file_name().into_string().unwrap());
                match entry.file_type().unwrap().is_dir() {
                    true => files(&entry.path(), &format!("{name}/")),
                    false => vec![name],
                }
            })
            .collect()
    }

    /// Otherwise a first visit asks for one script after another, as each names the next.
    #[test]
    fn the_page_asks_for_every_script_at_once() {
        let page = std::str::from_utf8(ASSETS.iter().find(|asset| asset.name == PAGE).unwrap().bytes).unwrap();
        for name in ASSETS.iter().map(|asset| asset.name).chain([VOCABULARY]).filter(|name| name.ends_with(".js")) {
            assert!(page.contains(&format!("\"/assets/{name}\"")), "{name}");
        }
    }

    #[test]
    fn the_words_are_served_as_a_script() {
        let response = file(VOCABULARY, &HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert!(word::script().contains("\"rolling_back\":{\"words\":"));
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let first = page(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let known = [(IF_NONE_MATCH, first.headers()[ETAG].clone())].into_iter().collect();
        assert_eq!(page(&known).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(file("nothing.js", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
        assert_eq!(file("../token.rs", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
