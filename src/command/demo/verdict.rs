//! What a drive showed, and whether it kept every promise.

use std::fmt::Write as _;
use std::time::Duration;

use config::quota::Limit;

use super::load::{Fate, Sent};
use super::oracle::{Judged, judge, perfect_admits};
use super::players::{MIXED, PER_CLIENT, Player, QUOTA, Scene};
use crate::command::echo::Recorded;

/// After the new leader is known, answers of the leaderless time may still be on their way for this long.
const SETTLE_NS: u64 = 1_500_000_000;

/// When the leader was killed and when another decided, CLOCK_BOOTTIME ns.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// The kill.
    pub killed_ns: u64,
    /// A survivor said that it leads, or, once known, the first answer of a tenant that only a leader can give.
    pub recovered_ns: u64,
}

/// The longest failover that the design allows (2 · longest election timeout + 0.5 s).
const FAILOVER_NS_MAX: u64 = 2_500_000_000;

impl Failover {
    /// The same until a leader decided again, as clients saw it: a tenant far over its limit has spent every lease when a
    /// leader is known, so whatever it is answered then a leader has said.
    pub fn until_decided(self, players: &[Player], sent: &[Sent]) -> Self {
        let over = |sent: &&Sent| {
            players[sent.player].is_over() && matches!(sent.fate, Fate::Served | Fate::OverQuota)
        };
        let answers = sent.iter().filter(over).map(|sent| sent.answered_ns);
        let first = answers.filter(|answered_ns| *answered_ns >= self.recovered_ns).min();
        Self { recovered_ns: first.unwrap_or(self.recovered_ns), ..self }
    }

    fn covers(&self, sent: &Sent) -> bool {
        sent.answered_ns >= self.killed_ns && sent.sent_ns <= self.recovered_ns + SETTLE_NS
    }
}

/// What is judged.
#[derive(Debug)]
pub struct Driven<'a> {
    /// Who played, and what they were to show.
    pub scene: &'a Scene,
    /// How many nodes there are.
    pub nodes: usize,
    /// What clients saw.
    pub sent: &'a [Sent],
    /// What could not be sent.
    pub skipped: u64,
    /// What reached the upstream.
    pub recorded: &'a Recorded,
    /// When it began, CLOCK_BOOTTIME ns.
    pub start_ns: u64,
    /// How long it lasted.
    pub duration: Duration,
    /// The kill, if the leader was killed.
    pub failover: Option<Failover>,
}

/// One bucket's row.
#[derive(Debug)]
struct Row {
    who: String,
    limit: String,
    offered: u64,
    judged: Judged,
    utilisation_per_mille: Option<u64>,
    floor_per_mille: u64,
    refused: usize,
    undecided: usize,
    failed: usize,
    lost: usize,
    /// The fewest admissions of a node in a span, where each node must have some.
    fewest: Option<usize>,
    broken: Vec<String>,
}

/// The verdict over a drive.
#[derive(Debug)]
pub struct Verdict {
    rows: Vec<Row>,
    failover: Option<Failover>,
    broken: Vec<String>,
}

