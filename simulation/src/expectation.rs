//! What somebody expects of a run besides the promises, in figures: how much is admitted, refused and used, of whom and
//! when, how fast, and how soon all is well again.
//!
//! ```yaml
//! expect:
//!   - {admitted: at least 95%, tenant: acme, after: 5s}
//!   - {refused: 0, route: catalogue}
//!   - {utilisation: at least 98%, quota: per-tenant, tenant: globex}
//!   - {latency: at most 200ms, percentile: 99}
//!   - {recovery: at most 5s}
//! ```

use std::fmt;

use config::quota::KeyPart;
use config::spot::{Fields, Notes, Spot, Wanted, nearest};
use config::tree::Value;

use crate::event::Answer;
use crate::scene::{Caller, Scene};
use crate::{edition, moment, plan};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Requests that reached an upstream.
    Admitted,
    /// Requests by what their callers saw.
    Answers(Answer),
    /// Tokens admitted, of what the quota allows: what is left when the time begins (B, at the beginning of the run), and
    /// r·t. Of a quota that counts by tenant, one tenant's; else of all buckets that anybody was admitted from.
    Utilisation,
    /// From sent to answered, of requests that were served; the percentile says of how many.
    Latency,
    /// From the beginning of the calm until every node is ready and shows the same.
    Recovery,
}

/// What its figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Of requests.
    Count,
    /// Of the requests that were sent, or of what is allowed.
    Percent,
    /// Milliseconds.
    Time,
}

impl Measure {
    /// All, by the keys that name them.
    pub const ALL: [(&'static str, Self); 9] = [
        ("admitted", Self::Admitted),
        ("served", Self::Answers(Answer::Served)),
        ("refused", Self::Answers(Answer::OverQuota)),
        ("unauthorized", Self::Answers(Answer::Unauthorized)),
        ("failed", Self::Answers(Answer::Failed)),
        ("unanswered", Self::Answers(Answer::Broken)),
        ("utilisation", Self::Utilisation),
        ("latency", Self::Latency),
        ("recovery", Self::Recovery),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, measure)| *measure == self).expect("every measure has a key").0
    }

    fn units(self) -> (&'static [Unit], &'static str) {
        match self {
            Self::Admitted | Self::Answers(_) => (
                &[Unit::Count, Unit::Percent],
                "requests, or a percentage of those sent, such as `at least 95%`, `at most 3`, `40 to 45` or `0`",
            ),
            Self::Utilisation => (&[Unit::Percent], "a percentage, such as `at least 98%` or `90% to 101%`"),
            Self::Latency | Self::Recovery => (&[Unit::Time], "a time, such as `at most 200ms`"),
        }
    }
}

/// What a figure must lie in, both ends included. In thousandths: of requests, of percent, and of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    low: Option<u64>,
    high: Option<u64>,
    unit: Unit,
}

/// One expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// What is measured.
    pub measure: Measure,
    /// Where it must lie.
    pub bound: Bound,
    /// Of this tenant alone.
    pub tenant: Option<String>,
    /// Of this client alone.
    pub client: Option<String>,
    /// Of this route alone.
    pub route: Option<String>,
    /// Of this quota; utilisation names one.
    pub quota: Option<String>,
    /// Of so many in a hundred; latency alone has one.
    pub percentile: Option<u64>,
    /// Requests sent from then on, since the first caller called.
    pub after_ms: Option<u64>,
    /// Requests sent until then.
    pub before_ms: Option<u64>,
}

/// What was found; `of`: all that could have been counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Requests, tokens or milliseconds.
    pub found: f64,
    /// Requests sent, or tokens allowed; none for times.
    pub of: Option<f64>,
}

impl Bound {
    /// Whether a figure lies in it. Where nothing could have been counted, none does.
    pub fn holds(&self, figure: Figure) -> bool {
        let Some(found) = self.of(figure).filter(|_| figure.of != Some(0.0)) else { return false };
        // Rounding is no reason.
        let found = found * 1_000.0;
        self.low.is_none_or(|low| found >= low as f64 - 1e-6)
            && self.high.is_none_or(|high| found <= high as f64 + 1e-6)
    }

    fn of(&self, Figure { found, of }: Figure) -> Option<f64> {
        match self.unit {
            Unit::Count | Unit::Time => Some(found),
            Unit::Percent => of.filter(|of| *of > 0.0).map(|of| found * 100.0 / of),
        }
    }

