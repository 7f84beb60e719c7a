//! HTTP/2 as a client sees it: through hyper's client, and frame by frame where no decent client would do such a thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::streams::{Running, Streams};
use crate::connection::Msg;
use crate::journey::tests::{Act, Client, OK, Script};

/// A client with its connection under way.
struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    client: Client,
    ended: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    async fn connect(script: Script) -> Self {
        let mut client = Client::connect(script).await;
        let stream = std::mem::replace(&mut client.stream, tokio::io::duplex(1).0);
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.expect("the gateway speaks HTTP/2");
        Self { sender, client, ended: tokio::spawn(connection) }
    }

    async fn ask(
        &self,
        request: http::request::Builder,
        body: &'static str,
    ) -> (http::response::Parts, String) {
        let request = request.body(Full::from(body)).expect("well-formed");
        let response = self.sender.clone().send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        (parts, String::from_utf8(bytes.to_vec()).expect("text"))
    }
}

fn get() -> http::request::Builder {
    http::Request::get("http://api.test/v1/a?b=c")
}

fn post() -> http::request::Builder {
    http::Request::post("http://api.test/v1/a")
}

#[tokio::test(start_paused = true)]
async fn streams_pass_like_requests_and_no_two_wait_for_each_other() {
    // given an upstream that takes its time
    let client = Http2::connect(|_, _| Act::SayAfter(Duration::from_secs(1), OK)).await;
    let begin = Instant::now();
    // when two streams ask at once
    let crumbs = get().header("cookie", "a=1").header("cookie", "b=2");
    let (one, two) = tokio::join!(client.ask(crumbs, ""), client.ask(post(), "hi"));
    // then both are answered a second later, over one connection
    for (parts, body) in [one, two] {
        assert_eq!((parts.status.as_u16(), body.as_str()), (200, "hi"));
        assert!(parts.headers.contains_key("x-request-id") && !parts.headers.contains_key("keep-alive"));
    }
    assert_eq!(begin.elapsed().as_secs(), 1);
    let seen = client.client.seen();
    let one = seen.iter().find(|head| head.starts_with("GET /a?b=c HTTP/1.1\r\n")).expect("the GET");
    for line in ["host: echo.test", "x-forwarded-host: api.test", "cookie: a=1; b=2"] {
        assert!(one.lines().any(|found| found == line), "{line} is missing in {one}");
    }
    assert_eq!(client.client.telemetry.summary().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_upload_ends_its_stream_and_no_other() {
    let client = Http2::connect(|_, _| Act::Say(OK)).await;
    // given bodies of more than the ten bytes that are taken, announced and not
    for request in [post(), post().header("content-length", "11")] {
        let (parts, body) = client.ask(request, "hello world").await;
        assert_eq!(parts.status.as_u16(), 413, "{body}");
        assert!(!parts.headers.contains_key("connection"));
    }
    // then the connection goes on
    assert_eq!(client.ask(get(), "").await.0.status.as_u16(), 200);
    // and so it does where the target and the field differ
    let (parts, body) = client.ask(get().header("host", "other.test"), "").await;
    assert!(parts.status.as_u16() == 400 && body.contains("different hosts"), "{body}");
    let fields = (0..101).fold(get(), |request, number| request.header(format!("x-{number}"), "1"));
    let (parts, body) = client.ask(fields, "").await;
    assert!(parts.status.as_u16() == 431 && body.contains("too-many-fields"), "{body}");
    assert!(parts.headers.contains_key("x-request-id"));
    assert_eq!(client.client.telemetry.summary().answered_4xx, 4);
    let long = get().header("x-long", "x".repeat(9 << 10));
    assert_eq!(client.ask(long, "").await.0.status.as_u16(), 431);
    assert_eq!(client.ask(get(), "").await.0.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_streams_finish_and_takes_no_more() {
    // given a stream at hand
    let mut client = Http2::connect(|_, _| Act::SayAfter(Duration::from_secs(1), OK)).await;
    let begin = Instant::now();
    let drain = async {
        sleep(Duration::from_millis(100)).await;
        client.client.actor.send_message(Msg::Drain).expect("it runs");
    };
    // when the connection is told to drain
    let ((parts, body), ()) = tokio::join!(client.ask(get(), ""), drain);
    // then the stream is answered, and the connection closed in order
    assert_eq!((parts.status.as_u16(), body.as_str()), (200, "hi"));
    (&mut client.ended).await.expect("no panic").expect("closed in order");
    assert_eq!(begin.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_stream_is_told_to_go_after_its_idle_time() {
    let mut client = Http2::connect(|_, _| Act::SayAfter(Duration::from_secs(2), OK)).await;
    let begin = Instant::now();
    sleep(Duration::from_secs(59)).await;
    client.ask(get(), "").await;
    (&mut client.ended).await.expect("no panic").expect("closed in order");
    assert_eq!(begin.elapsed().as_secs(), 61 + 60);
}

/// A client that writes its own frames.
struct Raw(Client);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a GET, or of a POST.
fn head(stream: u32, method: u8, flags: u8) -> Vec<u8> {
    let fields = [&[method, 0x86, 0x44, 5], b"/v1/a".as_slice(), &[0x41, 8], b"api.test"].concat();
    frame(HEADERS, END_HEADERS | flags, stream, &fields)
}

const METHOD_GET: u8 = 0x82;
const METHOD_POST: u8 = 0x83;

impl Raw {
    async fn connect(script: Script, settings: &[u8]) -> Self {
        let mut client = Client::connect(script).await;
        let preface =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, settings)].concat();
        client.stream.write_all(&preface).await.expect("open");
        Self(client)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.stream.write_all(bytes).await.expect("open");
    }

    /// The next frame of `kind` (others are passed over): its stream and payload. None: the connection ended.
    async fn next(&mut self, kind: u8) -> Option<(u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.stream.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            self.0.stream.read_exact(&mut payload).await.ok()?;
            if head[3] == kind {
                let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes"));
                return Some((stream, payload));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_reset_as_soon_as_they_begin_end_their_connection() {
    // given a client that resets each of its streams at once (CVE-2023-44487)
    let mut client = Raw::connect(|_, _| Act::Say(OK), &[]).await;
    let rapid: Vec<u8> = (0..100)
        .flat_map(|n| {
            [head(2 * n + 1, METHOD_GET, END_STREAM), frame(RST_STREAM, 0, 2 * n + 1, &CANCEL)].concat()
        })
        .collect();
    // when it does so too often
    client.send(&rapid).await;
    // then it is told to be calm, and that was all
    let (_, said) = client.next(GOAWAY).await.expect("a word of farewell");
    assert_eq!(said[4..8], ENHANCE_YOUR_CALM);
    assert_eq!(client.next(DATA).await, None);
}

#[tokio::test(start_paused = true)]
async fn streams_that_a_client_has_reset_by_us_end_their_connection() {
    // given a client that makes us reset its streams (CVE-2025-8671): a window may not grow so wide
    let mut client = Raw::connect(|_, _| Act::SayAfter(Duration::from_secs(5), OK), &[]).await;
    let (mut ended, mut number) = (false, 1);
    while !ended {
        assert!(number < 2 * 2048, "nobody stops it");
        let made =
            [head(number, METHOD_GET, END_STREAM), frame(8, 0, number, &[0x7f, 0xff, 0xff, 0xff])].concat();
        ended = client.0.stream.write_all(&made).await.is_err();
        number += 2;
        let word = timeout(Duration::from_millis(1), client.next(GOAWAY)).await;
        ended |= word.is_ok();
    }
    assert!(number > 2 * 1000, "{number}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_answer_has_its_stream_reset() {
    // given a client that opens no window for answers
    let mut client = Raw::connect(|_, _| Act::Say(OK), &[0, 4, 0, 0, 0, 0]).await;
    let begin = Instant::now();
    client.send(&head(1, METHOD_GET, END_STREAM)).await;
    client.next(HEADERS).await.expect("the answer's head");
    // then its stream, and later its connection, come to their end
    let (stream, _) = client.next(RST_STREAM).await.expect("it is reset");
    assert_eq!((stream, begin.elapsed().as_secs()), (1, 7));
    assert!(client.next(GOAWAY).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_but_the_beginning_of_its_answer_has_its_stream_reset() {
    // given answers whose end is known before, comes later, and has trailers
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n";
    const TRAILED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                           6\r\nabcdef\r\n0\r\nx-sum: 1\r\n\r\n";
    let scripts: [Script; 3] = [|_, _| Act::Say(OK), |_, _| Act::Say(CHUNKED), |_, _| Act::Say(TRAILED)];
    for script in scripts {
        // and a client whose window is one byte
        let mut client = Raw::connect(script, &[0, 4, 0, 0, 0, 1]).await;
        let begin = Instant::now();
        client.send(&head(1, METHOD_GET, END_STREAM)).await;
        let (_, first) = client.next(DATA).await.expect("what the window has room for");
        assert_eq!(first.len(), 1);
        // then the rest is not kept for ever
        let (stream, _) = client.next(RST_STREAM).await.expect("it is reset");
        assert_eq!((stream, begin.elapsed().as_secs()), (1, 7));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_body_does_not_come_is_refused_and_a_connection_that_stands_still_is_closed() {
    // given a client that promises a body, and says nothing more, not even that it is there
    let mut client = Raw::connect(|_, _| Act::SayAfter(Duration::from_secs(9), OK), &[]).await;
    let begin = Instant::now();
    client.send(&head(1, METHOD_POST, 0)).await;
    // then the stream is answered in time
    let (stream, _) = client.next(HEADERS).await.expect("408");
    assert_eq!((stream, begin.elapsed().as_secs()), (1, 7));
    assert_eq!(client.0.telemetry.summary().answered_4xx, 1);
    // and a ping without an answer ends it all
    while client.next(GOAWAY).await.is_some() {}
    assert_eq!(begin.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_panics_ends_alone_and_all_end_with_their_connection() {
    // given three streams, of which one panics
    let streams = Streams::new(Duration::from_secs(1));
    let mut running = Running::new(streams.clone());
    let ended = Arc::new(AtomicUsize::new(0));
    let count = |ended: &Arc<AtomicUsize>| ended.load(Ordering::Relaxed);
    for number in 0..3_u64 {
        let ended = ended.clone();
        let work = async move {
            sleep(Duration::from_millis(number)).await;
            assert_ne!(number, 1, "the second one is unlucky");
            ended.fetch_add(1, Ordering::Relaxed);
        };
        streams.called();
        hyper::rt::Executor::execute(&streams, work);
    }
    std::future::poll_fn(|cx| {
        running.poll(cx);
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    // then the others come to their end
    assert_eq!(count(&ended), 2);
    // and one that never began does not outlive the connection
    let kept = Arc::new(());
    let held = kept.clone();
    streams.called();
    hyper::rt::Executor::execute(&streams, async move { drop(held) });
    drop(running);
    assert_eq!(Arc::strong_count(&kept), 1);
}
