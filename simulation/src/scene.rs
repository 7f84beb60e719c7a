//! What a seed draws besides the weather: how many nodes, how fast their network and disks are, whose limits are what,
//! and who asks for what.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use config::units::Rate;

use crate::chance::Chance;
use crate::clock::MS_NS;
use crate::edition::{self, Edition};
use crate::event::Token;
use crate::host::HostNumber;
use crate::moment;
use crate::weather;

/// Nodes are hosts 1 to 7.
pub const NODES_MAX: u8 = 7;
/// Upstreams live on this host and those after it, in the order of their names.
pub const FIRST_UPSTREAM: HostNumber = 21;
/// Applies documents and looks at nodes.
pub const OPERATOR: HostNumber = 30;
/// There are hosts for so many upstreams.
pub const UPSTREAMS_MAX: usize = (OPERATOR - FIRST_UPSTREAM) as usize;
/// Where callers' process runs.
pub const CROWD: HostNumber = 40;
/// The address of the first caller; each has its own.
pub const FIRST_CALLER: HostNumber = 41;
/// Leaves hosts for the callers that troubles bring.
pub const CALLERS_MAX: usize = 150;

/// Everything about a run but its weather.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// How many nodes found the cluster.
    pub nodes: u8,
    /// The shortest and longest way between two hosts.
    pub delay_ms: (u64, u64),
    /// The shortest and longest sync of a disk.
    pub sync_ms: (u64, u64),
    /// Log entries after which a node makes a snapshot.
    pub snapshot_after: u64,
    /// The gateway document's editions, at least one: the first is in force when callers begin.
    pub gateway: Vec<Edition>,
    /// Who asks.
    pub callers: Vec<Caller>,
}

/// How a caller goes from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// As plans have it: `to node-2`, `in turn`, `hops every 100ms` or `skewed`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(node) => write!(f, "to node-{node}"),
            Self::Turns => f.write_str("in turn"),
            Self::HopsEachMs(each_ms) => write!(f, "hops every {}", moment::show(*each_ms)),
            Self::Skewed => f.write_str("skewed"),
        }
    }
}

impl FromStr for Spread {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hops =
            |text: &str| moment::parse(text.strip_prefix("hops every ")?).ok().filter(|each_ms| *each_ms > 0);
        let node = |text: &str| weather::node(text.strip_prefix("to ")?);
        match text {
            "in turn" => Ok(Self::Turns),
            "skewed" => Ok(Self::Skewed),
            _ => node(text)
                .map(Self::One)
                .or_else(|| hops(text).map(Self::HopsEachMs))
                .ok_or("`in turn`, `skewed` (nine of ten to the first), `to node-2` or `hops every 100ms`"),
        }
    }
}

/// One caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the route that it asks for.
    pub route: String,
    /// As its token names it.
    pub tenant: String,
    /// As its token names it; none: as its tenant.
    pub client: Option<String>,
    /// Of its requests, on average.
    pub rate: Rate,
    /// It sends so many together, and is silent in between: buckets fill up, and are emptied everywhere at once.
    pub at_once: u64,
    /// From node to node.
    pub spread: Spread,
    /// In capitals.
    pub method: String,
    /// What it shows.
    pub token: Token,
    /// What it speaks.
    pub protocol: Protocol,
}

/// What a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, a request at a time on each connection.
    Http1,
    /// HTTP/2, all requests to a node on one.
    Http2,
}

impl Protocol {
    /// As plans have them.
    pub const WORDS: [(&str, Self); 2] = [("http1", Self::Http1), ("http2", Self::Http2)];

    /// As a plan has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

impl Caller {
    /// The name of the tenant of a caller that names none.
    pub fn tenant(number: usize) -> String {
        format!("tenant-{number}")
    }

    /// Its client's name.
    pub fn client(&self) -> &str {
        self.client.as_deref().unwrap_or(&self.tenant)
    }
}

/// A request each so many milliseconds, > 0; as so many a second where that is the same.
pub fn every(ms: u64) -> Rate {
    match 1_000 / ms {
        tokens if 1_000 % ms == 0 => Rate { tokens, per_ns: 1_000 * MS_NS },
        _ => Rate { tokens: 1, per_ns: ms * MS_NS },
    }
}

/// Editions of a drawn document.
const EDITIONS: usize = 6;
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
        let (mut limits, mut callers): (Vec<Vec<String>>, Vec<Caller>) =
            (0..CALLERS).map(|_| caller(nodes, &mut chance)).unzip();
        // One is always well under its limit: it may never be refused in calm weather.
        limits[0] = vec!["{rate: 100/s, burst: 500}".to_owned()];
        callers[0] = Caller {
            route: "orders".to_owned(),
            tenant: String::new(),
            client: None,
            rate: every(100),
            at_once: 1,
            spread: Spread::Turns,
            method: "GET".to_owned(),
            token: Token::Good,
            protocol: Protocol::Http1,
        };
        for (number, caller) in callers.iter_mut().enumerate() {
            caller.tenant = Caller::tenant(number);
        }
        let (rate, burst) = (*chance.pick(&[5, 10]), *chance.pick(&[10, 20]));
        [callers[1], callers[2]] = stroller_and_sprinter(burst);
        let lobby = format!("{{rate: {rate}/s, burst: {burst}}}");
        let gateway = (0..EDITIONS).map(|edition| document(edition, &limits, &lobby)).collect();
        Self { nodes, delay_ms, sync_ms, snapshot_after, gateway, callers }
    }

    /// The names of all upstreams, in the order of their hosts.
    pub fn upstreams(&self) -> Vec<String> {
        edition::upstreams(&self.gateway)
    }
}