    /// A figure, as a reader compares it with this.
    pub fn show(&self, figure: Figure) -> String {
        let Figure { found, of } = figure;
        match (self.unit, self.of(figure), of) {
            (Unit::Time, _, _) => moment::show(found.round() as u64),
            (_, None, _) => "nothing that could be counted".to_owned(),
            (Unit::Percent, Some(part), Some(of)) => format!("{part:.3}% ({found:.0} of {of:.0})"),
            (_, _, Some(of)) => format!("{found:.0} of {of:.0}"),
            _ => format!("{found:.0}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let one = |text: &str| amount(text.trim());
        let (low, high) = if let Some(low) = text.strip_prefix("at least ") {
            (Some(one(low)?), None)
        } else if let Some(high) = text.strip_prefix("at most ") {
            (None, Some(one(high)?))
        } else {
            let (low, high) = text.split_once(" to ").unwrap_or((text, text));
            (Some(one(low)?), Some(one(high)?))
        };
        let unit = low.or(high)?.1;
        let fits =
            low.is_none_or(|low| low.1 == unit && high.is_none_or(|high| high.1 == unit && low.0 <= high.0));
        fits.then(|| Self { low: low.map(|it| it.0), high: high.map(|it| it.0), unit })
    }
}

/// `40`, `99.5%` or `200ms`, in thousandths.
fn amount(text: &str) -> Option<(u64, Unit)> {
    if let Ok(ms) = moment::parse(text) {
        return Some((ms.checked_mul(1_000)?, Unit::Time));
    }
    let (number, unit) = text.strip_suffix('%').map_or((text, Unit::Count), |number| (number, Unit::Percent));
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = !whole.is_empty() && digits(whole) && digits(part) && part.len() <= 3;
    let fits =
        fits && (number.contains('.') != part.is_empty()) && (part.is_empty() || unit == Unit::Percent);
    let whole: u64 = fits.then(|| whole.parse().ok())??;
    Some((whole.checked_mul(1_000)?.checked_add(format!("{part:0<3}").parse().ok()?)?, unit))
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |thousandths: u64| match self.unit {
            Unit::Count => (thousandths / 1_000).to_string(),
            Unit::Time => moment::show(thousandths / 1_000),
            Unit::Percent if thousandths.is_multiple_of(1_000) => format!("{}%", thousandths / 1_000),
            Unit::Percent => {
                let digits = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
                format!("{}%", digits.trim_end_matches('0'))
            }
        };
        match (self.low.map(one), self.high.map(one)) {
            (Some(low), Some(high)) if low == high => f.write_str(&low),
            (Some(low), Some(high)) => write!(f, "{low} to {high}"),
            (Some(low), None) => write!(f, "at least {low}"),
            (None, high) => write!(f, "at most {}", high.unwrap_or_default()),
        }
    }
}

/// As a reader says it; a plan has it as a map.
impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, bound, .. } = self;
        match self.percentile {
            Some(percentile) => write!(f, "{} of {percentile} in 100 {bound}", measure.name())?,
            None => write!(f, "{} {bound}", measure.name())?,
        }
        let names = [
            ("quota", &self.quota),
            ("tenant", &self.tenant),
            ("client", &self.client),
            ("route", &self.route),
        ];
        for (key, of) in names {
            if let Some(of) = of {
                write!(f, ", {key} {of}")?;
            }
        }
        for (key, ms) in [("after", self.after_ms), ("before", self.before_ms)] {
            if let Some(ms) = ms {
                write!(f, ", {key} {}", moment::show(ms))?;
            }
        }
        Ok(())
    }
}

const FILTERS: [&str; 7] = ["tenant", "client", "route", "quota", "percentile", "after", "before"];
/// More say nothing that fewer would not.
pub const EXPECTATIONS_MAX: usize = 200;
const PERCENTILE: u64 = 99;

impl Expectation {
    /// As a plan says it.
    pub fn yaml(&self) -> String {
        let mut fields = vec![format!("{}: {}", self.measure.name(), self.bound)];
        let names = [
            ("tenant", &self.tenant),
            ("client", &self.client),
            ("route", &self.route),
            ("quota", &self.quota),
        ];
        for (key, name) in names {
            fields.extend(name.as_ref().map(|name| format!("{key}: {}", plan::word(name))));
        }
        fields.extend(self.percentile.map(|percentile| format!("percentile: {percentile}")));
        for (key, ms) in [("after", self.after_ms), ("before", self.before_ms)] {
            fields.extend(ms.map(|ms| format!("{key}: {}", moment::show(ms))));
        }
        format!("{{{}}}", fields.join(", "))
    }

