//! Whatever two readers could understand in two ways is refused, and nothing malformed reaches an upstream.

mod raw;
mod support;

use std::time::{Duration, Instant};

use raw::Bench;
use raw::case::Case;
use raw::client::Client;
use raw::mutation::{Chance, mutated};
use raw::recorder::Event;
use raw::sequence::{self, Sequence};
use raw::sequences;
use raw::talk::Talk;

#[test]
fn every_raw_request_has_its_outcome_and_no_victim_notices() {
    support::in_calm(|| {
        // given a gateway before an upstream that writes down every byte
        let mut bench = Bench::start();
        let corpus = raw::corpus();
        assert!(corpus.len() >= 150, "{} cases", corpus.len());
        // when all are sent, then each has the outcome that its text names
        expect_all(&mut bench, &corpus, |sent| sent.len().max(1));
    });
}

#[test]
fn the_outcome_is_the_same_byte_by_byte() {
    support::in_calm(|| {
        let mut bench = Bench::start();
        let corpus: Vec<Case> = raw::corpus().into_iter().filter(|case| !case.hangs_on_haste()).collect();
        expect_all(&mut bench, &corpus, |sent| if sent.len() < 2000 { 1 } else { 500 });
    });
}

fn expect_all(bench: &mut Bench, corpus: &[Case], piece: impl Fn(&[u8]) -> usize) {
    let wrong: Vec<String> = corpus
        .iter()
        .filter_map(|case| {
            let wrong = bench.run(case, piece(&case.sent));
            nobody_is_fooled(&case.name, &wrong);
            (!wrong.is_empty()).then(|| format!("{}\n    {}", case.name, wrong.join("\n    ")))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} went otherwise:\n{}", wrong.len(), corpus.len(), wrong.join("\n"));
}

#[test]
fn a_wrong_expectation_is_reported() {
    // given a request that is plain
    let mut bench = Bench::start();
    let sent = b"POST /a HTTP/1.1\r\nhost: api.example\r\ncontent-length: 5\r\n\r\nhello".to_vec();
    for (expected, complaint) in raw::wrong_expectations() {
        // when something else is expected of it
        let case = Case { name: "wrong".to_owned(), sent: sent.clone(), half_close: false, expected };
        let wrong = bench.run(&case, 1000).join("\n");
        // then that is said
        assert!(wrong.contains(complaint), "{complaint:?} is not in {wrong:?}");
    }
}

#[test]
fn every_sequence_of_frames_has_its_outcome_and_nothing_of_a_flood_is_left() {
    support::in_calm(|| {
        // given a gateway that has served
        let mut bench = Bench::for_frames();
        let (floods, others): (Vec<_>, Vec<_>) =
            sequences::corpus().into_iter().partition(Sequence::is_flood);
        assert!(floods.len() >= 10 && others.len() >= 80, "{} and {}", floods.len(), others.len());
        // when all are sent, then each has the outcome that its text names
        let mut wrong = wrong_of(&mut bench, &others, A_FRAME);
        let before = bench.held();
        wrong.extend(wrong_of(&mut bench, &floods, A_FRAME));
        assert!(wrong.is_empty(), "{} went otherwise:\n{}", wrong.len(), wrong.join("\n"));
        // and after the floods the node holds what it held before
        let until = Instant::now() + PATIENCE;
        loop {
            let after = bench.held();
            if after.descriptors <= before.descriptors + SLACK
                && after.resident_kib <= before.resident_kib + SLACK_KIB
            {
                return println!("before the floods {before:?}, after them {after:?}");
            }
            assert!(Instant::now() < until, "before {before:?}, after {after:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn the_outcome_of_frames_is_the_same_byte_by_byte() {
    support::in_calm(|| {
        let mut bench = Bench::for_frames();
        let corpus: Vec<_> =
            sequences::corpus().into_iter().filter(|case| case.bytes().len() < 1000).collect();
        assert!(corpus.len() >= 100, "{}", corpus.len());
        let wrong = wrong_of(&mut bench, &corpus, 1);
        assert!(wrong.is_empty(), "{} went otherwise:\n{}", wrong.len(), wrong.join("\n"));
    });
}

fn wrong_of(bench: &mut Bench, corpus: &[Sequence], piece: usize) -> Vec<String> {
    let wrong = corpus.iter().map(|case| (&case.name, bench.run_sequence(case, piece)));
    let wrong = wrong.inspect(|(name, wrong)| nobody_is_fooled(name, wrong));
    let wrong = wrong.filter(|(_, wrong)| !wrong.is_empty());
    wrong.map(|(name, wrong)| format!("{name}\n    {}", wrong.join("\n    "))).collect()
}

/// Late or early, no upstream sees what is no message, and no answer is another's.
fn nobody_is_fooled(name: &str, wrong: &[String]) {
    let fooled = |why: &String| why.contains("what is no message") || why.contains("was answered with");
    support::always(!wrong.iter().any(fooled), || format!("{name}: {wrong:?}"));
}

/// As much as is written at once.
const A_FRAME: usize = 16 << 10;
/// Longer than the node keeps any connection without a stream.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections to the upstream come and go.
const SLACK: usize = 16;
/// An allocator keeps some for later; the largest flood has more bytes than this.
const SLACK_KIB: usize = 16 << 10;

#[test]
fn a_wrong_expectation_of_frames_is_reported() {
    // given a stream that is answered, and one that is reset
    let mut bench = Bench::for_frames();
    for (expected, complaint) in sequences::WRONG {
        // when something else is expected of them
        let case = &sequence::read("wrong", &[sequences::OF_WRONG, expected].concat())[0];
        let wrong = bench.run_sequence(case, A_FRAME).join("\n");
        // then that is said
        assert!(wrong.contains(complaint), "{complaint:?} is not in {wrong:?}");
    }
}

/// Requests that are damaged at once, and how often. They wait for each other's timeouts together.
const DAMAGED: usize = 32;
const ROUNDS: u64 = 60;

#[test]
fn whatever_is_damaged_each_message_at_the_upstream_is_plain_and_answered_once() {
    support::in_calm(|| {
        let bench = Bench::impatient();
        let corpus = raw::corpus();
        let good = b"GET /end HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n\r\n";
        for round in 0..ROUNDS {
            // given requests of the corpus with damages, and a good one behind each
            let damaged: Vec<Vec<u8>> = (0..DAMAGED)
                .map(|number| {
                    let mut chance = Chance::new(round * 1000 + number as u64);
                    let (one, other) = (chance.pick(&corpus), chance.pick(&corpus));
                    [mutated(&one.sent, &other.sent, &mut chance).as_slice(), good].concat()
                })
                .collect();
            // when all are sent
            let answers: Vec<usize> = std::thread::scope(|scope| {
                let clients: Vec<_> =
                    damaged.iter().map(|bytes| scope.spawn(|| answers(&bench, bytes))).collect();
                clients.into_iter().map(|client| client.join().expect("no panic")).collect()
            });
            // then what the upstream saw are messages, as many as were answered, and perhaps beginnings of some
            let events = bench.recorder().take();
            let odd: Vec<_> = events.iter().filter(|event| matches!(event, Event::Odd { .. })).collect();
            support::always(odd.is_empty(), || format!("round {round}: {odd:?}"));
            let whole = events.iter().filter(|event| matches!(event, Event::Whole(_))).count();
            let sent = damaged
                .iter()
                .zip(&answers)
                .map(|(bytes, count)| format!("{count} {}\n", bytes.escape_ascii()));
            let (sent, answered) = (sent.collect::<String>(), answers.iter().sum::<usize>());
            assert_eq!(whole, answered, "round {round}, the upstream saw {events:?} of\n{sent}");
        }
    });
}

const ROUNDS_OF_FRAMES: u64 = 15;
/// A stream that no sequence opens.
const BEHIND_ALL: u32 = 1001;

#[test]
fn whatever_frames_are_damaged_what_reaches_the_upstream_is_plain() {
    support::in_calm(|| {
        let bench = Bench::impatient();
        let corpus: Vec<_> = sequences::corpus().into_iter().filter(|case| !case.is_flood()).collect();
        let mut seen = 0;
        for round in 0..ROUNDS_OF_FRAMES {
            // given sequences of the corpus with damages, and a good request behind each
            let damaged: Vec<Vec<u8>> = (0..DAMAGED)
                .map(|number| {
                    let mut chance = Chance::new(round * 1000 + number as u64);
                    let (one, other) = (chance.pick(&corpus), chance.pick(&corpus));
                    let damaged = one.damaged(other, &mut chance).bytes();
                    if *chance.pick(&[true, true, false]) {
                        damaged
                    } else {
                        mutated(&damaged, &other.bytes(), &mut chance)
                    }
                })
                .collect();
            // when all are sent at once, until the node closes
            std::thread::scope(|scope| {
                for bytes in &damaged {
                    scope.spawn(|| {
                        let mut talk = Talk::begun(bench.gateway(), A_FRAME);
                        talk.send(bytes);
                        talk.ask(BEHIND_ALL, "/end");
                        talk.listen(|_| false);
                        assert!(talk.heard.closed, "{}", bytes.escape_ascii());
                    });
                }
            });
            // then what the upstream saw are messages, and perhaps beginnings of some
            let events = bench.recorder().take();
            let odd: Vec<_> = events.iter().filter(|event| matches!(event, Event::Odd { .. })).collect();
            support::always(odd.is_empty(), || format!("round {round}: {odd:?}"));
            seen += events.len();
        }
        assert!(seen >= 100, "{seen} messages came through");
        println!("{seen} messages came through");
        // and the node is well
        assert_eq!(
            answers(&bench, b"GET /end HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n\r\n"),
            1
        );
    });
}

/// How often a client of its own was answered by the upstream.
fn answers(bench: &Bench, bytes: &[u8]) -> usize {
    let mut client = Client::connect(bench.gateway());
    client.send(bytes);
    let answers = client.rest().expect("the node closes, soon or late");
    let good = b" 200 OK\r\n";
    answers.windows(good.len()).filter(|window| window == good).count()
}
