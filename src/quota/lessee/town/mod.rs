//! Real lessees, a real lender and the real replicated state, in one thread on virtual time: what a town of gateways makes of
//! a limit that is small against the number of them.
//!
//! The cluster's own closed loop tests the lender in any weather, with a small model of a gateway. This one has one leader
//! at a time and no lost messages, and asks what clients get.

#[path = "../../../../cluster/tests/closed_loop/oracle.rs"]
mod oracle;
mod stage;

use cluster::leader::times::FAILOVER_MAX;
use config::quota::Limit;
use oracle::PerfectBucket;
use stage::{Dice, End, MS, Request, Road, SECOND, Stage};

const fn per_second(tokens: u64, burst: u64) -> Limit {
    Limit { tokens, per_ns: SECOND, burst }
}

const FIVE_A_MINUTE: Limit = Limit { tokens: 5, per_ns: 60 * SECOND, burst: 5 };

/// Which node the next request comes to.
#[derive(Clone, Copy, Debug)]
enum Spread {
    /// One after the other.
    RoundRobin,
    /// All to one, another one after each span of so many ms.
    Hopping(u64),
    /// 90 % to the first, 5 % to the second, 5 % to the third.
    Skewed,
    /// Anywhere.
    Even,
}

impl Spread {
    fn node(self, n: u64, at: u64, nodes: u64, dice: &mut Dice) -> u64 {
        match self {
            Self::RoundRobin => n % nodes,
            Self::Hopping(ms) => at / (ms * MS) % nodes,
            Self::Skewed => match dice.within(0, 99) {
                0..90 => 0,
                90..95 => 1,
                _ => 2 % nodes,
            },
            Self::Even => dice.within(0, nodes - 1),
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Play {
    limit: Limit,
    nodes: u64,
    spread: Spread,
    /// Requests per 1000 s. They come at regular times, give or take a quarter of the gap.
    per_ks: u64,
    seconds: u64,
    road: Road,
    seed: u64,
}

impl Play {
    fn run(self) -> Seen {
        let mut stage = Stage::new(self.seed, self.road, self.limit, self.nodes);
        self.offer(&mut stage);
        stage.run_to(self.seconds * SECOND + SECOND);
        self.judge(&stage)
    }

    fn offer(self, stage: &mut Stage) {
        let mut dice = Dice(self.seed);
        let gap = 1_000 * SECOND / self.per_ks;
        let mut due = SECOND / 2;
        for n in 0.. {
            let at = due + dice.within(0, gap / 2);
            if at >= self.seconds * SECOND {
                break;
            }
            let node = self.spread.node(n, at, self.nodes, &mut dice);
            stage.request(at, usize::try_from(node).expect("small"));
            due += gap;
        }
    }

    /// The promise is asserted of every run.
    fn judge(self, stage: &Stage) -> Seen {
        let mut promise = PerfectBucket::full(self.limit, 1_001);
        for (at, _) in &stage.admissions {
            assert_eq!(promise.excess(*at, 1), 0, "{self:?}: over-admission at {at} ns");
        }
        let mut perfect = PerfectBucket::full(self.limit, 1_000);
        let mut seen = Seen { ends: stage.requests.clone(), nodes: self.nodes, ..Seen::default() };
        seen.perfect = stage
            .requests
            .iter()
            .filter(|request| perfect.admit(request.at, 1))
            .map(|request| (request.at, request.node))
            .collect();
        seen.needless = stage.requests.iter().filter(|request| request.is_needless()).count() as u64;
        let per_s = |count: u64| count * 1_000 / (self.seconds + 1);
        (seen.entries_per_ks, seen.messages_per_ks) = (per_s(stage.entries), per_s(stage.messages));
        seen
    }
}

#[derive(Debug, Default)]
struct Seen {
    ends: Vec<Request>,
    nodes: u64,
    /// When and where a perfect bucket would have admitted.
    perfect: Vec<(u64, usize)>,
    /// Refused though a token lay somewhere unspent.
    needless: u64,
    entries_per_ks: u64,
    messages_per_ks: u64,
}

impl Seen {
    fn count(&self, end: End) -> u64 {
        self.ends.iter().filter(|request| request.end == Some(end)).count() as u64
    }

    /// Admitted of what a perfect bucket admits, in thousandths, of requests later than `from`.
    fn permille(&self, from: u64) -> u64 {
        let admitted =
            self.ends.iter().filter(|r| r.at >= from && r.end == Some(End::Admitted)).count() as u64;
        let perfect = self.perfect.iter().filter(|(at, _)| *at >= from).count() as u64;
        admitted * 1_000 / perfect.max(1)
    }

    /// The fewest admissions of a node in any ten seconds counted from 0, 10, 20 s; and a perfect bucket's.
    fn poorest(&self) -> (u64, u64) {
        let poorest = |admitted: &[(u64, usize)], last: u64| {
            let mut counts = std::collections::BTreeMap::new();
            for window in 0..last {
                (0..self.nodes).for_each(|node| _ = counts.insert((window, node as usize), 0u64));
            }
            for (at, node) in admitted {
                counts.entry((at / (10 * SECOND), *node)).and_modify(|count| *count += 1);
            }
            counts.into_values().min().unwrap_or(0)
        };
        let last = self.ends.iter().map(|request| request.at).max().unwrap_or(0).div_ceil(SECOND) / 10;
        let admitted = self.ends.iter().filter(|r| r.end == Some(End::Admitted));
        let admitted: Vec<(u64, usize)> = admitted.map(|r| (r.at, r.node)).collect();
        (poorest(&admitted, last), poorest(&self.perfect, last))
    }

    /// How long requests with this end waited for it: the median, 99 of 100, and the longest, in ms.
    fn waited_ms(&self, end: End) -> [u64; 3] {
        let of_end = self.ends.iter().filter(|request| request.end == Some(end));
        let mut waits: Vec<u64> = of_end.map(|request| (request.ended - request.at) / MS).collect();
        waits.sort_unstable();
        let at = |permille: usize| waits.get((waits.len() * permille / 1_000).min(waits.len().max(1) - 1));
        [500, 990, 1_000].map(|permille| at(permille).copied().unwrap_or(0))
    }
}

#[test]
fn three_a_second_on_five_nodes_is_used_whole_and_no_node_starves() {
    for seed in 0..6 {
        for spread in [Spread::RoundRobin, Spread::Hopping(130)] {
            // given 3 a second with a burst of 3, and some ten times as much offered for a minute
            let road = Road::of(seed);
            let play =
                Play { limit: per_second(3, 3), nodes: 5, spread, per_ks: 29_000, seconds: 60, road, seed };
            let seen = play.run();
            // then 99 % of what a perfect bucket admits is admitted, and each node admits in any ten seconds
            assert!(seen.permille(0) >= 990, "{play:?}: {} permille", seen.permille(0));
            let (poorest, perfect) = seen.poorest();
            assert!(
                poorest >= 1 && perfect >= 1,
                "{play:?}: {poorest} of one node in ten seconds, {perfect}"
            );
            assert_eq!(seen.count(End::Undecided) + seen.count(End::Overloaded), 0, "{play:?}");
        }
    }
}

#[test]
fn three_a_second_with_one_busy_node_is_used_whole() {
    for seed in 0..6 {
        for per_ks in [2_500, 10_000, 100_000] {
            // given 3 a second with a burst of 3, and nine of ten requests at one node
            let road = Road::of(seed);
            let spread = Spread::Skewed;
            let play = Play { limit: per_second(3, 3), nodes: 5, spread, per_ks, seconds: 30, road, seed };
            let seen = play.run();
            // then 98 % of it is used once two seconds have passed
            assert!(seen.permille(2 * SECOND) >= 980, "{play:?}: {} permille", seen.permille(2 * SECOND));
        }
    }
}

#[test]
fn a_client_that_goes_from_node_to_node_gets_the_whole_burst() {
    for seed in 0..60 {
        for (limit, nodes) in
            [(FIVE_A_MINUTE, 5), (FIVE_A_MINUTE, 4), (per_second(1, 10), 5), (per_second(3, 3), 5)]
        {
            for pause in [0, 30 * MS, 300 * MS, 2_000 * MS] {
                // given a full bucket, on nodes near to or far from each other, which know how long the leader takes
                let road = Road::of(seed);
                let mut dice = Dice(seed);
                let mut stage = Stage::new(seed, road, limit, nodes);
                for n in 0..40 {
                    stage.request(SECOND + n * 50 * MS, usize::try_from(n % nodes).expect("small"));
                }
                stage.run_to(70 * SECOND + seed * MS);
                // when its burst is asked for, one request after another's answer, at one node or the other
                let ends: Vec<(usize, End)> = (0..limit.burst)
                    .map(|_| {
                        stage.run_to(stage.now + pause);
                        let node = usize::try_from(dice.within(0, nodes - 1)).expect("small");
                        (node, stage.get(node))
                    })
                    .collect();
                // then all of it is given
                let all = ends.iter().all(|(_, end)| *end == End::Admitted);
                let last = stage.requests.last();
                let apart = pause / MS;
                assert!(
                    all,
                    "seed {seed}, {limit:?}, {nodes} nodes, {road:?}, {apart} ms: {ends:?}, {last:?}"
                );
            }
        }
    }
}

#[test]
fn a_client_below_its_limit_is_never_refused_on_any_node() {
    for seed in 0..8 {
        for (limit, per_ks) in
            [(per_second(3, 3), 2_000), (per_second(10, 10), 7_000), (per_second(1, 5), 700)]
        {
            for spread in [Spread::RoundRobin, Spread::Hopping(100), Spread::Skewed] {
                // given requests at regular times, two thirds of the rate
                let road = Road::of(seed);
                let play = Play { limit, nodes: 5, spread, per_ks, seconds: 60, road, seed };
                let seen = play.run();
                // then each of them is admitted
                assert_eq!(seen.count(End::Admitted), seen.ends.len() as u64, "{play:?}");
            }
        }
    }
}

#[test]
fn a_thousand_times_the_limit_raises_neither_the_log_nor_the_messages() {
    for seed in 0..3 {
        for limit in [per_second(1, 1), per_second(3, 3), per_second(10, 10)] {
            let (road, spread, nodes, seconds) = (Road::of(seed), Spread::RoundRobin, 5, 20);
            let times = |times: u64| {
                let per_ks = limit.tokens * 1_000 * times;
                Play { limit, nodes, spread, per_ks, seconds, road, seed }.run()
            };
            // given a tenant at fifty times its limit, on all nodes, and the same at a thousand times
            let (over, far_over) = (times(50), times(1_000));
            // then no more is written, give or take a tenth, nor sent, give or take a third: there is always somebody to
            // ask for as soon as a refusal ends
            let within = |after: u64, before: u64, percent: u64| after * 100 <= before * percent;
            let entries = [over.entries_per_ks, far_over.entries_per_ks];
            let messages = [over.messages_per_ks, far_over.messages_per_ks];
            assert!(
                within(entries[1], entries[0], 110),
                "seed {seed}, {limit:?}: {entries:?} entries in 1000 s"
            );
            assert!(
                within(messages[1], messages[0], 133),
                "seed {seed}, {limit:?}: {messages:?} messages in 1000 s"
            );
            // and everybody is told what the leader said
            assert_eq!(far_over.count(End::Undecided), 0, "seed {seed}, {limit:?}");
            // and a token costs its grant and its report, beside the registration of each node
            let per_ks = |count: u64| count * 1_000 / (seconds + 1);
            let most = per_ks(far_over.count(End::Admitted) * 21 / 10 + nodes);
            assert!(entries[1] <= most, "seed {seed}, {limit:?}: {entries:?}, {most}");
        }
    }
}

#[test]
fn a_tenant_with_five_seconds_of_burst_rides_through_a_failover() {
    for seed in 0..8 {
        // given a tenant that sends a fifth of its limit a second, and five seconds' worth of burst, at one node
        let limit = per_second(10, 10);
        let play = Play {
            limit,
            nodes: 5,
            spread: Spread::Hopping(60_000),
            per_ks: 2_000,
            seconds: 20,
            road: Road::NEAR,
            seed,
        };
        let mut stage = Stage::new(seed, play.road, limit, play.nodes);
        play.offer(&mut stage);
        stage.run_to(10 * SECOND + seed * 37 * MS);
        // when the leader dies for as long as a failover takes
        stage.depose();
        let gone = u64::try_from(FAILOVER_MAX.as_nanos()).expect("short");
        stage.run_to(stage.now + gone);
        stage.elect();
        stage.run_to(play.seconds * SECOND + SECOND);
        // then one request at most has no answer: what the node held is counted in whole tokens
        let seen = play.judge(&stage);
        let missed: Vec<_> = seen.ends.iter().filter(|r| r.end != Some(End::Admitted)).collect();
        assert!(missed.len() <= 1, "seed {seed}: {missed:?}");
    }
}

#[test]
fn nodes_an_ocean_apart_leave_no_request_undecided() {
    for one_way in [100, 150] {
        for (per_ks, limit) in [(30_000, per_second(100, 100)), (2_000, per_second(10, 10))] {
            // given nodes so many ms apart, and a tenant well below its limit
            let road = Road::apart(one_way);
            let play =
                Play { limit, nodes: 3, spread: Spread::Even, per_ks, seconds: 30, road, seed: one_way };
            // then all of its requests are admitted, however long the leader's answers are on their way
            let seen = play.run();
            assert_eq!(seen.count(End::Admitted), seen.ends.len() as u64, "{play:?}");
        }
    }
}

/// `cargo test -p quorumgate --lib town::the_table -- --ignored --nocapture`
#[test]
#[ignore = "prints a table"]
fn the_table() {
    println!(
        "limit nodes spread offered | permille poorest(perfect) needless undecided | admitted p50/p99/max | refused p50/p99/max ms | entries/s messages/s"
    );
    let limits = [
        (per_second(1, 1), "1/s B=1"),
        (FIVE_A_MINUTE, "5/min B=5"),
        (per_second(3, 3), "3/s B=3"),
        (per_second(10, 10), "10/s B=10"),
        (per_second(100, 100), "100/s B=100"),
        (per_second(1_000, 1_000), "1000/s B=1000"),
    ];
    for (limit, name) in limits {
        for nodes in [3, 5] {
            for spread in [
                Spread::RoundRobin,
                Spread::Hopping(100),
                Spread::Hopping(1_000),
                Spread::Skewed,
                Spread::Even,
            ] {
                for times in [700, 5_000] {
                    let per_ks = limit.tokens * (times * SECOND) / limit.per_ns;
                    let seconds = if limit.per_ns > SECOND {
                        600
                    } else if limit.tokens >= 1_000 {
                        10
                    } else {
                        30
                    };
                    for (road, how) in [(Road::NEAR, "near"), (Road::FAR, "far"), (Road::SLOW, "slow")] {
                        let seen = Play { limit, nodes, spread, per_ks, seconds, road, seed: 3 }.run();
                        println!(
                            "{name} {nodes} {spread:?} x{}.{} {how} | {} {:?} {} {} | {:?} | {:?} | {}.{} {}",
                            times / 1_000,
                            times % 1_000 / 100,
                            seen.permille(2 * SECOND),
                            seen.poorest(),
                            seen.needless,
                            seen.count(End::Undecided) + seen.count(End::Overloaded),
                            seen.waited_ms(End::Admitted),
                            seen.waited_ms(End::Over),
                            seen.entries_per_ks / 1_000,
                            seen.entries_per_ks % 1_000 / 100,
                            seen.messages_per_ks / 1_000,
                        );
                    }
                }
            }
        }
    }
}
