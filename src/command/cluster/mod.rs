//! `quorumgate cluster`: one file an action.

mod follow;
mod init;
mod join;
mod leave;
mod recover;
mod replace;
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
    /// Wait until a node that was started with peers in its file is a member, and show how far it is.
    Join(join::Join),
    /// Remove a member: it hands its leases and its leadership back, finishes its requests, and ends.
    Leave(leave::Leave),
    /// Replace a member by another in one change: the old one leaves, the new one gets its vote.
    Replace(replace::Replace),
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
            Action::Join(join) => join.run().await,
            Action::Leave(leave) => leave.run().await,
            Action::Replace(replace) => replace.run().await,
            Action::Status(status) => status.run().await,
            Action::Recover(recover) => recover.run().await,
        }
    }
}
