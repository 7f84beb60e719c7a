use cluster::world::Disk;

use super::*;

fn disk() -> SimDisk {
    SimDisk::new(Chance::new(7, "disk"), (1, 4))
}

/// A store of three sectors, synced full of ones, then written full of twos.
fn half_written(disk: &SimDisk) -> DiskHandle {
    let handle = disk.attach();
    let store = handle.store(Path::new("log")).expect("opened");
    store.set_len(1536).expect("longer");
    store.write(0, &[1; 1536]).expect("written");
    store.sync_data().expect("durable");
    store.write(0, &[2; 1536]).expect("written");
    handle
}

fn content(disk: &SimDisk) -> Vec<u8> {
    let store = disk.attach().store(Path::new("log")).expect("opened");
    let mut bytes = vec![0; usize::try_from(store.len().expect("length")).expect("small")];
    store.read(0, &mut bytes).expect("read");
    bytes
}

#[test]
fn a_power_cut_loses_what_was_not_synced_keeps_it_or_tears_it() {
    let after = |unsynced| {
        let disk = disk();
        half_written(&disk);
        disk.cut(unsynced);
        content(&disk)
    };
    assert_eq!(after(Unsynced::Lost), [1; 1536]);
    assert_eq!(after(Unsynced::Kept), [2; 1536]);
    let torn = after(Unsynced::Torn);
    assert!(torn.contains(&1) && torn.contains(&2), "this seed tears it");
    assert!(torn.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "by sectors");
}

#[test]
fn a_process_that_is_killed_leaves_what_it_wrote_to_the_kernel() {
    let disk = disk();
    half_written(&disk);
    disk.let_go();
    assert_eq!(content(&disk), [2; 1536]);
}

#[test]
fn a_process_whose_machine_is_off_changes_nothing_any_more() {
    let disk = disk();
    let handle = half_written(&disk);
    let late = handle.store(Path::new("log")).expect("opened");
    disk.cut(Unsynced::Lost);
    // redb does this when it is dropped
    assert!(late.write(0, &[3; 512]).is_err());
    assert!(late.sync_data().is_err());
    assert_eq!(content(&disk), [1; 1536]);
}

#[test]
fn the_power_can_be_cut_in_the_middle_of_a_commit() {
    let disk = disk();
    let handle = half_written(&disk);
    let store = handle.store(Path::new("log")).expect("opened");
    disk.cut_after(1, Unsynced::Lost);
    store.write(512, &[3; 512]).expect("the last one");
    assert!(store.sync_data().is_err());
    assert!(disk.is_cut());
    disk.cut(Unsynced::Lost);
    assert!(!disk.is_cut());
    assert_eq!(content(&disk), [1; 1536]);
    assert_eq!((disk.seen().cuts_unsynced, disk.seen().lost_writes), (1, 2));
}

#[test]
fn a_full_disk_and_a_failing_one_say_so_and_syncs_take_time() {
    let disk = disk();
    let handle = half_written(&disk);
    handle.take_owed();
    disk.fill(true);
    let full = handle.write(Path::new("file"), b"x").expect_err("no room");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    disk.fill(false);
    disk.fail_after(1);
    handle.write(Path::new("file"), b"x").expect("this one passes");
    assert!(handle.write(Path::new("file"), b"y").is_err());
    assert_eq!(handle.read(Path::new("file")).expect("read"), Some(b"x".to_vec()));
    disk.slow_down(1_000);
    handle.take_owed();
    handle.write(Path::new("file"), b"z").expect("slow");
    assert!(handle.take_owed().as_millis() > 1_000);
}
