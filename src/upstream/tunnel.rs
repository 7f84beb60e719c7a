//! A client's and an upstream's connection after both have switched protocols: bytes both ways, until both sides have ended.
//!
//! Nothing here reads the bytes. The client's connection drives its tunnel, so that it ends with it and keeps its place in
//! the process's budget; the upstream's connection keeps its place among that upstream's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use config::ids::{RouteName, UpstreamName};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::pool::Lease;
use crate::journey::received::{Arrival, RequestId};
use crate::telemetry::Recorder;

/// Held for each way.
const BUFFER_BYTES: usize = 8 << 10;

/// Whose tunnel it is, for logs.
#[derive(Debug)]
pub struct Origin {
    id: RequestId,
    peer: SocketAddr,
    route: RouteName,
    upstream: UpstreamName,
}

impl Origin {
    /// Of the request that asked for it.
    pub fn of(arrival: &Arrival, route: &RouteName, upstream: &UpstreamName) -> Self {
        let (route, upstream) = (route.clone(), upstream.clone());
        Self { id: arrival.id, peer: arrival.caller.peer, route, upstream }
    }
}

/// The upstream's side of a tunnel, waiting for the client's.
#[derive(Debug)]
pub struct Tunnel {
    upstream: TokioIo<Upgraded>,
    lease: Lease,
    idle_timeout: Duration,
    origin: Origin,
}

impl Tunnel {
    /// - `lease`: of the connection that `upstream` was; held until the tunnel ends.
    pub fn new(upstream: Upgraded, lease: Lease, idle_timeout: Duration, origin: Origin) -> Self {
        Self { upstream: TokioIo::new(upstream), lease, idle_timeout, origin }
    }

    /// Carries bytes until both sides have ended, one breaks, or nothing comes from either for the idle timeout. A side
    /// that has ended is told to the other, which may still speak.
    ///
    /// - `early`: what the client has sent already.
    pub async fn run(self, recorder: &Recorder, client: impl AsyncRead + AsyncWrite, early: Bytes) {
        let Self { upstream, lease: _lease, idle_timeout, origin } = self;
        let mut open = Open::new(recorder, origin);
        let (from_client, to_client) = tokio::io::split(client);
        let (from_upstream, to_upstream) = tokio::io::split(upstream);
        let meter = &open.meter;
        let both = async {
            tokio::try_join!(
                one_way(early.chain(from_client), to_upstream, meter, Way::Up),
                one_way(from_upstream, to_client, meter, Way::Down)
            )
        };
        open.end = tokio::select! {
            biased;
            ended = both => if ended.is_ok() { "closed" } else { "broken" },
            () = meter.idle(idle_timeout) => "idle",
        };
    }
}

/// From the first side to the second, to its end.
async fn one_way(from: impl AsyncRead, to: impl AsyncWrite, meter: &Meter, way: Way) -> io::Result<()> {
    let (mut from, mut to) = (std::pin::pin!(from), std::pin::pin!(to));
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        meter.came(way, count);
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// From the client.
    Up,
    /// From the upstream.
    Down,
}

/// What came, and when something came last.
#[derive(Debug)]
struct Meter(Mutex<Came>);

#[derive(Clone, Copy, Debug)]
struct Came {
    up_bytes: u64,
    down_bytes: u64,
    last: Instant,
}

impl Meter {
    fn came(&self, way: Way, count: usize) {
        let mut came = self.0.lock();
        let bytes = match way {
            Way::Up => &mut came.up_bytes,
            Way::Down => &mut came.down_bytes,
        };
        *bytes += count as u64;
        came.last = Instant::now();
    }

    /// Yields once nothing has come for `patience`.
    async fn idle(&self, patience: Duration) {
        loop {
            let due = self.0.lock().last + patience;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A tunnel in figures and in the log: its end is told however it comes.
struct Open<'r> {
    recorder: &'r Recorder,
    origin: Origin,
    begun: Instant,
    meter: Meter,
    end: &'static str,
}

impl<'r> Open<'r> {
    fn new(recorder: &'r Recorder, origin: Origin) -> Self {
        recorder.tunnel_opened();
        let begun = Instant::now();
        let meter = Meter(Mutex::new(Came { up_bytes: 0, down_bytes: 0, last: begun }));
        Self { recorder, origin, begun, meter, end: "cut" }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Came { up_bytes, down_bytes, .. } = *self.meter.0.lock();
        self.recorder.tunnel_closed(up_bytes, down_bytes);
        let Origin { id, peer, route, upstream } = &self.origin;
        let (lasted_ms, end) = (self.begun.elapsed().as_millis() as u64, self.end);
        debug!(%id, %peer, %route, %upstream, lasted_ms, up_bytes, down_bytes, end, "tunnel ended");
    }
}
