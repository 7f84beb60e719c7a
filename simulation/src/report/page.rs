//! Puts the page together.

use std::fmt::Write as _;

use super::chart::{Axis, LEFT, Span, escape, number, svg};
use super::{Answer, Chronicle, Life, NODES_END, SECOND, Second};
use crate::clock::{MS_NS, TrueNs};
use crate::promise::exact::Course;
use crate::promise::expected::Outcome;
use crate::run::Report;

const STYLE: &str = include_str!("page.css");
/// A limit's chart takes room: of many, those that came closest to their bound are shown.
const LIMITS_MAX: usize = 8;
const NODES_KEY: &str = "<span class=\"key up\"></span>runs <span class=\"key paused\"></span>stands still \
    <span class=\"key leads\"></span>leads <span class=\"key share\"></span>admissions a second \
    <span class=\"key leases\"></span>tokens in its leases <span class=\"key trouble\"></span>trouble";
const LANE: f64 = 26.0;

pub fn page(run: &Chronicle, report: &Report) -> String {
    let from = run.begun.unwrap_or(0);
    let span = Span { from, to: (report.simulated_ms * MS_NS).max(from + SECOND) };
    // What is not as expected is so as a whole, at no instant.
    let broken = report.broken.as_ref().filter(|_| !report.is_unexpected());
    let broken_at = broken.map(|broken| broken.at_ms * MS_NS);
    let mut html = format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>quorumgate: seed {}</title><style>{STYLE}</style>\n<main>\n",
        report.seed
    );
    html += &verdict(run, report, span);
    html += &section("Nodes and weather", NODES_KEY, &timeline(run, span, broken_at));
    html += &limits(run, span, broken_at);
    html += &section("Answers a second", &legend(), &answers(run, span, broken_at));
    html += &section(
        "Latency of answered requests",
        "<span class=\"key p50\"></span>median <span class=\"key p99\"></span>99th percentile of each second, in ms",
        &latency(run, span, broken_at),
    );
    html += &section(
        "Log entries a second",
        "Of the replicated log, each counted once.",
        &entries(run, span, broken_at),
    );
    html += &section("Answers by tenant", "", &tally(run));
    if let Some(at) = broken_at {
        html += &section("Around the broken promise", "", &around(run, at));
    }
    html += &section("The plan", "Replay it with <code>replay</code>.", &plan(run));
    html += "</main></html>\n";
    html
}

fn section(title: &str, about: &str, inside: &str) -> String {
    format!("<section><h2>{title}</h2><p>{about}</p>{inside}</section>\n")
}

fn verdict(run: &Chronicle, report: &Report, span: Span) -> String {
    let count = |what: &str| report.counts.get(what).copied().unwrap_or(0);
    let (class, text) = match &report.broken {
        None => ("kept", "Every promise was kept.".to_owned()),
        Some(_) if report.is_unexpected() => {
            ("lost", "Every promise was kept, but not every expectation was met.".to_owned())
        }
        Some(broken) => (
            "lost",
            format!(
                "Broken: <b>{}</b> at {}: {} <small>(True time counts from the first process, {:.3} s before the first \
                 request.)</small>",
                escape(&broken.promise),
                seconds(span, broken.at_ms * MS_NS),
                escape(&broken.how),
                span.from as f64 / 1e9
            ),
        ),
    };
    let served: Vec<f64> =
        run.seconds.values().flat_map(|second| second.latencies_ms.iter().copied()).collect();
    let tiles = [
        ("requests", count("requests sent").to_string()),
        ("admissions judged", count("admissions judged").to_string()),
        ("refused 429", answered(run, Answer::OverQuota).to_string()),
        (
            "median, 99th",
            format!("{}, {} ms", number(quantile(&served, 0.5)), number(quantile(&served, 0.99))),
        ),
        ("elections", count("elections won").to_string()),
        ("log entries", run.highest_entry.to_string()),
    ];
    let tiles: String = tiles
        .iter()
        .map(|(name, value)| format!("<div class=tile><b>{value}</b><span>{name}</span></div>"))
        .collect();
    let expected: String = report.expected.iter().map(outcome).collect();
    let expected =
        if expected.is_empty() { expected } else { format!("<table class=expected>{expected}</table>") };
    format!(
        "<header><h1>{} nodes, seed {}, {} s</h1><p class=\"verdict {class}\">{text}</p>{expected}<div class=tiles>{tiles}</div></header>\n",
        run.plan.scene.nodes,
        report.seed,
        report.simulated_ms / 1000
    )
}

fn outcome(Outcome { expected, found, met }: &Outcome) -> String {
    let (class, word) = if *met { ("kept", "met") } else { ("lost", "not met") };
    format!(
        "<tr><td class=\"verdict {class}\">{word}<td>{}<td>found {}</tr>",
        escape(expected),
        escape(found)
    )
}

fn answered(run: &Chronicle, answer: Answer) -> u64 {
    run.seconds.values().filter_map(|second| second.answers.get(&answer)).sum()
}

