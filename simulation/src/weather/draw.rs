//! Draws a run's weather from its seed: a few kinds of trouble, each several times.

use super::{Kind, Mood, Trouble, Unsynced, Whom};
use crate::chance::Chance;

/// The names of all kinds that can be drawn, in the order of [`one`].
pub const NAMES: [&str; 33] = [
    "kill",
    "power-cut",
    "cut-commit",
    "all-power",
    "stop",
    "pause",
    "isolate",
    "deaf",
    "mute",
    "part",
    "black-hole",
    "slow",
    "narrow",
    "reset",
    "callers-cut-off",
    "disk-full",
    "disk-error",
    "slow-disk",
    "clock-rate",
    "wall-jump",
    "rolling-restart",
    "upstream",
    "edition",
    "join",
    "leave",
    "replace",
    "wipe",
    "hot-key",
    "key-flood",
    "clock-runaway",
    "crash-loop",
    "hang-ups",
    "dawdlers",
];

/// The bound on the rate error of a node's clock that quotas count on: ε = 1/1000.
const PPM_MAX: u64 = 1_000;
/// Rate errors beyond it: no lease outlives its end by the first, and many do by the second.
const RUNAWAY_PPM_MAX: [u64; 3] = [50_000, 50_000, 300_000];
const TROUBLES_MIN: u64 = 5;
const TROUBLES_MAX: u64 = 12;
/// Kinds of one seed: a few at a time find more than all at once.
const KINDS_MIN: u64 = 2;
const KINDS_MAX: u64 = 7;

/// Troubles within `until_ms`, in the order of their beginning, of kinds that `allowed` names.
///
/// - `upstreams`: the names of those that may misbehave, at least one.
pub fn draw(seed: u64, nodes: u8, until_ms: u64, allowed: &[&str], upstreams: &[String]) -> Vec<Trouble> {
    if allowed.is_empty() || until_ms == 0 {
        return Vec::new();
    }
    let mut chance = Chance::new(seed, "weather");
    let mut kinds = allowed.to_vec();
    chance.shuffle(&mut kinds);
    kinds.truncate(usize::try_from(chance.within(KINDS_MIN..=KINDS_MAX)).expect("a small number"));
    // Who stands still while it holds tokens is who may spend them too late.
    if chance.one_in(4) && allowed.contains(&"pause") && !kinds.contains(&"pause") {
        kinds.push("pause");
    }
    let count = chance.within(TROUBLES_MIN..=TROUBLES_MAX);
    let trouble = |name, chance: &mut Chance| {
        let kind = one(name, nodes, upstreams, chance);
        let at_ms = chance.within(0..=until_ms * 9 / 10);
        let for_ms = lasts(&kind, chance).min(until_ms - at_ms);
        Trouble { at_ms, for_ms, kind }
    };
    let mut troubles: Vec<Trouble> =
        (0..count).map(|_| trouble(*chance.pick::<&str>(&kinds), &mut chance)).collect();
    troubles.sort_by_key(|trouble| trouble.at_ms);
    keep_a_majority_of_disks(&mut troubles, nodes);
    troubles
}

/// At most one disk is lost, and none where members leave or are too few: what only a lost majority knew is nobody's to
/// keep.
fn keep_a_majority_of_disks(troubles: &mut Vec<Trouble>, nodes: u8) {
    let shrinks = |trouble: &Trouble| matches!(trouble.kind, Kind::Leave { .. } | Kind::Replace { .. });
    let mut may_lose = nodes >= 3 && !troubles.iter().any(shrinks);
    troubles.retain(|trouble| {
        !matches!(trouble.kind, Kind::Wipe { .. }) || std::mem::replace(&mut may_lose, false)
    });
}

fn lasts(kind: &Kind, chance: &mut Chance) -> u64 {
    match kind {
        kind if kind.is_momentary() => 0,
        Kind::RollingRestart => chance.within(6_000..=12_000),
        Kind::CrashLoop { .. } => chance.within(1_000..=8_000),
        // Somewhat longer than the ledger counts a lease.
        Kind::Pause { .. } if chance.one_in(2) => chance.within(6_300..=9_000),
        // Now and then longer than leases, views and elections.
        _ if chance.one_in(4) => chance.within(4_000..=11_000),
        _ => chance.within(100..=4_000),
    }
}

