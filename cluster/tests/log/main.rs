//! The log and its disk: openraft's own suite, and power cuts in the middle of commits.

mod disk;
#[path = "../replica/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::storage::RaftLogStorage;
use openraft::testing::log::{StoreBuilder, Suite};
use quorumgate_cluster::fatal::Bell;
use quorumgate_cluster::peer::message::log::LogIdV1;
use quorumgate_cluster::raft::backend::{Backend, Fact, Loaded, Redb, Write};
use quorumgate_cluster::raft::log::Log;
use quorumgate_cluster::raft::machine::Machine;
use quorumgate_cluster::raft::types::{LogId, TypeConfig};

use self::disk::{Dice, SimDisk};

struct Fresh;

impl StoreBuilder<TypeConfig, Log, Machine, tempfile::TempDir> for Fresh {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let world = world::world(dir.path());
        let backend = Arc::new(Redb::open(&world, Path::new("log")).expect("an empty store opens"));
        let (bell, _) = Bell::new(dir.path().to_owned());
        let log = Log::open(&world, backend, bell.clone()).await.expect("an empty log opens");
        let (machine, _) = Machine::open(&world, log.clone(), bell).await.expect("there is no snapshot");
        Ok((dir, log, machine))
    }
}

#[tokio::test]
async fn log_and_machine_pass_the_suite_of_openraft() {
    // given, when, then: all in the suite
    Suite::test_all(Fresh).await.expect("the suite passes");
}

#[tokio::test]
async fn what_is_committed_reaches_the_disk_though_nothing_else_is_written() {
    // given a log that knows nothing to be committed
    let dir = tempfile::tempdir().expect("a temporary directory");
    let world = world::world(dir.path());
    let backend = Arc::new(Redb::open(&world, Path::new("log")).expect("an empty store opens"));
    let (bell, _) = Bell::new(dir.path().to_owned());
    let mut log = Log::open(&world, backend.clone(), bell).await.expect("an empty log opens");
    let last = LogId::from(LogIdV1 { term: 1, index: 5 });
    log.purge(last).await.expect("it is queued");
    // when its last entry is, and nothing is written after that
    log.save_committed(Some(last)).await.expect("it is noted");
    // then the disk learns of it
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while backend.load().expect("it can be read").committed.is_none() {
        assert!(std::time::Instant::now() < until, "it was not written");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, Vec<u8>>,
    vote: Option<Vec<u8>>,
}

impl Model {
    fn write(&mut self, batch: &[Write]) {
        for write in batch {
            match write {
                Write::Put(index, record) => drop(self.entries.insert(*index, record.clone())),
                Write::RemoveFrom(first) => drop(self.entries.split_off(first)),
                Write::RemoveThrough(last) => self.entries = self.entries.split_off(&(last + 1)),
                Write::Set(Fact::Vote, record) => self.vote = Some(record.clone()),
                Write::Set(Fact::Purged | Fact::Committed, _) => {}
            }
        }
    }

    fn batch(&self, dice: &mut Dice) -> Vec<Write> {
        let next = self.entries.keys().next_back().map_or(0, |last| last + 1);
        match dice.below(6) {
            0 => vec![Write::Set(Fact::Vote, vec![dice.below(256) as u8; 24])],
            1 => vec![Write::RemoveFrom(next.saturating_sub(dice.below(4)))],
            2 => vec![Write::RemoveThrough(next.saturating_sub(5 + dice.below(20)))],
            _ => (next..next + 1 + dice.below(8))
                .map(|index| Write::Put(index, vec![dice.below(256) as u8; 1 + dice.below(2000) as usize]))
                .collect(),
        }
    }

    fn of(loaded: Loaded) -> Self {
        Self { entries: loaded.entries.into_iter().collect(), vote: loaded.vote }
    }
}

#[test]
fn no_acknowledged_write_is_lost_by_a_power_cut_and_no_batch_is_half_written() {
    for seed in 0..50 {
        // given a disk that loses and tears what was not synced
        let mut dice = Dice(seed);
        let disk = SimDisk::default();
        let mut model = Model::default();
        for generation in 0..4 {
            let store = Redb::over(disk.handle()).expect("the store opens after a cut");
            let found = Model::of(store.load().expect("the store is whole"));
            assert_eq!(found, model, "seed {seed}, generation {generation}");
            // when power fails in the middle of some commit
            disk.cut_after(20 + dice.below(120));
            let torn = loop {
                let batch = model.batch(&mut dice);
                if store.write(&batch).is_err() {
                    break batch;
                }
                model.write(&batch);
            };
            disk.crash(&mut dice);
            drop(store);
            // then all that was acknowledged is there, and the batch in flight is there as a whole or not at all
            let store = Redb::over(disk.handle()).expect("the store opens after a cut");
            let found = Model::of(store.load().expect("the store is whole"));
            if found != model {
                model.write(&torn);
                assert_eq!(found, model, "seed {seed}, generation {generation}");
            }
        }
    }
}