fn seconds(span: Span, at: TrueNs) -> String {
    format!("{:.3} s", at.saturating_sub(span.from) as f64 / 1e9)
}

fn timeline(run: &Chronicle, span: Span, broken_at: Option<TrueNs>) -> String {
    let busiest =
        run.seconds.values().flat_map(|second| second.forwarded.values()).max().copied().unwrap_or(1);
    let rows = run.nodes.len() + run.troubles.len();
    let bottom = rows as f64 * LANE + 8.0;
    let mut inside = span.grid(0.0, bottom);
    let mut top = 4.0;
    for (host, lives) in &run.nodes {
        inside += &lane_name(&format!("node-{host}"), top);
        for (index, (from, life)) in lives.iter().enumerate() {
            let until = lives.get(index + 1).map_or(span.to, |next| next.0);
            let (class, what) = match life {
                Life::Up => ("up", "runs"),
                Life::Down => ("down", "is down"),
                Life::Paused => ("paused", "stands still"),
            };
            if until > span.from {
                let title =
                    format!("node-{host} {what}: {} to {}", seconds(span, *from), seconds(span, until));
                inside += &span.bar(*from, until, top, LANE - 8.0, class, &title);
            }
        }
        let most = run.leases.values().flatten().map(|(_, tokens)| *tokens).fold(1.0, f64::max);
        let axis = Axis { low: 0.0, high: most, top, bottom: top + LANE - 9.0 };
        inside += &axis.line(span, run.leases.get(host).map_or(&[], Vec::as_slice), "leases");
        for (second, held) in &run.seconds {
            if let Some(forwarded) = held.forwarded.get(host) {
                let height = (LANE - 10.0) * *forwarded as f64 / busiest as f64;
                let from = second * SECOND;
                let title = format!("node-{host} admitted {forwarded} in this second");
                inside += &span.bar(from, from + SECOND, top + LANE - 9.0 - height, height, "share", &title);
            }
        }
        top += LANE;
    }
    for (host, term, from, until) in run.reigns(span.to) {
        if host < NODES_END && until > span.from {
            let row = run.nodes.keys().position(|node| *node == host).unwrap_or(0);
            let title = format!("node-{host} leads term {term} from {}", seconds(span, from));
            inside += &span.bar(from, until, 4.0 + row as f64 * LANE, 4.0, "leads", &title);
        }
    }
    for trouble in &run.troubles {
        let title = format!("{}, until {}", trouble.what, seconds(span, trouble.until));
        inside += &span.bar(trouble.from, trouble.until, top + 3.0, LANE - 14.0, "trouble", &title);
        let x = span.x(trouble.until).max(span.x(trouble.from) + 2.5);
        let (x, anchor) = if x > 640.0 { (span.x(trouble.from) - 5.0, "end") } else { (x + 5.0, "start") };
        write!(
            inside,
            "<text class=what x={x:.1} y={:.1} text-anchor={anchor}>{}</text>",
            top + LANE / 2.0 + 1.0,
            escape(&trouble.what)
        )
        .expect("into a String");
        top += LANE;
    }
    inside += &marks(run, span, broken_at, bottom);
    svg(bottom + 20.0, "What each node did, and what went wrong", &inside)
}

fn lane_name(name: &str, top: f64) -> String {
    format!(
        "<text class=name x={:.1} y={:.1} text-anchor=end>{name}</text>",
        LEFT - 8.0,
        top + LANE / 2.0 + 1.0
    )
}

fn marks(run: &Chronicle, span: Span, broken_at: Option<TrueNs>, bottom: f64) -> String {
    let mark = |at: Option<TrueNs>, class, title: &str| {
        at.map(|at| span.mark(at, class, 0.0, bottom, title)).unwrap_or_default()
    };
    mark(run.calm, "calm", "all troubles have ended")
        + &mark(run.converged, "calm", "the cluster is well again")
        + &mark(broken_at, "violation", "a promise was broken")
}

/// One chart for each bucket that came close to its bound.
fn limits(run: &Chronicle, span: Span, broken_at: Option<TrueNs>) -> String {
    let mut courses = run.courses();
    let left = |course: &Course| course.levels.iter().map(|(_, level)| *level).fold(f64::INFINITY, f64::min);
    courses.sort_by(|a, b| left(a).total_cmp(&left(b)).then(b.admitted.cmp(&a.admitted)));
    let shown: String = courses
        .iter()
        .take(LIMITS_MAX)
        .map(|course| {
            format!(
                "<h3>{} of {} <small>{} admitted, burst {}</small></h3>{}",
                escape(&course.quota),
                escape(&course.tenant),
                course.admitted,
                number(course.burst),
                level(run, span, broken_at, course)
            )
        })
        .collect();
    let about = format!(
        "What is left in one perfect bucket that pays for every admission of the whole cluster, in true time. It never \
         falls below zero as long as the limit is exact. {} of {} buckets, those that came closest.",
        courses.len().min(LIMITS_MAX),
        courses.len()
    );
    section("Admissions against the bound", &about, &shown)
}

