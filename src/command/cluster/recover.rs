//! `quorumgate cluster recover`: a new cluster from one disk of an old one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cluster::recover::{FOLDER, IDENTITY, Recovered};
use config::node::NodeFile;

use crate::command::run::read_node_file;
use crate::world::real;

/// The file of a data directory that its process holds.
const LOCK: &str = "lock";
/// In the new folder: the name of the folder for the old files.
const ASIDE: &str = "aside";
const ASIDE_IS: &str = "before-recovery-";
/// In the new folder: every old file is aside.
const ASIDE_DONE: &str = "aside.done";

/// Begin anew from the disk of this node, when a majority of the cluster's disks is lost for good. All nodes must be
/// stopped. What only the lost disks knew is forgotten.
#[derive(Debug, clap::Args)]
pub struct Recover {
    /// The node file of a stopped node.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only say what the node's disk holds. Do this on every node whose disk is left, and recover the one with the highest
    /// last entry: by term, then by index.
    #[arg(long, conflicts_with = "lost")]
    inspect: bool,
    /// Make this disk a new cluster of this node alone; the others then join it with empty disks. The old disk is kept
    /// aside, in a folder of the data directory.
    #[arg(long = "i-have-lost-the-majority")]
    lost: bool,
}

impl Recover {
    /// Carries it out.
    ///
    /// # Errors
    /// Why nothing was done.
    pub async fn run(self) -> Result<ExitCode, String> {
        let file = read_node_file(&self.config)?;
        if !file.data.is_dir() {
            return Err(format!("there is no data directory {}: nothing to recover", file.data.display()));
        }
        if self.inspect {
            let held = cluster::recover::inspect(&real(), &file).await.map_err(|error| error.to_string())?;
            print!("{held}");
            return Ok(ExitCode::SUCCESS);
        }
        if !self.lost {
            return Err(format!(
                "while a majority of the nodes has its disks, start those, and a node without a disk joins them: nothing \
                 is lost.\nIf a majority of the disks is lost for good: stop every node; on each disk that is left run\n  \
                 quorumgate cluster recover --config {0} --inspect\nand on the one with the highest last entry (term, then \
                 index)\n  quorumgate cluster recover --config {0} --i-have-lost-the-majority",
                self.config.display()
            ));
        }
        let fresh = file.data.join(FOLDER);
        if fresh.join(IDENTITY).exists() {
            println!("a recovery of this directory was cut off; it is finished now");
        } else {
            prepare(&file, &fresh).await?;
        }
        let world = real();
        let _lock = world.disk.lock(&file.data).map_err(|error| error.to_string())?;
        let aside = swap(&file.data, &fresh)
            .map_err(|error| format!("{}: {error}; run this command again", file.data.display()))?;
        println!("kept aside: {}", aside.display());
        println!(
            "next: start this node, and the others with empty data directories; they join by themselves."
        );
        println!("never start a node on another disk of the old cluster again.");
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the new beginning into `fresh`; its identity is there last, and then it is whole.
async fn prepare(file: &NodeFile, fresh: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", fresh.display());
    if fresh.exists() {
        // Of an attempt that came to nothing: the old disk is as it was.
        fs::remove_dir_all(fresh).map_err(failed)?;
    }
    fs::create_dir(fresh).map_err(failed)?;
    sync(&file.data).map_err(failed)?;
    let earlier = fs::read_dir(&file.data).map_err(failed)?.flatten();
    let earlier = earlier.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE_IS)).count();
    write(&fresh.join(ASIDE), &format!("{ASIDE_IS}{}", earlier + 1)).map_err(failed)?;
    let recovered = cluster::recover::recover(&real(), &real(), file, fresh).await;
    let Recovered { old_cluster_id, cluster_id, raft_id, revision } =
        recovered.map_err(|error| error.to_string())?;
    println!("cluster {old_cluster_id:032x} is now cluster {cluster_id:032x}");
    println!("only member: {} (raft id {}), document revision {}", file.name, raft_id.0, revision.0);
    Ok(())
}

