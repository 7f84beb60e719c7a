//! Authenticated in, admitted out: spends tokens of this node's leases, and asks the cluster only when they run out.
//!
//! ```text
//! cell    (atomics)  one lease as takers see it: a word and a deadline     reserve -> commit | give back
//! entry   (atomics)  a key: its cell and what its manager publishes
//! hold               reservations of one request, on all its keys or none  -> admitted at one instant
//! lessee  (sans-IO)  one gateway's session: who waits, what to ask         events -> outputs
//! keeper  (actor)    carries the lessee's messages; the handle reads entries and asks only on a miss
//! ```

mod cell;
mod entry;
mod hold;
pub mod keeper;
mod lessee;
pub mod rule;
mod sync;

pub use keeper::{Keeper, Ledger};
pub use rule::{Admission, Charge, QuotaRule, QuotaStats, Refused, Standing, Standings, Stats, Violation};
