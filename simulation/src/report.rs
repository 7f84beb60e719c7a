//! One page that shows a run: who stood, who led, what went wrong, what was admitted against its bound, what was refused
//! and why, how long answers took, and what happened around a broken promise. Nothing outside the page is needed to look
//! at it.

mod chart;
mod page;

use std::collections::BTreeMap;

use crate::clock::{MS_NS, TrueNs};
use crate::event::{Answer, Event, Fate, RequestNumber};
use crate::host::HostNumber;
use crate::plan::Plan;
use crate::promise::Promise as _;
use crate::promise::exact::{Course, Exact};
use crate::run::Report;

/// Hosts with smaller numbers are nodes.
const NODES_END: HostNumber = 20;
const SECOND: TrueNs = 1_000 * MS_NS;
/// Events on each side of a broken promise that the page lists.
const AROUND: usize = 40;

/// What a node's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Up,
    Down,
    Paused,
}

/// A trouble's time.
struct Under {
    from: TrueNs,
    until: TrueNs,
    what: String,
}

/// One second of true time.
#[derive(Default)]
struct Second {
    /// Answers by what they were.
    answers: BTreeMap<Answer, u64>,
    latencies_ms: Vec<f64>,
    entries: u64,
    /// Requests that reached an upstream, by node.
    forwarded: BTreeMap<HostNumber, u64>,
}

impl Answer {
    const ALL: [Self; 5] = [Self::Served, Self::OverQuota, Self::Unauthorized, Self::Failed, Self::Broken];

    fn name(self) -> &'static str {
        match self {
            Self::Served => "answered 2xx or 3xx",
            Self::OverQuota => "refused 429",
            Self::Unauthorized => "refused 401 or 403",
            Self::Failed => "failed 4xx or 5xx",
            Self::Broken => "connection failed",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::OverQuota => "over",
            Self::Unauthorized => "unauth",
            Self::Failed => "failed",
            Self::Broken => "broken",
        }
    }
}

/// Remembers what the page will show.
pub struct Chronicle {
    plan: Plan,
    exact: Exact,
    begun: Option<TrueNs>,
    calm: Option<TrueNs>,
    converged: Option<TrueNs>,
    nodes: BTreeMap<HostNumber, Vec<(TrueNs, Life)>>,
    /// Who led since when, and which term.
    leads: Vec<(TrueNs, HostNumber, u64)>,
    troubles: Vec<Under>,
    /// Tokens in each node's leases, when it was looked at.
    leases: BTreeMap<HostNumber, Vec<(TrueNs, f64)>>,
    asked: BTreeMap<RequestNumber, (TrueNs, String)>,
    seconds: BTreeMap<u64, Second>,
    /// By tenant and answer.
    tally: BTreeMap<(String, String), u64>,
    highest_entry: u64,
    events: Vec<(TrueNs, String)>,
}

impl Chronicle {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            exact: Exact::new(plan),
            begun: None,
            calm: None,
            converged: None,
            nodes: BTreeMap::new(),
            leads: Vec::new(),
            troubles: Vec::new(),
            leases: BTreeMap::new(),
            asked: BTreeMap::new(),
            seconds: BTreeMap::new(),
            tally: BTreeMap::new(),
            highest_entry: 0,
            events: Vec::new(),
        }
    }

    /// Hears an event.
    pub fn hear(&mut self, at: TrueNs, event: &Event) {
        // Judged elsewhere; here it only keeps the admissions.
        let _ = self.exact.see(at, event);
        if !matches!(event, Event::Applied { .. } | Event::Status { .. } | Event::Holds(_)) {
            self.events.push((at, format!("{event:?}")));
        }
        match event {
            Event::Began { host, .. } => self.lives(*host, at, Life::Up),
            Event::Ended { host, .. } | Event::Down { host } => self.lives(*host, at, Life::Down),
            Event::Paused { host, paused } => {
                self.lives(*host, at, if *paused { Life::Paused } else { Life::Up });
            }
            Event::Leads { host, term } => self.leads.push((at, *host, *term)),
            Event::Trouble(what) => self.befell(at, what),
            Event::Calm => {
                self.calm = Some(at);
                self.troubles.iter_mut().for_each(|trouble| trouble.until = trouble.until.min(at));
            }
            Event::Holds(held) => {
                self.leases.entry(held.host).or_default().push((at, held.tokens as f64));
            }
            Event::Converged { .. } => self.converged = Some(at),
            Event::Applied { index, .. } if *index > self.highest_entry => {
                self.highest_entry = *index;
                self.second(at).entries += 1;
            }
            Event::Sent(request) => {
                self.begun.get_or_insert(at);
                self.asked.insert(request.number, (at, request.tenant.clone()));
            }
            Event::Reached { node, .. } => *self.second(at).forwarded.entry(*node).or_default() += 1,
            Event::Done { number, fate, .. } => self.done(at, *number, fate),
            _ => {}
        }
    }

    fn second(&mut self, at: TrueNs) -> &mut Second {
        self.seconds.entry(at / SECOND).or_default()
    }

    fn lives(&mut self, host: HostNumber, at: TrueNs, life: Life) {
        if host < NODES_END {
            self.nodes.entry(host).or_default().push((at, life));
        }
    }

    fn befell(&mut self, at: TrueNs, what: &str) {
        let lasts = self.plan.weather.iter().find(|trouble| trouble.to_string() == what);
        let for_ms = lasts.map_or(0, |trouble| trouble.for_ms);
        self.troubles.push(Under { from: at, until: at + for_ms * MS_NS, what: what.to_owned() });
    }

    fn done(&mut self, at: TrueNs, number: RequestNumber, fate: &Fate) {
        let answer = fate.answer();
        let Some((sent, tenant)) = self.asked.remove(&number) else { return };
        let second = self.second(at);
        *second.answers.entry(answer).or_default() += 1;
        if matches!(answer, Answer::Served) {
            second.latencies_ms.push((at - sent) as f64 / MS_NS as f64);
        }
        let said = match fate {
            Fate::Answered { status, why, .. } if why.is_empty() => status.to_string(),
            Fate::Answered { status, why, .. } => format!("{status} {why}"),
            Fate::Broken { .. } => "connection failed".to_owned(),
            Fate::Silent => "no answer".to_owned(),
        };
        *self.tally.entry((tenant, said)).or_default() += 1;
    }

    /// The page of a run that went as `report` says.
    pub fn page(&self, report: &Report) -> String {
        page::page(self, report)
    }

    fn courses(&self) -> Vec<Course> {
        self.exact.courses()
    }

    /// Who led, from when until when.
    fn reigns(&self, end: TrueNs) -> Vec<(HostNumber, u64, TrueNs, TrueNs)> {
        let mut reigns = Vec::new();
        for (index, (from, host, term)) in self.leads.iter().enumerate() {
            let next = self.leads.get(index + 1).map_or(end, |next| next.0);
            let fell = self.nodes.get(host).into_iter().flatten();
            let fell = fell.filter(|(at, life)| *life == Life::Down && at > from).map(|(at, _)| *at).next();
            reigns.push((*host, *term, *from, fell.unwrap_or(end).min(next)));
        }
        reigns
    }

    /// The events before and after an instant.
    fn around(&self, at: TrueNs) -> &[(TrueNs, String)] {
        let place = self.events.partition_point(|(when, _)| *when <= at);
        &self.events[place.saturating_sub(AROUND)..self.events.len().min(place + AROUND / 4)]
    }
}
