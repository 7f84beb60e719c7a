//! Streams of HTTP/2 that become tunnels (RFC 8441).

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::response::Parts;

use super::*;

/// As an upstream makes it of the key that the test's chance yields.
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: CdXSYUsvsaMthlEXWDNURGWA/1o=\r\nsec-websocket-protocol: chat\r\n\r\n";

/// A client that speaks HTTP/2 over its connection.
struct Http2 {
    sender: SendRequest<Bytes>,
    client: Client,
}

/// A stream, and what was answered.
struct Stream {
    head: Parts,
    to: SendStream<Bytes>,
    from: RecvStream,
}

impl Http2 {
    async fn of(mut client: Client) -> Self {
        let stream = std::mem::replace(&mut client.stream, tokio::io::duplex(1).0);
        let (sender, connection) = h2::client::handshake(stream).await.expect("the gateway speaks HTTP/2");
        tokio::spawn(connection);
        sleep(Duration::from_millis(1)).await;
        assert!(sender.is_extended_connect_protocol_enabled(), "it is offered");
        Self { sender, client }
    }

    async fn connect(script: Script) -> Self {
        Self::of(Client::connect(script).await).await
    }

    async fn ask(&mut self, request: http::request::Builder) -> Stream {
        let request = request.body(()).expect("well-formed");
        let (answer, to) = self.sender.send_request(request, false).expect("the connection is open");
        let (head, from) = answer.await.expect("an answer").into_parts();
        Stream { head, to, from }
    }

    async fn open(&mut self) -> Stream {
        let stream = self.ask(websocket("/v1/chat")).await;
        assert_eq!(stream.head.status.as_u16(), 200);
        stream
    }

    /// Lets everybody do what can be done at once, and yields how many tunnels are open.
    async fn tunnels(&self) -> String {
        sleep(Duration::from_millis(10)).await;
        self.client.figure("quorumgate_tunnels ")
    }
}

impl Stream {
    /// Yields when there was room for all of it.
    async fn say(to: &mut SendStream<Bytes>, mut rest: Bytes) {
        while !rest.is_empty() {
            to.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| to.poll_capacity(cx)).await;
            let room = room.expect("it is open").expect("it is open").min(rest.len());
            to.send_data(rest.split_to(room), false).expect("it is open");
        }
    }

    /// So many bytes, or what comes until the end; an error: why the stream was reset.
    async fn hear(from: &mut RecvStream, length: usize) -> Result<Vec<u8>, Option<Reason>> {
        let mut heard = Vec::new();
        while heard.len() < length {
            let Some(data) = from.data().await else { break };
            let data = data.map_err(|error| error.reason())?;
            from.flow_control().release_capacity(data.len()).map_err(|error| error.reason())?;
            heard.extend_from_slice(&data);
        }
        Ok(heard)
    }

    async fn echoes(&mut self, text: &'static str) {
        Self::say(&mut self.to, text.into()).await;
        assert_eq!(Self::hear(&mut self.from, text.len()).await, Ok(text.into()));
    }

    /// How it ends, with nothing said before.
    async fn end(&mut self) -> Result<(), Option<Reason>> {
        Self::hear(&mut self.from, 1).await.map(|heard| assert!(heard.is_empty(), "{heard:?}"))
    }

    async fn text(&mut self) -> String {
        let heard = Self::hear(&mut self.from, usize::MAX).await.expect("a whole body");
        String::from_utf8(heard).expect("text")
    }
}

fn connect(protocol: &'static str, path: &str) -> http::request::Builder {
    let target = format!("http://api.test{path}");
    http::Request::builder().method("CONNECT").uri(target).extension(Protocol::from_static(protocol))
}

fn websocket(path: &str) -> http::request::Builder {
    connect("websocket", path).header("sec-websocket-version", "13").header("sec-websocket-protocol", "chat")
}

