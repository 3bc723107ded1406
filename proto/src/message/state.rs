//! What the broadcaster wants of every instance that uses a secret.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rotacast_protocol::message::{LostHistory, SecretState};
use rotacast_protocol::{Epoch, Generation, Phase, Revision, RotationId};

use super::WireMessage;
use super::field::{FieldError, duration, millis, or_zero, parse, secret_name, version_or_none, versions};
use crate::envelope::{EnvelopeError, Kind};
use crate::v1;

/// Most sealed versions a state may name: a record keeps the last 20 ended versions besides the live
/// ones (4 by default), and the largest Sync reply still fits a payload with this many in each state.
pub const MAX_SEALED_VERSIONS: usize = 64;

/// Shortest interval between two Syncs on the wire: zero would be a busy loop.
const MIN_SYNC_INTERVAL: Duration = Duration::from_millis(1);

impl WireMessage for SecretState {
    const KIND: Kind = Kind::SecretState;

    fn subject(&self) -> String {
        self.secret.to_string()
    }

    fn encode(&self) -> Bytes {
        to_wire(self).encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, from_wire)
    }
}

pub(super) fn to_wire(state: &SecretState) -> v1::SecretState {
    v1::SecretState {
        secret: state.secret.to_string(),
        epoch: state.epoch.0,
        revision: state.revision.0,
        generation: state.generation.0,
        rotation: state.rotation.as_ref().map_or(0, |rotation| rotation.generation.0),
        phase: state.phase.map_or(v1::Phase::Unspecified, v1::Phase::from).into(),
        current: or_zero(state.current),
        pending: or_zero(state.pending),
        previous: or_zero(state.previous),
        sealed: state.sealed.iter().map(|version| version.get()).collect(),
        sync_interval_ms: millis(state.sync_interval.max(MIN_SYNC_INTERVAL)),
        self_lease_ms: millis(state.self_lease),
        max_use_ms: millis(state.max_use),
        stay: state.stay,
        lost_history_noticed: state.lost_history.map_or(0, |lost| lost.noticed.0),
        lost_history_kept_to: or_zero(state.lost_history.and_then(|lost| lost.kept_to)),
    }
}

pub(super) fn from_wire(wire: v1::SecretState) -> Result<SecretState, FieldError> {
    let secret = secret_name("secret", wire.secret)?;
    let rotation = match wire.rotation {
        0 => None,
        generation => Some(RotationId { secret: secret.clone(), generation: Generation(generation) }),
    };
    // A phase tells people where a rotation stands; what an instance may do follows from the
    // versions alone. So a phase that a later build added reads as unspecified, where any other
    // unknown value of an enumeration is refused.
    let phase = v1::Phase::try_from(wire.phase).ok().and_then(v1::Phase::known);
    if phase.is_some() && rotation.is_none() {
        return Err(FieldError::new("phase", "is set while rotation is 0: expected both or neither"));
    }
    let sync_interval = duration("sync_interval_ms", wire.sync_interval_ms)?;
    if sync_interval < MIN_SYNC_INTERVAL {
        return Err(FieldError::new("sync_interval_ms", "0 ms, expected at least 1 ms"));
    }
    let kept_to = version_or_none(wire.lost_history_kept_to);
    let lost_history = match wire.lost_history_noticed {
        0 if kept_to.is_some() => {
            return Err(FieldError::new("lost_history_kept_to", "is set while lost_history_noticed is 0"));
        }
        0 => None,
        noticed if noticed > wire.revision => {
            return Err(FieldError::new("lost_history_noticed", "is above the revision: expected at most that"));
        }
        noticed => Some(LostHistory { noticed: Revision(noticed), kept_to }),
    };
    Ok(SecretState {
        epoch: Epoch(wire.epoch),
        revision: Revision(wire.revision),
        generation: Generation(wire.generation),
        rotation,
        phase,
        current: version_or_none(wire.current),
        pending: version_or_none(wire.pending),
        previous: version_or_none(wire.previous),
        sealed: versions("sealed", wire.sealed, MAX_SEALED_VERSIONS)?,
        sync_interval,
        self_lease: duration("self_lease_ms", wire.self_lease_ms)?,
        max_use: duration("max_use_ms", wire.max_use_ms)?,
        stay: wire.stay,
        lost_history,
        secret,
    })
}

impl From<Phase> for v1::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Verifying => Self::Verifying,
            Phase::Preparing => Self::Preparing,
            Phase::Activating => Self::Activating,
            Phase::Draining => Self::Draining,
            Phase::Retiring => Self::Retiring,
            Phase::RollingBack => Self::RollingBack,
        }
    }
}

impl v1::Phase {
    /// The phase, unless it is unspecified.
    #[must_use]
    pub fn known(self) -> Option<Phase> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Verifying => Phase::Verifying,
            Self::Preparing => Phase::Preparing,
            Self::Activating => Phase::Activating,
            Self::Draining => Phase::Draining,
            Self::Retiring => Phase::Retiring,
            Self::RollingBack => Phase::RollingBack,
        })
    }
}
