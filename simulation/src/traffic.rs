//! Callers for a gateway document of somebody who did not say who calls: for each route one that stays under its limits
//! and one that asks for twice as much.

use config::route::Access;
use config::units::Rate;

use crate::chance::Chance;
use crate::clock::MS_NS;
use crate::edition::Edition;
use crate::event::Token;
use crate::scene::{Caller, Protocol, Spread};

/// More would make a run slow.
const CALLERS_MAX: usize = 12;
const TENANTS_MAX: usize = 8;
const PER_S_MAX: u64 = 200;
/// Where nothing limits a route.
const PER_S_FREE: u64 = 20;
const SECOND_NS: u64 = 1_000 * MS_NS;

/// The callers of a seed.
pub fn draw(seed: u64, nodes: u8, edition: &Edition) -> Vec<Caller> {
    let mut chance = Chance::new(seed, "traffic");
    let named = edition.document.tenants.iter().map(|tenant| tenant.id.to_string());
    let mut tenants: Vec<String> = named.collect();
    chance.shuffle(&mut tenants);
    tenants.truncate(TENANTS_MAX);
    // Those whom the document does not name have limits too. An odd number, so that no tenant is always the greedy one.
    tenants.extend((1..=3 + tenants.len() % 2).map(|number| format!("guest-{number}")));
    let mut routes: Vec<_> = edition.document.routes.iter().collect();
    chance.shuffle(&mut routes);
    let mut callers = Vec::new();
    for route in routes.into_iter().take(CALLERS_MAX / 2) {
        for greedy in [false, true] {
            let Some(Ok(target)) = edition.target(route.name.as_str(), None) else { continue };
            let tenant = tenants[callers.len() % tenants.len()].clone();
            let limits = route.charges.iter().filter_map(|charge| {
                let limit = edition.limit(charge.quota.as_str(), &tenant)?;
                Some((
                    u128::from(limit.tokens) * u128::from(SECOND_NS),
                    u128::from(limit.per_ns) * u128::from(charge.cost),
                ))
            });
            // Requests in 1000 s: there are limits below one a second.
            let allowed = limits.map(|(tokens, per)| tokens * 1_000 / per).min();
            let allowed = allowed.unwrap_or(u128::from(PER_S_FREE) * 1_000);
            let wanted = if greedy { allowed * 2 } else { allowed / 8 };
            let per_1000_s = u64::try_from(wanted).unwrap_or(u64::MAX).clamp(100, PER_S_MAX * 1_000);
            let node = u8::try_from(chance.within(1..=u64::from(nodes))).expect("a node's number");
            callers.push(Caller {
                route: target.route,
                tenant,
                client: None,
                rate: Rate { tokens: 1, per_ns: (1_000_000 / per_1000_s).max(1) * MS_NS },
                at_once: if greedy { *chance.pick(&[1, 1, 6]) } else { 1 },
                spread: *chance.pick(&[Spread::Turns, Spread::Turns, Spread::Skewed, Spread::One(node)]),
                method: target.method,
                token: Token::Good,
                protocol: *chance.pick(&[Protocol::Http1, Protocol::Http2]),
            });
        }
    }
    // Strangers at a door that asks for a token.
    let closed = edition.document.routes.iter().find(|route| route.access != Access::Public);
    if let Some(Some(Ok(target))) = closed.map(|route| edition.target(route.name.as_str(), None)) {
        callers.push(Caller {
            route: target.route,
            tenant: "stranger".to_owned(),
            client: None,
            rate: Rate { tokens: 5, per_ns: SECOND_NS },
            at_once: 1,
            spread: Spread::Turns,
            method: target.method,
            token: *chance.pick(&[Token::Forged, Token::Expired, Token::None]),
            protocol: Protocol::Http1,
        });
    }
    callers
}
