//! Where traces go.

use std::path::PathBuf;

use rotacast_proto::Unencrypted;

use super::backend::{IN_THE_CLEAR, check_unencrypted};
use super::reader::Section;

/// The path that the protocol gives to traces, below a collector's address.
const TRACES_PATH: &str = "/v1/traces";

/// Where traces go; by default nowhere, at no cost.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TelemetryConfig {
    /// The URL that takes traces; none: none are made.
    pub traces_url: Option<String>,
    /// A file of request headers, `name: value` a line: collectors that ask for a token.
    pub headers_file: Option<PathBuf>,
    /// Certificates (PEM) that the collector's must lead back to; none: those of the system.
    pub ca: Option<PathBuf>,
}

pub(super) fn read(section: &Section<'_, '_>) -> TelemetryConfig {
    let base = section.text_or_env("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT");
    let exact = section.variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let headers_file = section.path("otlp_headers_file");
    let in_file = section.path("otlp_ca");
    let ca = section.variable("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from).or(in_file);
    let traces_url = match (filled(exact), filled(base)) {
        // As OpenTelemetry has it: this one is taken as it stands.
        (Some(exact), _) => checked(section, exact),
        (None, Some(base)) => checked(section, format!("{}{TRACES_PATH}", base.trim_end_matches('/'))),
        (None, None) => None,
    };
    let off = is(section, "OTEL_SDK_DISABLED", "true") || is(section, "OTEL_TRACES_EXPORTER", "none");
    let allowed = section.flag(IN_THE_CLEAR).unwrap_or_default();
    let plain = traces_url.as_deref().filter(|url| url.starts_with("http://") && !off);
    if headers_file.is_some() || filled(section.variable("OTEL_EXPORTER_OTLP_HEADERS")).is_some() {
        let unencrypted = Unencrypted {
            carries: "the request headers, which hold a token,",
            encrypt: "use https://",
            allow: "set in_the_clear = true in [telemetry]",
        };
        check_unencrypted(section, "otlp_endpoint", allowed, plain, unencrypted);
    }
    section.finish();
    TelemetryConfig { traces_url: traces_url.filter(|_| !off), headers_file, ca }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

fn is(section: &Section<'_, '_>, variable: &str, value: &str) -> bool {
    section.variable(variable).is_some_and(|found| found.trim().eq_ignore_ascii_case(value))
}

fn checked(section: &Section<'_, '_>, url: String) -> Option<String> {
    let parsed = url.parse::<tonic::transport::Uri>();
    let whole =
        |uri: &tonic::transport::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    let userinfo = |uri: &tonic::transport::Uri| uri.authority().is_some_and(|it| it.as_str().contains('@'));
    match parsed {
        Ok(uri) if userinfo(&uri) => {
            section.problem("otlp_endpoint", "holds a login; put it into otlp_headers_file as an authorization".into());
            None
        }
        Ok(uri) if whole(&uri) => Some(url),
        _ => {
            section.problem("otlp_endpoint", format!("{url:?}: expected such as \"http://localhost:4318\""));
            None
        }
    }
}
