//! The lending loop, closed: real lenders and cluster clocks, model gateways and a model ledger, judged by a perfect
//! bucket in true time. Deterministic, single-threaded, integers only.

mod gateway;
mod ledger;
mod lender;
mod model;
mod oracle;

use config::quota::Limit;
use gateway::MS;
use model::{Dice, Model, Weather};
use oracle::PerfectBucket;

const SECOND: u64 = 1_000 * MS;
const PROMISE: i128 = 1_001;

const fn per_second(tokens: u64, burst: u64) -> Limit {
    Limit { tokens, per_ns: SECOND, burst }
}

/// Which gateway the next request comes to.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Even,
    /// Nine of ten to the first.
    NinetyTen,
    /// All to one, another one each 100 ms.
    Hopping,
    /// One after the other.
    RoundRobin,
    /// Anywhere, but only for 0.4 s of every 1.6 s: the bucket is full when a burst begins.
    Bursts,
}

/// Lets `per_second` requests come for a while; returns their times.
fn offer(model: &mut Model, spread: Spread, gateways: u64, per_second: u64, until: u64) -> Vec<u64> {
    let mut dice = Dice::new(per_second);
    let gap = SECOND / per_second;
    let (mut at, mut n, mut times) = (model.now + SECOND, 0, Vec::new());
    while at < until {
        let gateway = match spread {
            Spread::Even | Spread::Bursts => dice.within(0, gateways - 1),
            Spread::NinetyTen if dice.chance(900) => 0,
            Spread::NinetyTen => dice.within(1, gateways - 1),
            Spread::Hopping => at / (100 * MS) % gateways,
            Spread::RoundRobin => n % gateways,
        };
        let pause = matches!(spread, Spread::Bursts) && at % (1_600 * MS) >= 400 * MS;
        if !pause {
            model.request(at, usize::try_from(gateway).expect("small"), 1);
            times.push(at);
        }
        n += 1;
        at += match spread {
            Spread::RoundRobin => gap,
            _ => dice.within(1, 2 * gap),
        };
    }
    times
}

fn assert_promise(model: &Model, limit: Limit, what: &str) {
    let mut perfect = PerfectBucket::full(limit, PROMISE);
    for (at, cost) in &model.admissions {
        assert_eq!(perfect.excess(*at, *cost), 0, "{what}: over-admission at {at} ns");
    }
}

/// What a perfect bucket would have admitted of requests of cost 1, later than `from`.
fn perfect_count(limit: Limit, times: &[u64], from: u64) -> u64 {
    let mut perfect = PerfectBucket::full(limit, 1_000);
    times.iter().filter(|at| perfect.admit(**at, 1) && **at >= from).count() as u64
}

struct Run {
    admitted: u64,
    perfect: u64,
    entries_per_s: u64,
}

/// Counts what comes later than `from`.
fn calm(limit: Limit, gateways: u64, spread: Spread, per_second: u64, from: u64, seconds: u64) -> Run {
    let mut model = Model::new(1, Weather::CALM, limit, usize::try_from(gateways).expect("small"));
    let times = offer(&mut model, spread, gateways, per_second, seconds * SECOND);
    model.run_to(seconds * SECOND);
    assert_promise(&model, limit, "calm");
    let admitted = model.admissions.iter().filter(|(at, _)| *at >= from).map(|(_, cost)| cost).sum();
    Run { admitted, perfect: perfect_count(limit, &times, from), entries_per_s: model.entries / seconds }
}

#[test]
fn in_calm_weather_a_saturated_limit_is_used_to_99_percent_however_the_load_is_spread() {
    for (limit, load, seconds) in [(per_second(100, 100), 500, 22), (per_second(1_000, 1_000), 5_000, 7)] {
        for gateways in [3, 5] {
            for spread in [Spread::Even, Spread::NinetyTen, Spread::Hopping] {
                // when five times the rate is offered, and the burst is used up
                let run = calm(limit, gateways, spread, load, 2 * SECOND, seconds);
                // then at least 99 % of what a perfect bucket admits is admitted
                let permille = run.admitted * 1_000 / run.perfect;
                assert!(permille >= 990, "{limit:?}, {gateways} gateways, {spread:?}: {permille} permille");
            }
        }
    }
}

#[test]
fn five_a_minute_round_robin_over_the_gateways_is_exactly_the_bucket() {
    for gateways in [3, 5] {
        // given 5 a minute, and a request a second to one gateway after the other for ten minutes
        let limit = Limit { tokens: 5, per_ns: 60 * SECOND, burst: 5 };
        let run = calm(limit, gateways, Spread::RoundRobin, 1, 0, 600);
        // then as many are admitted as by a perfect bucket
        assert_eq!(run.admitted, run.perfect, "{gateways} gateways");
    }
}

#[test]
fn a_hundred_times_the_load_makes_no_more_entries() {
    // given 100 a second on five gateways
    let limit = per_second(100, 100);
    // when 5 and 500 times as much is offered
    let busy = calm(limit, 5, Spread::Even, 500, 0, 6).entries_per_s;
    let flooded = calm(limit, 5, Spread::Even, 50_000, 0, 3).entries_per_s;
    // then the log grows no faster
    assert!(flooded <= busy * 5 / 4 && flooded < 250, "{busy} entries/s at 5x, {flooded} at 500x");
}

#[test]
fn nothing_is_admitted_beyond_the_promise_in_any_weather() {
    let limits = [
        per_second(100, 100),
        per_second(1_000, 1_000),
        per_second(1_000, 10),
        per_second(10, 1),
        per_second(5, 20),
        Limit { tokens: 5, per_ns: 60 * SECOND, burst: 5 },
    ];
    let mut admitted = 0;
    for seed in 0..200 {
        let mut fate = Dice::new(seed * 7_919);
        let limit = limits[usize::try_from(fate.roll() % 6).expect("small")];
        let gateways = fate.within(3, 5);
        let spreads = [Spread::Even, Spread::NinetyTen, Spread::Hopping, Spread::Bursts];
        let spread = spreads[usize::try_from(fate.roll() % 4).expect("small")];
        let mut model = Model::new(seed, Weather::STORM, limit, usize::try_from(gateways).expect("small"));
        let seconds = fate.within(5, 15);
        let rate = (limit.tokens * SECOND / limit.per_ns * fate.within(1, 5)).clamp(2, 2_500);
        offer(&mut model, spread, gateways, rate, seconds * SECOND);
        // when leaders are deposed and gateways crash, about once a second each
        while model.now < seconds * SECOND {
            let next = model.now + fate.within(50 * MS, 900 * MS);
            model.run_to(next);
            match fate.within(0, 2) {
                0 => model.depose(),
                1 => model.crash(usize::try_from(fate.within(0, gateways - 1)).expect("small")),
                _ => {}
            }
        }
        // then the cluster never admitted more than the promise
        assert_promise(&model, limit, &format!("seed {seed}"));
        admitted += model.admissions.len();
    }
    assert!(admitted > 50_000, "the storm lets something through: {admitted}");
}
