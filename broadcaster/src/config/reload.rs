//! What a reload may change while the broadcaster runs.

use super::Config;

/// A part of the configuration that differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which, as in the file.
    pub setting: &'static str,
    /// Whether it takes effect at once; otherwise with the next start.
    pub live: bool,
}

/// What differs between the configuration in force and a new one.
///
/// Live are those read anew for each decision: who may command and use what, policies and providers. The rest is tied to
/// files, sockets and connections that are open.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let live = true;
    let parts = [
        ("cluster", old.cluster == new.cluster, !live),
        ("replica", old.replica == new.replica, !live),
        ("data_dir", old.data_dir == new.data_dir, !live),
        ("listen", old.listen == new.listen, !live),
        ("dashboard", old.dashboard == new.dashboard, !live),
        ("store", old.store == new.store, !live),
        ("bus", old.bus == new.bus, !live),
        ("start_timeout", old.start_timeout == new.start_timeout, !live),
        ("leader", old.leader_ttl == new.leader_ttl, !live),
        ("keys", old.signing_key == new.signing_key && old.sealing_key == new.sealing_key, !live),
        ("sealing", old.seal_values == new.seal_values, !live),
        ("limits", old.limits == new.limits, !live),
        ("operators", old.operators.people().eq(new.operators.people()), live),
        ("roles", old.operators.roles() == new.operators.roles(), live),
        ("services", old.services == new.services && old.any_service == new.any_service, live),
        ("providers", old.providers == new.providers, live),
        ("defaults", old.defaults == new.defaults, live),
        ("secrets", old.secrets == new.secrets, live),
        ("audit", old.audit == new.audit, !live),
        ("log.format", old.log.format == new.log.format, !live),
        ("log.level", old.log.level == new.log.level, !live),
        ("telemetry", old.telemetry == new.telemetry, !live),
    ];
    parts.into_iter().filter(|(_, same, _)| !same).map(|(setting, _, live)| Change { setting, live }).collect()
}