    /// Reads a list of them, for a run of `for_ms`.
    pub fn list(spot: &Spot<'_>, notes: &mut Notes, scene: &Scene, for_ms: u64) -> Vec<Self> {
        let items = spot.items(notes, EXPECTATIONS_MAX);
        items.iter().filter_map(|spot| Self::read(spot, notes, scene, for_ms)).collect()
    }

    fn read(spot: &Spot<'_>, notes: &mut Notes, scene: &Scene, for_ms: u64) -> Option<Self> {
        let keys: Vec<&'static str> = Measure::ALL.iter().map(|(key, _)| *key).chain(FILTERS).collect();
        let mut fields = spot.fields(notes, &keys)?;
        let named: Vec<_> = Measure::ALL
            .iter()
            .filter_map(|(key, measure)| Some((*measure, fields.optional(key)?)))
            .collect();
        let [(measure, bound)] = named.as_slice() else {
            let measures: Vec<&str> = Measure::ALL.iter().map(|(key, _)| *key).collect();
            spot.wrong(notes, format!("one of {}, and no second one", measures.join(", ")));
            return None;
        };
        let measure = *measure;
        let bound = read_bound(bound, measure, notes);
        let has_quota = measure == Measure::Utilisation;
        let has_percentile = measure == Measure::Latency;
        let of_requests = measure != Measure::Recovery;
        let mut fits = true;
        for (key, fitting) in FILTERS.into_iter().zip([
            of_requests,
            of_requests && !has_quota,
            of_requests && !has_quota,
            has_quota,
            has_percentile,
            of_requests,
            of_requests,
        ]) {
            if !fitting && let Some(spot) = fields.optional(key) {
                spot.wrong_key(notes, format!("`{key}`"), format!("no `{key}` beside `{}`", measure.name()));
                fits = false;
            }
        }
        let tenant =
            fields.optional("tenant").map(|spot| spot.parse(notes, |text| known_tenant(scene, text)));
        let client =
            fields.optional("client").map(|spot| spot.parse(notes, |text| known_client(scene, text)));
        // Where no document could be read, no name is wrong.
        let readable = !scene.gateway.is_empty();
        let route = |text: &str| match readable {
            true => edition::known_route(&scene.gateway, text),
            false => Ok(text.to_owned()),
        };
        let route = fields.optional("route").map(|spot| spot.parse(notes, route));
        let quota = |text: &str| if readable { known_quota(scene, text) } else { Ok(text.to_owned()) };
        let quota = has_quota.then(|| fields.required(notes, "quota")?.parse(notes, quota));
        let percentile = has_percentile
            .then(|| fields.or(notes, "percentile", PERCENTILE, |notes, spot| spot.integer(notes, 1..=100)));
        let after_ms = time(&mut fields, notes, "after", 0, for_ms);
        let earliest = after_ms.flatten().map_or(1, |after| after + 1);
        let before_ms = time(&mut fields, notes, "before", earliest, for_ms);
        // By what the quota counts, in whichever edition.
        let by_tenant = quota.as_ref().and_then(|quota| Some(counts_by_tenant(scene, quota.as_ref()?)));
        if by_tenant.is_some_and(|by_tenant| by_tenant != tenant.is_some()) {
            let (a, counts) = if tenant.is_none() { ("a", "counts") } else { ("no", "does not count") };
            spot.wrong(notes, format!("{a} `tenant`: the quota {counts} by tenant"));
            fits = false;
        }
        let is = |field: &Option<Option<String>>, held: &str| match field {
            Some(Some(wanted)) => wanted == held,
            _ => true,
        };
        let calls = |caller: &Caller| {
            is(&tenant, &caller.tenant) && is(&client, caller.client()) && is(&route, &caller.route)
        };
        let of_somebody = tenant.is_some() || client.is_some() || route.is_some();
        if of_somebody && !scene.callers.iter().any(calls) {
            spot.wrong(notes, "tenant, client and route of a caller; none has all of these");
            fits = false;
        }
        // A field that was there and wrong was noted.
        let (tenant, client, route, quota) = (whole(tenant)?, whole(client)?, whole(route)?, whole(quota)?);
        let (after_ms, before_ms) = (whole(after_ms)?, whole(before_ms)?);
        let bound = bound.filter(|_| fits)?;
        Some(Self { measure, bound, tenant, client, route, quota, percentile, after_ms, before_ms })
    }
}

