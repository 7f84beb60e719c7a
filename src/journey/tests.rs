//! One connection, one upstream, over byte pipes with paused time: the journey as a client sees it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster::lease::{Ask, AskError, AskReply};
use cluster::state::ids::{Revision, SessionId};
use cluster::view::View;
use cluster::world::{BootNs, BoxFuture, Listener, Net, Share, Stream, World};
use config::action::{Action, Headers};
use config::identity::KeyMaterial;
use config::ids::{RouteName, UpstreamName};
use config::node::{HttpFile, Limits};
use config::path::Path;
use config::route::{Access, Match, Route};
use config::upstream::{Endpoint, Upstream};
use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};

use super::caller::Proxies;
use super::evidence::RouteRule;
use super::freshness::Freshness;
use super::received::{Received, RequestIds};
use super::{Gateway, Routes};
use crate::auth::secrets::Secret;
use crate::auth::{AccessRule, Bearer, Tokens};
use crate::connection::{Accepted, ConnectionActor, Entrance, Msg};
use crate::quota::{Keeper, Ledger};
use crate::refusal::Refusal;
use crate::router::Asked;
use crate::router::compile::{Source, compile};
use crate::telemetry::Telemetry;
use crate::upstream::mirror::Mirrors;
use crate::upstream::pool::Pool;
use crate::world::small::Small;

mod extended;
mod http2;
mod messages;
mod mirrored;
mod upgrades;

/// What an upstream does with a request: the number of its connection and of the request on it.
pub(crate) type Script = fn(connection: usize, request: usize) -> Act;

