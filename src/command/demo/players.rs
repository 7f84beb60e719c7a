//! Who sends what in a drive: tenants over, at and under their limits; evenly and unevenly over the nodes.

use std::time::Duration;

use config::quota::Limit;

const SECOND_NS: u64 = 1_000_000_000;

/// How a tenant's requests are spread over the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// One after the other.
    Even,
    /// 90 % to the first node, 5 % each to the two after it.
    Skewed,
    /// All to one node, which changes every [`HOP_MS`].
    Hopping,
    /// Evenly until [`SWINGS_AT`], then [`Spread::Skewed`].
    Swinging,
}

/// In no step with tokens that come three times a second: neither three hops nor five are near a multiple of 333 ms. If they
/// were, a node that is a little late for one token would be late for all of the next ten seconds, and a perfect bucket as well
/// would give it none.
const HOP_MS: u64 = 170;

/// When a [`Spread::Swinging`] tenant goes to one node.
pub const SWINGS_AT: Duration = Duration::from_secs(4);

impl Spread {
    /// The node for request number `number`, sent `at_ms` after the start.
    pub fn pick(self, number: u64, at_ms: u64, nodes: usize) -> usize {
        let nodes = nodes as u64;
        let picked = match self {
            Self::Even => number % nodes,
            Self::Skewed if number % 10 != 9 || nodes == 1 => 0,
            Self::Skewed => 1 + (number / 10) % (nodes - 1).min(2),
            Self::Hopping => (at_ms / HOP_MS) % nodes,
            Self::Swinging if u128::from(at_ms) < SWINGS_AT.as_millis() => {
                return Self::Even.pick(number, at_ms, nodes as usize);
            }
            Self::Swinging => return Self::Skewed.pick(number, at_ms, nodes as usize),
        };
        usize::try_from(picked).unwrap_or(0)
    }

    /// A word for the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Skewed | Self::Swinging => "90/5/5",
            Self::Hopping => "hopping",
        }
    }
}

/// One tenant of a drive.
#[derive(Clone, Copy, Debug)]
pub struct Player {
    /// Its id.
    pub tenant: &'static str,
    /// Its amount of the quota `per-tenant`.
    pub limit: Limit,
    /// The same as the gateway document says it.
    pub amount: &'static str,
    /// Requests it sends, per second.
    pub offered_per_s: u64,
    /// Over which nodes.
    pub spread: Spread,
    /// What it asks for.
    pub path: &'static str,
}

impl Player {
    /// Whether it sends clearly more than it may.
    pub fn is_over(&self) -> bool {
        self.offered_per_s * self.limit.per_ns * 2 > self.limit.tokens * SECOND_NS * 3
    }

    /// Whether it sends clearly less than it may: then not one of its requests may fail on a surviving node.
    pub fn is_under(&self) -> bool {
        self.offered_per_s * self.limit.per_ns * 10 < self.limit.tokens * SECOND_NS * 9
    }
}

const fn per_second(tokens: u64, burst: u64) -> Limit {
    Limit { tokens, per_ns: SECOND_NS, burst }
}

const fn player(
    tenant: &'static str,
    limit: Limit,
    amount: &'static str,
    offered_per_s: u64,
    spread: Spread,
) -> Player {
    Player { tenant, limit, amount, offered_per_s, spread, path: "/orders/1" }
}

/// A drive: who plays, and what must be shown.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// The tenants.
    pub players: &'static [Player],
    /// What their quota says about waiting, as the gateway document says it.
    pub wait: &'static str,
    /// Thousandths of what a perfect bucket admits that each must be admitted.
    pub floor_per_mille: u64,
    /// They are counted from here on.
    pub counted_from: Duration,
    /// Every node admits something of each tenant in each span so long.
    pub each_node_within: Option<Duration>,
}

/// Tenants over, at and under their limits.
pub const MIXED: Scene = Scene {
    players: &[
        player("surge", per_second(100, 100), "100/s", 300, Spread::Even),
        player("lopsided", per_second(100, 100), "100/s", 200, Spread::Skewed),
        player("hopper", per_second(60, 60), "60/s", 90, Spread::Hopping),
        player("edge", per_second(50, 250), "{rate: 50/s, burst: 250}", 50, Spread::Even),
        player("calm", per_second(100, 300), "{rate: 100/s, burst: 300}", 30, Spread::Even),
        player("trickle", Limit { tokens: 5, per_ns: 60 * SECOND_NS, burst: 5 }, "5/min", 2, Spread::Even),
    ],
    wait: ", wait: 2s",
    floor_per_mille: 990,
    counted_from: Duration::ZERO,
    each_node_within: None,
};