fn level(run: &Chronicle, span: Span, broken_at: Option<TrueNs>, course: &Course) -> String {
    let lowest = course.levels.iter().map(|(_, level)| *level).fold(0.0, f64::min);
    let axis = Axis { low: lowest, high: course.burst, top: 6.0, bottom: 92.0 };
    let mut inside = span.grid(axis.top, axis.bottom);
    inside += &axis.labels("");
    if lowest < 0.0 {
        let zero = axis.y(0.0);
        write!(
            inside,
            "<rect class=below x={LEFT:.1} y={zero:.1} width={:.1} height={:.1} />",
            span.x(span.to) - LEFT,
            axis.bottom - zero
        )
        .expect("into a String");
    }
    inside += &axis.line(span, &course.levels, "level");
    inside += &marks(run, span, broken_at, axis.bottom);
    svg(112.0, &format!("What is left of {} of {}", course.quota, course.tenant), &inside)
}

fn legend() -> String {
    let keys =
        Answer::ALL.map(|answer| format!("<span class=\"key {}\"></span>{}", answer.class(), answer.name()));
    keys.join(" ")
}

fn answers(run: &Chronicle, span: Span, broken_at: Option<TrueNs>) -> String {
    let all = |second: &Second| second.answers.values().sum::<u64>();
    let high = run.seconds.values().map(all).max().unwrap_or(1).max(1);
    let axis = Axis { low: 0.0, high: high as f64, top: 6.0, bottom: 120.0 };
    let mut inside = span.grid(axis.top, axis.bottom) + &axis.labels("");
    for (number, second) in &run.seconds {
        let mut below = 0;
        for (answer, count) in &second.answers {
            let (from, top) = (number * SECOND, axis.y((below + count) as f64));
            let height = axis.y(below as f64) - top;
            let title = format!("{count} {}", answer.name());
            inside += &span.bar(from, from + SECOND * 9 / 10, top, height, answer.class(), &title);
            below += count;
        }
    }
    inside += &marks(run, span, broken_at, axis.bottom);
    svg(140.0, "Answers of each second, by what they were", &inside)
}

fn latency(run: &Chronicle, span: Span, broken_at: Option<TrueNs>) -> String {
    let line = |part: f64| -> Vec<(TrueNs, f64)> {
        let seconds = run.seconds.iter().filter(|(_, second)| !second.latencies_ms.is_empty());
        seconds
            .map(|(number, held)| (number * SECOND + SECOND / 2, quantile(&held.latencies_ms, part)))
            .collect()
    };
    let (median, high) = (line(0.5), line(0.99));
    let top = high.iter().map(|(_, ms)| *ms).fold(1.0, f64::max);
    let axis = Axis { low: 0.0, high: top, top: 6.0, bottom: 92.0 };
    let mut inside = span.grid(axis.top, axis.bottom) + &axis.labels(" ms");
    inside += &axis.line(span, &high, "p99");
    inside += &axis.line(span, &median, "p50");
    inside += &marks(run, span, broken_at, axis.bottom);
    svg(112.0, "Latency of each second", &inside)
}

fn entries(run: &Chronicle, span: Span, broken_at: Option<TrueNs>) -> String {
    let high = run.seconds.values().map(|second| second.entries).max().unwrap_or(1).max(1);
    let axis = Axis { low: 0.0, high: high as f64, top: 6.0, bottom: 72.0 };
    let mut inside = span.grid(axis.top, axis.bottom) + &axis.labels("");
    for (number, second) in run.seconds.iter().filter(|(_, second)| second.entries > 0) {
        let (from, top) = (number * SECOND, axis.y(second.entries as f64));
        let title = format!("{} entries", second.entries);
        inside += &span.bar(from, from + SECOND * 9 / 10, top, axis.bottom - top, "entry", &title);
    }
    inside += &marks(run, span, broken_at, axis.bottom);
    svg(92.0, "Log entries of each second", &inside)
}

fn tally(run: &Chronicle) -> String {
    let rows: String = run
        .tally
        .iter()
        .map(|((tenant, said), count)| {
            format!("<tr><td>{}<td>{}<td class=number>{count}</tr>", escape(tenant), escape(said))
        })
        .collect();
    format!(
        "<details><summary>{} rows</summary><table><tr><th>tenant<th>answer<th>times</tr>{rows}</table></details>",
        run.tally.len()
    )
}

fn around(run: &Chronicle, at: TrueNs) -> String {
    let lines: String = run
        .around(at)
        .iter()
        .map(|(when, event)| format!("{:>10.3} s  {}\n", *when as f64 / 1e9, escape(event)))
        .collect();
    format!("<pre>{lines}</pre>")
}

fn plan(run: &Chronicle) -> String {
    format!(
        "<details><summary>{} troubles</summary><pre>{}</pre></details>",
        run.plan.weather.len(),
        escape(&run.plan.text())
    )
}

/// The value below which a part of all lies; 0 of none.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * part) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
