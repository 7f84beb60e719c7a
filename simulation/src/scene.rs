//! What a seed draws besides the weather: how many nodes, how fast their network and disks are, whose limits are what,
//! and who asks for what.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::event::Token;
use crate::host::HostNumber;

/// Nodes are hosts 1 to 7.
pub const NODES_MAX: u8 = 7;
/// Upstreams, the first and the second.
pub const UPSTREAMS: [HostNumber; 2] = [21, 22];
/// Applies documents and looks at nodes.
pub const OPERATOR: HostNumber = 30;
/// Where callers' process runs.
pub const CROWD: HostNumber = 40;
/// The address of the first caller; each has its own.
pub const FIRST_CALLER: HostNumber = 41;

/// Everything about a run but its weather.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// How many nodes found the cluster.
    pub nodes: u8,
    /// The shortest and longest way between two hosts.
    pub delay_ms: (u64, u64),
    /// The shortest and longest sync of a disk.
    pub sync_ms: (u64, u64),
    /// Log entries after which a node makes a snapshot.
    pub snapshot_after: u64,
    /// Who asks.
    pub callers: Vec<Caller>,
}

/// How a caller goes from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// Always to one.
    One(u8),
    /// In turn.
    Turns,
    /// Stays with one for so long.
    HopsEachMs(u64),
    /// Nine of ten to the first.
    Skewed,
}

/// Which of the document's routes a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// By tenant and by client, to the first upstream.
    Orders,
    /// By tenant alone, to the second upstream.
    Reports,
    /// Public, by address, to the first upstream.
    Open,
}

impl Path {
    /// The route's name.
    pub fn route(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Reports => "reports",
            Self::Open => "open",
        }
    }
}

/// One caller: a tenant of its own, with a limit of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Its tenant's limits, one for each edition of the document; the last stays. As the document has them.
    pub limits: Vec<String>,
    /// Between two of its requests, on average.
    pub every_ms: u64,
    /// It sends so many together, and is silent in between: buckets fill up, and are emptied everywhere at once.
    #[serde(default = "one")]
    pub at_once: u64,
    /// From node to node.
    pub spread: Spread,
    /// What it asks for.
    pub path: Path,
    /// POST with a body, instead of GET.
    pub post: bool,
    /// What it shows.
    pub token: Token,
}

fn one() -> u64 {
    1
}

impl Caller {
    /// The name of its tenant.
    pub fn tenant(number: usize) -> String {
        format!("tenant-{number}")
    }
}

/// Editions of the document that a scene has limits for.
pub const EDITIONS: usize = 6;
const CALLERS: u64 = 6;

impl Scene {
    /// The scene of a seed; `nodes`: as many, or drawn.
    pub fn draw(seed: u64, nodes: Option<u8>) -> Self {
        let mut chance = Chance::new(seed, "scene");
        let drawn = *chance.pick(&[3, 3, 3, 3, 4, 5, 1, 2]);
        let nodes = nodes.unwrap_or(drawn);
        let delay_ms = *chance.pick(&[(1, 1), (1, 2), (1, 4), (2, 12)]);
        let sync_ms = *chance.pick(&[(0, 1), (1, 4), (2, 9), (4, 40)]);
        let snapshot_after = *chance.pick(&[30, 100, 300, 20_000]);
        let mut callers: Vec<Caller> = (0..CALLERS).map(|_| caller(nodes, &mut chance)).collect();
        // One is always well under its limit: it may never be refused in calm weather.
        callers[0] = Caller {
            limits: vec!["{rate: 100/s, burst: 500}".to_owned()],
            every_ms: 100,
            at_once: 1,
            spread: Spread::Turns,
            path: Path::Orders,
            post: false,
            token: Token::Good,
        };
        Self { nodes, delay_ms, sync_ms, snapshot_after, callers }
    }