impl Verdict {
    /// Judges a drive.
    pub fn new(driven: &Driven<'_>) -> Self {
        let &Driven { scene, sent, skipped, recorded, failover, .. } = driven;
        let mut broken = Vec::new();
        if skipped > 0 {
            broken.push(format!(
                "{skipped} requests could not be sent: this machine is too slow for the drive"
            ));
        }
        if recorded.dropped > 0 {
            broken.push(format!("{} admissions were not recorded", recorded.dropped));
        }
        if recorded.unstamped > 0 {
            broken.push(format!("{} requests reached the upstream without an admission", recorded.unstamped));
        }
        let long = failover.filter(|failover| failover.recovered_ns - failover.killed_ns > FAILOVER_NS_MAX);
        if long.is_some() {
            broken.push("no leader decided for more than 2.5 s".to_owned());
        }
        let mut rows = Vec::new();
        for (index, player) in scene.players.iter().enumerate() {
            let mine: Vec<&Sent> = sent.iter().filter(|sent| sent.player == index).collect();
            let mut row = row(&mine, player.limit, stamps(recorded, QUOTA, player.tenant), driven);
            row.who = format!("{} ({})", player.tenant, player.spread.word());
            let pays_late =
                |sent: &&&Sent| sent.fate == Fate::Undecided && !failover.is_some_and(|f| f.covers(sent));
            let late = mine.iter().filter(pays_late).count();
            if late > 0 {
                row.broken.push(format!("{late} answers were undecided although a leader was known"));
            }
            if row.failed > 0 {
                let first = mine.iter().find_map(|sent| match &sent.fate {
                    Fate::Failed(why) => Some(why.as_str()),
                    Fate::Forbidden => Some("403"),
                    _ => None,
                });
                row.broken.push(format!("failed on surviving nodes; the first: {}", first.unwrap_or("")));
            }
            let not_served = row.refused + row.undecided;
            if player.is_under() && not_served > 0 {
                row.broken.push(format!("{not_served} requests of a tenant under its limit were refused"));
            }
            rows.push(row);
            let client = judge(PER_CLIENT, &stamps(recorded, "per-client", player.tenant));
            if client.over > 0 {
                broken
                    .push(format!("per-client of {}: {} tokens over the bound", player.tenant, client.over));
            }
        }
        Self { rows, failover, broken }
    }

    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty() && self.rows.iter().all(|row| row.broken.is_empty())
    }

    /// A table for people.
    pub fn render(&self) -> String {
        let mut text = format!(
            "{:<18} {:>16} {:>8} {:>9} {:>8} {:>6} {:>7} {:>7} {:>7} {:>10} {:>7} {:>7}  {}\n",
            "tenant (spread)",
            "limit",
            "offered",
            "admitted",
            "bound",
            "over",
            "util %",
            "floor %",
            "429",
            "undecided",
            "failed",
            "lost",
            "verdict"
        );
        for row in &self.rows {
            let percent = |per_mille: u64| format!("{}.{}", per_mille / 10, per_mille % 10);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<18} {:>16} {:>8} {:>9} {:>8} {:>6} {:>7} {:>7} {:>7} {:>10} {:>7} {:>7}  {}",
                row.who,
                row.limit,
                row.offered,
                row.judged.admitted,
                row.judged.bound,
                row.judged.over,
                row.utilisation_per_mille.map_or("-".into(), percent),
                percent(row.floor_per_mille),
                row.refused,
                row.undecided,
                row.failed,
                row.lost,
                if row.broken.is_empty() { "kept" } else { "BROKEN" },
            );
        }
        if let Some(failover) = self.failover {
            let ms = (failover.recovered_ns - failover.killed_ns) / 1_000_000;
            let _ =
                writeln!(text, "failover: {}.{:02} s without a leader's decision", ms / 1000, ms % 1000 / 10);
        }
        for (row, fewest) in self.rows.iter().filter_map(|row| Some((row, row.fewest?))) {
            let _ =
                writeln!(text, "{}: the fewest admissions of a node in a span of 10 s: {fewest}", row.who);
        }
        for why in self.rows.iter().flat_map(|row| row.broken.iter().map(|why| format!("{}: {why}", row.who)))
        {
            let _ = writeln!(text, "BROKEN  {why}");
        }
        for why in &self.broken {
            let _ = writeln!(text, "BROKEN  {why}");
        }
        let _ =
            writeln!(text, "verdict: {}", if self.is_kept() { "every promise was kept" } else { "BROKEN" });
        text
    }
}

/// One line a bucket that has admitted anything: admissions against the perfect bucket.
pub fn buckets(recorded: &Recorded) -> Vec<String> {
    let line = |who: &str, quota: &str, limit: Limit, stamps: &[(u64, u64)]| {
        let judged = judge(limit, stamps);
        let over = if judged.over == 0 { "kept".to_owned() } else { format!("{} OVER", judged.over) };
        format!(
            "{who:<18} {quota:<12} {:>16}  admitted {}, bound {}, {over}",
            limit.to_string(),
            judged.admitted,
            judged.bound
        )
    };
    MIXED
        .players
        .iter()
        .map(|player| (player, stamps(recorded, QUOTA, player.tenant)))
        .filter(|(_, stamps)| !stamps.is_empty())
        .map(|(player, stamps)| line(player.tenant, QUOTA, player.limit, &stamps))
        .collect()
}

/// Admissions of a tenant under a quota.
pub fn stamps(recorded: &Recorded, quota: &str, tenant: &str) -> Vec<(u64, u64)> {
    let mine = recorded.admissions.iter().filter(|(name, _)| name.quota == quota && name.tenant == tenant);
    mine.flat_map(|(_, stamps)| stamps.iter().copied()).collect()
}