/// An edition, counted from 0, in which the tenant of caller i has its limit of `limits[i]`: one for each edition, the
/// last of which stays.
fn document(edition: usize, limits: &[Vec<String>], lobby: &str) -> Edition {
    let mut tenants = String::new();
    for (number, limits) in limits.iter().enumerate() {
        let limit = limits.get(edition).or(limits.last()).expect("a caller has a limit");
        let name = Caller::tenant(number);
        writeln!(tenants, "  {name}: {{limits: {{per-tenant: {limit}}}}}").expect("into a String");
    }
    let timeouts = "response_timeout: 2s, body_idle_timeout: 2s, connect_timeout: 1s";
    let text = format!(
        "upstreams:
  first: {{endpoints: [\"http://first.example\"], {timeouts}}}
  second: {{endpoints: [\"http://second.example\"], protocol: http2, {timeouts}}}
issuers:
  dev: {{issuer: quorumgate-dev, audiences: [quorumgate], keys: [{{kid: dev, algorithm: HS256, secret: {{file: dev.secret}}}}]}}
quotas:
  per-tenant: {{key: tenant, limit: {{rate: 50/s, burst: 50}}}}
  per-client: {{key: client, limit: {{rate: 60/s, burst: 120}}}}
  per-address: {{key: address, limit: {{rate: 20/s, burst: 40}}}}
  lobby: {{key: route, limit: {lobby}}}
tenants:
{tenants}routes:
  - {{name: orders, match: {{path: /orders}}, upstream: first, access: {{issuers: [dev], scopes: []}}, quotas: [per-tenant, per-client]}}
  - {{name: reports, match: {{path: /reports}}, upstream: second, access: {{issuers: [dev], scopes: []}}, quotas: [per-tenant]}}
  - {{name: open, match: {{path: /open}}, upstream: first, access: public, quotas: [per-address]}}
  - {{name: lobby, match: {{path: /lobby}}, upstream: second, access: public, quotas: [lobby]}}
"
    );
    Edition::parse("drawn document", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// A caller without a tenant, and the limits of its tenant.
fn caller(nodes: u8, chance: &mut Chance) -> (Vec<String>, Caller) {
    let limits = (0..EDITIONS).map(|_| limit(chance)).collect();
    let node = u8::try_from(chance.within(1..=u64::from(nodes))).expect("a node's number");
    let spread = match chance.within(0..=4) {
        0 => Spread::One(node),
        1 => Spread::HopsEachMs(100),
        2 => Spread::Skewed,
        _ => Spread::Turns,
    };
    let caller = Caller {
        tenant: String::new(),
        client: None,
        rate: every(*chance.pick(&[40, 80, 160, 320])),
        at_once: *chance.pick(&[1, 1, 1, 6, 20, 40]),
        spread,
        route: (*chance.pick(&["orders", "orders", "reports", "reports", "open"])).to_owned(),
        method: if chance.one_in(3) { "POST" } else { "GET" }.to_owned(),
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
        protocol: *chance.pick(&[Protocol::Http1, Protocol::Http2]),
    };
    (limits, caller)
}

/// Two callers of one bucket: because of the one there are always tokens at every node, and the other empties the bucket
/// through all nodes at once, and lets it fill up in between. Whatever is spent besides, before it has filled up again, is
/// too much: so it fills up slowly. They ask in public, for a node that cannot trust its view of the configuration any
/// more turns everybody else away, sooner than leases end.
fn stroller_and_sprinter(burst: u64) -> [Caller; 2] {
    let stroller = Caller {
        route: "lobby".to_owned(),
        tenant: Caller::tenant(1),
        client: None,
        rate: every(250),
        at_once: 1,
        spread: Spread::Turns,
        method: "GET".to_owned(),
        token: Token::None,
        protocol: Protocol::Http1,
    };
    let at_once = 2 * burst;
    let sprinter =
        Caller { rate: every(3_000 / at_once), at_once, protocol: Protocol::Http2, ..stroller.clone() };
    [stroller, sprinter]
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
    fn every_drawn_scene_has_sound_documents_and_requests_for_them() {
        for seed in 0..200 {
            let scene = Scene::draw(seed, None);
            assert_eq!((scene.gateway.len(), scene.upstreams().len()), (EDITIONS, 2));
            for caller in &scene.callers {
                let target = scene.gateway[0].target(&caller.route, Some(&caller.method));
                assert!(target.is_some_and(|target| target.is_ok()), "{caller:?}");
            }
        }
    }

    #[test]
    fn a_spread_reads_as_it_is_written() {
        for spread in [Spread::One(3), Spread::Turns, Spread::HopsEachMs(1_500), Spread::Skewed] {
            assert_eq!(spread.to_string().parse(), Ok(spread));
        }
        for text in ["", "to node-0", "to leader", "hops every 0s", "turns"] {
            assert!(text.parse::<Spread>().is_err(), "{text}");
        }
    }
}