#[tokio::test(start_paused = true)]
async fn a_stream_becomes_a_tunnel_and_its_upstream_sees_a_client_of_http1() {
    // given a client that asks for WebSocket, and needs no key for it
    let mut client = Http2::connect(|_, _| Act::Echo(SWITCHED)).await;
    let mut stream = client.ask(websocket("/v1/chat?a=b").header("sec-websocket-key", "mine")).await;
    // when the upstream agrees, then to a handshake of the gateway's own
    let seen = client.client.seen().remove(0);
    assert!(seen.starts_with("GET /chat?a=b HTTP/1.1\r\n"), "{seen}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: BwcHBwcHBwcHBwcHBwcHBw==",
        "sec-websocket-protocol: chat",
        "x-forwarded-host: api.test",
        "via: 2 quorumgate",
    ] {
        assert!(seen.lines().any(|found| found == line), "{line} is missing in {seen}");
    }
    assert!(
        !seen.contains("mine") && !seen.contains("content-length") && !seen.contains("transfer"),
        "{seen}"
    );
    // of which the client hears nothing
    let (status, fields) = (stream.head.status.as_u16(), &stream.head.headers);
    assert_eq!((status, &fields["sec-websocket-protocol"]), (200, &"chat".parse().expect("a value")));
    for hidden in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert!(!fields.contains_key(hidden), "{hidden}");
    }
    assert!(fields.contains_key("x-request-id"));
    // and what either says reaches the other, beside other streams
    stream.echoes("ping").await;
    let mut second = client.open().await;
    second.echoes("other").await;
    stream.echoes("pong").await;
    assert_eq!(client.tunnels().await, "2");
    // and the end of one side is told to the other, which speaks to its own end
    stream.to.send_data("last".into(), true).expect("it is open");
    assert_eq!(stream.text().await, "last");
    assert_eq!(client.tunnels().await, "1");
    assert_eq!(client.client.figure("quorumgate_tunnel_bytes_total{from=\"upstream\"}"), "12");
    second.echoes("more").await;
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_sizes_pass_both_ways_as_fast_as_both_sides_take_them() {
    let mut client = Http2::connect(|_, _| Act::Echo(SWITCHED)).await;
    let Stream { mut to, mut from, .. } = client.open().await;
    // given thousands of messages, of a byte and of more than any window
    let sizes =
        (0..3_000_u32).map(|number| if number % 500 == 0 { 400_000 } else { number as usize % 777 + 1 });
    let messages: Vec<Bytes> =
        sizes.enumerate().map(|(number, size)| vec![(number % 251) as u8; size].into()).collect();
    let whole = messages.concat();
    // when they are sent while the answers are taken
    let says = async {
        for message in messages {
            Stream::say(&mut to, message).await;
        }
        to.send_data(Bytes::new(), true).expect("it is open");
    };
    let ((), heard) = tokio::join!(says, Stream::hear(&mut from, usize::MAX));
    // then all of them come back
    assert!(heard.expect("no reset") == whole, "something else came back");
    assert_eq!(client.tunnels().await, "0");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_reset_ends_its_tunnel_at_once() {
    // given an upstream that neither speaks nor listens
    let mut client = Http2::connect(|_, _| Act::Pieces(&[SWITCHED])).await;
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let mut stream = client.open().await;
        assert_eq!(client.tunnels().await, "1");
        stream.to.send_reset(reason);
        assert_eq!(client.tunnels().await, "0", "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_ends_or_breaks_ends_its_stream_so() {
    // given an upstream that hangs up three seconds after it has agreed
    fn hangs_up(_: usize, request: usize) -> Act {
        if request == 0 { Act::Pieces(&[SWITCHED]) } else { Act::HangUp }
    }
    let mut client = Http2::connect(hangs_up).await;
    let mut stream = client.open().await;
    Stream::say(&mut stream.to, "\r\n\r\n".into()).await;
    // when it does, then that is the stream's end, and the client may speak on
    assert_eq!(stream.end().await, Ok(()));
    assert_eq!(client.tunnels().await, "1");
    // until it does so, and nobody takes it
    Stream::say(&mut stream.to, "hello".into()).await;
    assert_eq!(client.tunnels().await, "0");
    assert!(stream.to.send_data("?".into(), false).is_err(), "it was reset");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_a_tunnel_only_where_everybody_agrees() {
    fn chats(_: usize, _: usize) -> Act {
        Act::Echo("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
    }
    fn unproven(_: usize, _: usize) -> Act {
        Act::Echo(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
    }
    fn forbids(_: usize, _: usize) -> Act {
        Act::Say("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
    }
    // given upstreams that do not agree, or not as they should: a 200 would be the tunnel's beginning
    for (script, status, words) in [
        (chats as Script, 502, "upstream-broken"),
        (unproven, 502, "upstream-broken"),
        (|_, _| Act::Say(OK), 502, "upstream-broken"),
        (forbids, 403, "no"),
    ] {
        let mut client = Http2::connect(script).await;
        for _ in 0..2 {
            let mut stream = client.ask(websocket("/v1/chat")).await;
            let text = stream.text().await;
            assert!(stream.head.status.as_u16() == status && text.contains(words), "{text}");
        }
        assert_eq!(client.tunnels().await, "0");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_no_route_permits_is_refused_before_anything_is_charged() {
    let aimed = |edit: &str| format!("match: {{path: /v1}}, upstream: blue{edit}");
    let none = "match: {path: /v1}, respond: {status: 200}".to_owned();
    let plain = || http::Request::builder().method("CONNECT").uri("api.test:80");
    let call = || websocket("/v1/chat").header("content-type", "application/grpc");
    // given routes without the protocol, with another, with a token, and none
    for (edit, access, request, status) in [
        (aimed(""), "public", websocket("/v1/chat"), 501),
        (aimed(", quotas: [some], upgrades: [chat]"), "public", websocket("/v1/chat"), 501),
        (aimed(", upgrades: [chat]"), "public", call(), 501),
        (none, "public", websocket("/v1/chat"), 501),
        (aimed(", upgrades: [websocket]"), "{issuers: [dev]}", websocket("/v1/chat"), 401),
        (aimed(", upgrades: [websocket]"), "{issuers: [dev]}", call(), 401),
        (aimed(", upgrades: [websocket]"), "public", websocket("/other"), 404),
        (aimed(", quotas: [some], upgrades: [websocket]"), "public", websocket("/v1/chat"), 503),
        (aimed(", upgrades: [websocket]"), "public", plain(), 501),
    ] {
        let rule = acting_after(&edit, access);
        let mut client = Http2::of(Client::connect_to(|_, _| Act::Echo(SWITCHED), rule).await).await;
        // when a stream asks for it, then it is answered, its upstream sees nothing, and the connection goes on
        let head = client.ask(request).await.head;
        assert_eq!(head.status.as_u16(), status, "{edit} {access}");
        let again = client.ask(http::Request::get("http://api.test/other")).await.head;
        assert!(again.status.as_u16() == 404 && client.client.seen().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_reset_on_time_and_its_connection_does_not_count_as_idle() {
    let mut client = Http2::connect(|_, _| Act::Echo(SWITCHED)).await;
    let mut stream = client.open().await;
    for _ in 0..3 {
        sleep(Duration::from_secs(290)).await;
        stream.echoes("ping").await;
    }
    let begin = Instant::now();
    assert_eq!(stream.end().await, Err(Some(Reason::CANCEL)));
    assert_eq!(begin.elapsed().as_secs(), 300);
    client.open().await.echoes("ping").await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_takes_nothing_is_reset() {
    // given a client that opens no further window for what comes back
    let mut client = Http2::connect(|_, _| Act::Echo(SWITCHED)).await;
    let mut stream = client.open().await;
    let begin = Instant::now();
    stream.to.send_data(vec![7; 600_000].into(), false).expect("it is open");
    let reason = std::future::poll_fn(|cx| stream.to.poll_reset(cx)).await.expect("a reset");
    assert_eq!((reason, begin.elapsed().as_secs()), (Reason::CANCEL, 7));
    assert_eq!(client.tunnels().await, "0");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_a_stream_and_cuts_it_with_its_connection() {
    // given a tunnel
    let mut client = Http2::connect(|_, _| Act::Echo(SWITCHED)).await;
    let mut stream = client.open().await;
    // when the node drains, then it goes on
    client.client.actor.send_message(Msg::Drain).expect("the actor lives");
    sleep(Duration::from_secs(4)).await;
    stream.echoes("ping").await;
    assert_eq!(client.client.telemetry.summary().connections, 1);
    // until the time is up
    client.client.actor.stop(None);
    assert!(stream.end().await.is_err(), "it is cut");
    assert_eq!(client.tunnels().await, "0");
    // and another one's connection closes as soon as its tunnel has ended
    let mut client = Http2::connect(|_, _| Act::Echo(SWITCHED)).await;
    let mut stream = client.open().await;
    client.client.actor.send_message(Msg::Drain).expect("the actor lives");
    stream.to.send_data("last".into(), true).expect("it is open");
    assert_eq!(stream.text().await, "last");
    assert_eq!(client.tunnels().await, "0");
    assert_eq!(client.client.telemetry.summary().connections, 0);
}
