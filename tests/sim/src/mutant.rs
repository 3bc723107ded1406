//! Worlds in which one rule is broken from outside: the simulator must notice each.

/// Which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Rule 1: an instance counts its lease from the reply's arrival instead of the request's departure.
    LeaseFromReceipt,
    /// Rule 2: an instance's clock stands still while its machine is suspended.
    ClockStopsInSuspend,
    /// Rule 2: a use lasts longer than `max_use`.
    UseOutlivesItsTime,
    /// Rule 3: a leader never notices that its term is over.
    DeposedLeaderGrants,
    /// Rule 4: a new leader waits for none of its predecessors' leases.
    NoInheritedWait,
    /// Rule 6: clocks drift by ten times what is assumed.
    WildClocks,
    /// Rule 8: nothing waits between the seal and the retire.
    NoSealWait,
    /// The audit log says yes and writes nothing.
    AuditLies,
    /// The provider is asked before the retire is durable.
    RetireBeforeSaved,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 9] = [
        Mutant::LeaseFromReceipt,
        Mutant::ClockStopsInSuspend,
        Mutant::UseOutlivesItsTime,
        Mutant::DeposedLeaderGrants,
        Mutant::NoInheritedWait,
        Mutant::WildClocks,
        Mutant::NoSealWait,
        Mutant::AuditLies,
        Mutant::RetireBeforeSaved,
    ];
}
