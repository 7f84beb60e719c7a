//! Whole quorumgate clusters under one seed.
//!
//! `run --seed N --trace FILE` boots a cluster of whole nodes — the same `node::run` as the binary — together with an
//! upstream and an operator, serves requests through every node, and writes the history. Same binary, same seed: the
//! same history, byte for byte. One seed is one process, because some counters (task ids, actor ids) are process-wide.
//!
//! # What could differ between two runs, and what closes it
//! * Hash keys and random generators of libraries: `shim` answers `getrandom` and `syscall(SYS_getrandom)` from the
//!   seed. The run has a fresh thread, because both are cached per thread. A library with a getrandom call of its own
//!   in machine code (rustix has) is not caught; in the product only the real world calls it.
//! * `std::time` (tokens' `exp`, hyper's `Date`, patience with connections): `shim` answers `clock_gettime` with
//!   simulated time, which moves from tick to tick (1 ms). tokio's clock is paused and moved by turmoil.
//! * The order in which tasks run: one thread; turmoil seeds the scheduler of each host, which needs `tokio_unstable`.
//!   Under it a panic that nobody catches ends the run.
//! * Threads: `world` runs a domain as a task, and blocking work inline; its caller goes on 1 ms later.
//! * The node's chance, network and clocks: `world`. Files and stores: `disk`.
//! * Delays of the network and the order of hosts: turmoil under the seed.
//! * Task ids and actor ids are counted per process: one seed is one process.
//! * Cryptography (aws-lc) has entropy of its own in C, part of it from the processor's jitter. Nothing that can be
//!   seen depends on it: clusters here speak plaintext, and tokens are signed with HMAC, which takes no chance.
//!
//! # What is not simulated
//! All clocks run at the true rate of the simulation; so do timers of tokio, hyper and ractor that bypass the node's
//! `Clock`. A domain's tasks outlive it until its host ends. A disk neither fails nor forgets. There is no TLS yet.
//! Secrets named by `{env: …}` are read from the real environment, so documents here name files.

#[cfg(not(tokio_unstable))]
compile_error!("build with --cfg tokio_unstable: a set RUSTFLAGS hides the one in .cargo/config.toml");

mod disk;
mod shim;
mod town;
mod trace;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a cluster, serve requests through every node, stop.
    Run {
        /// Decides everything.
        #[arg(long)]
        seed: u64,
        /// How many nodes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
        nodes: u8,
        /// Where the history is written.
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
    },
}

#[expect(clippy::disallowed_methods, reason = "the simulation is what runs on this thread, not a node")]
fn main() -> ExitCode {
    let Command::Run { seed, nodes, trace } = Cli::parse().command;
    // A fresh thread: hash keys and random generators are cached per thread, and must be made under the shim.
    let ran = std::thread::spawn(move || {
        town::run(seed, nodes, trace.as_deref()).map_err(|error| error.to_string())
    })
    .join();
    match ran {
        Ok(Ok(summary)) => {
            println!("seed {seed}: {summary}");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            eprintln!("seed {seed} failed: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("seed {seed} panicked");
            ExitCode::FAILURE
        }
    }
}
