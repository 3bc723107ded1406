//! Whether a request comes from the dashboard's own pages, and was meant for this broadcaster.

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

use crate::api::Refusal;

/// Names for this machine that no other site can make point elsewhere.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The name and port that the request was sent to: over HTTP/2 part of its address, else a header.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    uri.authority().cloned().or_else(|| headers.get(HOST)?.to_str().ok()?.parse().ok())
}

/// Refuses names that are not this broadcaster's. Without TLS nothing else stops a stranger's page whose own name leads to
/// this address (DNS rebinding) from reading along.
pub(super) fn check_host(uri: &Uri, headers: &HeaderMap, known: &[String]) -> Result<(), Refusal> {
    let asked = authority(uri, headers);
    let host = asked.as_ref().map(Authority::host).unwrap_or_default();
    if LOOPBACK.contains(&host) || known.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    let shown: String = host.chars().take(64).collect();
    Err(Refusal::Forbidden(format!(
        "asked as host {shown:?}; expected one of {}: add the name to dashboard.hosts in the broadcaster's configuration",
        LOOPBACK.iter().copied().chain(known.iter().map(String::as_str)).collect::<Vec<_>>().join(", ")
    )))
}

/// Refuses what another site's page sends. Programs send neither header; the cookie that makes the difference is not
/// theirs either.
pub(super) fn check_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let refused =
        |what: &str| Err(Refusal::Forbidden(format!("{what}: only the dashboard's own pages may ask for this")));
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return refused("the request comes from another site");
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    match origin.as_ref().and_then(Uri::authority) {
        Some(origin) if Some(origin) == authority(uri, headers).as_ref() => Ok(()),
        _ => refused("the request's origin is another one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_of_this_broadcaster_are_answered() {
        let known = ["Rotacast.example".to_owned()];
        let plain = Uri::from_static("/api/about");
        for host in ["localhost:7400", "127.0.0.1:1", "[::1]:7400", "rotacast.example", "rotacast.example:8443"] {
            assert!(check_host(&plain, &headers(&[("host", host)]), &known).is_ok(), "{host}");
        }
        for host in ["evil.example", "evil.example:7400", "127.0.0.1.evil.example", ""] {
            let told = check_host(&plain, &headers(&[("host", host)]), &known).unwrap_err().to_string();
            assert!(told.contains("dashboard.hosts"), "{told}");
        }
        assert!(check_host(&plain, &HeaderMap::new(), &known).is_err());
        let http2 = Uri::from_static("https://rotacast.example/api/about");
        assert!(check_host(&http2, &HeaderMap::new(), &known).is_ok());
    }

    #[test]
    fn what_other_sites_send_is_refused() {
        let here = Uri::from_static("/api/action");
        let host = ("host", "127.0.0.1:7400");
        for good in [
            vec![host],
            vec![host, ("origin", "http://127.0.0.1:7400")],
            vec![host, ("origin", "http://127.0.0.1:7400"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(check_origin(&here, &headers(&good)).is_ok(), "{good:?}");
        }
        for bad in [
            vec![host, ("origin", "http://evil.example")],
            vec![host, ("origin", "http://127.0.0.1:8080")],
            vec![host, ("origin", "null")],
            vec![host, ("sec-fetch-site", "cross-site")],
            vec![host, ("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:7400")],
        ] {
            assert!(check_origin(&here, &headers(&bad)).is_err(), "{bad:?}");
        }
    }
}
