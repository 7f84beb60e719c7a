//! The network between hosts: ordered byte streams like TCP's, and everything that goes wrong with them.
//!
//! What one end writes arrives at the other after a delay, in order, or not at all. Each direction between two hosts is
//! a link with troubles of its own, which are counted, so that overlapping ones do not undo each other:
//!
//! * *blocked*: nothing arrives, and what was sent comes later when the link opens again, as TCP sends again;
//! * *lossy*: what is sent is gone, and the connection's direction with it, for good: nobody is told; what makes a new
//!   connection is sent again;
//! * *slower*, *narrow*: more delay, fewer bytes a second.
//!
//! A process that ends has its connections closed or reset, as the kernel does. A machine without power says nothing;
//! when it is back, it resets what it does not know.
//!
//! Not modelled: acknowledgements (the window opens when the reader reads, even against a blocked link), loss of single
//! packets, a limit on half-open connections.

mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};

use crate::chance::Chance;
use crate::clock::{MS_NS, TrueNs};
use crate::host::HostNumber;

pub use stream::{SimListener, SimStream};

/// Bytes of one direction that may be unread before its writer has to wait.
const WINDOW_BYTES: usize = 128 << 10;
/// Connections that wait to be accepted; one more is refused.
const BACKLOG: usize = 1024;
const FIRST_PORT: u16 = 40_000;
/// After an outage, the other end sends again within this time.
const RETRANSMIT_MS_MAX: u64 = 400;

/// A lost part of a handshake is sent again after this, then after twice that, and so on. Source: RFC 6298, section 2.
const SYN_AGAIN_MS: u64 = 1_000;
/// Linux' default.
const SYN_RETRIES: u32 = 6;

/// What happened on the network so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections that were made.
    pub connections: u64,
    /// Connections that nobody listened for.
    pub refused: u64,
    /// Segments that waited for a blocked link.
    pub held: u64,
    /// Segments that a lossy link or a dark machine swallowed.
    pub lost: u64,
    /// Connections that were reset.
    pub resets: u64,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
}

type PairNumber = u64;
type Side = usize;

struct Inner {
    now: TrueNs,
    chance: Chance,
    delay_ms: (u64, u64),
    order: u64,
    arrivals: BTreeMap<(TrueNs, u64), Arrival>,
    links: BTreeMap<(HostNumber, HostNumber), Link>,
    listeners: BTreeMap<(HostNumber, u16), Backlog>,
    pairs: BTreeMap<PairNumber, Pair>,
    next_pair: PairNumber,
    ports: BTreeMap<HostNumber, u16>,
    dark: BTreeSet<HostNumber>,
    seen: Seen,
    /// To be woken once the lock is given back.
    wakers: Vec<Waker>,
}

/// One direction between two hosts.
#[derive(Default)]
struct Link {
    blocked: u32,
    lossy: u32,
    slower_ms: u64,
    /// Bytes a second; the narrowest counts.
    narrow: Vec<u64>,
    free_at: TrueNs,
    /// Waits for the link to open, in the order it was sent.
    held: BTreeMap<u64, Arrival>,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<PairNumber>,
    waker: Option<Waker>,
}

struct Arrival {
    pair: PairNumber,
    to: Side,
    what: What,
    /// How often it was sent in vain.
    tries: u32,
}

impl Arrival {
    /// Part of making a connection: sent again when it was lost.
    fn is_handshake(&self) -> bool {
        matches!(self.what, What::Syn | What::Accepted | What::Refused)
    }
}

enum What {
    Syn,
    Accepted,
    Refused,
    Data(Bytes),
    Fin,
    Reset,
}