#[derive(Clone, Copy)]
pub(crate) enum Act {
    Say(&'static str),
    SayAfter(Duration, &'static str),
    /// Says these, with three seconds before each but the first.
    Pieces(&'static [&'static str]),
    /// Says this, then whatever it hears.
    Echo(&'static str),
    HangUp,
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nkeep-alive: timeout=5\r\n\r\nhi";
const WEEK: Duration = Duration::from_secs(7 * 86_400);

struct TestNet {
    script: Script,
    connections: AtomicUsize,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Net for TestNet {
    fn connect<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if port == 1 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let number = self.connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(upstream(theirs, self.script, number, self.seen.clone()));
            let stream: Box<dyn Stream> = Box::new(ours);
            Ok(stream)
        })
    }

    fn bind(&self, _: SocketAddr, _: Share) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

async fn upstream(
    mut stream: DuplexStream,
    script: Script,
    connection: usize,
    seen: Arc<Mutex<Vec<String>>>,
) {
    for request in 0.. {
        let Some(text) = read_head(&mut stream).await else { return };
        seen.lock().push(text);
        let said = match script(connection, request) {
            Act::Say(text) => text,
            Act::SayAfter(wait, text) => {
                sleep(wait).await;
                text
            }
            Act::Pieces(pieces) => {
                for piece in pieces {
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                    sleep(Duration::from_secs(3)).await;
                }
                continue;
            }
            Act::Echo(head) => {
                let (mut hears, mut says) = tokio::io::split(stream);
                if says.write_all(head.as_bytes()).await.is_ok() {
                    // A gateway that is gone ends it.
                    let _ = tokio::io::copy(&mut hears, &mut says).await;
                }
                return;
            }
            Act::HangUp => return,
        };
        if stream.write_all(said.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_head(stream: &mut DuplexStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(text).ok()
}

/// Nobody answers: these routes have no quotas.
struct Nobody;

impl Ledger for Nobody {
    fn register(&self, _: u128) -> BoxFuture<'static, Result<SessionId, AskError>> {
        Box::pin(std::future::ready(Err(AskError::Unreachable)))
    }
    fn ask(&self, _: Ask) -> BoxFuture<'static, Result<AskReply, AskError>> {
        Box::pin(std::future::ready(Err(AskError::Unreachable)))
    }
}

/// One route at `/v1`.
struct OneRoute(Arc<RouteRule>);

impl Routes for OneRoute {
    fn find(&self, received: &Received, _: &mut Bearer<'_>) -> Result<Arc<RouteRule>, Refusal> {
        if received.path().starts_with("/v1") {
            return Ok(self.0.clone());
        }
        Err(Refusal::NoRoute { method: received.method().clone(), path: received.path().to_owned() })
    }
}

fn rule(port: u16) -> Arc<RouteRule> {
    let upstream = Upstream {
        body_idle_timeout: Duration::from_secs(10),
        connections_max: 2,
        ..Upstream::of(
            UpstreamName::parse("echo").expect("a good name"),
            vec![Endpoint { host: "echo.test".into(), port }],
        )
    };
    let route = Route {
        name: RouteName::parse("v1").expect("a good name"),
        matches: Match::of(Path::Prefix("/v1".into())),
        priority: 0,
        action: Action::Upstream(upstream.name.clone()),
        access: Access::Public,
        charges: vec![],
        timeout: None,
        strip_prefix: true,
        rewrite: None,
        upgrades: vec!["websocket".into()],
        headers: Headers::default(),
        mirror: None,
        lifecycle: None,
        flags: vec![],
    };
    Arc::new(RouteRule {
        route,
        upstreams: Box::new([Arc::new(upstream)]),
        choice: None,
        mirror: None,
        lifecycle: None,
        flags: None,
        direct: None,
        host: None,
        edits: Default::default(),
        revision: Revision(1),
        access: AccessRule::Public,
        screens: Box::new([]),
        charges: Box::new([]),
    })
}

/// A gateway whose clients send nothing.
pub(crate) fn quiet_gateway(telemetry: &Telemetry) -> Arc<Gateway> {
    let net = TestNet { script: |_, _| Act::HangUp, connections: AtomicUsize::new(0), seen: Arc::default() };
    gateway(Arc::new(net), rule(80), telemetry)
}

fn gateway(net: Arc<dyn Net>, rule: Arc<RouteRule>, telemetry: &Telemetry) -> Arc<Gateway> {
    let world = World { net, ..Small::new().world() };
    let limits = Limits {
        connections_max: 10,
        head_bytes_max: 8 << 10,
        headers_max: 100,
        body_bytes_max: 10,
        head_timeout: Duration::from_secs(5),
        body_idle_timeout: Duration::from_secs(7),
        body_rate_min: 100,
        idle_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(5),
        waiters_max: 10,
        keys_max: 10,
        tokens_cached_max: 10,
        tls_handshakes_max: 10,
        tls_handshake_timeout: Duration::from_secs(5),
        http2: Default::default(),
        mirrors_max: 1,
    };
    let (_, views) = watch::channel(Arc::new(View::default()));
    let (_, pushes) = mpsc::channel(1);
    let (pool, recorder) = (Pool::new(world.clone(), "/keys".into()), telemetry.recorder());
    Arc::new(Gateway {
        routes: Arc::new(OneRoute(rule)),
        freshness: Arc::new(Freshness::new(world.clone(), Box::new(|| Some(BootNs(u64::MAX))))),
        tokens: Tokens::new(10),
        keeper: Keeper::new(world.clone(), Arc::new(Nobody), views, pushes, &limits),
        mirrors: Mirrors::new(limits.mirrors_max, pool.clone(), recorder.clone()),
        pool,
        recorder,
        warnings: Default::default(),
        ids: RequestIds::new(&world),
        stamp_admissions: false,
        limits,
        world,
    })
}

/// A client at its connection, and all that it can see.
pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    pub(crate) actor: ActorRef<Msg>,
    net: Arc<TestNet>,
    pub(crate) telemetry: Telemetry,
    gateway: Arc<Gateway>,
}

impl Client {
    pub(crate) async fn connect(script: Script) -> Self {
        Self::connect_by(script, 80).await
    }

    async fn connect_by(script: Script, port: u16) -> Self {
        Self::connect_to(script, rule(port)).await
    }

    async fn connect_to(script: Script, rule: Arc<RouteRule>) -> Self {
        Self::connect_at(script, rule, Entrance::default()).await
    }

    async fn connect_at(script: Script, rule: Arc<RouteRule>, entrance: Entrance) -> Self {
        let net = Arc::new(TestNet { script, connections: AtomicUsize::new(0), seen: Arc::default() });
        let telemetry = Telemetry::new();
        let gateway = gateway(net.clone(), rule, &telemetry);
        Self::of(gateway, net, telemetry, entrance).await
    }

    /// Another client of the same gateway.
    async fn another(&self) -> Self {
        Self::of(self.gateway.clone(), self.net.clone(), self.telemetry.clone(), Entrance::default()).await
    }

    async fn of(gateway: Arc<Gateway>, net: Arc<TestNet>, telemetry: Telemetry, entrance: Entrance) -> Self {
        let (stream, theirs) = tokio::io::duplex(1 << 16);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one is free");
        let peer = ([192, 0, 2, 9], 4000).into();
        let accepted =
            Accepted { stream: Box::new(theirs), peer, gateway: gateway.clone(), permit, entrance };
        let (actor, _) = Actor::spawn(None, ConnectionActor, accepted).await.expect("the actor starts");
        Self { stream, actor, net, telemetry, gateway }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the gateway reads");
    }

    /// The next answer: head and body, by its content length.
    async fn answer(&mut self) -> (String, String) {
        let head = read_head(&mut self.stream).await.expect("an answer").to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        self.stream.read_exact(&mut body).await.expect("a whole body");
        (head, String::from_utf8(body).expect("text"))
    }

    async fn ask(&mut self, text: &str) -> (String, String) {
        self.send(text).await;
        self.answer().await
    }

    async fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0]).await.is_ok_and(|read| read == 0)
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.net.seen.lock().clone()
    }
}

