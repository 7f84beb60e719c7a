//! A drive: load on all nodes, a kill in the middle, a verdict at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::load::{Load, Target, boot_ns};
use super::players::Scene;
use super::town::Town;
use super::verdict::{Driven, Failover, Verdict};
use crate::command::client;

/// Whom a drive kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kill {
    /// The node that leads.
    Leader,
    /// A node that does not lead.
    Follower,
}

/// Longest wait for a leader, and until a node that was killed is ready again.
const FAILOVER_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);
const POLL_WITHIN: Duration = Duration::from_millis(500);

/// Drives `town` with the players of `scene` for `duration`, killing midway whom `kill` names and starting it again later.
///
/// # Errors
/// If the drive could not be carried out; a broken promise is no error but a verdict.
pub async fn drive(
    town: &mut Town,
    scene: &Scene,
    duration: Duration,
    kill: Option<Kill>,
) -> Result<Verdict, String> {
    let targets = Arc::new(town.nodes.iter().map(|node| Target::new(node.http)).collect::<Vec<_>>());
    let start_ns = boot_ns();
    let load = Load::start(targets, scene.players, duration)?;
    let start = Instant::now();
    let mut failover = None;
    if let Some(kill) = kill {
        progress(&load, start, start + duration / 2).await;
        failover = kill_and_restart(town, &load, start, duration, kill).await?;
    }
    progress(&load, start, start + duration).await;
    let (sent, skipped) = load.finish().await;
    let failover = failover.map(|failover| failover.until_decided(scene.players, &sent));
    let (nodes, recorded) = (town.nodes.len(), &town.recorder.recorded());
    let sent = &sent;
    Ok(Verdict::new(&Driven { scene, nodes, sent, skipped, recorded, start_ns, duration, failover }))
}

async fn kill_and_restart(
    town: &mut Town,
    load: &Load,
    start: Instant,
    duration: Duration,
    kill: Kill,
) -> Result<Option<Failover>, String> {
    let leader = wait_for_leader(town).await?;
    let victim = match kill {
        Kill::Leader => leader,
        Kill::Follower => (leader + 1) % town.nodes.len(),
    };
    let (name, pid) = (town.nodes[victim].name.clone(), town.nodes[victim].pid());
    println!("{} SIGKILL {name} (pid {})", clock(start), pid.unwrap_or(0));
    load.targets()[victim].take_out();
    let killed_ns = boot_ns();
    town.kill(victim);
    let failover = match kill {
        Kill::Follower => None,
        Kill::Leader => {
            let new = wait_for_leader(town).await?;
            let recovered_ns = boot_ns();
            let ms = (recovered_ns - killed_ns) / 1_000_000;
            println!("{} {} leads, {ms} ms after the kill", clock(start), town.nodes[new].name);
            Some(Failover { killed_ns, recovered_ns })
        }
    };
    progress(load, start, start + duration / 2 + (duration / 6).max(Duration::from_secs(3))).await;
    town.spawn(victim)?;
    let until = std::time::Instant::now() + FAILOVER_WITHIN;
    town.until(until, "/readyz", "ready again", |status| status["status"] == "ready").await?;
    load.targets()[victim].put_back();
    println!("{} {name} is back", clock(start));
    Ok(failover)
}

async fn wait_for_leader(town: &Town) -> Result<usize, String> {
    let until = Instant::now() + FAILOVER_WITHIN;
    while Instant::now() < until {
        for (index, node) in town.nodes.iter().enumerate().filter(|(_, node)| node.is_up()) {
            let status = client::get_json(node.admin, "/v1/status", POLL_WITHIN).await;
            if status.is_ok_and(|status| status["role"] == "leader") {
                return Ok(index);
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Err(format!("no leader within {FAILOVER_WITHIN:?}"))
}

/// One line a second until `until`.
async fn progress(load: &Load, start: Instant, until: Instant) {
    while Instant::now() < until {
        tokio::time::sleep_until((Instant::now() + Duration::from_secs(1)).min(until)).await;
        let [served, over, undecided, failed, lost] = load.counts();
        println!(
            "{} served {served}, over quota {over}, undecided {undecided}, failed {failed}, lost with a node {lost}",
            clock(start)
        );
    }
}

fn clock(start: Instant) -> String {
    format!("[{:>5.1} s]", start.elapsed().as_secs_f32())
}
