//! What of a message passes, and when.

use std::sync::LazyLock;

use super::*;

#[tokio::test(start_paused = true)]
async fn events_flow_at_once() {
    // given an upstream that says something every three seconds
    fn says(_: usize, _: usize) -> Act {
        Act::Pieces(&[
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            "9\r\ndata: 1\n\n\r\n",
            "9\r\ndata: 2\n\n\r\n",
            "0\r\n\r\n",
        ])
    }
    let mut client = Client::connect(says).await;
    let begin = Instant::now();
    client.send(GET).await;
    let head = read_head(&mut client.stream).await.expect("a head");
    assert!(head.contains("text/event-stream"), "{head}");
    // then each event is there when it was said
    for second in [3, 6] {
        let mut event = [0; 14];
        client.stream.read_exact(&mut event).await.expect("an event");
        assert_eq!(begin.elapsed().as_secs(), second);
        assert!(event.starts_with(b"9\r\ndata: "), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_100_gets_it_once_its_body_is_wanted() {
    let head = "POST /v1 HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let mut client = Client::connect(|_, _| Act::SayAfter(Duration::from_secs(1), OK)).await;
    client.send(head).await;
    let first = read_head(&mut client.stream).await.expect("an answer");
    assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
    let (answer, _) = client.ask("hi").await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(!client.seen()[0].contains("expect"), "{}", client.seen()[0]);
    // and one that is refused gets its answer at once, and its connection is not kept for a body that may not come
    for (head, status) in [
        (head.replace("/v1", "/other"), "404"),
        (head.replace("100-continue", "200-ok"), "417"),
        (head.replace("content-length: 2", "content-length: 99"), "413"),
    ] {
        let mut client = Client::connect(|_, _| Act::Say(OK)).await;
        let (answer, _) = client.ask(&head).await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
        assert!(client.is_closed().await && client.seen().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_still_being_sent_is_not_cut_by_the_next_head() {
    // given an answer that is longer than what is on its way to a client at once
    static LONG: LazyLock<String> =
        LazyLock::new(|| format!("HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n{}", "x".repeat(70_000)));
    let mut client = Client::connect(|_, _| Act::Say(&LONG)).await;
    // when the client begins its next request, and takes its time to read
    client.send(GET).await;
    sleep(Duration::from_millis(100)).await;
    client.send("GET /v1/b HTT").await;
    sleep(Duration::from_secs(6)).await;
    // then it gets all of the answer, and may finish its request
    assert_eq!(client.answer().await.1, "x".repeat(70_000));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(client.ask("P/1.1\r\nhost: api.test\r\n\r\n").await.1.len(), 70_000);
    // and one that it does not finish has its time from then on
    client.send("GET").await;
    let begin = Instant::now();
    let head = read_head(&mut client.stream).await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 408") && begin.elapsed().as_secs() == 5, "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_a_408() {
    // given a client that is never silent for long, and never gets on
    let mut client = Client::connect(|_, _| Act::SayAfter(WEEK, OK)).await;
    let begin = Instant::now();
    client.send("POST /v1 HTTP/1.1\r\nhost: api.test\r\ncontent-length: 10\r\n\r\n").await;
    for _ in 0..4 {
        sleep(Duration::from_secs(6)).await;
        client.send("x").await;
    }
    let (head, _) = client.answer().await;
    // then its time is up some time
    assert!(head.starts_with("http/1.1 408"), "{head}");
    assert_eq!(begin.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_request_stays_in_its_trace_and_tells_where_it_came_through() {
    fn says(_: usize, _: usize) -> Act {
        Act::Say("HTTP/1.0 200 OK\r\ncontent-length: 2\r\nproxy-authenticate: Basic\r\n\r\nhi")
    }
    let mut client = Client::connect(says).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fields = format!("traceparent: {parent}\r\ntracestate: a=1\r\nvia: 1.0 a\r\n\r\n");
    let (head, _) = client.ask(&GET.replace("\r\n\r\n", &format!("\r\n{fields}"))).await;
    assert!(head.contains("via: 1.0 quorumgate\r\n") && !head.contains("proxy-authenticate"), "{head}");
    client.ask(GET).await;
    let seen = client.seen();
    assert!(seen[0].contains(&format!("traceparent: {parent}\r\ntracestate: a=1\r\n")), "{}", seen[0]);
    assert!(seen[0].contains("via: 1.0 a\r\nvia: 1.1 quorumgate\r\n"), "{}", seen[0]);
    assert!(!seen[1].contains("traceparent"), "{}", seen[1]);
}