/// Absent, or as it was read; none: it was wrong.
fn whole<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        Some(None) => None,
        Some(read) => Some(read),
        None => Some(None),
    }
}

fn read_bound(spot: &Spot<'_>, measure: Measure, notes: &mut Notes) -> Option<Bound> {
    let (units, wanted) = measure.units();
    // `refused: 0` is a number in YAML.
    let read = match spot.value() {
        Value::Integer(number) => Bound::parse(&number.to_string()),
        Value::Text(text) => Bound::parse(text),
        _ => None,
    };
    let fits = read.filter(|bound| units.contains(&bound.unit));
    if fits.is_none() {
        spot.wrong(notes, wanted);
    }
    fits
}

fn time(
    fields: &mut Fields<'_>,
    notes: &mut Notes,
    key: &str,
    low_ms: u64,
    high_ms: u64,
) -> Option<Option<u64>> {
    let between = |text: &str| {
        let ms = moment::parse(text).ok().filter(|ms| (low_ms..=high_ms).contains(ms));
        let ends = (moment::show(low_ms), moment::show(high_ms));
        ms.ok_or_else(|| {
            Wanted::from(format!("a time from {} to {}, the end of the run", ends.0, ends.1).as_str())
        })
    };
    fields.optional(key).map(|spot| spot.parse(notes, between))
}

fn counts_by_tenant(scene: &Scene, quota: &str) -> bool {
    let mut held = scene.gateway.iter().filter_map(|edition| edition.quota(quota));
    held.any(|quota| quota.key.contains(&KeyPart::Tenant))
}

fn known_tenant(scene: &Scene, text: &str) -> Result<String, Wanted> {
    let known = || scene.callers.iter().map(|caller| caller.tenant.as_str());
    match known().any(|tenant| tenant == text) {
        true => Ok(text.to_owned()),
        false => Err(Wanted { wanted: "the tenant of a caller".to_owned(), help: nearest(text, known()) }),
    }
}

fn known_client(scene: &Scene, text: &str) -> Result<String, Wanted> {
    let known = || scene.callers.iter().map(Caller::client);
    match known().any(|client| client == text) {
        true => Ok(text.to_owned()),
        false => Err(Wanted { wanted: "the client of a caller".to_owned(), help: nearest(text, known()) }),
    }
}

fn known_quota(scene: &Scene, text: &str) -> Result<String, Wanted> {
    let quotas = || scene.gateway.iter().flat_map(|edition| &edition.document.quotas);
    let known = || quotas().map(|quota| quota.name.as_str());
    match known().any(|quota| quota == text) {
        true => Ok(text.to_owned()),
        false => Err(Wanted { wanted: "the name of a quota".to_owned(), help: nearest(text, known()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_reads_as_it_is_written() {
        for text in
            ["at least 95%", "at most 99.5%", "40 to 45", "0", "at most 200ms", "1.500s to 2s", "100%"]
        {
            assert_eq!(Bound::parse(text).map(|bound| bound.to_string()).as_deref(), Some(text));
        }
        for text in ["", "least 5", "45 to 40", "1 to 2%", "1.5", "-1", "5 %%", "at least", "1.%", "1.2345%"]
        {
            assert_eq!(Bound::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_figure_is_in_a_bound_or_it_is_not() {
        let holds = |text: &str, found: f64, of: Option<f64>| {
            Bound::parse(text).expect("it is one").holds(Figure { found, of })
        };
        assert!(holds("at least 95%", 95.0, Some(100.0)) && !holds("at least 95%", 94.9, Some(100.0)));
        assert!(holds("40 to 45", 45.0, Some(9.0)) && !holds("40 to 45", 46.0, Some(9.0)));
        assert!(holds("0", 0.0, None) && !holds("0", 1.0, None));
        assert!(!holds("at most 5%", 0.0, Some(0.0)) && !holds("0", 0.0, Some(0.0)), "nothing was sent");
        assert!(holds("at most 200ms", 200.0, None) && !holds("at most 200ms", 200.5, None));
    }
}
