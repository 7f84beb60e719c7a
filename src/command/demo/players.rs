//! Who sends what in a drive: tenants over, at and under their limits; evenly and unevenly over the nodes.

use config::quota::Limit;

const SECOND_NS: u64 = 1_000_000_000;

/// How a tenant's requests are spread over the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// One after the other.
    Even,
    /// 90 % to the first node, the rest evenly to the others.
    Skewed,
    /// All to one node, which changes every 100 ms.
    Hopping,
}

impl Spread {
    /// The node for request number `number`, sent `at_ms` after the start.
    pub fn pick(self, number: u64, at_ms: u64, nodes: usize) -> usize {
        let nodes = nodes as u64;
        let picked = match self {
            Self::Even => number % nodes,
            Self::Skewed if number % 10 != 9 || nodes == 1 => 0,
            Self::Skewed => 1 + (number / 10) % (nodes - 1),
            Self::Hopping => (at_ms / 100) % nodes,
        };
        usize::try_from(picked).unwrap_or(0)
    }

    /// A word for the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Skewed => "90/5/5",
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

/// The tenants of every drive.
pub const PLAYERS: [Player; 6] = [
    Player {
        tenant: "surge",
        limit: per_second(100, 100),
        amount: "100/s",
        offered_per_s: 300,
        spread: Spread::Even,
    },
    Player {
        tenant: "lopsided",
        limit: per_second(100, 100),
        amount: "100/s",
        offered_per_s: 200,
        spread: Spread::Skewed,
    },
    Player {
        tenant: "hopper",
        limit: per_second(60, 60),
        amount: "60/s",
        offered_per_s: 90,
        spread: Spread::Hopping,
    },
    Player {
        tenant: "edge",
        limit: per_second(50, 250),
        amount: "{rate: 50/s, burst: 250}",
        offered_per_s: 50,
        spread: Spread::Even,
    },
    Player {
        tenant: "calm",
        limit: per_second(100, 300),
        amount: "{rate: 100/s, burst: 300}",
        offered_per_s: 30,
        spread: Spread::Even,
    },
    Player {
        tenant: "trickle",
        limit: Limit { tokens: 5, per_ns: 60 * SECOND_NS, burst: 5 },
        amount: "5/min",
        offered_per_s: 2,
        spread: Spread::Even,
    },
];

/// The quota that the drive judges.
pub const QUOTA: &str = "per-tenant";

/// The amount of the demo's second quota, by client; every request pays both.
pub const PER_CLIENT: Limit = per_second(500, 500);

/// The gateway document of the demo; `@UPSTREAM@` stands for the upstream's address.
pub fn gateway_document() -> String {
    let tenants: String = PLAYERS
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
  {QUOTA}: {{key: tenant, limit: 10/s, wait: 2s}}
  per-client: {{key: client, limit: 500/s}}
  per-address: {{key: address, limit: 1000/s}}
tenants:
{tenants}routes:
  - {{name: orders, match: {{path: /orders}}, upstream: echo, access: {{issuers: [dev], scopes: [\"orders:read\"]}}, quotas: [{QUOTA}, per-client]}}
  - {{name: open, match: {{path: /open}}, upstream: echo, access: public, quotas: [per-address]}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_tenant_sends_nine_of_ten_to_the_first_node() {
        let picks: Vec<usize> = (0..100).map(|number| Spread::Skewed.pick(number, 0, 3)).collect();
        let count = |node| picks.iter().filter(|picked| **picked == node).count();
        assert_eq!([count(0), count(1), count(2)], [90, 5, 5]);
    }

    #[test]
    fn every_spread_works_on_a_single_node() {
        for spread in [Spread::Even, Spread::Skewed, Spread::Hopping] {
            assert!((0..50).all(|number| spread.pick(number, number * 37, 1) == 0));
        }
    }

    #[test]
    fn only_the_calm_tenant_is_promised_that_nothing_fails() {
        let under: Vec<&str> =
            PLAYERS.iter().filter(|player| player.is_under()).map(|player| player.tenant).collect();
        assert_eq!(under, ["calm"]);
    }
}