fn one(name: &str, nodes: u8, upstreams: &[String], chance: &mut Chance) -> Kind {
    let whom = whom(nodes, chance);
    let (one, other) = two(nodes, chance);
    let unsynced = *chance.pick(&[Unsynced::Lost, Unsynced::Kept, Unsynced::Torn]);
    match name {
        "kill" => Kind::Kill { whom },
        "power-cut" => Kind::PowerCut { whom, unsynced },
        "cut-commit" => Kind::CutCommit { whom, after_ops: chance.within(0..=40), unsynced },
        "all-power" => Kind::AllPower { unsynced },
        "stop" => Kind::Stop { whom },
        "pause" => Kind::Pause { whom },
        "isolate" => Kind::Isolate { whom },
        "deaf" => Kind::Deaf { whom },
        "mute" => Kind::Mute { whom },
        "part" => Kind::Part { one, other },
        "black-hole" => Kind::BlackHole { one, other },
        "slow" => Kind::Slow { one, other, by_ms: chance.within(5..=500) },
        "narrow" => Kind::Narrow { one, other, bytes_per_s: chance.within(2_000..=200_000) },
        "reset" => Kind::Reset { one, other },
        "callers-cut-off" => Kind::CallersCutOff { whom },
        "disk-full" => Kind::DiskFull { whom },
        "disk-error" => Kind::DiskError { whom, after_ops: chance.within(0..=40) },
        "slow-disk" => Kind::SlowDisk { whom, by_ms: chance.within(5..=300) },
        "clock-rate" => {
            let ppm = i64::try_from(chance.within(0..=2 * PPM_MAX)).expect("small");
            Kind::ClockRate { whom, ppm: ppm - i64::try_from(PPM_MAX).expect("small") }
        }
        "wall-jump" => {
            let by_ms = i64::try_from(chance.within(0..=7_200_000)).expect("small") - 3_600_000;
            Kind::WallJump { whom, by_ms }
        }
        "rolling-restart" => Kind::RollingRestart,
        "upstream" => {
            let moods = [
                Mood::Refuses,
                Mood::Resets,
                Mood::Hangs,
                Mood::Trickles,
                Mood::Garbage,
                Mood::Fails,
                Mood::Closes,
                Mood::Truncates,
                Mood::Doubles,
                Mood::Interim,
                Mood::Switches,
            ];
            Kind::Upstream { name: chance.pick(upstreams).clone(), mood: *chance.pick(&moods) }
        }
        "edition" => Kind::Edition,
        "join" => Kind::Join,
        "leave" => Kind::Leave { whom },
        "replace" => Kind::Replace { whom },
        "wipe" => Kind::Wipe { whom },
        "hot-key" => Kind::HotKey { every_ms: chance.within(2..=6) },
        "key-flood" => Kind::KeyFlood { every_ms: chance.within(2..=6) },
        "hang-ups" => Kind::HangUps { every_ms: chance.within(20..=100) },
        "dawdlers" => Kind::Dawdlers { every_ms: chance.within(20..=200) },
        "clock-runaway" => {
            let most = *chance.pick(&RUNAWAY_PPM_MAX);
            let ppm = i64::try_from(chance.within(2 * PPM_MAX..=most)).expect("small");
            Kind::ClockRunaway { whom, ppm: if chance.one_in(2) { -ppm } else { ppm } }
        }
        "crash-loop" => {
            let (times, within_ms) = (chance.within(1..=5), chance.within(10..=800));
            Kind::CrashLoop { whom, times, within_ms, unsynced }
        }
        other => unreachable!("{other} is not among the names above"),
    }
}

fn whom(nodes: u8, chance: &mut Chance) -> Whom {
    match chance.within(0..=5) {
        0 => Whom::Leader,
        1 => Whom::Follower,
        2 | 3 => Whom::Holder,
        _ => Whom::Node(node(nodes, chance)),
    }
}

fn node(nodes: u8, chance: &mut Chance) -> u8 {
    u8::try_from(chance.within(1..=u64::from(nodes))).expect("a node's number")
}

fn two(nodes: u8, chance: &mut Chance) -> (u8, u8) {
    let one = node(nodes, chance);
    let other = if nodes == 1 { 1 } else { one % nodes + 1 };
    if chance.one_in(2) { (one, other) } else { (other, one) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn draw(seed: u64, nodes: u8, until_ms: u64, allowed: &[&str]) -> Vec<Trouble> {
        super::draw(seed, nodes, until_ms, allowed, &["first".to_owned(), "second".to_owned()])
    }

    #[test]
    fn every_kind_is_drawn_by_its_name_and_nothing_outlasts_the_weather() {
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            for trouble in draw(seed, 3, 18_000, &NAMES) {
                assert!(trouble.at_ms + trouble.for_ms <= 18_000, "{trouble}");
                seen.insert(trouble.kind.name());
            }
        }
        assert_eq!(seen, BTreeSet::from(NAMES));
    }

    #[test]
    fn a_seed_draws_the_same_weather_and_only_what_is_allowed() {
        assert_eq!(draw(7, 3, 18_000, &NAMES), draw(7, 3, 18_000, &NAMES));
        assert!(draw(7, 3, 18_000, &["kill"]).iter().all(|trouble| trouble.kind.name() == "kill"));
        assert!(draw(7, 3, 18_000, &[]).is_empty());
    }
}
