//! The holder's rules by name, so that a test build can switch them off one by one; see the module of this name in
//! `rotacast-protocol`.

/// One rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(not(feature = "mutants"), allow(dead_code, unreachable_pub))]
pub enum Rule {
    /// Lease rule 1: a lease counts from the request's send time.
    FromSend,
    /// Lease rule 2: every use compares the clock.
    ClockOnUse,
    /// A grant that is over when it arrives is not taken over.
    LateGrant,
    /// An overtaken grant is not taken over.
    StaleGrant,
    /// The newest grant replaces the one before, even a longer one.
    NewestGrant,
    /// Each request is answered once.
    OneAnswer,
    /// Lease rule 8: a self-lease counts from the read's send time.
    ReadFromSend,
    /// A read allows what it shows unsealed.
    ReadUnsealed,
    /// A read allows what nothing newer has sealed or stopped asking for.
    ReadNewest,
    /// Only newer states count.
    NewerState,
    /// A lower generation does not count.
    NewerDirection,
    /// Within a generation no version comes back.
    NoComeback,
    /// The joiner's barrier: the registration is durable before a lease is asked for.
    RegisteredFirst,
    /// The joiner's barrier: the lease comes before the value.
    LeaseFirst,
    /// What is handed out is held.
    ServingHeld,
    /// What a guard points to is held.
    GuardsHeld,
    /// What the service was shown is held until it has let go.
    TouchedHeld,
    /// Whoever was handed the old version counts from the switch on.
    SwitchHolds,
    /// The service lets go of nothing that a guard points to.
    GuardsRelease,
    /// A service in doubt after a failed switch may use either version.
    SwitchDoubt,
    /// A grant for what is held no more is acknowledged, so that the leader need not outwait it.
    Acknowledge,
    /// Whoever serves a version stays with it while nobody knows which one is good.
    Stay,
    /// A number that comes again after the store lost its history is another version.
    Lost,
    /// A reply is for the instance that asked.
    OwnReply,
}

/// Which rule is switched off: none, outside of a mutant.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Broken {
    #[cfg(feature = "mutants")]
    pub(crate) rule: Option<Rule>,
}

impl Broken {
    /// Whether this rule is switched off.
    #[inline]
    #[cfg_attr(not(feature = "mutants"), allow(clippy::unused_self))]
    pub(crate) fn is(self, rule: Rule) -> bool {
        #[cfg(feature = "mutants")]
        return self.rule == Some(rule);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = rule;
            false
        }
    }
}
