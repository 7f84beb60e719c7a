//! `quorumgate demo`: three or more real nodes on this machine, with traffic if you like, and a kill in the middle.

mod drive;
mod load;
mod oracle;
mod overload;
mod players;
mod table;
mod town;
mod verdict;

use std::process::ExitCode;
use std::time::Duration;

pub use drive::Kill;

/// `quorumgate demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Drive load on all nodes for this long, then print a verdict: `30s`, `2m`.
    #[arg(long, value_name = "TIME", value_parser = crate::command::duration)]
    drive: Option<Duration>,
    /// What is driven.
    #[arg(long, value_name = "WHAT", default_value = "mixed", requires = "drive")]
    scenario: Scenario,
    /// What a drive must use of what a perfect bucket admits, in percent; for a machine that has much else to do.
    #[arg(long, value_name = "PERCENT", requires = "drive", value_parser = clap::value_parser!(u8).range(1..=99))]
    floor: Option<u8>,
    /// In the middle of the drive, kill a node with SIGKILL, and start it again a little later.
    #[arg(long, value_name = "WHOM", requires = "drive")]
    kill: Option<Kill>,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Leave the folder with configurations and logs in place at the end.
    #[arg(long)]
    keep: bool,
}

/// What a drive shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Tenants over, at and under their limits, evenly and unevenly over the nodes.
    Mixed,
    /// Limits of fewer tokens a second than there are nodes: used whole, and no node starves.
    Tiny,
    /// Tenants whose requests suddenly come to one node.
    Skew,
    /// One tenant at a thousand times its limit: what it costs the log, and the others.
    Overload,
}

/// The shortest drive that can say anything.
const DRIVE_MIN: Duration = Duration::from_secs(10);

impl Demo {
    /// Runs the demo.
    ///
    /// # Errors
    /// If the cluster could not be started or driven.
    pub async fn run(self) -> Result<ExitCode, String> {
        if let Some(drive) = self.drive
            && drive < DRIVE_MIN
        {
            return Err(format!("found --drive {drive:?}, wanted {DRIVE_MIN:?} or more"));
        }
        if self.kill.is_some() && self.nodes < 3 {
            return Err(format!(
                "found --kill with {} nodes: a majority must survive, use 3 or 5",
                self.nodes
            ));
        }
        if self.kill.is_some() && self.scenario != Scenario::Mixed {
            return Err("found --kill with a scenario of its own, wanted --scenario mixed".to_owned());
        }
        let mut scene = match self.scenario {
            Scenario::Mixed | Scenario::Overload => players::MIXED,
            Scenario::Tiny => players::TINY,
            Scenario::Skew => players::SKEW,
        };
        scene.floor_per_mille = self.floor.map_or(scene.floor_per_mille, |percent| u64::from(percent) * 10);
        let document = if self.scenario == Scenario::Overload {
            let players = [&players::CALM[..], &[players::GREEDY, players::KNOCKING]].concat();
            players::gateway_document(&players, "")
        } else {
            players::gateway_document(scene.players, scene.wait)
        };
        println!("starting {} nodes …", self.nodes);
        let mut town = town::Town::start(usize::from(self.nodes), &document).await?;
        if self.keep {
            town.keep_folder();
        }
        println!("configurations and logs: {}", town.folder().display());
        for node in &town.nodes {
            println!(
                "{}: http://{}  admin http://{}  pid {}",
                node.name,
                node.http,
                node.admin,
                node.pid().unwrap_or(0)
            );
        }
        if let Some(duration) = self.drive {
            let driven = async {
                if self.scenario == Scenario::Overload {
                    let overload = overload::drive(&town, duration).await?;
                    return Ok::<_, String>((overload.render(), overload.is_kept()));
                }
                let verdict = drive::drive(&mut town, &scene, duration, self.kill).await?;
                Ok((verdict.render(), verdict.is_kept()))
            };
            let (text, kept) = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Err("interrupted".to_owned()),
                driven = driven => driven?,
            };
            print!("\n{text}");
            return Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let token = town::token("trickle", "you")?;
        println!("\nTOKEN={token}");
        println!("# 5 a minute, wherever you ask; every node spends from the same bucket:");
        for node in &town.nodes {
            println!("curl -i -H \"Authorization: Bearer $TOKEN\" http://{}/orders/1", node.http);
        }
        println!("# without a token:\ncurl -i http://{}/orders/1\n", town.nodes[0].http);
        table::watch(&town).await?;
        Ok(ExitCode::SUCCESS)
    }
}
