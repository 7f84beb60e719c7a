use std::path::Path;

use cluster::state::ids::Revision;
use cluster::world::{Disk, UnixMs};

use super::super::compile::tests::{document, find};
use super::*;
use crate::auth::Tokens;
use crate::journey::caller::Caller;
use crate::journey::received::{Arrival, RequestId};
use crate::upstream::body::ClientBody;
use crate::world::small::Small;

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
    let small = Small::new();
    if let Some(secret) = secret {
        put_secret(&small, &secret);
    }
    let world = small.world();
    let (views, seen) = watch::channel(Arc::new(View::default()));
    let routes = Routes::new(world, std::path::PathBuf::new(), seen);
    let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("a parent starts");
    routes.start(parent.get_cell()).await.expect("the keeper starts");
    Town { small, views, routes }
}

fn put_secret(small: &Small, secret: &[u8]) {
    small.write(Path::new("dev.secret"), secret).expect("there is room");
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
        let rule = find(&published);
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
    put_secret(&town.small, &[b's'; 32]);
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
    put_secret(&town.small, &[b'x'; 32]);
    town.views.send_replace(Arc::new(view));
    // then revision 1 stays, and the problem says so
    town.until(|routes| routes.problem().is_some()).await;
    assert_eq!(town.revision(), Some(1));
    let problem = town.routes.problem().expect("a problem");
    assert!(problem.contains("revision 1 stays in force") && problem.contains("fingerprint"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_at_a_route_with_claims_is_counted_there_and_refused() {
    // given a route with claims that is counted by address, and no other
    let town = town(Some(vec![b's'; 32])).await;
    let mut document = document();
    let matches = &mut document.routes[0].matches;
    matches.claims = [("plan".to_owned(), vec!["gold".to_owned()])].into();
    matches.methods = vec!["GET".to_owned()];
    let document = Some(Arc::new(document));
    let view = View { revision: Revision(1), document, secret: Some([7; 16]), ..View::default() };
    town.views.send_replace(Arc::new(view));
    town.until(|routes| routes.load().is_some()).await;
    // when requests come without a token, or with a bad one
    let tokens = Tokens::new(10);
    for (method, token) in [("GET", None), ("GET", Some("Bearer a.b.c")), ("PUT", Some("Bearer a.b.c"))] {
        let mut request = http::Request::builder().method(method).uri("/api/x").header("host", "h");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let (parts, ()) = request.body(()).expect("well-formed").into_parts();
        let caller = Arc::new(Caller::plain(([127, 0, 0, 1], 4000).into()));
        let arrival = Arrival { id: RequestId(7), caller, at: tokio::time::Instant::now() };
        let received = Received::check(parts, ClientBody::empty(), arrival, 100).expect("well-formed");
        let now = || UnixMs(0);
        let mut bearer = Bearer::new(&tokens, received.headers(), &now);
        let rule = journey::Routes::find(&town.routes, &received, &mut bearer).expect("the route");
        // then the route's own quota counts them, before it refuses them for what was found out already
        assert_eq!(rule.screens.len(), 1);
        let looked = bearer.into_looked();
        assert!(looked.is_some());
        let known = tokens.authenticate(&rule.access, received.headers(), looked, UnixMs(0));
        assert!(known.is_err(), "{method} {token:?}: {known:?}");
    }
}