/// Moves the old files aside and the new ones into their place. After a crash in the middle the same call goes on: until
/// the identity, which is moved last, has left `fresh`, no node starts on the directory.
fn swap(data: &Path, fresh: &Path) -> io::Result<PathBuf> {
    let aside = data.join(aside(&fresh.join(ASIDE))?);
    if !fresh.join(ASIDE_DONE).exists() {
        fs::create_dir_all(&aside)?;
        for name in files(data)? {
            fs::rename(data.join(&name), aside.join(&name))?;
        }
        sync(&aside)?;
        sync(data)?;
        write(&fresh.join(ASIDE_DONE), "")?;
    }
    for name in
        files(fresh)?.into_iter().filter(|name| ![ASIDE, ASIDE_DONE, IDENTITY].contains(&name.as_str()))
    {
        fs::rename(fresh.join(&name), data.join(&name))?;
    }
    sync(data)?;
    fs::rename(fresh.join(IDENTITY), data.join(IDENTITY))?;
    sync(data)?;
    fs::remove_dir_all(fresh)?;
    Ok(aside)
}

/// The name of the folder for the old files. Any other text could lead out of the data directory, and none into its midst.
fn aside(path: &Path) -> io::Result<String> {
    let name = fs::read_to_string(path)?;
    if name.strip_prefix(ASIDE_IS).is_some_and(|number| number.parse::<u32>().is_ok()) {
        return Ok(name);
    }
    let text = format!(
        "{} holds {name:?}, wanted {ASIDE_IS} and a number: nothing was moved; write into it which folder of the data \
         directory has the old files, or a new one",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Writes a new file; it is durable on return.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

/// Names of the files in `dir`, without the lock.
fn files(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != LOCK {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).expect("made");
        files.iter().for_each(|(name, text)| fs::write(dir.join(name), text).expect("written"));
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).expect("it is there")
    }

    #[test]
    fn a_swap_that_was_cut_off_anywhere_is_finished_by_the_next_one() {
        // how far an earlier swap came: files moved aside, the mark set, new files moved in
        for (aside, done, moved) in [(0, false, 0), (1, false, 0), (3, false, 0), (3, true, 0), (3, true, 1)]
        {
            // given an old disk with three files, a new one with two, and a swap that was cut off
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (data, fresh) = (dir.path().to_owned(), dir.path().join(FOLDER));
            let old = [("identity", "old"), ("raft.redb", "old"), ("raft.snapshot", "old")];
            let new = [("raft.redb", "new"), ("identity", "new")];
            let kept = data.join("before-recovery-1");
            fill(&kept, &old[..aside]);
            fill(&data, &old[aside..]);
            fill(&data, &new[..moved]);
            fill(&fresh, &new[moved..]);
            fill(&fresh, &[(ASIDE, "before-recovery-1")]);
            fill(&data, &[(LOCK, "")]);
            if done {
                fill(&fresh, &[(ASIDE_DONE, "")]);
            }
            // when it is run again
            swap(&data, &fresh).expect("nothing is in its way");
            // then the new files are in place, and all of the old ones are aside
            for (name, text) in new {
                assert_eq!(read(data.join(name)), text, "{aside} {done} {moved}");
            }
            for (name, text) in old {
                assert_eq!(read(kept.join(name)), text, "{aside} {done} {moved}");
            }
            assert!(!fresh.exists() && !data.join("raft.snapshot").exists());
        }
    }

    #[test]
    fn a_swap_that_does_not_know_where_the_old_files_go_leaves_them_where_they_are() {
        for found in ["", "/", "before-recovery-", "before-recovery-1/../..", "elsewhere"] {
            // given a new disk whose note is not one that this program writes
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (data, fresh) = (dir.path().to_owned(), dir.path().join(FOLDER));
            fill(&data, &[("identity", "old"), ("raft.redb", "old")]);
            fill(&fresh, &[("identity", "new"), ("raft.redb", "new"), (ASIDE, found)]);
            // when the swap is run
            let refused = swap(&data, &fresh).expect_err("it must not guess");
            // then it says what it found and what to do, and every file is where it was
            assert!(
                refused.to_string().contains(&format!("holds {found:?}, wanted before-recovery-")),
                "{refused}"
            );
            for name in ["identity", "raft.redb"] {
                assert_eq!(
                    (read(data.join(name)), read(fresh.join(name))),
                    ("old".to_owned(), "new".to_owned())
                );
            }
        }
    }
}