    /// The gateway document's edition `edition`, counted from 0.
    pub fn document(&self, edition: usize) -> String {
        let mut tenants = String::new();
        for (number, caller) in self.callers.iter().enumerate() {
            let limit = caller.limits.get(edition).or(caller.limits.last()).expect("a caller has a limit");
            let name = Caller::tenant(number);
            writeln!(tenants, "  {name}: {{limits: {{per-tenant: {limit}}}}}").expect("into a String");
        }
        let [first, second] = UPSTREAMS;
        format!(
            "upstreams:
  first: {{endpoints: [\"http://127.0.0.{first}:8000\"], response_timeout: 2s, body_idle_timeout: 2s, connect_timeout: 1s}}
  second: {{endpoints: [\"http://127.0.0.{second}:8000\"], response_timeout: 2s, body_idle_timeout: 2s, connect_timeout: 1s}}
issuers:
  dev: {{issuer: quorumgate-dev, audiences: [quorumgate], keys: [{{kid: dev, algorithm: HS256, secret: {{file: dev.secret}}}}]}}
quotas:
  per-tenant: {{key: tenant, limit: {PROBE_LIMIT}}}
  per-client: {{key: client, limit: {PER_CLIENT}}}
  per-address: {{key: address, limit: {PER_ADDRESS}}}
tenants:
{tenants}routes:
  - {{name: orders, match: {{path: /orders}}, upstream: first, access: {{issuers: [dev], scopes: []}}, quotas: [per-tenant, per-client]}}
  - {{name: reports, match: {{path: /reports}}, upstream: second, access: {{issuers: [dev], scopes: []}}, quotas: [per-tenant]}}
  - {{name: open, match: {{path: /open}}, upstream: first, access: public, quotas: [per-address]}}
"
        )
    }

    /// The limit that a quota has for a tenant in an edition, as the document has it.
    pub fn limit(&self, edition: usize, quota: &str, tenant: &str) -> String {
        match quota {
            "per-client" => PER_CLIENT.to_owned(),
            "per-address" => PER_ADDRESS.to_owned(),
            _ => {
                let known = (0..self.callers.len()).find(|number| Caller::tenant(*number) == tenant);
                let limits = known.map(|number| &self.callers[number].limits);
                let limit = limits.map(|limits| limits.get(edition).or(limits.last()).expect("it has one"));
                limit.map_or_else(|| PROBE_LIMIT.to_owned(), Clone::clone)
            }
        }
    }
}

/// Of tenants that the document does not name.
pub const PROBE_LIMIT: &str = "{rate: 50/s, burst: 50}";
const PER_CLIENT: &str = "{rate: 60/s, burst: 120}";
const PER_ADDRESS: &str = "{rate: 20/s, burst: 40}";

fn caller(nodes: u8, chance: &mut Chance) -> Caller {
    let limits = (0..EDITIONS).map(|_| limit(chance)).collect();
    let node = u8::try_from(chance.within(1..=u64::from(nodes))).expect("a node's number");
    let spread = match chance.within(0..=4) {
        0 => Spread::One(node),
        1 => Spread::HopsEachMs(100),
        2 => Spread::Skewed,
        _ => Spread::Turns,
    };
    Caller {
        limits,
        every_ms: *chance.pick(&[25, 40, 80, 160, 320]),
        at_once: *chance.pick(&[1, 1, 1, 6, 20, 40]),
        spread,
        path: *chance.pick(&[Path::Orders, Path::Orders, Path::Reports, Path::Reports, Path::Open]),
        post: chance.one_in(3),
        token: *chance.pick(&[
            Token::Good,
            Token::Good,
            Token::Good,
            Token::Good,
            Token::Good,
            Token::None,
            Token::Forged,
            Token::Expired,
        ]),
    }
}

/// Small ones mostly: they are spent, called back, and fought for.
fn limit(chance: &mut Chance) -> String {
    let burst = *chance.pick(&[1, 2, 3, 5, 10, 20, 50, 100]);
    match chance.within(0..=5) {
        0 => format!("{{rate: {}/min, burst: {burst}}}", chance.within(5..=60)),
        1 => format!("{{at_most: {} in any 10s}}", chance.within(4..=60)),
        _ => format!("{{rate: {}/s, burst: {burst}}}", *chance.pick(&[1, 3, 10, 30, 60])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawn_document_is_one() {
        for seed in 0..200 {
            let scene = Scene::draw(seed, None);
            for edition in 0..EDITIONS {
                let text = scene.document(edition);
                if let Err(mistakes) = config::gateway::parse(&text) {
                    panic!("{}", config::mistake::render("document", &text, &mistakes));
                }
            }
        }
    }
}