fn row(mine: &[&Sent], limit: Limit, stamps: Vec<(u64, u64)>, driven: &Driven<'_>) -> Row {
    let count = |fate: Fate| mine.iter().filter(|sent| sent.fate == fate).count();
    let floor_per_mille =
        floor_per_mille(driven.scene.floor_per_mille, limit, driven.duration.as_secs(), driven.failover);
    let from_ns = driven.start_ns + ns(driven.scene.counted_from);
    // What was lost with a killed node may never have reached a bucket.
    let decided = mine.iter().filter(|sent| sent.fate != Fate::LostWithNode);
    let arrivals: Vec<(u64, u64)> = decided.map(|sent| (sent.sent_ns, 1)).collect();
    let judged = judge(limit, &stamps);
    let perfect = perfect_admits(limit, &arrivals, from_ns);
    let admitted: u64 = stamps.iter().filter(|(at_ns, _)| *at_ns >= from_ns).map(|(_, cost)| cost).sum();
    let utilisation_per_mille = (admitted * 1000).checked_div(perfect);
    let mut broken = Vec::new();
    if judged.over > 0 {
        broken.push(format!("{} tokens over the bound", judged.over));
    }
    // One token is the grain of the comparison.
    if (admitted + 1) * 1000 < perfect * floor_per_mille {
        broken.push(format!("admitted {admitted} of {perfect} that a perfect bucket admits"));
    }
    if perfect == 0 {
        broken.push("nothing was offered".to_owned());
    }
    let fewest = driven.scene.each_node_within.map(|within| fewest(mine, driven, ns(within)));
    if fewest == Some(0) {
        broken.push("a node admitted nothing in 10 s".to_owned());
    }
    Row {
        who: String::new(),
        limit: limit.to_string(),
        offered: mine.len() as u64,
        judged,
        utilisation_per_mille,
        floor_per_mille,
        refused: count(Fate::OverQuota),
        undecided: count(Fate::Undecided),
        failed: mine.iter().filter(|sent| matches!(sent.fate, Fate::Failed(_) | Fate::Forbidden)).count(),
        lost: count(Fate::LostWithNode),
        fewest,
        broken,
    }
}

