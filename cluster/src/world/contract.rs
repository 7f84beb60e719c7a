//! What every [`World`] promises, as one story that the real and the simulated world both have to tell.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Share, World};

/// Goes through every promise of `world`; needs the loopback ports `base_port` and the next, and an empty data
/// directory `dir`. To be awaited inside a domain of that world.
///
/// # Panics
/// At the first promise that is not kept: this is a test.
pub async fn contract(world: &World, base_port: u16, dir: &Path) {
    clocks(world).await;
    chance(world);
    disk(world, dir);
    net(world, base_port).await;
    domains(world).await;
}

async fn clocks(world: &World) {
    let before = (world.clock.mono(), world.clock.boot(), world.clock.wall());
    world.clock.sleep(Duration::from_millis(20)).await;
    let (mono, boot, wall) = (world.clock.mono(), world.clock.boot(), world.clock.wall());
    // Clocks may run at rates that differ a little, as real ones do.
    assert!(mono.since(before.0) >= 15_000_000, "mono moved by {} ns in 20 ms", mono.since(before.0));
    assert!(boot.since(before.1) >= 15_000_000, "boot moved by {} ns in 20 ms", boot.since(before.1));
    assert!(wall >= before.2, "the wall clock went from {:?} to {wall:?}", before.2);
}

fn chance(world: &World) {
    let (mut one, mut other) = ([0; 32], [0; 32]);
    world.chance.fill(&mut one);
    world.chance.fill(&mut other);
    assert_ne!(one, other, "256 bits do not repeat");
    assert_ne!(one, [0; 32], "bytes were filled");
}

fn disk(world: &World, dir: &Path) {
    let disk = &world.disk;
    let lock = disk.lock(dir).expect("the directory is free");
    let again = disk.lock(dir).err().expect("the directory is taken");
    assert_eq!(again.kind(), io::ErrorKind::WouldBlock, "{again}");

    let file = dir.join("files/b");
    assert_eq!(disk.read(&file).expect("no file is no error"), None);
    assert!(disk.list(&dir.join("files")).expect("no directory is no error").is_empty());
    disk.write(&file, b"one").expect("a new file");
    disk.write(&file, b"two").expect("a replaced file");
    disk.write(&dir.join("files/a"), b"").expect("an empty file");
    assert_eq!(disk.read(&file).expect("read"), Some(b"two".to_vec()));
    assert_eq!(disk.list(&dir.join("files")).expect("list"), [Path::new("a"), Path::new("b")]);
    disk.remove(&file).expect("removed");
    disk.remove(&file).expect("nothing to remove is no error");
    assert_eq!(disk.list(&dir.join("files")).expect("list"), [Path::new("a")]);

    drafts(world, &dir.join("drafts/a"));

    let path = dir.join("store");
    {
        let store = disk.store(&path).expect("a new store");
        assert_eq!(store.len().expect("length"), 0);
        store.set_len(4096).expect("longer");
        store.write(4000, b"kept").expect("written");
        store.sync_data().expect("durable");
        store.close().expect("closed");
    }
    let store = disk.store(&path).expect("the same store");
    let mut bytes = [0xff; 6];
    store.read(3998, &mut bytes).expect("read");
    assert_eq!(&bytes, b"\0\0kept");
    assert_eq!(store.len().expect("length"), 4096);
    store.close().expect("closed");

    drop(lock);
    drop(disk.lock(dir).expect("the directory is free again"));
}

/// Files in pieces.
fn drafts(world: &World, file: &Path) {
    let disk = &world.disk;
    assert!(disk.open(file).expect("no file is no error").is_none());
    let mut first = disk.draft(file).expect("a draft");
    first.append(b"on").expect("written");
    first.append(b"e").expect("written");
    assert_eq!(disk.read(file).expect("read"), None, "a draft is no file yet");
    first.keep().expect("kept");
    let old = disk.open(file).expect("opened").expect("it is there");
    // Two drafts of one file do not touch each other, and one that is dropped leaves nothing.
    let (mut second, mut third) = (disk.draft(file).expect("a draft"), disk.draft(file).expect("another"));
    second.append(b"second").expect("written");
    third.append(b"third").expect("written");
    drop(third);
    second.keep().expect("kept");
    assert_eq!(disk.read(file).expect("read"), Some(b"second".to_vec()));
    let folder = file.parent().expect("it is in a folder");
    assert_eq!(disk.list(folder).expect("list"), [Path::new("a")]);
    // Who has opened a file goes on reading that one.
    let mut bytes = [0; 2];
    old.read_at(1, &mut bytes).expect("read");
    assert_eq!((old.size(), &bytes), (3, b"ne"));
    assert_eq!(
        old.read_at(2, &mut bytes).err().map(|error| error.kind()),
        Some(io::ErrorKind::UnexpectedEof)
    );
}

async fn net(world: &World, base_port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, base_port));
    let refused = world.net.connect("127.0.0.1", base_port + 1).await.err().expect("nobody listens there");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");

    let mut listener = world.net.bind(address, Share::Alone).expect("a free port");
    assert_eq!(listener.local_addr().port(), base_port);
    let taken = world.net.bind(address, Share::Alone).err().expect("a taken port");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse, "{taken}");

    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.expect("read to the end");
        stream.write_all(&text).await.expect("written");
        stream.shutdown().await.expect("ended");
    });
    let mut stream = world.net.connect("127.0.0.1", base_port).await.expect("somebody listens");
    stream.write_all(b"are you there").await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.expect("read to the end");
    assert_eq!(text, b"are you there");
    echo.await.expect("no panic");
}

async fn domains(world: &World) {
    assert!(world.domains.parallelism() >= 1);

    let (tell, told) = tokio::sync::oneshot::channel();
    let clock = world.clock.clone();
    let ended = world.domains.spawn(
        "contract",
        Box::pin(async move {
            let task = tokio::spawn(async { 7 });
            clock.sleep(Duration::from_millis(1)).await;
            tell.send(task.await.expect("no panic")).expect("somebody listens");
        }),
    );
    assert_eq!(told.await, Ok(7), "a domain runs what it was given, and tasks");
    assert_eq!(ended.await, Ok(()));

    let broken = world.domains.spawn("broken", Box::pin(async { panic!("on purpose") }));
    let text = broken.await.expect_err("it panicked");
    assert!(text.contains("on purpose"), "found {text:?}");

    let done = Arc::new(AtomicBool::new(false));
    let mark = done.clone();
    world.domains.blocking(Box::new(move || mark.store(true, Ordering::SeqCst))).await;
    assert!(done.load(Ordering::SeqCst), "blocking work is done when its future yields");
}
