//! The dashboard's own files: part of the program, so that it works without internet access.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
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
    "actions.js",
    "api.js",
    "app.css",
    "app.js",
    "audit.js",
    "confirm.js",
    "dom.js",
    "excuse.js",
    "fleet.js",
    "icon.svg",
    "index.html",
    "instances.js",
    "model.js",
    "override.js",
    "overview.js",
    "parts.js",
    "records.js",
    "secret.js",
    "shell.js",
    "sign-in.js",
    "stream.js",
    "theme.js",
    "timeline.js",
    "times.js",
    "waits.js",
    "words.js",
];

/// The page itself.
const PAGE: &str = "index.html";

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
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // A new release shows at once, and what has not changed is not sent again.
    let tag = format!("\"{}\"", &hex::encode(Sha256::digest(asset.bytes))[..16]);
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|value| value.as_bytes() == tag.as_bytes());
    let head = [(ETAG, tag.as_str()), (CACHE_CONTROL, "no-cache"), (CONTENT_TYPE, media_type(name))];
    match known {
        true => (StatusCode::NOT_MODIFIED, head).into_response(),
        false => (head, Body::from(asset.bytes)).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a first visit loads, uncompressed; people open this on a phone, in a bad moment.
    const MAX_PAGE_BYTES: usize = 300_000;

    #[test]
    fn the_page_is_small_and_every_file_of_the_folder_is_served() {
        let total: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(total < MAX_PAGE_BYTES, "{total} bytes");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/assets");
        let mut there: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        there.sort();
        let mut served: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        served.sort_unstable();
        assert_eq!(there, served);
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