/// The fewest requests that any node served in any whole span counted from the start.
fn fewest(mine: &[&Sent], driven: &Driven<'_>, within_ns: u64) -> usize {
    let spans = (0..ns(driven.duration) / within_ns).map(|span| driven.start_ns + span * within_ns);
    let served = |node: usize, from_ns: u64| {
        let mine = mine.iter().filter(|sent| sent.node == node && sent.fate == Fate::Served);
        mine.filter(|sent| (from_ns..from_ns + within_ns).contains(&sent.answered_ns)).count()
    };
    spans.flat_map(|from_ns| (0..driven.nodes).map(move |node| served(node, from_ns))).min().unwrap_or(0)
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// floor − max(0, F − B/r)/T.
fn floor_per_mille(floor_per_mille: u64, limit: Limit, seconds: u64, failover: Option<Failover>) -> u64 {
    let Some(failover) = failover else { return floor_per_mille };
    let ride_ns = u128::from(limit.burst) * u128::from(limit.per_ns) / u128::from(limit.tokens);
    let lost_ns = u128::from(failover.recovered_ns - failover.killed_ns).saturating_sub(ride_ns);
    let lost_per_mille = lost_ns * 1000 / (u128::from(seconds.max(1)) * 1_000_000_000);
    floor_per_mille.saturating_sub(u64::try_from(lost_per_mille).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::echo::BucketName;

    const MS: u64 = 1_000_000;

    /// Every player served at its fair rate for ten seconds.
    fn calm_drive() -> (Vec<Sent>, Recorded) {
        let mut sent = Vec::new();
        let mut recorded = Recorded::default();
        for (index, player) in MIXED.players.iter().enumerate() {
            let name = |quota: &str| BucketName {
                quota: quota.into(),
                key: "k".into(),
                tenant: player.tenant.into(),
            };
            for number in 0..10 {
                let at_ns = number * player.limit.per_ns / player.limit.tokens;
                sent.push(Sent {
                    player: index,
                    node: 0,
                    sent_ns: at_ns,
                    answered_ns: at_ns + MS,
                    fate: Fate::Served,
                });
                recorded.admissions.entry(name(QUOTA)).or_default().push((at_ns, 1));
                recorded.admissions.entry(name("per-client")).or_default().push((at_ns, 1));
            }
        }
        (sent, recorded)
    }

    fn judged(scene: &Scene, sent: &[Sent], recorded: &Recorded, failover: Option<Failover>) -> Verdict {
        let (nodes, skipped, start_ns, duration) = (3, 0, 0, Duration::from_secs(10));
        Verdict::new(&Driven { scene, nodes, sent, skipped, recorded, start_ns, duration, failover })
    }

    #[test]
    fn a_node_that_admits_nothing_for_ten_seconds_breaks_the_verdict_where_each_must() {
        // given a drive in which the first of three nodes admitted everything
        let (mut sent, recorded) = calm_drive();
        let scene = Scene { each_node_within: Some(Duration::from_secs(10)), ..MIXED };
        let verdict = judged(&scene, &sent, &recorded, None);
        assert!(
            verdict.render().contains("surge (even): a node admitted nothing in 10 s"),
            "{}",
            verdict.render()
        );
        // when each node admits its part
        sent.iter_mut().enumerate().for_each(|(number, sent)| sent.node = number % 3);
        let within = |sent: &Sent| sent.answered_ns < 10_000 * MS;
        sent.retain(within);
        // then those that offered something in that time keep it
        let verdict = judged(&scene, &sent, &recorded, None);
        assert!(!verdict.render().contains("surge (even): a node"), "{}", verdict.render());
    }

    #[test]
    fn what_comes_before_the_count_does_not_help() {
        // given a drive that admits nothing more after its first second
        let (sent, mut recorded) = calm_drive();
        let scene = Scene { counted_from: Duration::from_secs(1), players: &MIXED.players[..1], ..MIXED };
        let late: Vec<Sent> =
            sent.iter().map(|sent| Sent { sent_ns: sent.sent_ns + 1_000 * MS, ..sent.clone() }).collect();
        recorded.admissions.retain(|name, _| name.tenant == "surge");
        // when it is counted from there, then nothing was used
        let verdict = judged(&scene, &late, &recorded, None);
        assert!(verdict.render().contains("admitted 0 of 10 "), "{}", verdict.render());
    }

    #[test]
    fn a_calm_drive_keeps_every_promise() {
        let (sent, recorded) = calm_drive();
        let verdict = judged(&MIXED, &sent, &recorded, None);
        assert!(verdict.is_kept(), "{}", verdict.render());
    }

    #[test]
    fn one_token_over_a_bound_breaks_the_verdict() {
        // given a drive in which one tenant was granted one burst too many at one instant
        let (sent, mut recorded) = calm_drive();
        let stamps =
            recorded.admissions.iter_mut().find(|(name, _)| name.quota == QUOTA && name.tenant == "surge");
        stamps.expect("surge is a player").1.extend((0..101).map(|_| (0, 1)));
        // when it is judged, then it is broken and says by how much
        let verdict = judged(&MIXED, &sent, &recorded, None);
        assert!(!verdict.is_kept());
        assert!(verdict.render().contains("surge (even): 2 tokens over the bound"), "{}", verdict.render());
    }

    #[test]
    fn a_refusal_of_a_calm_tenant_breaks_the_verdict() {
        let (mut sent, recorded) = calm_drive();
        let calm = MIXED.players.iter().position(Player::is_under).expect("one player is under its limit");
        sent.iter_mut().find(|sent| sent.player == calm).expect("it sent something").fate = Fate::OverQuota;
        assert!(!judged(&MIXED, &sent, &recorded, None).is_kept());
    }

    #[test]
    fn undecided_answers_are_forgiven_only_while_no_leader_was_known() {
        let (mut sent, recorded) = calm_drive();
        sent[0].fate = Fate::Undecided;
        let covered = Failover { killed_ns: 0, recovered_ns: 100 * MS };
        let later = Failover { killed_ns: 5_000 * MS, recovered_ns: 5_100 * MS };
        assert!(judged(&MIXED, &sent, &recorded, Some(covered)).is_kept());
        assert!(!judged(&MIXED, &sent, &recorded, Some(later)).is_kept());
    }

    #[test]
    fn a_failover_lasts_until_a_leader_decides_and_not_longer_than_the_design_allows() {
        // given a leader that is known after 1 s, and decides nothing before 3 s
        let (mut sent, recorded) = calm_drive();
        let surge = MIXED.players.iter().position(Player::is_over).expect("one player is over its limit");
        sent.retain(|sent| sent.player != surge || sent.answered_ns < 900 * MS);
        sent.push(Sent {
            player: surge,
            node: 0,
            sent_ns: 0,
            answered_ns: 3_000 * MS,
            fate: Fate::OverQuota,
        });
        let failover =
            Failover { killed_ns: 0, recovered_ns: 1_000 * MS }.until_decided(MIXED.players, &sent);
        // then it counts as 3 s, which is too long
        assert_eq!(failover.recovered_ns, 3_000 * MS);
        let verdict = judged(&MIXED, &sent, &recorded, Some(failover));
        assert!(verdict.render().contains("no leader decided for more than 2.5 s"), "{}", verdict.render());
    }

    #[test]
    fn the_floor_falls_only_by_what_the_burst_cannot_carry() {
        let failover = Some(Failover { killed_ns: 0, recovered_ns: 2_500 * MS });
        let limit = |burst| Limit { tokens: 100, per_ns: 1_000_000_000, burst };
        assert_eq!(floor_per_mille(990, limit(100), 30, failover), 940);
        assert_eq!(floor_per_mille(990, limit(250), 30, failover), 990);
    }

    use super::super::players::Player;
}
