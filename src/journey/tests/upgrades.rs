//! Connections that switch protocols.

use super::*;

const HANDSHAKE: &str = "GET /v1/chat HTTP/1.1\r\nhost: api.test\r\nconnection: keep-alive, Upgrade\r\n\
                         upgrade: h2c, websocket\r\nsec-websocket-key: eA==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: eQ==\r\n\r\n";

impl Client {
    /// Hands over `first`, and yields the head that comes.
    async fn switch(&mut self, first: &str) -> String {
        self.send(first).await;
        read_head(&mut self.stream).await.expect("an answer").to_ascii_lowercase()
    }

    async fn hears(&mut self, wanted: &str) {
        let mut heard = vec![0; wanted.len()];
        self.stream.read_exact(&mut heard).await.expect("the tunnel is open");
        assert_eq!(String::from_utf8(heard).expect("text"), wanted);
    }

    pub(super) fn figure(&self, name: &str) -> String {
        let figures = self.telemetry.render_prometheus();
        let line = figures.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        line.trim().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_after_both_sides_have_agreed() {
    // given a client that does not wait for the answer to its handshake
    let mut client = Client::connect(|_, _| Act::Echo(SWITCHED)).await;
    let head = client.switch(&format!("{HANDSHAKE}early")).await;
    // when the upstream agrees, then the client is told, in fields of the gateway's own
    assert!(head.starts_with("http/1.1 101") && head.contains("sec-websocket-accept: eq==\r\n"), "{head}");
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("x-request-id: ") && !head.contains("content-length"), "{head}");
    let seen = client.seen().remove(0);
    assert!(seen.contains("connection: upgrade\r\n") && seen.contains("upgrade: websocket\r\n"), "{seen}");
    // and what either says reaches the other, what was early too
    client.hears("early").await;
    client.send("ping").await;
    client.hears("ping").await;
    assert_eq!(client.figure("quorumgate_tunnels "), "1");
    // and the end of one side is told to the other, which speaks to its own end
    client.send("last").await;
    client.stream.shutdown().await.expect("the gateway listens");
    client.hears("last").await;
    assert!(client.is_closed().await);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(client.figure("quorumgate_tunnels "), "0");
    assert_eq!(client.figure("quorumgate_tunnel_bytes_total{from=\"client\"}"), "13");
    assert_eq!(client.figure("quorumgate_tunnel_bytes_total{from=\"upstream\"}"), "13");
    let summary = client.telemetry.summary();
    assert_eq!((summary.received, summary.admitted, summary.connections), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_unclear_before_an_upgrade_reaches_no_tunnel() {
    // given a client that sends what is no HTTP/1.1 before it is told that it may
    let mut client = Client::connect(|_, _| Act::Echo(SWITCHED)).await;
    let head = client.switch(&format!("{HANDSHAKE}ear\nly")).await;
    // when the upstream agrees, then the connection is closed, with nothing of ours in it
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(client.is_closed().await);
    assert_eq!(client.figure("quorumgate_tunnel_bytes_total{from=\"client\"}"), "0");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_no_route_permits_stays_a_request() {
    for (edit, handshake) in [
        ("", HANDSHAKE.to_owned()),
        (", upgrades: [chat]", HANDSHAKE.to_owned()),
        (", upgrades: [websocket]", HANDSHAKE.replace("keep-alive, Upgrade", "keep-alive")),
    ] {
        let rule = acting(&format!("match: {{path: /v1}}, upstream: blue{edit}"));
        let mut client = Client::connect_to(|_, _| Act::Say(OK), rule).await;
        // when it comes, twice over one connection
        for _ in 0..2 {
            let (head, _) = client.ask(&handshake).await;
            // then the upstream sees a request without it
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let seen = client.seen().pop().expect("it was reached");
            assert!(!seen.contains("upgrade") && !seen.contains("connection: "), "{seen}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_refused_is_answered_and_the_connection_goes_on() {
    // given an upstream that does not agree
    let mut client = Client::connect(|_, _| Act::Say(OK)).await;
    for (path, status) in [("/v1/chat", "200"), ("/other", "404"), ("/v1/chat", "200")] {
        let (head, _) = client.ask(&HANDSHAKE.replace("/v1/chat", path)).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
    }
    // and its connection serves on as well
    assert_eq!(client.net.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_switches_to_nothing_but_what_it_was_asked_for() {
    fn chats(_: usize, _: usize) -> Act {
        Act::Echo("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
    }
    for (script, first) in [(chats as Script, HANDSHAKE), (|_, _| Act::Echo(SWITCHED), GET)] {
        let mut client = Client::connect(script).await;
        let (head, body) = client.ask(first).await;
        assert!(head.starts_with("http/1.1 502") && body.contains("upstream-broken"), "{head}{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_tunnel_is_closed_on_time() {
    let mut client = Client::connect(|_, _| Act::Echo(SWITCHED)).await;
    client.switch(HANDSHAKE).await;
    // given a word now and then
    for _ in 0..3 {
        sleep(Duration::from_secs(290)).await;
        client.send("ping").await;
        client.hears("ping").await;
    }
    // when nothing more is said, then the tunnel ends after its idle timeout, and no sooner
    let begin = Instant::now();
    assert!(client.is_closed().await);
    assert_eq!(begin.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_given_time_to_end_and_is_cut_with_its_connection() {
    // given a tunnel
    let mut client = Client::connect(|_, _| Act::Echo(SWITCHED)).await;
    client.switch(HANDSHAKE).await;
    // when the node drains
    client.actor.send_message(Msg::Drain).expect("the actor lives");
    sleep(Duration::from_secs(4)).await;
    // then the tunnel goes on, and its connection counts as open
    client.send("ping").await;
    client.hears("ping").await;
    assert_eq!(client.telemetry.summary().connections, 1);
    // until the time is up: then it is cut, and told as such
    client.actor.stop(None);
    assert!(client.is_closed().await);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(client.figure("quorumgate_tunnels "), "0");
    assert_eq!(client.figure("quorumgate_tunnels_opened_total "), "1");
    assert_eq!(client.figure("quorumgate_tunnel_bytes_total{from=\"client\"}"), "4");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_keeps_its_place_among_its_upstreams_connections() {
    // given an upstream that may have two connections, both of them tunnels now
    let mut client = Client::connect(|_, _| Act::Echo(SWITCHED)).await;
    client.switch(HANDSHAKE).await;
    let mut second = client.another().await;
    second.switch(HANDSHAKE).await;
    // when a third is asked for, then there is no place for it, until one has ended
    let mut third = client.another().await;
    let (head, _) = third.ask(HANDSHAKE).await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    drop(second);
    sleep(Duration::from_millis(10)).await;
    let head = third.switch(HANDSHAKE).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
}
