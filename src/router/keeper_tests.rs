use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cluster::state::ids::Revision;
use cluster::world::{
    BootNs, BoxFuture, Chance, Clock, Disk, Domains, Listener, MonoNs, Net, Share, Stream, UnixMs,
};
use parking_lot::Mutex;

use super::super::compile::tests::document;
use super::*;

/// A world that has a clock and one file.
struct Small {
    secret: Mutex<Option<Vec<u8>>>,
}

impl Net for Small {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn bind(&self, _: SocketAddr, _: Share) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Clock for Small {
    fn mono(&self) -> MonoNs {
        MonoNs(0)
    }
    fn boot(&self) -> BootNs {
        BootNs(0)
    }
    fn wall(&self) -> UnixMs {
        UnixMs(0)
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Disk for Small {
    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn store(&self, _: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.secret.lock().clone().filter(|_| path == Path::new("dev.secret")))
    }
    fn write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

impl Chance for Small {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

impl Domains for Small {
    fn spawn(&self, _: &str, _: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Err("no threads here".to_owned()) })
    }
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        Box::pin(std::future::ready(()))
    }
    fn parallelism(&self) -> u16 {
        1
    }
}

/// Outlives its child.
struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();
    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

struct Town {
    small: Arc<Small>,
    views: watch::Sender<Arc<View>>,
    routes: Routes,
}

async fn town(secret: Option<Vec<u8>>) -> Town {
    let small = Arc::new(Small { secret: Mutex::new(secret) });
    let world = World {
        net: small.clone(),
        clock: small.clone(),
        disk: small.clone(),
        chance: small.clone(),
        domains: small.clone(),
    };
    let (views, seen) = watch::channel(Arc::new(View::default()));
    let routes = Routes::new(world, std::path::PathBuf::new(), seen);
    let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("a parent starts");
    routes.start(parent.get_cell()).await.expect("the keeper starts");
    Town { small, views, routes }
}

impl Town {
    fn apply(&self, revision: u64) {
        let document = Some(Arc::new(document()));
        let view = View { revision: Revision(revision), document, secret: Some([7; 16]), ..View::default() };
        self.views.send_replace(Arc::new(view));
    }

    /// Waits, on the paused clock, until `seen` holds.
    async fn until(&self, seen: impl Fn(&Routes) -> bool) {
        let looked = async {
            while !seen(&self.routes) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looked).await.expect("seen within a minute");
    }

    fn revision(&self) -> Option<u64> {
        self.routes.load().map(|published| published.revision.0)
    }
}

#[tokio::test(start_paused = true)]
async fn each_revision_is_published_whole() {
    // given a node without a document
    let town = town(Some(vec![b's'; 32])).await;
    assert_eq!(town.revision(), None);
    // when two revisions come
    for revision in [1, 2] {
        town.apply(revision);
        // then each is in force, its routes made of the very keys that are published with them
        town.until(|routes| routes.load().is_some_and(|published| published.revision.0 == revision)).await;
        let published = town.routes.load().expect("in force");
        let rule = published.table.find("h", "/api", "GET").expect("the route");
        assert_eq!(rule.revision.0, revision);
        let crate::auth::AccessRule::Token(access) = &rule.access else { panic!("the route wants a token") };
        assert!(Arc::ptr_eq(&access.verifiers, &published.verifiers));
    }
    assert_eq!(town.routes.problem(), None);
}

#[tokio::test(start_paused = true)]
async fn a_revision_whose_secret_is_missing_is_refused_until_it_is_there() {
    // given a node without the secret
    let town = town(None).await;
    // when a revision comes that needs it
    town.apply(1);
    town.until(|routes| routes.problem().is_some()).await;
    // then nothing is in force, and the problem says what to do
    let problem = town.routes.problem().expect("a problem");
    assert_eq!(town.revision(), None);
    assert!(problem.contains("revision 1") && problem.contains("dev.secret"), "{problem}");
    // when the secret is put in place
    *town.small.secret.lock() = Some(vec![b's'; 32]);
    // then the revision comes into force by itself
    town.until(|routes| routes.load().is_some()).await;
    assert_eq!((town.revision(), town.routes.problem()), (Some(1), None));
}

#[tokio::test(start_paused = true)]
async fn a_refused_revision_leaves_the_last_good_one_in_force() {
    // given a node with revision 1 in force
    let town = town(Some(vec![b's'; 32])).await;
    town.apply(1);
    town.until(|routes| routes.load().is_some()).await;
    // when revision 2 wants a secret that this node has not
    let mut changed = document();
    changed.issuers[0].keys[0].kid = Some("new".into());
    let view = View {
        revision: Revision(2),
        document: Some(Arc::new(changed)),
        secret: Some([7; 16]),
        ..View::default()
    };
    *town.small.secret.lock() = Some(vec![b'x'; 32]);
    town.views.send_replace(Arc::new(view));
    // then revision 1 stays, and the problem says so
    town.until(|routes| routes.problem().is_some()).await;
    assert_eq!(town.revision(), Some(1));
    let problem = town.routes.problem().expect("a problem");
    assert!(problem.contains("revision 1 stays in force") && problem.contains("fingerprint"), "{problem}");
}
