//! `quorumgate demo`: three real nodes on this machine, with traffic if you like, and a kill in the middle.

mod drive;
mod load;
mod oracle;
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
        println!("starting {} nodes …", self.nodes);
        let mut town = town::Town::start(usize::from(self.nodes), &players::gateway_document()).await?;
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
            let verdict = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Err("interrupted".to_owned()),
                verdict = drive::drive(&mut town, duration, self.kill) => verdict?,
            };
            print!("\n{}", verdict.render());
            return Ok(if verdict.is_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
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
