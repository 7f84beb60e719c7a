//! Upstreams that speak HTTP/2.

use bytes::Bytes;
use config::upstream::Protocol;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response};

use super::*;

/// Of a request's body that nobody takes.
const WINDOW_BYTES: u32 = 4;

/// What an upstream does with a request: the number of its connection and of the request on it.
type Script = fn(connection: usize, request: usize) -> Act;

#[derive(Clone, Copy)]
enum Act {
    SayAfter(Duration, &'static str),
    /// Says the beginning of a longer body, whose length it announces or not, then breaks the stream.
    Break(Option<usize>, Reason),
    /// Has not looked at it.
    Refuse,
    /// Answers, and takes no more on this connection.
    Goodbye,
    /// Says a trailer after its body.
    Trail,
    /// Answers at once, says a letter each second, and takes nothing of the request but its reset.
    Speak,
    /// The same, and takes the request's body, too.
    Converse,
    /// Takes nothing, and says nothing.
    Ignore,
    HangUp,
}

const BREAK: Act = Act::Break(Some(10), Reason::INTERNAL_ERROR);
const SAY: Act = Act::SayAfter(Duration::ZERO, "hi");

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    /// Requests, and how their bodies ended.
    requests: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Result<String, Option<Reason>>>>,
}

struct Http2Net {
    script: Script,
    /// Requests at once that the upstream takes.
    streams_max: u32,
    seen: Arc<Seen>,
}

impl Net for Http2Net {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let number = self.seen.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(theirs, self.script, self.streams_max, number, self.seen.clone()));
        let stream: Box<dyn Stream> = Box::new(ours);
        Box::pin(std::future::ready(Ok(stream)))
    }

    fn bind(&self, _: SocketAddr, _: Share) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

async fn serve(stream: DuplexStream, script: Script, streams_max: u32, connection: usize, seen: Arc<Seen>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams_max).initial_window_size(WINDOW_BYTES);
    let Ok(mut http2) = builder.handshake(stream).await else { return };
    let mut ignored = Vec::new();
    for number in 0.. {
        let Some(Ok((request, mut respond))) = http2.accept().await else { return };
        let line = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
        seen.requests.lock().push(line);
        match script(connection, number) {
            Act::SayAfter(wait, text) => {
                tokio::spawn(say(request, respond, wait, text, seen.clone()));
            }
            Act::Break(length, reason) => {
                let mut head = Response::builder();
                if let Some(length) = length {
                    head = head.header("content-length", length);
                }
                let head = head.body(()).expect("a head");
                let mut body = respond.send_response(head, false).expect("it is open");
                body.send_data("begin".into(), false).expect("it is open");
                tokio::spawn(async move {
                    sleep(Duration::from_millis(10)).await;
                    body.send_reset(reason);
                });
            }
            Act::Trail => {
                tokio::spawn(trail(request, respond, seen.clone()));
            }
            act @ (Act::Speak | Act::Converse) => {
                let body = respond.send_response(Response::new(()), false).expect("it is open");
                tokio::spawn(speak(request, body, matches!(act, Act::Converse), seen.clone()));
            }
            Act::Ignore => ignored.push((request, respond)),
            Act::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
            Act::Goodbye => {
                tokio::spawn(say(request, respond, Duration::ZERO, "hi", seen.clone()));
                http2.graceful_shutdown();
            }
            Act::HangUp => return,
        }
    }
}

async fn say(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    wait: Duration,
    text: &'static str,
    seen: Arc<Seen>,
) {
    let mut incoming = request.into_body();
    let mut body = Vec::new();
    let ended = loop {
        match incoming.data().await {
            None => break Ok(String::from_utf8_lossy(&body).into_owned()),
            Some(Ok(data)) => {
                body.extend_from_slice(&data);
                // An upstream that has ended needs no room.
                let _ = incoming.flow_control().release_capacity(data.len());
            }
            Some(Err(error)) => break Err(error.reason()),
        }
    };
    seen.bodies.lock().push(ended);
    sleep(wait).await;
    let head = Response::builder().header("content-length", text.len()).body(()).expect("a head");
    // Who asked may be gone.
    if let Ok(mut body) = respond.send_response(head, false) {
        let _ = body.send_data(text.into(), true);
    }
}

