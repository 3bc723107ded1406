//! The certificates that the configuration names.

use crate::certificates::{Expiring, OwnFile, OwnKind};
use crate::config::{BusConfig, ClientTls, Config, NatsLogin, StoreConfig};

/// Every certificate of ours, and every other credential that ends by itself.
pub(super) fn of(config: &Config) -> Vec<OwnFile> {
    let mut files = Vec::new();
    let mut add = |what, file: &std::path::Path, kind| files.push(OwnFile { what, file: file.to_owned(), kind });
    if let Some(tls) = &config.listen.tls {
        add(Expiring::Listen, &tls.cert, OwnKind::Chain(tls.key.clone()));
        if let Some(authority) = &tls.client_ca {
            add(Expiring::ListenClients, authority, OwnKind::Authorities);
        }
    }
    let store = match &config.store {
        StoreConfig::Embedded { .. } => &None,
        StoreConfig::Etcd { tls, .. } | StoreConfig::Consul { tls, .. } => tls,
    };
    let bus = match &config.bus {
        BusConfig::Embedded { .. } => &None,
        BusConfig::Nats { tls, .. } | BusConfig::Kafka { tls, .. } => tls,
    };
    let clients = [(store, Expiring::Store, Expiring::StoreAuthority), (bus, Expiring::Bus, Expiring::BusAuthority)];
    for (tls, own, authority) in clients {
        let Some(ClientTls { ca, identity, .. }) = tls else { continue };
        add(authority, ca, OwnKind::Authorities);
        if let Some((certificate, key)) = identity {
            add(own, certificate, OwnKind::Chain(key.clone()));
        }
    }
    if let BusConfig::Nats { login: NatsLogin::Credentials(file), .. } = &config.bus {
        add(Expiring::BusCredentials, file, OwnKind::NatsCredentials);
    }
    files
}
