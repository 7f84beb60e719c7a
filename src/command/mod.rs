//! The command line, one file a command.

mod apply;
mod check;
mod client;
mod cluster;
mod demo;
mod dev;
mod echo;
pub mod pki;
mod route;
mod run;
mod token;
mod versions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use config::ids::NodeName;

/// An API gateway cluster whose cluster-wide quotas are exact.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Try it:
  quorumgate demo --drive 30s --kill leader    three real nodes, load, a kill in the middle, a verdict
  quorumgate dev --upstream http://127.0.0.1:3000 --limit 100/s
                                               one node in front of your own service, no file to write

Run a cluster:
  quorumgate pki --out pki node-1 node-2 node-3
  quorumgate check node-1.yaml gateway.yaml
  quorumgate run --config node-1.yaml          on each node
  quorumgate cluster init --apply gateway.yaml once, on one node; the others join it by themselves
  quorumgate cluster status"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node until SIGTERM or Ctrl-C.
    Run(run::Run),
    /// Check node files and gateway documents; lists every mistake with file, line and column.
    Check(check::Check),
    /// Say which route of a gateway document takes a request, and why no other does.
    Route(route::Route),
    /// Replace the gateway document of a running cluster.
    Apply(apply::Apply),
    /// Print who still calls which version of a route.
    Versions(versions::Versions),
    /// Found a cluster, change who is in it, or look at it.
    Cluster(cluster::Cluster),
    /// Make the cluster's CA and node certificates, certificates for more nodes of the same CA, or new ones for old nodes.
    Pki {
        /// The folder to write into; an existing CA in it is used.
        #[arg(long, default_value = "pki", value_name = "DIR")]
        out: PathBuf,
        /// Replace the certificates and keys that the nodes have there; without it nothing is overwritten.
        #[arg(long)]
        renew: bool,
        /// Node names, as in the node files.
        #[arg(required = true, value_name = "NODE", value_parser = node_name)]
        nodes: Vec<NodeName>,
    },
    /// Mint a development token (HS256).
    Token(token::Token),
    /// Run one node in front of your own service, with one limit by client address, and no file to write.
    Dev(dev::Dev),
    /// Run three real nodes on this machine, with load and a kill if you like.
    Demo(demo::Demo),
    /// Run a small upstream that answers with what it was sent.
    Echo {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
        listen: SocketAddr,
    },
}

impl Cli {
    /// Carries the command out.
    ///
    /// # Errors
    /// A text for the operator: what was found, what was wanted, what to do.
    pub async fn carry_out(self) -> Result<ExitCode, String> {
        match self.command {
            Command::Run(run) => run.run().await,
            Command::Check(check) => check.run(),
            Command::Route(route) => route.run(),
            Command::Apply(apply) => apply.run().await,
            Command::Versions(versions) => versions.run().await,
            Command::Cluster(cluster) => cluster.run().await,
            Command::Pki { out, renew, nodes } => {
                let written = if renew { pki::renew(&out, &nodes) } else { pki::write_pki(&out, &nodes) };
                let written = written.map_err(|error| error.to_string())?;
                for file in written.files {
                    println!("{}", file.display());
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Token(token) => token.run(),
            Command::Dev(dev) => dev.run().await,
            Command::Demo(demo) => demo.run().await,
            Command::Echo { listen } => {
                let upstream = echo::start(listen, Arc::default());
                let upstream = upstream.await.map_err(|error| format!("listening on {listen}: {error}"))?;
                println!("echo upstream on http://{}", upstream.address);
                tokio::signal::ctrl_c().await.map_err(|error| error.to_string())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Reads `30s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    config::units::parse_duration(text).map_err(|error| error.to_string())
}

/// Reads `name=text`.
fn claim(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, text) = pair.ok_or_else(|| format!("found {text:?}, wanted name=text"))?;
    Ok((name.to_owned(), text.to_owned()))
}

/// Claims with all their texts.
fn by_name(claims: Vec<(String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    claims.into_iter().for_each(|(name, text)| all.entry(name).or_default().push(text));
    all
}

fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::parse(text).map_err(|error| error.to_string())
}

/// Where a node's operators' door is.
#[derive(Debug, clap::Args)]
struct Door {
    /// The operators' door of any node of the cluster.
    #[arg(long, default_value = "127.0.0.1:9101", env = "QUORUMGATE_ADMIN", value_name = "ADDRESS")]
    admin: SocketAddr,
}