/// One connection: side 0 made it, side 1 accepted it.
struct Pair {
    ends: [End; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Refused,
}

struct End {
    host: HostNumber,
    port: u16,
    state: State,
    /// No process holds it.
    gone: bool,
    inbox: BytesMut,
    /// The other side has ended its direction.
    ended: bool,
    reset: bool,
    sent_end: bool,
    /// Bytes sent that the other side has not read.
    unread: usize,
    /// What this side sends never arrives again.
    severed: bool,
    last_arrival: TrueNs,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl End {
    fn new(host: HostNumber, port: u16, gone: bool) -> Self {
        Self {
            host,
            port,
            state: State::Connecting,
            gone,
            inbox: BytesMut::new(),
            ended: false,
            reset: false,
            sent_end: false,
            unread: 0,
            severed: false,
            last_arrival: 0,
            reader: None,
            writer: None,
        }
    }
}

impl Network {
    /// Delays are drawn from `delay_ms`, which begins at 1: what a host sends in one step cannot arrive in the same.
    pub fn new(chance: Chance, delay_ms: (u64, u64)) -> Self {
        assert!(
            1 <= delay_ms.0 && delay_ms.0 <= delay_ms.1,
            "found delays {delay_ms:?}, wanted 1 ms or more"
        );
        let inner = Inner {
            now: 0,
            chance,
            delay_ms,
            order: 0,
            arrivals: BTreeMap::new(),
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            pairs: BTreeMap::new(),
            next_pair: 0,
            ports: BTreeMap::new(),
            dark: BTreeSet::new(),
            seen: Seen::default(),
            wakers: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Works on the network, then wakes whom that concerns: a waker may run code that needs the network.
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let (done, wakers) = {
            let mut inner = self.inner.lock().expect("no panic happens while the network is locked");
            (work(&mut inner), std::mem::take(&mut inner.wakers))
        };
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    /// Lets everything arrive that is due at true time `now`.
    pub fn run_until(&self, now: TrueNs) {
        self.with(|inner| {
            inner.now = now;
            while let Some(first) = inner.arrivals.first_entry().filter(|first| first.key().0 <= now) {
                let ((_, order), arrival) = first.remove_entry();
                inner.arrive(order, arrival);
            }
        });
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        self.with(|inner| inner.seen)
    }

    /// Connects `from` to a port of `to`. Waits as long as nobody answers.
    ///
    /// # Errors
    /// `ConnectionRefused` if the machine is there and nobody listens.
    pub async fn connect(&self, from: HostNumber, to: HostNumber, port: u16) -> io::Result<SimStream> {
        let pair = self.with(|inner| inner.open(from, to, port));
        let stream = SimStream::new(self.clone(), pair, 0);
        poll_fn(|cx| {
            self.with(|inner| {
                let end = inner.end(pair, 0);
                let failed = |kind: io::ErrorKind| Poll::Ready(Err(io::Error::from(kind)));
                match (end.state, end.reset) {
                    (State::Refused, _) => failed(io::ErrorKind::ConnectionRefused),
                    (_, true) => failed(io::ErrorKind::ConnectionReset),
                    (State::Open, false) => Poll::Ready(Ok(())),
                    (State::Connecting, false) => {
                        end.reader = Some(cx.waker().clone());
                        Poll::Pending
                    }
                }
            })
        })
        .await?;
        Ok(stream)
    }

    /// Listens on a port of `host`.
    ///
    /// # Errors
    /// `AddrInUse`.
    pub fn listen(&self, host: HostNumber, port: u16) -> io::Result<SimListener> {
        self.with(|inner| {
            if inner.listeners.contains_key(&(host, port)) {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("127.0.0.{host}:{port} is taken"),
                ));
            }
            inner.listeners.insert((host, port), Backlog::default());
            Ok(())
        })?;
        Ok(SimListener::new(self.clone(), host, port))
    }

    /// Nothing passes from one host to the other, until [`Network::unblock`].
    pub fn block(&self, from: HostNumber, to: HostNumber) {
        self.with(|inner| inner.link(from, to).blocked += 1);
    }

    /// Ends one [`Network::block`]; after the last, what was sent meanwhile arrives.
    pub fn unblock(&self, from: HostNumber, to: HostNumber) {
        self.with(|inner| {
            let link = inner.link(from, to);
            link.blocked = link.blocked.checked_sub(1).expect("it was blocked");
            if link.blocked > 0 {
                return;
            }
            let held = std::mem::take(&mut link.held);
            let again = inner.now + inner.chance.within(1..=RETRANSMIT_MS_MAX) * MS_NS;
            for arrival in held.into_values() {
                inner.schedule(arrival, again);
            }
        });
    }

    /// What is sent from one host to the other is lost, until [`Network::find`].
    pub fn lose(&self, from: HostNumber, to: HostNumber) {
        self.with(|inner| inner.link(from, to).lossy += 1);
    }

