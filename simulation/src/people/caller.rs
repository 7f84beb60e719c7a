//! A caller: one tenant, with requests at a steady pace over connections that are kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{HTTP_PORT, NUMBER, Sender, Standing, connect, content, exchange, has_body, token};
use crate::edition::{Pass, Target};
use crate::event::{Event, Fate, Request as Asked, RequestNumber, Token};
use crate::host::{Ended, HostNumber};
use crate::network::Network;
use crate::scene::{Protocol, Spread};
use crate::witness::Witness;

/// Longer than any deadline of a node: a request without an answer by then will have none.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Requests of one caller to one node without an answer; it sends that node no more meanwhile.
const AT_ONCE: usize = 48;

/// Before a caller that hangs up does so: the node has begun to send what came.
const LINGERS: Duration = Duration::from_millis(40);
/// Between two bytes of a caller that dawdles.
const DAWDLES_EACH: Duration = Duration::from_millis(200);

/// What a caller asks for, and how often.
#[derive(Clone)]
pub struct Pattern {
    pub tenant: String,
    pub client: String,
    pub token: Token,
    /// What a good token says; none: there is no issuer.
    pub pass: Option<Pass>,
    pub target: Arc<Target>,
    pub every: Duration,
    pub at_once: u64,
    pub spread: Spread,
    pub protocol: Protocol,
    pub manner: Manner,
}

/// How a caller behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As callers should.
    Plain,
    /// With a new tenant, and client, for each request: `tenant` and a number.
    Minted,
    /// It goes away in the middle of each body.
    HangsUp,
    /// It never comes to the end of a head.
    Dawdles,
}

/// What callers share.
#[derive(Clone)]
pub struct Party {
    pub network: Network,
    pub witness: Witness,
    /// Names requests.
    pub numbers: Arc<AtomicU64>,
    /// Nodes that are members, as far as anybody outside can know.
    pub nodes: Standing,
    /// No new requests any more.
    pub closed: Arc<AtomicBool>,
}

/// One more caller of a crowd, which the network knows as `host`.
pub struct Newcomer {
    pub party: Party,
    pub host: HostNumber,
    pub pattern: Pattern,
}

/// All callers in one process, for a process of each would cost time and tell nothing: they share no state. Ends when no
/// one more can come, and the last has ended.
pub async fn crowd(mut newcomers: mpsc::Receiver<Newcomer>) -> Ended {
    let mut callers = JoinSet::new();
    while let Some(Newcomer { party, host, pattern }) = newcomers.recv().await {
        callers.spawn(call(party, host, pattern));
    }
    while callers.join_next().await.is_some() {}
    Ok(())
}

/// Asks until the party is closed, then waits for what it asked.
async fn call(party: Party, host: HostNumber, pattern: Pattern) {
    let caller = Arc::new(Caller {
        host,
        known: token(pattern.pass.as_ref(), &pattern.tenant, &pattern.client, pattern.token),
        party,
        pattern,
        idle: Mutex::default(),
        waiting: Mutex::default(),
    });
    let begun = tokio::time::Instant::now();
    let at_once = u32::try_from(caller.pattern.at_once.max(1)).unwrap_or(u32::MAX);
    let mut tick = tokio::time::interval(caller.pattern.every.saturating_mul(at_once));
    let mut asked = JoinSet::new();
    let mut sent = 0;
    while !caller.party.closed.load(Ordering::Relaxed) {
        tick.tick().await;
        while asked.try_join_next().is_some() {}
        for _ in 0..at_once {
            let passed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let node = caller.node(sent, passed_ms);
            sent += 1;
            if caller.begin(node) {
                asked.spawn(caller.clone().visit(node, sent));
            } else {
                let Pattern { target, tenant, client, .. } = caller.pattern.clone();
                caller.party.witness.tell(Event::HeldBack { node, route: target, tenant, client });
            }
        }
    }
    while asked.join_next().await.is_some() {}
}

/// The name of the problem that an answer tells of; empty: none.
fn problem(body: &Bytes) -> &str {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let named = text.split_once("urn:quorumgate:problem:").and_then(|(_, rest)| rest.split_once('"'));
    named.map_or("", |(name, _)| name)
}

struct Caller {
    party: Party,
    pattern: Pattern,
    host: HostNumber,
    known: Option<String>,
    idle: Mutex<BTreeMap<HostNumber, Vec<Sender>>>,
    /// Requests without an answer, by node.
    waiting: Mutex<BTreeMap<HostNumber, usize>>,
}

impl Caller {
    fn node(&self, sent: u64, passed_ms: u64) -> HostNumber {
        let nodes = self.party.nodes.all();
        let count = nodes.len() as u64;
        let index = match self.pattern.spread {
            Spread::One(node) => return self.party.nodes.named(node),
            Spread::Turns => sent,
            Spread::HopsEachMs(each_ms) => passed_ms / each_ms,
            Spread::Skewed if sent % 10 < 9 => 0,
            Spread::Skewed => sent / 10,
        };
        nodes[usize::try_from(index % count).expect("an index of a short list")]
    }

    /// Whether one more request may go to `node`.
    fn begin(&self, node: HostNumber) -> bool {
        let mut waiting = self.waiting();
        let count = waiting.entry(node).or_default();
        let may = *count < AT_ONCE;
        *count += usize::from(may);
        may
    }

