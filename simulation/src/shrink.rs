//! Makes a failing plan smaller while it breaks the same promise: fewer troubles, shorter ones, fewer callers and
//! documents. Of a run that is merely not as expected, all but the troubles belongs to what is expected, and stays.
//!
//! Troubles are taken out by halves, quarters and so on (ddmin; Zeller and Hildebrandt, Simplifying and isolating
//! failure-inducing input, 2002), then what is left is made shorter.

use std::io;

use crate::child;
use crate::plan::Plan;
use crate::run::{Files, Report};
use crate::weather::Kind;

/// A plan, and how it failed.
pub struct Shrunk {
    /// The smallest that was found.
    pub plan: Plan,
    /// Its report.
    pub report: Report,
    /// How many runs it took.
    pub runs: u32,
}

/// Shrinks a plan. None: it breaks no promise.
///
/// # Errors
/// If no process can be started.
pub fn shrink(plan: &Plan, runs_max: u32) -> io::Result<Option<Shrunk>> {
    let mut plan = plan.clone();
    let report = child::run(&plan, &Files::default())?;
    let Some(broken) = &report.broken else { return Ok(None) };
    if !report.is_unexpected() {
        // They are no part of what happens, and name callers and times that may be left out.
        plan.expect.clear();
    }
    let promise = broken.promise.clone();
    let unmet = report
        .expected
        .iter()
        .filter(|_| report.is_unexpected())
        .find(|outcome| !outcome.met)
        .map(|outcome| outcome.expected.clone());
    let mut search = Search { promise, unmet, best: plan, report, runs: 1, runs_max };
    if search.unmet.is_some() {
        search.take_out_troubles()?;
        search.shorten_troubles()?;
        return Ok(Some(search.found()));
    }
    search.cut_the_rest()?;
    search.take_out_troubles()?;
    search.take_out_callers()?;
    search.take_out_editions()?;
    search.shorten_troubles()?;
    search.cut_the_rest()?;
    Ok(Some(search.found()))
}

struct Search {
    promise: String,
    /// The first expectation that was not met.
    unmet: Option<String>,
    best: Plan,
    report: Report,
    runs: u32,
    runs_max: u32,
}

impl Search {
    fn found(self) -> Shrunk {
        Shrunk { plan: self.best, report: self.report, runs: self.runs }
    }

    /// Takes a smaller plan if it breaks the same promise.
    fn try_out(&mut self, plan: Plan) -> io::Result<bool> {
        if self.runs >= self.runs_max || plan == self.best {
            return Ok(false);
        }
        self.runs += 1;
        let report = child::run(&plan, &Files::default())?;
        let unmet = |text: &String| report.expected.iter().any(|it| it.expected == *text && !it.met);
        let same = report.broken.as_ref().is_some_and(|broken| broken.promise == self.promise)
            && self.unmet.as_ref().is_none_or(unmet);
        if same {
            (self.best, self.report) = (plan, report);
        }
        Ok(same)
    }

    /// What comes after the last trouble is not needed, if the promise was broken before the end.
    fn cut_the_rest(&mut self) -> io::Result<bool> {
        let ends = self.best.weather.iter().map(|it| it.at_ms + it.for_ms).max().unwrap_or(0);
        let for_ms = ends + self.best.calm_ms;
        if for_ms >= self.best.for_ms {
            return Ok(false);
        }
        self.try_out(Plan { for_ms, ..self.best.clone() })
    }

    fn take_out_troubles(&mut self) -> io::Result<()> {
        let mut size = self.best.weather.len().div_ceil(2);
        while size > 0 && !self.best.weather.is_empty() {
            let mut from = 0;
            while from < self.best.weather.len() {
                let mut plan = self.best.clone();
                let until = (from + size).min(plan.weather.len());
                plan.weather.drain(from..until);
                if !self.try_out(plan)? {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        Ok(())
    }

    fn take_out_callers(&mut self) -> io::Result<()> {
        for number in (0..self.best.scene.callers.len()).rev() {
            let mut plan = self.best.clone();
            plan.scene.callers.remove(number);
            self.try_out(plan)?;
        }
        Ok(())
    }

    /// Editions that no trouble applies. A plan with such a trouble has two or more.
    fn take_out_editions(&mut self) -> io::Result<()> {
        let mut plan = self.best.clone();
        let applied = plan.weather.iter().filter(|trouble| trouble.kind == Kind::Edition).count();
        plan.scene.gateway.truncate(applied + 1);
        self.try_out(plan)?;
        Ok(())
    }

    fn shorten_troubles(&mut self) -> io::Result<()> {
        for index in 0..self.best.weather.len() {
            loop {
                let mut plan = self.best.clone();
                plan.weather[index].for_ms /= 2;
                if plan.weather[index].for_ms < 50 || !self.try_out(plan)? {
                    break;
                }
            }
        }
        Ok(())
    }
}
