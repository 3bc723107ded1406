//! Where browsers find the dashboard.

use super::reader::Section;

/// The dashboard, on the address of [`Listen`](super::Listen).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DashboardConfig {
    /// Names, besides loopback's, under which browsers reach it without TLS: through a proxy, say.
    pub hosts: Vec<String>,
}

pub(super) fn read(section: &Section<'_, '_>) -> DashboardConfig {
    let hosts = section.texts("hosts").unwrap_or_default();
    for host in &hosts {
        let well = host.parse::<axum::http::uri::Authority>().is_ok_and(|it| it.port().is_none() && it.host() == host);
        if !well {
            section.problem(
                "hosts",
                format!("{host:?}: expected a name without scheme and port, such as \"rotacast.example\""),
            );
        }
    }
    section.finish();
    DashboardConfig { hosts }
}