/// Fewer tokens a second than there are nodes. They are asked for 29 times a second: 30 times would be in step with the
/// tokens, and even a perfect bucket would then give them all to the same nodes.
pub const TINY: Scene = Scene {
    players: &[
        player("in-turn", per_second(3, 3), "3/s", 29, Spread::Even),
        player("hopper", per_second(3, 3), "3/s", 29, Spread::Hopping),
    ],
    wait: "",
    floor_per_mille: 990,
    counted_from: Duration::ZERO,
    each_node_within: Some(Duration::from_secs(10)),
};

/// Tenants that were everywhere, and of which nine in ten requests then come to one node.
pub const SKEW: Scene = Scene {
    players: &[
        player("few", per_second(3, 3), "3/s", 30, Spread::Swinging),
        player("many", per_second(100, 100), "100/s", 200, Spread::Swinging),
        player("within", per_second(100, 100), "100/s", 90, Spread::Swinging),
    ],
    wait: "",
    floor_per_mille: 980,
    counted_from: SWINGS_AT.saturating_add(Duration::from_secs(2)),
    each_node_within: None,
};

/// Tenants that keep to their limits while another does not.
pub const CALM: [Player; 3] = [
    player("calm", per_second(100, 300), "{rate: 100/s, burst: 300}", 30, Spread::Even),
    player("modest", per_second(50, 50), "50/s", 25, Spread::Even),
    player("wanderer", per_second(30, 30), "30/s", 10, Spread::Hopping),
];

/// The tenant that does not, while it still does.
pub const GREEDY: Player = player("greedy", per_second(1, 1), "1/s", 1, Spread::Even);
/// And then it sends so many times as much.
pub const TIMES_OVER: u64 = 1_000;

/// As many requests as [`GREEDY`] sends then, to a route whose scope nobody has.
pub const KNOCKING: Player = Player {
    path: "/locked/1",
    ..player("knocker", per_second(1, 1), "1/s", GREEDY.offered_per_s * TIMES_OVER, Spread::Even)
};

/// The quota that the drive judges.
pub const QUOTA: &str = "per-tenant";

/// The amount of the demo's second quota, by client; every request pays both.
pub const PER_CLIENT: Limit = per_second(500, 500);

/// The gateway document of the demo; `@UPSTREAM@` stands for the upstream's address.
pub fn gateway_document(players: &[Player], wait: &str) -> String {
    let tenants: String = players
        .iter()
        .map(|player| format!("  {}: {{limits: {{{QUOTA}: {}}}}}\n", player.tenant, player.amount))
        .collect();
    format!(
        "upstreams:
  echo: {{endpoints: [\"http://@UPSTREAM@\"], response_timeout: 2s}}
issuers:
  dev:
    issuer: quorumgate-dev
    audiences: [quorumgate]
    keys: [{{kid: dev, algorithm: HS256, secret: {{file: dev.secret}}}}]
quotas:
  {QUOTA}: {{key: tenant, limit: 10/s{wait}}}
  per-client: {{key: client, limit: 500/s}}
  per-address: {{key: address, limit: 1000/s}}
tenants:
{tenants}routes:
  - {{name: orders, match: {{path: /orders}}, upstream: echo, access: {{issuers: [dev], scopes: [\"orders:read\"]}}, quotas: [{QUOTA}, per-client]}}
  - {{name: locked, match: {{path: /locked}}, upstream: echo, access: {{issuers: [dev], scopes: [\"nobody:has\"]}}, quotas: [{QUOTA}, per-client]}}
  - {{name: open, match: {{path: /open}}, upstream: echo, access: public, quotas: [per-address]}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_tenant_sends_nine_of_ten_to_the_first_node() {
        for nodes in [3, 5] {
            let picks: Vec<usize> = (0..100).map(|number| Spread::Skewed.pick(number, 0, nodes)).collect();
            let count = |node| picks.iter().filter(|picked| **picked == node).count();
            assert_eq!([count(0), count(1), count(2)], [90, 5, 5]);
        }
    }

    #[test]
    fn every_spread_works_on_a_single_node() {
        for spread in [Spread::Even, Spread::Skewed, Spread::Hopping, Spread::Swinging] {
            assert!((0..50).all(|number| spread.pick(number, number * 137, 1) == 0));
        }
    }

    #[test]
    fn only_the_calm_tenant_is_promised_that_nothing_fails() {
        let under: Vec<&str> =
            MIXED.players.iter().filter(|player| player.is_under()).map(|player| player.tenant).collect();
        assert_eq!(under, ["calm"]);
    }
}
