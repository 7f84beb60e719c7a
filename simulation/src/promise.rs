//! What is promised, one file each: the statement and its source on top. All of them hear every event.
//!
//! What the nodes check themselves, after entries that they apply (that every token is accounted for, that no bucket
//! lends more than it has), ends a node with a fault of the program, which [`faults`] hears.
//!
//! Some are judged at each event, some every 10 ms, when all events of that time are there, and those that need the whole
//! at the end.

pub mod acknowledged;
pub mod agreement;
pub mod answers;
pub mod beyond;
pub mod bounded;
pub mod calm;
pub mod conserved;
mod editions;
pub mod exact;
pub mod expected;
pub mod faults;
pub mod identity;
pub mod leaders;
pub mod once;
pub mod patience;
pub mod whole;

use crate::clock::TrueNs;
use crate::event::Event;
use crate::plan::Plan;
use crate::witness::Counts;

/// Kept so far, or how it was broken.
pub type Verdict = Result<(), String>;

/// A promise.
pub trait Promise {
    /// Its name, by which failures are told apart.
    fn name(&self) -> &'static str;

    /// Hears an event.
    ///
    /// # Errors
    /// How it breaks the promise.
    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict;

    /// Judges the whole.
    ///
    /// # Errors
    /// How the promise was broken.
    fn end(&mut self) -> Verdict {
        Ok(())
    }

    /// When it was broken, if that was before it was judged.
    fn broken_at(&self) -> Option<TrueNs> {
        None
    }

    /// What it counted for the coverage.
    fn counts(&self) -> Counts {
        Counts::new()
    }
}

/// All promises of a plan.
pub fn all(plan: &Plan) -> Vec<Box<dyn Promise>> {
    vec![
        Box::new(faults::Faults),
        Box::new(leaders::Leaders::default()),
        Box::new(agreement::Agreement::default()),
        Box::new(acknowledged::Acknowledged::default()),
        Box::new(identity::Identity::new(plan)),
        Box::new(once::Once::default()),
        Box::new(answers::Answers::default()),
        Box::new(whole::Whole),
        Box::new(patience::Patience::default()),
        Box::new(calm::Calm::new(plan)),
        if beyond::breaks_the_bound(plan) {
            Box::new(beyond::Beyond::new(plan)) as Box<dyn Promise>
        } else {
            Box::new(exact::Exact::new(plan))
        },
        Box::new(conserved::Conserved::new(plan)),
        Box::new(bounded::Bounded::new(plan)),
    ]
}

/// Events for tests of promises.
#[cfg(test)]
mod testing {
    use super::*;
    use crate::edition::{Edition, Target};
    use crate::event::{Fate, Request, RequestNumber, Token};

    /// Lets a promise see events, a millisecond apart.
    pub fn judge(promise: &mut dyn Promise, events: &[Event]) -> Verdict {
        for (ms, event) in events.iter().enumerate() {
            promise.see(ms as TrueNs * crate::clock::MS_NS, event)?;
        }
        promise.end()
    }

    /// Gives the second caller of a drawn plan this limit, in all editions.
    pub fn limit_second(plan: &mut Plan, limit: &str) {
        let line = format!("  tenant-1: {{limits: {{per-tenant: {limit}}}}}");
        for edition in &mut plan.scene.gateway {
            let lines = edition.text.lines().map(|it| if it.contains("tenant-1:") { &line } else { it });
            let text = lines.collect::<Vec<_>>().join("\n");
            *edition = Edition::parse("limited", &text).unwrap_or_else(|why| panic!("{why}"));
        }
    }

    pub fn sent(number: RequestNumber, token: Token) -> Event {
        let route = if token == Token::Good { "orders" } else { "reports" };
        let (method, host, path) = ("POST".to_owned(), "api.example".to_owned(), format!("/{route}/1"));
        let route = Target { route: route.to_owned(), method, host, path }.into();
        Event::Sent(Request {
            number,
            node: 1,
            route,
            idempotent: false,
            tenant: "tenant-0".to_owned(),
            client: "tenant-0".to_owned(),
            token,
        })
    }

    pub fn reached(number: RequestNumber, upstream: &str) -> Event {
        Event::Reached { number, node: 1, upstream: upstream.into(), charges: Vec::new() }
    }

    pub fn answered(number: RequestNumber, status: u16, echo: Option<RequestNumber>) -> Event {
        Event::Done { number, node: 1, fate: Fate::Answered { status, echo, why: String::new() } }
    }
}
