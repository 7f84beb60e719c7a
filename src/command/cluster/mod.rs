//! `quorumgate cluster`: one file an action.

mod init;
mod recover;
mod status;

use std::process::ExitCode;
use std::time::Duration;

pub use init::found;

/// `quorumgate cluster`.
#[derive(Debug, clap::Args)]
pub struct Cluster {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Found a cluster of this one running node, once in a cluster's life. Nodes whose files name it as a peer join it
    /// by themselves.
    Init(init::Init),
    /// Show a node's view of its cluster.
    Status(status::Status),
    /// Begin anew from one node's disk, when a majority of the cluster's disks is lost for good.
    Recover(recover::Recover),
}

/// One call to the operators' door.
const CALL_WITHIN: Duration = Duration::from_secs(10);

impl Cluster {
    /// Carries the action out.
    ///
    /// # Errors
    /// What the node answered, or that it did not.
    pub async fn run(self) -> Result<ExitCode, String> {
        match self.action {
            Action::Init(init) => init.run().await,
            Action::Status(status) => status.run().await,
            Action::Recover(recover) => recover.run().await,
        }
    }
}