async fn speak(
    request: Request<h2::RecvStream>,
    mut body: h2::SendStream<Bytes>,
    listens: bool,
    seen: Arc<Seen>,
) {
    let mut incoming = request.into_body();
    loop {
        tokio::select! {
            biased;
            reason = std::future::poll_fn(|cx| body.poll_reset(cx)) => {
                seen.bodies.lock().push(Err(reason.ok()));
                return;
            }
            Some(Ok(data)) = incoming.data(), if listens => {
                seen.bodies.lock().push(Ok(String::from_utf8_lossy(&data).into_owned()));
            }
            () = sleep(Duration::from_secs(1)) => {
                // The reset is seen next.
                let _ = body.send_data("x".into(), false);
            }
        }
    }
}

/// Says back the request's trailer, and fields that may not stand in one.
async fn trail(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let mut incoming = request.into_body();
    while let Some(Ok(_)) = incoming.data().await {}
    let mut trailers = incoming.trailers().await.ok().flatten().unwrap_or_default();
    seen.requests.lock().push(format!("{trailers:?}"));
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    trailers.insert("set-cookie", http::HeaderValue::from_static("a=b"));
    let head = Response::builder().header("trailer", "x-sum, grpc-status, set-cookie").body(());
    let mut body = respond.send_response(head.expect("a head"), false).expect("it is open");
    body.send_data("hi".into(), false).expect("it is open");
    body.send_trailers(trailers).expect("it is open");
}

impl Client {
    /// A client of a gateway whose upstream may have `connections_max` connections of two requests each.
    async fn of_http2(script: Script, streams_max: u32, connections_max: u32) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let net = Arc::new(Http2Net { script, streams_max, seen: seen.clone() });
        let one = rule(80);
        let upstream = Upstream {
            protocol: Protocol::Http2,
            streams_max: 2,
            connections_max,
            ..one.upstreams[0].as_ref().clone()
        };
        let rule = RouteRule {
            upstreams: Box::new([Arc::new(upstream)]),
            ..Arc::into_inner(one).expect("nobody else has it")
        };
        let telemetry = Telemetry::new();
        let gateway = gateway(net, Arc::new(rule), &telemetry);
        let nobody = TestNet {
            script: |_, _| super::Act::HangUp,
            connections: AtomicUsize::new(0),
            seen: Arc::default(),
        };
        (Self::of(gateway, Arc::new(nobody), telemetry, Default::default()).await, seen)
    }
}

fn count(seen: &Seen) -> (usize, usize) {
    (seen.connections.load(Ordering::Relaxed), seen.requests.lock().len())
}

