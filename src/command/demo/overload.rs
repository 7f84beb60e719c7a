//! One tenant at a thousand times its limit beside tenants that keep to theirs: what that costs the log, and the others.
//!
//! Three phases take turns, so that whatever else this machine does meets each of them:
//!
//! | phase | the greedy tenant sends | and beside it |
//! |---|---|---|
//! | `fair` | its limit | |
//! | `knocking` | its limit | as many requests as `overload` has, to a route whose scope it lacks: 403 |
//! | `overload` | 1000 × its limit | |
//!
//! The log of `overload` is compared with that of the other two, the larger of them: they differ only by what a busy machine
//! does. Latency is compared with `knocking`: nodes, upstream and clients share the cores of one machine, and any flood of
//! requests costs processor time. A 403 costs all that a 429 does, with head, route and token, up to the quota; so what is
//! left of the difference is the quota's.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::load::{Fate, Load, Sent, Target};
use super::oracle::judge;
use super::players::{CALM, GREEDY, KNOCKING, PER_CLIENT, Player, QUOTA, TIMES_OVER};
use super::town::Town;
use super::verdict::stamps;
use crate::command::client;
use crate::command::echo::Recorded;

/// How often each phase has its turn.
const ROUNDS: u32 = 3;
/// Longer than a node of a machine that stands still needs for its status.
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// What calm tenants' traffic varies by between phases, in entries or messages a second.
const GRAIN_PER_S: u64 = 5;
/// A median beyond twice the other and this is no accident of a busy machine.
const GRAIN_US: u64 = 5_000;

/// What a phase is, in the order of the table.
const PHASES: [&str; 3] = ["fair", "knocking", "overload"];
const FAIR: usize = 0;
const KNOCKED: usize = 1;

/// Calm tenants come first: their places are their numbers in each phase.
fn players(phase: usize) -> Vec<Player> {
    let mut players = CALM.to_vec();
    players.extend(match phase {
        FAIR => vec![GREEDY],
        KNOCKED => vec![GREEDY, KNOCKING],
        _ => vec![Player { offered_per_s: GREEDY.offered_per_s * TIMES_OVER, ..GREEDY }],
    });
    players
}

/// What the cluster has counted so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    entries: u64,
    messages: u64,
}

/// The sums of one phase.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    ms: u64,
    entries: u64,
    messages: u64,
    requests: usize,
    served: usize,
    refused: usize,
    forbidden: usize,
    /// Neither of these.
    other: usize,
    skipped: u64,
    /// Calm tenants' requests that were not served.
    calm_harmed: usize,
    /// Calm tenants' requests, from sent to answered.
    calm_us: Vec<u64>,
}

impl Figures {
    fn add(&mut self, sent: &[Sent], skipped: u64, before: Counted, after: Counted, took: Duration) {
        self.ms += u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.entries += after.entries - before.entries;
        self.messages += after.messages - before.messages;
        self.skipped += skipped;
        for sent in sent {
            self.requests += 1;
            *match sent.fate {
                Fate::Served => &mut self.served,
                Fate::OverQuota => &mut self.refused,
                Fate::Forbidden => &mut self.forbidden,
                _ => &mut self.other,
            } += 1;
            if sent.player < CALM.len() {
                self.calm_us.push((sent.answered_ns - sent.sent_ns) / 1_000);
                self.calm_harmed += usize::from(sent.fate != Fate::Served);
            }
        }
        self.calm_us.sort_unstable();
    }

    fn per_s(&self, count: u64) -> u64 {
        (count * 1_000).checked_div(self.ms).unwrap_or(0)
    }

    /// The latency, in µs, below which so many thousandths of the calm tenants' requests stay.
    fn calm_us(&self, per_mille: usize) -> u64 {
        let last = self.calm_us.len().saturating_sub(1);
        self.calm_us.get((self.calm_us.len() * per_mille / 1_000).min(last)).copied().unwrap_or(0)
    }
}

/// What a drive showed.
#[derive(Debug)]
pub struct Overload {
    phases: [Figures; 3],
    broken: Vec<String>,
}

/// Drives `town` for `duration`.
///
/// # Errors
/// If the drive could not be carried out; a broken promise is no error but a verdict.
pub async fn drive(town: &Town, duration: Duration) -> Result<Overload, String> {
    let targets = Arc::new(town.nodes.iter().map(|node| Target::new(node.http)).collect::<Vec<_>>());
    let turn = duration / (ROUNDS * 3);
    let mut phases: [Figures; 3] = Default::default();
    for round in 1..=ROUNDS {
        for (phase, figures) in phases.iter_mut().enumerate() {
            let before = counted(town).await?;
            let start = tokio::time::Instant::now();
            let load = Load::start(targets.clone(), &players(phase), turn)?;
            tokio::time::sleep_until(start + turn).await;
            let (after, took) = (counted(town).await?, start.elapsed());
            let (sent, skipped) = load.finish().await;
            println!("round {round} of {ROUNDS}, {}: {} requests", PHASES[phase], sent.len());
            figures.add(&sent, skipped, before, after, took);
        }
    }
    Ok(Overload::new(phases, &town.recorder.recorded()))
}

/// Log entries applied; questions with their answers, and words of the leader's own.
async fn counted(town: &Town) -> Result<Counted, String> {
    let mut counted = Counted::default();
    for node in &town.nodes {
        let status = client::get_json(node.admin, "/v1/status", CALL_WITHIN).await?;
        let number = |path: &str| status.pointer(path).and_then(serde_json::Value::as_u64);
        let all = (number("/applied_index"), number("/leases/asked"), number("/leases/pushed"));
        let (Some(applied), Some(asked), Some(pushed)) = all else {
            return Err(format!("{}: the status lacks its figures: {status}", node.name));
        };
        counted.entries = counted.entries.max(applied);
        counted.messages += 2 * asked + pushed;
    }
    Ok(counted)
}

