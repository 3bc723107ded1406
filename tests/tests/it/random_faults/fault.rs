//! What can go wrong.

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rotacast_tests::world::StoreKind;

use super::REPLICAS;

/// A fault, and the process that it hits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    BroadcasterKilled(usize),
    BroadcasterStopped(usize),
    BroadcasterPaused(usize),
    BroadcasterWithoutStore(usize),
    BroadcasterWithoutBus(usize),
    BroadcasterCutOff(usize),
    BroadcastersKilled,
    ServiceKilled,
    ServicePaused,
    ServiceWithoutStore,
    ServiceWithoutBus,
    ServiceCutOff,
    DiskFull(usize),
    StorePaused,
    StoreKilled,
    StoreCompacted,
    StoreRestored,
    BusKilled,
    BusPaused,
    StreamsLost,
}

impl Fault {
    /// Any fault that the run allows; `restores`: the store may be restored from a backup.
    pub(crate) fn draw(random: &mut StdRng, store: StoreKind, as_root: bool, restores: bool) -> Self {
        let which = random.random_range(0..REPLICAS);
        let mut all = vec![
            Self::BroadcasterKilled(which),
            Self::BroadcasterStopped(which),
            Self::BroadcasterPaused(which),
            Self::BroadcasterWithoutStore(which),
            Self::BroadcasterWithoutBus(which),
            Self::BroadcasterCutOff(which),
            Self::BroadcastersKilled,
            Self::ServiceKilled,
            Self::ServicePaused,
            Self::ServiceWithoutStore,
            Self::ServiceWithoutBus,
            Self::StorePaused,
            Self::StoreKilled,
            Self::BusKilled,
            Self::BusPaused,
            Self::StreamsLost,
        ];
        if restores {
            all.push(Self::StoreRestored);
        }
        if store == StoreKind::Etcd {
            all.push(Self::StoreCompacted);
        }
        if as_root {
            all.extend([Self::ServiceCutOff, Self::DiskFull(which)]);
        }
        *all.choose(random).expect("there are some")
    }

    /// How long the fault lasts at most, in milliseconds. Without a store no broadcaster leads and nothing can be read,
    /// so leases must outlast it. Every other fault may last longer than they do.
    pub(crate) fn hold(self) -> u64 {
        match self {
            Self::StorePaused | Self::StoreKilled => 1000,
            Self::BroadcastersKilled => 3000,
            Self::StoreCompacted => 0,
            _ => 12_000,
        }
    }

    /// Whether it may begin while another fault lasts. Without the store a service needs the leader, and without the
    /// leader the store: with neither, the SDK rightly returns no version.
    pub(crate) fn may_overlap(self, other: Self) -> bool {
        let alone =
            |fault: Self| matches!(fault, Self::ServiceWithoutStore | Self::ServiceCutOff) || fault.hold() <= 1000;
        !alone(self) && !alone(other) && self.name() != other.name()
    }

    /// The kind of fault, for the summary.
    pub(crate) fn name(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }
}
