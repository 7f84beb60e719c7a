//! The ledger's rules by name, so that tests can show what each one is for by taking it out.
//!
//! Outside of this crate's tests every rule holds, and asking costs nothing.

/// A rule that a test may take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A bucket is refilled with the old leases before a report is booked.
    RefillBeforeReport,
    /// Tokens out count towards the burst.
    CapCountsOut,
    /// Tokens of an expired lease are spent, not returned.
    ExpiredIsSpent,
    /// A session's batches are applied in rising order.
    SeqRises,
    /// A changed amount rescales the started token.
    RemRescaled,
    /// A raised amount gives nothing at once.
    RaiseGivesNothing,
}

#[cfg(not(test))]
#[inline(always)]
pub(super) const fn holds(_rule: Rule) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(super) fn holds(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Runs `test` on this thread without `rule`; invariants that need the rule are not asserted meanwhile.
#[cfg(test)]
pub(super) fn without<T>(rule: Rule, test: impl FnOnce() -> T) -> T {
    BROKEN.set(Some(rule));
    let result = test();
    BROKEN.set(None);
    result
}

/// Whether every rule is in force.
#[cfg(test)]
pub(super) fn all_hold() -> bool {
    BROKEN.get().is_none()
}

#[cfg(not(test))]
#[inline(always)]
pub(super) const fn all_hold() -> bool {
    true
}
