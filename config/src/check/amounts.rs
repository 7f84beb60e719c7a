//! Amounts and what requests cost.

use std::collections::BTreeMap;

use super::{Findings, Source, Trail, every_amount};
use crate::draft::Draft;
use crate::ids::QuotaName;
use crate::mistake::Severity;
use crate::quota::Limit;

/// Tokens reach a gateway in cycles of about this length.
const CYCLE_NS: u128 = 50_000_000;

pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    let mut smallest: BTreeMap<&QuotaName, (u64, Source<'_>)> = BTreeMap::new();
    for (quota, limit, source) in every_amount(draft) {
        if !limit.is_sound() {
            findings.add(source.trail(quota), format!("{limit:?}"), "a limit within its bounds");
        }
        let entry = smallest.entry(quota).or_insert((limit.burst, source));
        if limit.burst < entry.0 {
            *entry = (limit.burst, source);
        }
    }
    let mut dearest: BTreeMap<&QuotaName, u64> = BTreeMap::new();
    for (index, route) in draft.routes.iter().enumerate() {
        for (at, charge) in
            route.charges.iter().enumerate().filter_map(|(at, it)| it.as_ref().map(|it| (at, it)))
        {
            let cost = dearest.entry(&charge.quota).or_insert(charge.cost);
            *cost = charge.cost.max(*cost);
            let trail = || Trail::default().key("routes").index(index).key("quotas").index(at).key("cost");
            if !(1..=Limit::COST_MAX).contains(&charge.cost) {
                findings.add(trail(), charge.cost.to_string(), format!("1 to {}", Limit::COST_MAX));
            }
            if let Some((burst, source)) =
                smallest.get(&charge.quota).filter(|(burst, _)| charge.cost > *burst)
            {
                let wanted = format!("at most the smallest burst of `{}`, which is {burst}", charge.quota);
                findings.add(trail(), format!("a cost of {}", charge.cost), wanted).help =
                    Some(format!("that burst is set by {}", source.trail(&charge.quota).path()));
            }
        }
    }
    for (quota, limit, source) in every_amount(draft) {
        let Some(cost) = dearest.get(quota) else { continue };
        if *cost <= limit.burst && !is_usable(limit, *cost) {
            let finding = findings.add(
                source.trail(quota),
                format!("a burst of {}", limit.burst),
                format!("{} or more, for the rate to be fully used", useful_burst(limit, *cost)),
            );
            finding.severity = Severity::Warning;
            finding.help = Some("tokens that come while the bucket is full are lost; raise `burst`".into());
        }
    }
}

/// Whether tokens of the whole rate can be spent although they are handed out in cycles: `B ≥ c + r·50 ms`.
/// A bucket of one request at a slow rate is meant as it is.
fn is_usable(limit: Limit, cost: u64) -> bool {
    let slow = u128::from(limit.tokens) * 1_000_000_000 <= 5 * u128::from(limit.per_ns);
    (limit.burst == cost && slow) || u128::from(limit.burst) >= useful_burst(limit, cost)
}

fn useful_burst(limit: Limit, cost: u64) -> u128 {
    u128::from(cost) + (u128::from(limit.tokens) * CYCLE_NS).div_ceil(u128::from(limit.per_ns.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_carries_the_rate_over_one_cycle() {
        let limit = |tokens, burst| Limit { tokens, per_ns: 1_000_000_000, burst };
        assert!(is_usable(limit(100, 6), 1));
        assert!(!is_usable(limit(100, 5), 1));
        assert!(is_usable(limit(5, 1), 1), "one at a time, slowly");
        assert!(!is_usable(limit(6, 1), 1));
    }
}