impl Overload {
    fn new(phases: [Figures; 3], recorded: &Recorded) -> Self {
        let mut broken = Vec::new();
        for player in CALM.iter().chain([&GREEDY]) {
            for (quota, limit) in [(QUOTA, player.limit), ("per-client", PER_CLIENT)] {
                let over = judge(limit, &stamps(recorded, quota, player.tenant)).over;
                if over > 0 {
                    broken.push(format!("{quota} of {}: {over} tokens over the bound", player.tenant));
                }
            }
        }
        if recorded.dropped + recorded.unstamped > 0 {
            broken.push("not every admission was recorded".to_owned());
        }
        for (name, figures) in PHASES.iter().zip(&phases) {
            if figures.skipped > 0 {
                broken.push(format!(
                    "{name}: {} requests could not be sent: this machine is too slow for the drive",
                    figures.skipped
                ));
            }
            if figures.calm_harmed > 0 {
                broken.push(format!(
                    "{name}: {} requests of calm tenants were not served",
                    figures.calm_harmed
                ));
            }
        }
        let [fair, knocking, overload] = &phases;
        if overload.refused < 100 || knocking.forbidden < 100 {
            broken.push("this was no flood".to_owned());
        }
        let without = |of: fn(&Figures) -> u64| fair.per_s(of(fair)).max(knocking.per_s(of(knocking)));
        for (what, before, after) in [
            ("log entries", without(|figures| figures.entries), overload.per_s(overload.entries)),
            ("messages", without(|figures| figures.messages), overload.per_s(overload.messages)),
        ] {
            if after > before + before / 4 + GRAIN_PER_S {
                broken.push(format!("overload raises {what} from {before}/s to {after}/s"));
            }
        }
        let (before, after) = (knocking.calm_us(500), overload.calm_us(500));
        if after > 2 * before + GRAIN_US {
            broken.push(format!("overload raises the calm tenants' median from {before} µs to {after} µs"));
        }
        Self { phases, broken }
    }

    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }

    /// A table for people.
    pub fn render(&self) -> String {
        let mut text = format!(
            "{:<10} {:>10} {:>8} {:>8} {:>8} {:>6} {:>10} {:>11} {:>12} {:>12}\n",
            "phase",
            "requests/s",
            "200",
            "429",
            "403",
            "other",
            "entries/s",
            "messages/s",
            "calm p50 ms",
            "calm p99 ms"
        );
        let ms = |us: u64| format!("{}.{:02}", us / 1_000, us % 1_000 / 10);
        for (name, figures) in PHASES.iter().zip(&self.phases) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{name:<10} {:>10} {:>8} {:>8} {:>8} {:>6} {:>10} {:>11} {:>12} {:>12}",
                figures.per_s(figures.requests as u64),
                figures.served,
                figures.refused,
                figures.forbidden,
                figures.other,
                figures.per_s(figures.entries),
                figures.per_s(figures.messages),
                ms(figures.calm_us(500)),
                ms(figures.calm_us(990)),
            );
        }
        for why in &self.broken {
            let _ = writeln!(text, "BROKEN  {why}");
        }
        let _ =
            writeln!(text, "verdict: {}", if self.is_kept() { "every promise was kept" } else { "BROKEN" });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(entries: u64, calm_us: u64) -> Figures {
        let figures = Figures { ms: 10_000, entries, messages: 2 * entries, ..Figures::default() };
        Figures { refused: 1_000, forbidden: 1_000, calm_us: vec![calm_us; 100], ..figures }
    }

    fn judged(phases: [Figures; 3]) -> String {
        Overload::new(phases, &Recorded::default()).render()
    }

    #[test]
    fn an_overload_that_nobody_notices_keeps_every_promise() {
        let text = judged([phase(500, 900), phase(500, 1_900), phase(560, 2_100)]);
        assert!(text.ends_with("every promise was kept\n"), "{text}");
    }

    #[test]
    fn more_entries_than_before_break_the_verdict() {
        let text = judged([phase(500, 900), phase(500, 1_900), phase(900, 1_900)]);
        assert!(text.contains("BROKEN  overload raises log entries from 50/s to 90/s"), "{text}");
    }

    #[test]
    fn latency_is_measured_against_a_flood_that_no_quota_sees() {
        let text = judged([phase(500, 900), phase(500, 30_000), phase(500, 50_000)]);
        assert!(text.ends_with("every promise was kept\n"), "{text}");
        let text = judged([phase(500, 900), phase(500, 1_000), phase(500, 8_000)]);
        assert!(text.contains("median from 1000 µs to 8000 µs"), "{text}");
    }

    #[test]
    fn a_calm_tenant_that_is_refused_breaks_the_verdict() {
        // given one request of the first calm tenant, refused during the overload
        let mut overload = phase(500, 900);
        let (sent_ns, answered_ns, fate) = (0, 1_000_000, Fate::OverQuota);
        let sent = Sent { player: 0, node: 0, sent_ns, answered_ns, fate };
        overload.add(&[sent], 0, Counted::default(), Counted::default(), Duration::ZERO);
        // when it is judged, then it counts
        let text = judged([phase(500, 900), phase(500, 900), overload]);
        assert!(text.contains("overload: 1 requests of calm tenants were not served"), "{text}");
    }
}
