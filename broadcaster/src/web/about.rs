//! What the page's head shows: the broadcaster, and who looks.

use rotacast_protocol::status::{BroadcasterStatus, Leading, moment};
use rotacast_protocol::{Epoch, WallTime};
use serde::Serialize;

use crate::viewers::Viewer;

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct AboutView {
    cluster: String,
    replica: Option<String>,
    leader: bool,
    epoch: Option<Epoch>,
    leading: Option<Leading>,
    store: String,
    bus: String,
    version: &'static str,
    #[serde(serialize_with = "moment")]
    now: WallTime,
    signed_in: Option<PersonView>,
    sign_in_needed: bool,
}

#[derive(Clone, PartialEq, Serialize)]
struct PersonView {
    name: String,
    may_act: bool,
    /// In an emergency, by a role for it.
    may_act_alone: bool,
}

impl AboutView {
    pub(super) fn new(broadcaster: BroadcasterStatus, viewer: &Viewer, sign_in_needed: bool) -> Self {
        let BroadcasterStatus { cluster, epoch, leader, store, bus, replica, leading, findings: _, secrets: _ } =
            broadcaster;
        let (may_act, may_act_alone) = (viewer.may_order(), viewer.may_act_alone());
        let signed_in = viewer.operator().map(|name| PersonView { name: name.to_string(), may_act, may_act_alone });
        let replica = Some(replica);
        Self { replica, leader, epoch, leading, store, bus, signed_in, sign_in_needed, ..Self::sign_in_first(cluster) }
    }

    /// For a person who has yet to sign in: nothing but that.
    pub(super) fn sign_in_first(cluster: String) -> Self {
        Self {
            cluster,
            replica: None,
            leader: false,
            epoch: None,
            leading: None,
            store: String::new(),
            bus: String::new(),
            version: env!("CARGO_PKG_VERSION"),
            now: rotacast_clock::wall(),
            signed_in: None,
            sign_in_needed: true,
        }
    }
}