    async fn visit(self: Arc<Self>, node: HostNumber, sent: u64) {
        match self.pattern.manner {
            Manner::Dawdles => self.dawdle(node).await,
            Manner::Plain | Manner::Minted | Manner::HangsUp => self.ask(node, sent).await,
        }
        *self.waiting().entry(node).or_default() -= 1;
    }

    async fn ask(&self, node: HostNumber, sent: u64) {
        let Pattern { target, manner, .. } = &self.pattern;
        let number = self.party.numbers.fetch_add(1, Ordering::Relaxed);
        let (tenant, client, shown) = if *manner == Manner::Minted {
            let tenant = format!("{}-{sent}", self.pattern.tenant);
            let shown = token(self.pattern.pass.as_ref(), &tenant, &tenant, self.pattern.token);
            (tenant.clone(), tenant, shown)
        } else {
            (self.pattern.tenant.clone(), self.pattern.client.clone(), self.known.clone())
        };
        let asked = Asked {
            number,
            node,
            route: target.clone(),
            idempotent: target.is_idempotent(),
            tenant,
            client,
            token: self.pattern.token,
        };
        self.party.witness.tell(Event::Sent(asked));
        let mut request = Request::builder()
            .method(target.method.as_str())
            .uri(&target.path)
            .header("host", &target.host)
            .header(NUMBER, number);
        if let Some(token) = shown {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Bytes::new()).expect("a well-formed request");
        if has_body(request.method()) {
            *request.body_mut() = content(number);
        }
        let answer = async {
            if *manner == Manner::HangsUp {
                return self.hang_up(node, request).await;
            }
            self.answer(node, number, request.map(Full::new)).await
        };
        let fate = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(reused)) => Fate::Broken { reused },
            Err(_) => Fate::Silent,
        };
        self.party.witness.tell(Event::Done { number, node, fate });
    }

    /// Sends half a body, and goes away.
    async fn hang_up(&self, node: HostNumber, request: Request<Bytes>) -> Result<Fate, bool> {
        let (head, body) = request.into_parts();
        let mut text = format!("{} {} HTTP/1.1\r\ncontent-length: {}\r\n", head.method, head.uri, body.len());
        for (name, value) in &head.headers {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().expect("fields of ours are text")));
        }
        text.push_str("\r\n");
        let mut stream = self.party.network.connect(self.host, node, HTTP_PORT).await.map_err(|_| false)?;
        stream.write_all(text.as_bytes()).await.map_err(|_| false)?;
        stream.write_all(&body[..body.len() / 2]).await.map_err(|_| false)?;
        tokio::time::sleep(LINGERS).await;
        Err(true)
    }

    /// Sends a head a byte at a time, until the node has enough of it.
    async fn dawdle(&self, node: HostNumber) {
        let number = self.party.numbers.fetch_add(1, Ordering::Relaxed);
        let Ok(stream) = self.party.network.connect(self.host, node, HTTP_PORT).await else { return };
        self.party.witness.tell(Event::Dawdles { number, node });
        let (mut from, mut to) = tokio::io::split(stream);
        let slowly = async {
            for byte in
                b"GET / HTTP/1.1\r\nhost: slow.example\r\nslow: ".iter().chain(std::iter::repeat(&b'a'))
            {
                if to.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(DAWDLES_EACH).await;
            }
        };
        let gone = async {
            // Whatever it says, it says before it closes.
            let mut heard = [0; 256];
            while from.read(&mut heard).await.is_ok_and(|count| count > 0) {}
        };
        tokio::select! {
            biased;
            () = gone => {}
            () = slowly => {}
        }
        self.party.witness.tell(Event::TurnedAway { number });
    }

    /// The answer; an error says whether the connection that failed had served before.
    async fn answer(
        &self,
        node: HostNumber,
        number: RequestNumber,
        request: Request<Full<Bytes>>,
    ) -> Result<Fate, bool> {
        let is_head = request.method() == Method::HEAD;
        let idle = self.idle().entry(node).or_default().pop().filter(|sender| !sender.is_closed());
        let reused = idle.is_some();
        let mut sender = match idle {
            Some(sender) => sender,
            None => {
                let Pattern { protocol, .. } = self.pattern;
                let network = &self.party.network;
                connect(network, self.host, node, HTTP_PORT, protocol).await.map_err(|_| reused)?
            }
        };
        if let Sender::Http2(sender) = &sender {
            // Others send over it meanwhile.
            self.idle().entry(node).or_default().push(Sender::Http2(sender.clone()));
        }
        let answer = exchange(&mut sender, request).await.map_err(|_| reused)?;
        let echo = answer.headers().get(NUMBER).and_then(|echo| echo.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        if matches!(sender, Sender::Http1(_)) {
            self.idle().entry(node).or_default().push(sender);
        }
        if !is_head && echo == Some(number) && answer.body() != &content(number) {
            let found =
                format!("an answer with {} bytes, wanted {}", answer.body().len(), content(number).len());
            self.party.witness.tell(Event::Garbled { number, found });
        }
        let why = problem(answer.body()).to_owned();
        if !why.is_empty() {
            self.party.witness.count(&format!("problem: {why}"), 1);
        }
        Ok(Fate::Answered { status, echo, why })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<HostNumber, usize>> {
        self.waiting.lock().expect("no panic happens while requests are counted")
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, BTreeMap<HostNumber, Vec<Sender>>> {
        self.idle.lock().expect("no panic happens while idle connections are locked")
    }
}