    /// Ends one [`Network::lose`]. Connections that lost something stay silent.
    pub fn find(&self, from: HostNumber, to: HostNumber) {
        self.with(|inner| {
            let link = inner.link(from, to);
            link.lossy = link.lossy.checked_sub(1).expect("it was lossy");
        });
    }

    /// Adds to the delay, until [`Network::speed_up`].
    pub fn slow_down(&self, from: HostNumber, to: HostNumber, by_ms: u64) {
        self.with(|inner| inner.link(from, to).slower_ms += by_ms);
    }

    /// Ends a [`Network::slow_down`] by as much.
    pub fn speed_up(&self, from: HostNumber, to: HostNumber, by_ms: u64) {
        self.with(|inner| {
            let link = inner.link(from, to);
            link.slower_ms = link.slower_ms.checked_sub(by_ms).expect("it was slowed down");
        });
    }

    /// Lets at most `bytes_per_s` pass, until [`Network::widen`].
    pub fn narrow(&self, from: HostNumber, to: HostNumber, bytes_per_s: u64) {
        assert!(bytes_per_s > 0, "a link that passes nothing is blocked");
        self.with(|inner| inner.link(from, to).narrow.push(bytes_per_s));
    }

    /// Ends a [`Network::narrow`] to as much.
    pub fn widen(&self, from: HostNumber, to: HostNumber, bytes_per_s: u64) {
        self.with(|inner| {
            let narrow = &mut inner.link(from, to).narrow;
            let place = narrow.iter().position(|held| *held == bytes_per_s).expect("it was narrowed");
            narrow.remove(place);
        });
    }

    /// Resets every connection between two hosts.
    pub fn reset_between(&self, one: HostNumber, other: HostNumber) {
        self.with(|inner| {
            let pairs: Vec<PairNumber> = inner.pairs.keys().copied().collect();
            for pair in pairs {
                let [a, b] = &inner.pairs[&pair].ends;
                if (a.host, b.host) == (one, other) || (a.host, b.host) == (other, one) {
                    inner.break_off(pair, 0);
                    inner.break_off(pair, 1);
                }
            }
        });
    }

    /// The machine has no power: it says nothing, and what it had is forgotten. To be called before its process ends.
    pub fn power_off(&self, host: HostNumber) {
        self.with(|inner| inner.dark.insert(host));
    }

    /// The machine has power again.
    pub fn power_on(&self, host: HostNumber) {
        self.with(|inner| inner.dark.remove(&host));
    }
}

impl Inner {
    fn link(&mut self, from: HostNumber, to: HostNumber) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    fn end(&mut self, pair: PairNumber, side: Side) -> &mut End {
        let pair = self.pairs.get_mut(&pair).expect("a pair lives as long as one of its ends is held");
        &mut pair.ends[side]
    }

    fn open(&mut self, from: HostNumber, to: HostNumber, port: u16) -> PairNumber {
        let own = self.ports.entry(from).or_insert(FIRST_PORT);
        *own = own.checked_add(1).unwrap_or(FIRST_PORT);
        let pair = self.next_pair;
        self.next_pair += 1;
        let ends = [End::new(from, *own, false), End::new(to, port, true)];
        self.pairs.insert(pair, Pair { ends });
        self.send(pair, 1, What::Syn);
        pair
    }

    /// Sends something to side `to` of a pair.
    fn send(&mut self, pair: PairNumber, to: Side, what: What) {
        let (source, target) = {
            let ends = &self.pairs[&pair].ends;
            (&ends[1 - to], &ends[to])
        };
        let (from_host, to_host) = (source.host, target.host);
        if source.severed || self.dark.contains(&from_host) {
            return;
        }
        let len = if let What::Data(bytes) = &what { bytes.len() as u64 } else { 0 };
        let delay_ms = self.chance.within(self.delay_ms.0..=self.delay_ms.1);
        let now = self.now;
        let link = self.link(from_host, to_host);
        let mut at = now + (delay_ms + link.slower_ms) * MS_NS;
        if let Some(bytes_per_s) = link.narrow.iter().min() {
            at = at.max(link.free_at) + len * 1_000_000_000 / bytes_per_s;
            link.free_at = at;
        }
        self.schedule(Arrival { pair, to, what, tries: 0 }, at);
    }