const GET: &str = "GET /v1/a?b=c HTTP/1.1\r\nhost: api.test\r\n\r\n";
const POST: &str = "POST /v1/a HTTP/1.1\r\nhost: api.test\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test(start_paused = true)]
async fn a_request_passes_and_its_connection_serves_the_next_one() {
    // given an upstream that answers
    let mut client = Client::connect(|_, _| Act::Say(OK)).await;
    // when two requests come one after the other
    let (head, body) = client.ask(GET).await;
    client.ask(GET).await;
    // then both pass over one connection, without what concerns the connection
    assert!(head.starts_with("http/1.1 200") && body == "hi", "{head}");
    assert!(
        head.contains("x-request-id: ") && head.contains("date: ") && !head.contains("keep-alive"),
        "{head}"
    );
    let seen = client.seen();
    assert!(
        seen[0].starts_with("GET /a?b=c HTTP/1.1\r\n") && seen[0].contains("host: echo.test\r\n"),
        "{}",
        seen[0]
    );
    assert_eq!((seen.len(), client.net.connections.load(Ordering::Relaxed)), (2, 1));
    let summary = client.telemetry.summary();
    assert_eq!((summary.received, summary.admitted, summary.answered_2xx, summary.connections), (2, 2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_in_front_speaks_for_its_clients() {
    // given that the client's end is a load balancer of two kinds
    let file = HttpFile {
        proxy_protocol_from: vec!["192.0.2.0/24".parse().expect("a network")],
        trusted_proxies: vec!["198.51.100.0/24".parse().expect("a network")],
        ..HttpFile::default()
    };
    let entrance = Entrance { proxies: Arc::new(Proxies::new(&file)), ..Entrance::default() };
    let connect = async || Client::connect_at(|_, _| Act::Say(OK), rule(80), entrance.clone()).await;
    let asked = "GET /v1/a HTTP/1.1\r\nhost: api.test\r\nx-forwarded-for: 203.0.113.1\r\n\r\n";
    // when it says that a stranger, or a proxy that is believed, is behind it
    for (behind, told) in [("203.0.113.7", "203.0.113.7"), ("198.51.100.7", "203.0.113.1, 198.51.100.7")] {
        let mut client = connect().await;
        client.send(&format!("PROXY TCP4 {behind} 10.0.0.1 4000 80\r\n")).await;
        client.ask(asked).await;
        // then the upstream is told of those who are believed
        let seen = client.seen().remove(0);
        assert!(seen.contains(&format!("x-forwarded-for: {told}\r\n")), "{seen}");
    }
    // and without such a word it is not served, at once or after a while
    let mut client = connect().await;
    client.send(asked).await;
    assert!(client.is_closed().await);
    let (mut client, begin) = (connect().await, Instant::now());
    assert!(client.is_closed().await && begin.elapsed().as_secs() == 5);
    sleep(Duration::from_millis(1)).await;
    let figures = client.telemetry.render_prometheus();
    assert!(figures.contains("connections_failed_total{reason=\"proxy-header-late\"} 1"), "{figures}");
    // and it is no request from anybody else
    let mut client = Client::connect(|_, _| Act::Say(OK)).await;
    client.send("PROXY TCP4 203.0.113.7 10.0.0.1 4000 80\r\n\r\n").await;
    let head = read_head(&mut client.stream).await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_get_is_sent_again_when_its_idle_connection_turns_out_dead_and_a_post_is_not() {
    // given an upstream whose first connection dies at its second request
    fn dies(connection: usize, request: usize) -> Act {
        if (connection, request) == (0, 1) { Act::HangUp } else { Act::Say(OK) }
    }
    for (second, status, sent) in [(GET, "200", 3), (POST, "502", 2)] {
        let mut client = Client::connect(dies).await;
        client.ask(GET).await;
        // when the second request meets it
        let (head, _) = client.ask(second).await;
        // then only what may be repeated is repeated
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert_eq!(client.seen().len(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_is_not_sent_again_on_a_new_connection_that_dies() {
    let mut client = Client::connect(|_, _| Act::HangUp).await;
    let (head, _) = client.ask(GET).await;
    assert!(head.starts_with("http/1.1 502"), "{head}");
    assert_eq!(client.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_is_a_504_and_a_dead_one_a_502() {
    let begin = Instant::now();
    let mut client = Client::connect(|_, _| Act::SayAfter(WEEK, OK)).await;
    let (head, body) = client.ask(GET).await;
    assert!(
        head.starts_with("http/1.1 504") && body.contains("urn:quorumgate:problem:upstream-slow"),
        "{head}{body}"
    );
    assert_eq!(begin.elapsed().as_secs(), 10);
    let mut client = Client::connect_by(|_, _| Act::Say(OK), 1).await;
    let (head, body) = client.ask(POST).await;
    assert!(head.starts_with("http/1.1 502") && body.contains("upstream-unreachable"), "{head}{body}");
    assert_eq!(client.telemetry.summary().upstream_failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_grows_too_large_is_a_413() {
    let mut client = Client::connect(|_, _| Act::SayAfter(WEEK, OK)).await;
    let chunked =
        "POST /v1 HTTP/1.1\r\nhost: api.test\r\ntransfer-encoding: chunked\r\n\r\nb\r\n01234567890\r\n";
    let (head, _) = client.ask(chunked).await;
    assert!(head.starts_with("http/1.1 413"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_in_its_body_is_a_408() {
    let begin = Instant::now();
    let mut client = Client::connect(|_, _| Act::SayAfter(WEEK, OK)).await;
    let half = "POST /v1 HTTP/1.1\r\nhost: api.test\r\ncontent-length: 2\r\n\r\nh";
    let (head, _) = client.ask(half).await;
    assert!(head.starts_with("http/1.1 408"), "{head}");
    assert_eq!(begin.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_a_408_and_an_idle_connection_is_closed_without_a_word() {
    let begin = Instant::now();
    let mut client = Client::connect(|_, _| Act::Say(OK)).await;
    let (head, _) = client.ask("GET /v1 HT").await;
    assert!(head.starts_with("http/1.1 408"), "{head}");
    assert!(client.is_closed().await);
    assert_eq!(begin.elapsed().as_secs(), 5);
    let mut client = Client::connect(|_, _| Act::Say(OK)).await;
    client.ask(GET).await;
    let begin = Instant::now();
    assert!(client.is_closed().await);
    assert_eq!(begin.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_finishes_its_request_and_closes() {
    // given a request at hand
    let mut client = Client::connect(|_, _| Act::SayAfter(Duration::from_secs(1), OK)).await;
    client.send(GET).await;
    sleep(Duration::from_millis(10)).await;
    // when the connection is drained
    client.actor.send_message(Msg::Drain).expect("the actor lives");
    // then the answer comes whole, and the connection ends with its actor
    let (head, _) = client.answer().await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert!(client.is_closed().await);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(client.telemetry.summary().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn what_no_route_takes_and_what_reads_two_ways_is_refused_and_the_connection_goes_on() {
    let mut client = Client::connect(|_, _| Act::Say(OK)).await;
    let (head, body) = client.ask("GET /other HTTP/1.1\r\nhost: api.test\r\n\r\n").await;
    assert!(
        head.starts_with("http/1.1 404") && body.contains("urn:quorumgate:problem:no-route"),
        "{head}{body}"
    );
    let (head, _) = client.ask("GET /v1/../x HTTP/1.1\r\nhost: api.test\r\n\r\n").await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
    let (head, _) = client.ask(GET).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(client.seen().len(), 1);
}

/// A client of a gateway with one route and two upstreams, `blue` and `green`, at hosts of these names.
///
/// - `edit`: what the route has besides `name` and `access`.
fn acting(edit: &str) -> Arc<RouteRule> {
    acting_after(edit, "public")
}

fn acting_after(edit: &str, access: &str) -> Arc<RouteRule> {
    let text = format!(
        "upstreams: {{blue: {{endpoints: \"http://blue.test\"}}, green: {{endpoints: \"http://green.test\"}}}}\n\
         issuers: {{dev: {{issuer: i, audiences: [a], keys: [{{kid: k, algorithm: HS256, secret: {{file: s}}}}]}}}}\n\
         quotas: {{some: {{key: all, limit: 9/s}}}}\n\
         routes:\n- {{name: v1, access: {access}, {edit}}}\n"
    );
    let checked = config::gateway::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let mut document = checked.value;
    let secret = || Secret::from_bytes(vec![b's'; 32]).expect("long enough");
    for key in &mut document.issuers[0].keys {
        if let KeyMaterial::Secret { fingerprint, .. } = &mut key.material {
            *fingerprint = Some(secret().fingerprint());
        }
    }
    let source = Source { revision: Revision(1), document: Arc::new(document), secret: [7; 16] };
    let published = compile(&source, None, |_| Ok(secret())).unwrap_or_else(|why| panic!("{why}"));
    let asked = Asked {
        method: "GET",
        host: "api.test",
        path: "/v1/a",
        query: None,
        headers: &http::HeaderMap::new(),
        address: [192, 0, 2, 9].into(),
    };
    published.table.find(&asked, |_| false).expect("it is the only one").clone()
}

#[tokio::test(start_paused = true)]
async fn a_redirect_reaches_no_upstream_and_the_connection_goes_on() {
    let rule =
        acting("match: {path: /v1}, redirect: {status: 308, scheme: https, host: b.test, prefix: /v2}");
    let mut client = Client::connect_to(|_, _| Act::Say(OK), rule).await;
    for (head, status) in [(GET, "308"), (POST, "308"), (GET, "308")] {
        let (head, body) = client.ask(head).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")) && body.is_empty(), "{head}");
        assert!(head.contains("location: https://b.test/v2/a"), "{head}");
        assert!(head.contains("x-request-id: ") && !head.contains("content-type"), "{head}");
    }
    let (head, _) = client.ask("GET /v1/%22%3cx?c=//d%0d%0a HTTP/1.1\r\nhost: api.test\r\n\r\n").await;
    assert!(head.contains("location: https://b.test/v2/%22%3cx?c=//d%0d%0a\r\n"), "{head}");
    assert!(client.seen().is_empty());
    let summary = client.telemetry.summary();
    assert_eq!((summary.received, summary.admitted), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_documents_own_has_its_body_and_head_has_not() {
    let edits =
        "headers: {response: {set: {x-a: \"1\", content-type: text/css}, add: {via: more}, remove: [x-b]}}";
    let rule = acting(&format!("match: {{path: /v1}}, respond: {{status: 200, body: hello}}, {edits}"));
    let mut client = Client::connect_to(|_, _| Act::Say(OK), rule).await;
    let (head, body) = client.ask(GET).await;
    assert!(head.starts_with("http/1.1 200") && body == "hello", "{head}");
    assert!(head.contains("content-type: text/css\r\n") && head.contains("x-a: 1\r\n"), "{head}");
    // when only the head is asked for, then it is the same, and the next answer follows at once
    client.send(&GET.replace("GET", "HEAD")).await;
    let head = read_head(&mut client.stream).await.expect("an answer").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 5\r\n"), "{head}");
    let (_, body) = client.ask(GET).await;
    assert_eq!(body, "hello");
    assert!(client.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_has_no_length() {
    let rule = acting("match: {path: /v1}, respond: {status: 204}");
    let mut client = Client::connect_to(|_, _| Act::Say(OK), rule).await;
    for _ in 0..2 {
        client.send(GET).await;
        let head = read_head(&mut client.stream).await.expect("an answer").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 204") && !head.contains("content-"), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_gateways_own_needs_a_token_and_is_charged_like_any_other() {
    // given routes that answer by themselves, one with a token, one with a quota that nobody can decide
    let own =
        "match: {path: /v1}, respond: {status: 200, body: hello}, headers: {response: {set: {x-a: \"1\"}}}";
    for (access, quotas, status) in [("{issuers: [dev]}", "", "401"), ("public", ", quotas: [some]", "503")] {
        let rule = acting_after(&format!("{own}{quotas}"), access);
        let mut client = Client::connect_to(|_, _| Act::Say(OK), rule).await;
        // when they are asked, then nobody gets by, and a refusal is not edited
        let (head, body) = client.ask(GET).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")) && body != "hello", "{head}{body}");
        assert!(!head.contains("x-a: "), "{head}");
        assert_eq!(client.telemetry.summary().admitted, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_sees_what_the_route_makes_of_a_request() {
    for (matches, rewrite, target, host) in [
        ("{path: /v1}", "{prefix: /new}", "/new/a?b=c", "blue.test"),
        ("{path: /v1}", "{path: /fixed}", "/fixed?b=c", "blue.test"),
        (
            "{path: {template: \"/v1/{x}\"}}",
            "{template: \"/x/{x}\", host: \"in.test:81\"}",
            "/x/a?b=c",
            "in.test:81",
        ),
        ("{path: /v1}", "{host: in.test}", "/v1/a?b=c", "in.test"),
    ] {
        let rule = acting(&format!("match: {matches}, upstream: blue, rewrite: {rewrite}"));
        let mut client = Client::connect_to(|_, _| Act::Say(OK), rule).await;
        let (head, _) = client.ask(GET).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let seen = client.seen().remove(0);
        assert!(seen.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{rewrite}: {seen}");
        assert!(seen.contains(&format!("host: {host}\r\n")), "{rewrite}: {seen}");
        assert!(seen.contains("x-forwarded-host: api.test\r\n"), "{seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_is_rewritten_as_it_was_the_first_time() {
    // given an upstream whose first connection dies at its second request
    fn dies(connection: usize, request: usize) -> Act {
        if (connection, request) == (0, 1) { Act::HangUp } else { Act::Say(OK) }
    }
    let edits = "headers: {request: {add: {x-a: b}}}";
    let rule = acting(&format!(
        "match: {{path: /v1}}, upstream: blue, rewrite: {{path: /n, host: in.test}}, {edits}"
    ));
    let mut client = Client::connect_to(dies, rule).await;
    client.ask(GET).await;
    // when the second request meets it, then it is sent again, the same
    let (head, _) = client.ask(GET).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let seen = client.seen();
    assert_eq!((seen.len(), &seen[1]), (3, &seen[2]));
    assert!(
        seen[2].starts_with("GET /n?b=c HTTP/1.1\r\n") && seen[2].contains("host: in.test\r\n"),
        "{}",
        seen[2]
    );
    assert_eq!(seen[2].matches("x-a: b\r\n").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn fields_are_edited_on_both_ways_after_the_gateways_own() {
    // given edits of fields that the client, the gateway and the upstream write
    let request =
        "request: {remove: [x-secret, authorization, x-forwarded-for], set: {x-b: \"2\"}, add: {via: edge}}";
    let response = "response: {remove: [server, via], set: {x-c: \"3\"}, add: {set-cookie: a=b}}";
    let rule = acting(&format!("match: {{path: /v1}}, upstream: blue, headers: {{{request}, {response}}}"));
    fn says(_: usize, _: usize) -> Act {
        Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: x\r\nx-c: 0\r\nset-cookie: c=d\r\n\r\nhi")
    }
    let mut client = Client::connect_to(says, rule).await;
    // when a request passes
    let fields = "x-secret: 1\r\nauthorization: Bearer x\r\nx-b: 1\r\n\r\n";
    let (head, body) = client.ask(&GET.replace("\r\n\r\n", &format!("\r\n{fields}"))).await;
    // then both heads are as the route has them
    let seen = client.seen().remove(0);
    for gone in ["x-secret", "authorization", "x-forwarded-for", "x-b: 1"] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
    for there in ["x-b: 2\r\n", "via: 1.1 quorumgate\r\n", "via: edge\r\n"] {
        assert!(seen.contains(there), "{there}: {seen}");
    }
    assert!(!head.contains("server: ") && !head.contains("via: ") && !head.contains("x-c: 0"), "{head}");
    for there in ["x-c: 3\r\n", "set-cookie: c=d\r\n", "set-cookie: a=b\r\n"] {
        assert!(head.contains(there), "{there}: {head}");
    }
    assert_eq!(body, "hi");
}

#[tokio::test(start_paused = true)]
async fn a_split_sends_a_client_to_one_upstream_and_a_tester_to_the_one_it_names() {
    let branches = "branches: [{upstream: blue, weight: 1}, {upstream: green, weight: 0}]";
    let rule = acting(&format!(
        "match: {{path: /v1}}, split: {{by: address, {branches}, override: {{header: x-branch}}}}"
    ));
    let mut client = Client::connect_to(|_, _| Act::Say(OK), rule).await;
    for (field, host) in [("x-a: b", "blue"), ("x-branch: green", "green"), ("x-branch: red", "blue")] {
        client.ask(&GET.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"))).await;
        let seen = client.seen().pop().expect("it was reached");
        assert!(seen.contains(&format!("host: {host}.test\r\n")), "{field}: {seen}");
    }
    // and figures tell who was chosen
    let figures = client.telemetry.render_prometheus();
    for (upstream, count) in [("blue", 2), ("green", 1)] {
        let name = "quorumgate_split_requests_answered_total";
        let line = format!("{name}{{route=\"v1\",upstream=\"{upstream}\",class=\"2xx\"}} {count}");
        assert!(figures.contains(&line), "{figures}");
    }
}