#[tokio::test(start_paused = true)]
async fn a_request_becomes_one_of_http2_and_its_answer_one_of_http1() {
    let (mut client, seen) = Client::of_http2(|_, _| SAY, 100, 2).await;
    let fields = "connection: x-a, keep-alive\r\nx-a: 1\r\nte: gzip\r\nx-b: 2\r\n\r\n";
    let (head, body) = client.ask(&GET.replace("\r\n\r\n", &format!("\r\n{fields}"))).await;
    assert!(head.starts_with("http/1.1 200") && body == "hi", "{head}");
    let (head, body) = client.ask(POST).await;
    assert!(head.starts_with("http/1.1 200") && body == "hi", "{head}");
    let requests = seen.requests.lock().clone();
    assert!(requests[0].starts_with("GET http://echo.test/a?b=c "), "{}", requests[0]);
    assert!(requests[0].contains("\"x-b\": \"2\"") && !requests[0].contains("\"host\""), "{}", requests[0]);
    assert!(!requests[0].contains("x-a") && !requests[0].contains("\"te\""), "{}", requests[0]);
    assert_eq!(seen.bodies.lock()[1], Ok("hi".to_owned()));
    assert_eq!(count(&seen), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn requests_share_connections_and_no_more_are_opened_than_needed() {
    // given an upstream that takes its time, and five clients at once where a connection takes two requests
    let (mut first, seen) =
        Client::of_http2(|_, _| Act::SayAfter(Duration::from_secs(1), "hi"), 100, 3).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(first.another().await);
    }
    let begin = Instant::now();
    first.send(GET).await;
    for other in &mut others {
        other.send(GET).await;
    }
    // when they are answered, then at the same time, over three connections
    first.answer().await;
    for other in &mut others {
        other.answer().await;
    }
    assert_eq!((begin.elapsed().as_secs(), count(&seen)), (1, (3, 5)));
    // and later requests use them, until they were idle for too long
    for _ in 0..3 {
        first.ask(GET).await;
    }
    assert_eq!(count(&seen), (3, 8));
    drop(others);
    let mut late = first.another().await;
    sleep(Duration::from_secs(62)).await;
    late = late.another().await;
    late.ask(GET).await;
    assert_eq!(count(&seen), (4, 9));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_fewer_requests_at_once_gets_no_more() {
    // given an upstream that takes one at a time, and room for two
    let (mut first, seen) = Client::of_http2(|_, _| Act::SayAfter(Duration::from_secs(1), "hi"), 1, 1).await;
    let mut second = first.another().await;
    let begin = Instant::now();
    first.send(GET).await;
    second.send(GET).await;
    let (one, _) = first.answer().await;
    let (other, _) = second.answer().await;
    // then the second waits for the first, and is not refused
    assert!(one.starts_with("http/1.1 200") && other.starts_with("http/1.1 200"), "{one}{other}");
    assert_eq!((begin.elapsed().as_secs(), count(&seen)), (2, (1, 2)));
}

#[tokio::test(start_paused = true)]
async fn what_an_upstream_has_not_looked_at_is_sent_again_but_never_a_post() {
    fn refuses(connection: usize, request: usize) -> Act {
        if (connection, request) == (0, 1) { Act::Refuse } else { SAY }
    }
    fn hangs_up(connection: usize, request: usize) -> Act {
        if (connection, request) == (0, 1) { Act::HangUp } else { SAY }
    }
    // given room for another connection, and none, but for the one that is lost
    for (script, connections_max, connections) in
        [(refuses as Script, 2, 2), (refuses, 1, 1), (hangs_up, 2, 2), (hangs_up, 1, 2)]
    {
        for (second, status, sent) in [(GET, "200", (connections, 3)), (POST, "502", (1, 2))] {
            let (mut client, seen) = Client::of_http2(script, 100, connections_max).await;
            client.ask(GET).await;
            let (head, _) = client.ask(second).await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
            assert_eq!(count(&seen), sent);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_goodbye_serves_no_more() {
    let (mut client, seen) =
        Client::of_http2(|_, request| if request == 1 { Act::Goodbye } else { SAY }, 100, 2).await;
    for request in [GET, POST, POST, GET] {
        let (head, _) = client.ask(request).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count(&seen), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_not_passed_on_as_whole() {
    // given an upstream that breaks a response off, then a client that breaks a request off
    let (mut client, seen) =
        Client::of_http2(|_, request| if request == 0 { BREAK } else { SAY }, 100, 2).await;
    client.send(GET).await;
    let head = read_head(&mut client.stream).await.expect("a head");
    assert!(head.contains("content-length: 10"), "{head}");
    let mut body = Vec::new();
    client.stream.read_to_end(&mut body).await.expect("it is closed");
    assert_eq!(body, b"begin");
    let mut client = client.another().await;
    client.send("POST /v1 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
    sleep(Duration::from_millis(10)).await;
    drop(client);
    sleep(Duration::from_millis(10)).await;
    // then the stream was reset, which is no end of a body
    assert!(seen.bodies.lock()[0].as_ref().is_err_and(Option::is_some), "{:?}", seen.bodies.lock());
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_calls_itself_no_error_ends_no_body() {
    let scripts: [Script; 4] = [
        |_, _| Act::Break(Some(10), Reason::NO_ERROR),
        |_, _| Act::Break(Some(10), Reason::CANCEL),
        |_, _| Act::Break(None, Reason::NO_ERROR),
        |_, _| Act::Break(None, Reason::CANCEL),
    ];
    for script in scripts {
        let (mut client, _) = Client::of_http2(script, 100, 2).await;
        client.send(GET).await;
        read_head(&mut client.stream).await.expect("a head");
        let mut body = Vec::new();
        client.stream.read_to_end(&mut body).await.expect("it is closed");
        // then it has neither its length nor its last chunk
        let body = String::from_utf8(body).expect("text");
        assert!(body == "begin" || body == "5\r\nbegin\r\n", "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_of_http2_that_is_slow_is_a_504() {
    let (mut client, seen) = Client::of_http2(|_, _| Act::SayAfter(WEEK, "hi"), 100, 2).await;
    let begin = Instant::now();
    let (head, _) = client.ask(GET).await;
    assert!(head.starts_with("http/1.1 504"), "{head}");
    assert_eq!((begin.elapsed().as_secs(), count(&seen)), (10, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn trailers_pass_both_ways_without_what_may_not_stand_in_them() {
    let (mut client, seen) = Client::of_http2(|_, _| Act::Trail, 100, 2).await;
    let head = "POST /v1 HTTP/1.1\r\nhost: h\r\nte: trailers\r\nconnection: te\r\ntrailer: x-sum\r\n";
    let body = "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\ncache-control: x\r\n\r\n";
    client.send(&format!("{head}{body}")).await;
    let head = read_head(&mut client.stream).await.expect("a head");
    assert!(head.contains("transfer-encoding: chunked") && head.contains("trailer: "), "{head}");
    let body = read_head(&mut client.stream).await.expect("a body and a trailer");
    assert!(body.starts_with("2\r\nhi\r\n0\r\n"), "{body}");
    assert!(body.contains("x-sum: 7\r\n") && body.contains("grpc-status: 0\r\n"), "{body}");
    assert!(!body.contains("set-cookie"), "{body}");
    let requests = seen.requests.lock().clone();
    assert!(requests[0].contains("\"te\": \"trailers\""), "{}", requests[0]);
    assert_eq!(requests[1], "{\"x-sum\": \"7\"}");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_refused_as_one_and_ends_at_its_own_time() {
    let (mut client, seen) = Client::of_http2(|_, _| Act::SayAfter(WEEK, "hi"), 100, 2).await;
    let call = |path: &str, timeout: &str| {
        let fields =
            format!("content-type: application/grpc\r\ngrpc-timeout: {timeout}\r\ncontent-length: 0");
        format!("POST {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\n")
    };
    // given calls of no route, of less time than the upstream has, and of more
    for (path, timeout, code, after_ms) in
        [("/other", "1S", "12", 0), ("/v1", "1500m", "4", 1_500), ("/v1", "1H", "4", 10_000)]
    {
        let begin = Instant::now();
        let (head, body) = client.ask(&call(path, timeout)).await;
        // then each is told in gRPC's words, and on time
        assert!(head.starts_with("http/1.1 200") && body.is_empty(), "{head}{body}");
        assert!(
            head.contains(&format!("grpc-status: {code}\r\n")) && head.contains("grpc-message: "),
            "{head}"
        );
        assert_eq!(begin.elapsed().as_millis(), after_ms);
    }
    // and figures tell what it was
    let summary = client.telemetry.summary();
    assert_eq!((summary.answered_2xx, summary.answered_4xx, summary.upstream_failed), (0, 1, 2));
    assert_eq!(count(&seen).1, 2);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_of_http2_begins_no_tunnel() {
    let (mut client, seen) = Client::of_http2(|_, _| SAY, 100, 2).await;
    // given a client of HTTP/1.1, whose offer may be ignored
    let offer = GET.replace("\r\n\r\n", "\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let (head, _) = client.ask(&offer).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    // and a stream of HTTP/2, which asks for nothing else
    let client = client.another().await;
    let (mut sender, connection) = h2::client::handshake(client.stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request =
        Request::connect("http://api.test/v1/a").extension(h2::ext::Protocol::from_static("websocket"));
    let (answer, _) = sender.send_request(request.body(()).expect("a head"), false).expect("open");
    assert_eq!(answer.await.expect("an answer").status().as_u16(), 501);
    assert_eq!(count(&seen), (1, 1));
}

/// A request with a body of which the upstream takes the first piece, and whose end is yet to come.
const LONG_POST: &str =
    "POST /v1 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n";

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_takes_its_untaken_body_with_it() {
    // given an upstream that takes one request at once, and answers one without taking its body
    let (mut client, seen) =
        Client::of_http2(|_, request| if request == 0 { Act::Speak } else { SAY }, 1, 1).await;
    let mut next = client.another().await;
    client.send(LONG_POST).await;
    read_head(&mut client.stream).await.expect("a head");
    // when its client goes away
    let begin = Instant::now();
    drop(client);
    // then it was reset, and the next request is served over the same connection
    let (head, _) = next.ask(GET).await;
    assert!(head.starts_with("http/1.1 200") && begin.elapsed().as_secs() < 3, "{head}");
    assert_eq!(seen.bodies.lock()[0], Err(Some(Reason::CANCEL)));
    assert_eq!(count(&seen), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_no_more_of_a_body_is_given_up() {
    // given one that never answers
    let (mut client, _) = Client::of_http2(|_, _| Act::Ignore, 100, 1).await;
    let begin = Instant::now();
    let (head, _) = client.ask(LONG_POST).await;
    assert!(head.starts_with("http/1.1 504") && begin.elapsed().as_secs() == 10, "{head}");
    // and one whose answer goes on
    let (mut client, seen) = Client::of_http2(|_, _| Act::Speak, 100, 1).await;
    let begin = Instant::now();
    client.send(LONG_POST).await;
    let mut answer = String::new();
    client.stream.read_to_string(&mut answer).await.expect("it is closed");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(begin.elapsed().as_secs(), 10);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(*seen.bodies.lock(), [Err(Some(Reason::CANCEL))]);
}

#[tokio::test(start_paused = true)]
async fn a_body_waits_no_longer_for_room_than_a_request_without_one() {
    // given an upstream that takes one request at once, and is busy with it
    let (mut first, seen) = Client::of_http2(|_, _| Act::Speak, 1, 1).await;
    let mut second = first.another().await;
    first.send(GET).await;
    read_head(&mut first.stream).await.expect("a head");
    let begin = Instant::now();
    let (head, _) = second.ask(LONG_POST).await;
    assert!(head.starts_with("http/1.1 504") && begin.elapsed().as_secs() == 10, "{head}");
    assert_eq!(count(&seen), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_calls_client_may_be_quiet_while_it_is_answered() {
    let head = "POST /v1 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n";
    for (kind, goes_on) in [("application/grpc", true), ("text/plain", false)] {
        // given a client that says nothing yet, and an upstream that does
        let (mut client, seen) = Client::of_http2(|_, _| Act::Converse, 100, 1).await;
        client.send(&format!("{head}content-type: {kind}\r\n\r\n")).await;
        read_head(&mut client.stream).await.expect("a head");
        // when that lasts longer than a body's silence may
        sleep(Duration::from_secs(20)).await;
        // then a call goes on, and what else it is does not
        assert_eq!(seen.bodies.lock().is_empty(), goes_on, "{kind}");
        if goes_on {
            client.send("2\r\nhi\r\n").await;
            sleep(Duration::from_secs(1)).await;
            assert_eq!(*seen.bodies.lock(), [Ok("hi".to_owned())]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_that_it_is_a_call_keeps_to_the_rate_at_an_upstream_of_http1() {
    let mut client = Client::connect(|_, _| super::Act::SayAfter(WEEK, OK)).await;
    let begin = Instant::now();
    let fields = "content-type: application/grpc\r\ntransfer-encoding: chunked";
    client.send(&format!("POST /v1 HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\n")).await;
    for _ in 0..4 {
        sleep(Duration::from_secs(6)).await;
        client.send("1\r\na\r\n").await;
    }
    client.answer().await;
    assert_eq!(begin.elapsed().as_secs(), 30);
}
