//! How much: the forms in which a document writes a [`Limit`].
//!
//! `100/s`, or `{rate: 100/s, burst: 50}`, or `{at_most: 10 in any 1h}`, or `{at_most: 10 in any 1h, burst: 4}`.

use crate::quota::{BadLimit, Limit};
use crate::spot::{Notes, Spot, Wanted};
use crate::tree::Value;
use crate::units::{AtMost, Rate, show_duration};

/// Stands for a limit that could not be read: no cost exceeds it, so it causes no second mistake.
const UNREAD: Limit = Limit { tokens: 1, per_ns: 1_000_000_000, burst: Limit::BURST_MAX };

/// Reads an amount in any of its forms.
///
/// - `burst`: what stands beside the amount, as `burst:` of a quota does.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>, burst: Option<Spot<'_>>) -> Limit {
    let limit = match spot.value() {
        Value::Map(_) => read_map(notes, spot, burst),
        _ => match spot.parse(notes, read_rate) {
            Some(rate) => build(notes, spot, burst, |burst| Limit::from_rate(rate, burst)),
            None => None,
        },
    };
    limit.unwrap_or(UNREAD)
}

fn read_map(notes: &mut Notes, spot: &Spot<'_>, outer: Option<Spot<'_>>) -> Option<Limit> {
    let mut fields = spot.fields(notes, &["rate", "at_most", "burst"])?;
    let (rate, at_most, inner) =
        (fields.optional("rate"), fields.optional("at_most"), fields.optional("burst"));
    if let (Some(outer), Some(_)) = (&outer, &inner) {
        outer.wrong_key(notes, "a second burst".into(), "one, here or inside of the limit");
    }
    let burst = inner.or(outer);
    match (rate, at_most) {
        (Some(rate_spot), None) => {
            let rate = rate_spot.parse(notes, read_rate)?;
            build(notes, &rate_spot, burst, |burst| Limit::from_rate(rate, burst))
        }
        (None, Some(bound_spot)) => {
            let bound = bound_spot.parse(notes, AtMost::parse)?;
            build(notes, &bound_spot, burst, |burst| Limit::from_at_most(bound, burst))
        }
        (rate, _) => {
            let found =
                if rate.is_some() { "both `rate` and `at_most`" } else { "neither `rate` nor `at_most`" };
            spot.wrong_key(notes, found.into(), "one of them");
            None
        }
    }
}

/// A rate, and help for those who wrote the other form in its place.
fn read_rate(text: &str) -> Result<Rate, Wanted> {
    Rate::parse(text).map_err(|bad| {
        let help = AtMost::parse(text).ok().map(|bound| format!("write it as {{at_most: {bound}}}"));
        Wanted { help, ..bad.into() }
    })
}

fn build(
    notes: &mut Notes,
    spot: &Spot<'_>,
    burst: Option<Spot<'_>>,
    make: impl FnOnce(Option<u64>) -> Result<Limit, BadLimit>,
) -> Option<Limit> {
    let asked = match &burst {
        Some(burst) => Some(burst.integer(notes, 1..=Limit::BURST_MAX)?),
        None => None,
    };
    make(asked)
        .map_err(|bad| match bad {
            BadLimit::Burst { max, .. } => {
                burst.as_ref().unwrap_or(spot).wrong(notes, format!("a burst from 1 to {max}"));
            }
            BadLimit::AtMostOne { width_ns } => {
                let width = show_duration(std::time::Duration::from_nanos(width_ns));
                spot.wrong(notes, "a bound of 2 or more").help = Some(format!(
                    "write `1/{width}` with burst 1: one at once, then one in each {width}, so two may come close \
                     together once"
                ));
            }
        })
        .ok()
}
