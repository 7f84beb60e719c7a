//! Whole quorumgate clusters under one seed: whole nodes — the same `node::run` as the binary —, upstreams, callers and
//! an operator, under weather that is drawn from the seed. Same binary, same seed: the same history, byte for byte.
//!
//! ```text
//! plan      a run before it begins: scene and weather         scene     nodes, documents, callers
//! edition   a gateway document, adopted                       traffic   callers for somebody's own document
//! weather   kinds of trouble, and how they are drawn          town      hosts, a millisecond after the other
//! host      a process on a runtime whose time we move         clock     true time, and machines' clocks
//! network   streams, and what goes wrong with them            disk      files, and what a power cut leaves
//! world     the node's one door, onto these                   shim      the C library's clocks and entropy
//! people    callers, upstreams, operator                      witness   hears all; the history
//! promise   what must hold                                    run       a plan, its history and its verdict
//! report    a run on one page                                 moment    times, as plans have them
//! expectation  what a plan expects in figures             junit     verdicts for machines
//! simulation   the entry for tests in Rust                command   the one for everybody else
//! sweep, shrink, meta, child: many plans, smaller plans, the same plan twice, each run in a process of its own
//! mutants   known mistakes, planted to see which promise notices
//! ```
//!
//! # What could differ between two runs, and what closes it
//! * Hash keys and random generators of libraries: `shim` answers `getrandom` and `syscall(SYS_getrandom)` from the
//!   seed. The run has a fresh thread, because both are cached per thread. A library with a getrandom call of its own
//!   in machine code (rustix has) is not caught; in the product only the real world calls it.
//! * `std::time` (tokens' `exp`, hyper's `Date`, patience with connections): `shim` answers `clock_gettime` with the
//!   clocks of the host that runs. tokio's clock is paused, and moved by `host` in whole milliseconds.
//! * The order in which tasks run: one thread; each process has a runtime with a seed of its own, which needs
//!   `tokio_unstable`. A panic that nobody catches ends the run.
//! * The order in which hosts run within a millisecond: drawn from the seed.
//! * Threads: `world` runs a domain as a task, and blocking work inline; its caller goes on as much later as the disk took.
//! * The node's chance, network, disk and clocks: `world`, from streams of chance of their own.
//! * Task ids and actor ids are counted per process, and decide the order in which a crash drops tasks: one run is one
//!   process.
//! * Cryptography (aws-lc) has entropy of its own in C, part of it from the processor's jitter. Nothing that can be
//!   seen depends on it: clusters here speak plaintext, and tokens are signed with HMAC, which takes no chance.
//! * What is logged: the history is made of events, and does not know whether a log is written. Both are heard through one
//!   filter: with a filter each, an event for the log alone took the next one from the history.
//!
//! # What is not simulated
//! Time passes in steps of a millisecond. All timers of a process, hyper's and ractor's too, follow its machine's clock;
//! acknowledgements of TCP and the loss of single packets are not modelled (see `network`). There is no TLS yet. Issuers'
//! keys are replaced by a secret on the simulated disk (see `edition`): `{env: …}` would be read from the real environment.

#[cfg(not(tokio_unstable))]
compile_error!("build with --cfg tokio_unstable: a set RUSTFLAGS hides the one in .cargo/config.toml");

mod chance;
mod child;
mod clock;
pub mod command;
mod disk;
mod edition;
mod event;
mod expectation;
mod host;
mod junit;
mod meta;
mod moment;
mod mutants;
mod network;
mod people;
mod plan;
mod promise;
mod report;
mod run;
mod scene;
mod shim;
mod shrink;
mod simulation;
mod sweep;
mod town;
mod traffic;
mod weather;
mod witness;
mod world;

pub use promise::expected::Outcome;
pub use run::{Broken, Report};
pub use simulation::Simulation;
