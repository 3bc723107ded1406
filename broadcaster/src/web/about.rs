//! What the page's head shows: the broadcaster, and who looks.

use rotacast_proto::v1;
use serde::Serialize;

use super::access::Person;
use rotacast_admin::view::{LeadingView, Moment, StatusView};

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct AboutView {
    cluster: String,
    replica: Option<String>,
    leader: bool,
    epoch: Option<u64>,
    leading: Option<LeadingView>,
    store: String,
    bus: String,
    version: &'static str,
    now: Moment,
    signed_in: Option<PersonView>,
    sign_in_needed: bool,
}

#[derive(Clone, PartialEq, Serialize)]
struct PersonView {
    name: String,
    may_act: bool,
}

impl AboutView {
    pub(super) fn new(broadcaster: v1::StatusReply, person: Option<&Person>, sign_in_needed: bool) -> Self {
        let StatusView { cluster, epoch, leader, store, bus, replica, leading, secrets: _ } = broadcaster.into();
        Self {
            cluster,
            replica,
            leader,
            epoch,
            leading,
            store,
            bus,
            version: env!("CARGO_PKG_VERSION"),
            now: Moment(rotacast_clock::wall().0),
            signed_in: person.map(|person| PersonView { name: person.name.to_string(), may_act: person.may_act }),
            sign_in_needed,
        }
    }

    /// For somebody who has yet to sign in: nothing but that.
    pub(super) fn sign_in_first(cluster: String) -> Self {
        let broadcaster = v1::StatusReply { cluster, ..Default::default() };
        Self::new(broadcaster, None, true)
    }
}