    /// Lets something arrive at `at`, or later, if it would overtake what was sent before.
    fn schedule(&mut self, arrival: Arrival, at: TrueNs) {
        self.order += 1;
        let order = self.order;
        let Some(pair) = self.pairs.get_mut(&arrival.pair) else { return };
        let source = &mut pair.ends[1 - arrival.to];
        let at = at.max(source.last_arrival);
        source.last_arrival = at;
        let (from, to) = (source.host, pair.ends[arrival.to].host);
        let link = self.links.entry((from, to)).or_default();
        if link.blocked > 0 {
            self.seen.held += 1;
            link.held.insert(order, arrival);
        } else {
            self.arrivals.insert((at, order), arrival);
        }
    }

    fn arrive(&mut self, order: u64, arrival: Arrival) {
        let Arrival { pair, to, .. } = arrival;
        let Some(held) = self.pairs.get(&pair) else { return };
        let (from_host, to_host) = (held.ends[1 - to].host, held.ends[to].host);
        let link = self.link(from_host, to_host);
        if link.blocked > 0 {
            link.held.insert(order, arrival);
            self.seen.held += 1;
            return;
        }
        let lossy = link.lossy > 0;
        if lossy || self.dark.contains(&to_host) {
            self.seen.lost += 1;
            return self.lost(arrival, lossy);
        }
        match arrival.what {
            What::Syn => self.knocked(pair),
            What::Accepted if self.end(pair, to).gone => self.send(pair, 1 - to, What::Reset),
            What::Accepted => {
                self.end(pair, to).state = State::Open;
                self.wake_reader(pair, to);
            }
            What::Refused => {
                self.end(pair, to).state = State::Refused;
                self.wake_reader(pair, to);
            }
            What::Data(_) if self.end(pair, to).gone => self.send(pair, 1 - to, What::Reset),
            What::Data(bytes) => {
                self.end(pair, to).inbox.extend_from_slice(&bytes);
                self.wake_reader(pair, to);
            }
            What::Fin => {
                self.end(pair, to).ended = true;
                self.wake_reader(pair, to);
            }
            What::Reset => self.break_off(pair, to),
        }
    }

    /// What makes a connection is sent again, after a second, two, four; what a connection carries is gone with it.
    fn lost(&mut self, arrival: Arrival, by_the_link: bool) {
        if arrival.is_handshake() && arrival.tries < SYN_RETRIES {
            let again = self.now + (SYN_AGAIN_MS << arrival.tries) * MS_NS;
            self.schedule(Arrival { tries: arrival.tries + 1, ..arrival }, again);
        } else if by_the_link {
            self.end(arrival.pair, 1 - arrival.to).severed = true;
        }
    }

    fn knocked(&mut self, pair: PairNumber) {
        let (host, port) = {
            let end = self.end(pair, 1);
            (end.host, end.port)
        };
        let backlog = self.listeners.get_mut(&(host, port)).filter(|held| held.waiting.len() < BACKLOG);
        let Some(backlog) = backlog else {
            self.seen.refused += 1;
            return self.send(pair, 0, What::Refused);
        };
        backlog.waiting.push_back(pair);
        self.wakers.extend(backlog.waker.take());
        self.seen.connections += 1;
        let end = self.end(pair, 1);
        (end.state, end.gone) = (State::Open, false);
        self.send(pair, 0, What::Accepted);
    }

    fn wake_reader(&mut self, pair: PairNumber, side: Side) {
        let waker = self.end(pair, side).reader.take();
        self.wakers.extend(waker);
    }

    fn break_off(&mut self, pair: PairNumber, side: Side) {
        let end = self.end(pair, side);
        end.reset = true;
        end.severed = true;
        end.inbox.clear();
        let wakers = [end.reader.take(), end.writer.take()];
        self.wakers.extend(wakers.into_iter().flatten());
        self.seen.resets += 1;
    }

    /// The process lets go of one end.
    fn let_go(&mut self, pair: PairNumber, side: Side) {
        let end = self.end(pair, side);
        end.gone = true;
        let unread = !end.inbox.is_empty();
        let silent = end.reset || (end.sent_end && !unread);
        (end.reader, end.writer) = (None, None);
        if !silent {
            self.send(pair, 1 - side, if unread { What::Reset } else { What::Fin });
        }
        // A peer that has not heard of it yet is gone too: then what is on its way meets nobody.
        if self.end(pair, 1 - side).gone {
            self.pairs.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests;
