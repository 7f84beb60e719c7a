//! The only folder that names openraft: log, state machine, network, and how they are set.
//!
//! ```text
//! types      our names for openraft's types
//! wire       openraft's types ↔ versioned structs
//! backend    what keeps records: a small trait, redb behind it
//! log        log and vote: image in memory, one ordered queue to one writer
//! snapshot   one file, in records
//! incoming   a snapshot that another node sends
//! machine    applies entries
//! network    calls to other nodes
//! serve      calls from other nodes
//! offline    the disk of a stopped node
//! ```

pub mod backend;
pub mod incoming;
pub mod log;
pub mod machine;
pub mod network;
pub mod offline;
pub mod serve;
pub mod snapshot;
pub mod types;
pub mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, Instant as _, SnapshotPolicy};

/// How the consensus core is set (decisions.md 1).
///
/// - `snapshot_after`: entries after which a snapshot is made. A quarter as many stay in the log behind it; who is
///   further behind than twice as many gets the snapshot though the log may still hold what it lacks.
///
/// Failover takes at most `2 · election_max + 0.5 s`; lease times depend on it.
pub fn config(snapshot_after: u64) -> Arc<Config> {
    let config = Config {
        cluster_name: "quorumgate".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        enable_pre_vote: Some(true),
        // A leader sends entries before its own disk has them. If it went on leading its term after a power cut, it could
        // give the place of an entry that it lost, and others have, to another one (simulator, seed 1).
        enable_leader_restore: Some(false),
        install_snapshot_timeout: 30_000,
        max_payload_entries: 512,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_after),
        max_in_snapshot_log_to_keep: snapshot_after / 4,
        replication_lag_threshold: 2 * snapshot_after,
        api_channel_size: Some(4096),
        notification_channel_size: Some(65_536),
        ..Config::default()
    };
    Arc::new(config.validate().expect("the times above are in the order that openraft wants"))
}

/// Members that answered this leader within `within`; nobody if it does not lead.
pub fn heard(metrics: &types::Metrics, within: Duration) -> BTreeSet<u64> {
    let all = metrics.heartbeat.iter().flatten();
    let recent = all.filter(|(_, at)| at.is_some_and(|at| at.elapsed() <= within));
    recent.map(|(id, _)| *id).collect()
}

/// Between signs of life of a leader.
pub const HEARTBEAT_MS: u64 = 150;
/// The shortest silence after which a follower asks for votes.
pub const ELECTION_MIN_MS: u64 = 500;
/// The longest.
pub const ELECTION_MAX_MS: u64 = 1000;
