//! Amounts with their units: durations, sizes, rates. Text in, integers out, and back in the shortest form.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::quota::Limit;

/// A text that is no amount of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, wanted {wanted}")]
pub struct BadUnit {
    /// The text as it was written.
    pub found: String,
    /// The rule.
    pub wanted: &'static str,
}

const DURATION_RULE: &str = "a duration such as 250ms, 10s, 5m, 1h or 1d";
const SIZE_RULE: &str = "a size such as 16KiB, 1MiB, 1GiB or a number of bytes";
const RATE_RULE: &str = "a rate such as 100/s, 5/min, 1/h, 3/30s or `5 per 1min`";
const INSTANT_RULE: &str = "a date such as 2026-12-31, or with a time as in 2026-12-31T12:00:00Z";
const PART_RULE: &str = "a share such as 10%, 0.5% or 100%, to four places behind the point";
const AT_MOST_RULE: &str = "a bound such as `10 in any 1h`";

const MS_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// The longest time in which a quota may count.
pub const PER_NS_MAX: u64 = 31 * 86_400 * SECOND_NS;

/// Longest first, for printing. Minutes are `m` in a duration and `min` in a rate; both are read in both.
const TIMES: [(&str, u64); 6] = [
    ("d", 86_400 * SECOND_NS),
    ("h", 3_600 * SECOND_NS),
    ("m", 60 * SECOND_NS),
    ("min", 60 * SECOND_NS),
    ("s", SECOND_NS),
    ("ms", MS_NS),
];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `250ms`, `10s`, `5m`, `1h` or `1d`; at most a few hundred years.
///
/// # Errors
/// [`BadUnit`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, BadUnit> {
    nanoseconds(text).map(Duration::from_nanos).ok_or_else(|| bad(text, DURATION_RULE))
}

/// Prints a duration of whole milliseconds in its longest whole unit; finer parts are cut off.
pub fn show_duration(duration: Duration) -> String {
    show_nanoseconds(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Reads `16KiB`, `1MiB`, `1GiB`, `512B` or plain bytes.
///
/// # Errors
/// [`BadUnit`] for anything else.
pub fn parse_size(text: &str) -> Result<u64, BadUnit> {
    let (count, unit) = split(text).ok_or_else(|| bad(text, SIZE_RULE))?;
    let scale = if unit.is_empty() { Some(1) } else { lookup(&SIZES, unit) };
    scale.and_then(|scale| count.checked_mul(scale)).ok_or_else(|| bad(text, SIZE_RULE))
}

/// Prints a size in its largest whole unit.
pub fn show_size(bytes: u64) -> String {
    let (unit, scale) =
        SIZES.iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// `tokens` in each `per_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 1 to [`Limit::BURST_MAX`].
    pub tokens: u64,
    /// 1 ms to [`PER_NS_MAX`].
    pub per_ns: u64,
}

impl Rate {
    /// Reads `100/s`, `5/min`, `3/30s`, `5 per 1min`.
    ///
    /// # Errors
    /// [`BadUnit`] for anything else, and for a rate out of the bounds above.
    pub fn parse(text: &str) -> Result<Self, BadUnit> {
        let read = || {
            let (tokens, per) = text.split_once('/').or_else(|| text.split_once(" per "))?;
            let tokens = number(tokens.trim()).filter(|tokens| (1..=Limit::BURST_MAX).contains(tokens))?;
            let per = per.trim();
            let per_ns =
                lookup(&TIMES, per).filter(|per_ns| *per_ns >= SECOND_NS).or_else(|| nanoseconds(per))?;
            (1..=PER_NS_MAX).contains(&per_ns).then_some(Self { tokens, per_ns })
        };
        read().ok_or_else(|| bad(text, RATE_RULE))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = TIMES.iter().find(|(unit, ns)| *ns == self.per_ns && *unit != "m" && *unit != "ms");
        match whole {
            Some((unit, _)) => write!(f, "{}/{unit}", self.tokens),
            None => write!(f, "{}/{}", self.tokens, show_nanoseconds(self.per_ns)),
        }
    }
}

/// Whole seconds since the Unix epoch, by the wall clock; not later than the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct UnixS(u64);

impl UnixS {
    /// 9999-12-31T23:59:59Z.
    const MAX: u64 = 253_402_300_799;

    /// Reads a date, which means its first second in UTC, or an instant of RFC 3339.
    ///
    /// # Errors
    /// [`BadUnit`] for anything else, and for what lies before 1970.
    pub fn parse(text: &str) -> Result<Self, BadUnit> {
        let is_date = text.len() == "2026-12-31".len();
        let whole = if is_date { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let instant = OffsetDateTime::parse(&whole, &Rfc3339).ok();
        let seconds = instant.and_then(|instant| u64::try_from(instant.unix_timestamp()).ok());
        seconds.and_then(|seconds| Self::try_from(seconds).ok()).ok_or_else(|| bad(text, INSTANT_RULE))
    }
}

impl TryFrom<u64> for UnixS {
    type Error = BadUnit;
    fn try_from(seconds: u64) -> Result<Self, BadUnit> {
        if seconds <= Self::MAX { Ok(Self(seconds)) } else { Err(bad(&seconds.to_string(), INSTANT_RULE)) }
    }
}

impl From<UnixS> for u64 {
    fn from(instant: UnixS) -> u64 {
        instant.0
    }
}

/// A part of a whole, above nothing: 1 to [`Part::WHOLE`] millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Part(u32);

impl Part {
    /// All of it.
    pub const WHOLE: u32 = 1_000_000;

    /// Reads `10%`, `0.5%`, `100%`.
    ///
    /// # Errors
    /// [`BadUnit`] for anything else, nothing and more than all.
    pub fn parse(text: &str) -> Result<Self, BadUnit> {
        let read = || {
            let percent = text.strip_suffix('%')?;
            let (whole, places) = percent.split_once('.').unwrap_or((percent, "0"));
            let scale = 10_u64.checked_pow(4_u32.checked_sub(u32::try_from(places.len()).ok()?)?)?;
            let millionths = number(whole)?.checked_mul(10_000)?.checked_add(number(places)? * scale)?;
            Self::try_from(u32::try_from(millionths).ok()?).ok()
        };
        read().ok_or_else(|| bad(text, PART_RULE))
    }

    /// Whether a point of 2^64 lies in the part, which begins at 0.
    pub fn holds(self, point: u64) -> bool {
        (u128::from(point) * u128::from(Self::WHOLE)) >> 64 < u128::from(self.0)
    }
}

impl TryFrom<u32> for Part {
    type Error = BadUnit;
    fn try_from(millionths: u32) -> Result<Self, BadUnit> {
        let fits = (1..=Self::WHOLE).contains(&millionths);
        if fits { Ok(Self(millionths)) } else { Err(bad(&millionths.to_string(), PART_RULE)) }
    }
}

impl From<Part> for u32 {
    fn from(part: Part) -> u32 {
        part.0
    }
}

/// A bound on every interval of one width: at most `tokens` in any `width_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtMost {
    /// 1 to [`Limit::BURST_MAX`].
    pub tokens: u64,
    /// 1 ms to [`PER_NS_MAX`].
    pub width_ns: u64,
}

impl AtMost {
    /// Reads `10 in any 1h`.
    ///
    /// # Errors
    /// [`BadUnit`] for anything else, and for a bound out of the range above.
    pub fn parse(text: &str) -> Result<Self, BadUnit> {
        let read = || {
            let (tokens, width) = text.split_once(" in any ")?;
            let tokens = number(tokens.trim()).filter(|tokens| (1..=Limit::BURST_MAX).contains(tokens))?;
            let width_ns = nanoseconds(width.trim()).filter(|ns| (1..=PER_NS_MAX).contains(ns))?;
            Some(Self { tokens, width_ns })
        };
        read().ok_or_else(|| bad(text, AT_MOST_RULE))
    }

    /// The burst it gets when none is asked for: half of it, rounded up.
    pub fn burst_default(self) -> u64 {
        self.tokens.div_ceil(2)
    }
}

impl fmt::Display for AtMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in any {}", self.tokens, show_nanoseconds(self.width_ns))
    }
}

fn bad(found: &str, wanted: &'static str) -> BadUnit {
    BadUnit { found: found.to_owned(), wanted }
}

/// Digits alone: no sign, no blank, no underscore.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `16KiB` → (16, `KiB`).
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((number(&text[..end])?, &text[end..]))
}

fn lookup(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, scale)| *scale)
}

fn nanoseconds(text: &str) -> Option<u64> {
    let (count, unit) = split(text)?;
    count.checked_mul(lookup(&TIMES, unit)?)
}

fn show_nanoseconds(ns: u64) -> String {
    let whole = TIMES.iter().find(|(unit, scale)| ns > 0 && ns.is_multiple_of(*scale) && *unit != "min");
    let (unit, scale) = whole.unwrap_or(&("ms", MS_NS));
    format!("{}{unit}", ns / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn an_instant_is_a_date_or_has_a_time_and_a_zone() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2026-01-01", 1_767_225_600),
            ("2026-01-01T00:00:00Z", 1_767_225_600),
            ("2026-01-01T01:30:00+01:30", 1_767_225_600),
            ("2024-02-29", 1_709_164_800),
            ("9999-12-31T23:59:59Z", UnixS::MAX),
        ] {
            assert_eq!(UnixS::parse(text).map(u64::from).ok(), Some(seconds), "{text}");
        }
        for text in [
            "",
            "2026",
            "2025-02-29",
            "2026-01-01T00:00:00",
            "01.01.2026",
            "1969-12-31",
            "2026-13-01",
            "10000-01-01",
        ] {
            assert!(UnixS::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_is_more_than_nothing_and_at_most_all() {
        for (text, millionths) in [
            ("10%", 100_000),
            ("0.5%", 5_000),
            ("100%", 1_000_000),
            ("0.0001%", 1),
            ("33.3333%", 333_333),
            ("1.0%", 10_000),
        ] {
            assert_eq!(Part::parse(text).map(u32::from).ok(), Some(millionths), "{text}");
        }
        for text in ["0%", "10", "100.1%", "0.00001%", "-1%", "1e1%", ".5%", "5.%", "%", "", "+1%", "1.-1%"] {
            assert!(Part::parse(text).is_err(), "{text}");
        }
        let half = Part::parse("50%").expect("a part");
        assert!(half.holds(0) && half.holds(u64::MAX / 2) && !half.holds(u64::MAX / 2 + 1));
        assert!(Part::parse("100%").is_ok_and(|all| all.holds(u64::MAX)));
    }

    use super::*;

    #[test]
    fn durations_and_sizes_read_as_they_are_written() {
        for text in ["250ms", "10s", "5m", "1h", "1d", "0ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for (text, bytes) in [("16KiB", 16 << 10), ("1MiB", 1 << 20), ("3B", 3), ("512", 512)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "s", "5", "1.5s", "-1s", "1 s", "1S", "1us", "99999999999999999999d", "1w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "1KB", "1kib", "KiB", "1 MiB", "99999999999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_read_in_every_documented_form() {
        let rate = |tokens, seconds| Ok(Rate { tokens, per_ns: seconds * SECOND_NS });
        let forms =
            [("100/s", 100, 1), ("5/min", 5, 60), ("5/m", 5, 60), ("5 per 1min", 5, 60), ("3/30s", 3, 30)];
        for (text, tokens, seconds) in forms {
            assert_eq!(Rate::parse(text), rate(tokens, seconds), "{text}");
        }
        for text in ["", "/s", "100", "0/s", "1/0s", "1/ms", "1/32d", "4294967296/s", "1/us", "1.5/s", "-1/s"]
        {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
        for text in ["10 in 1h", "0 in any 1h", "10 in any h", "10 in any 0s", "in any 1h"] {
            assert!(AtMost::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(tokens in 1..=Limit::BURST_MAX, ms in 1..=PER_NS_MAX / MS_NS) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&show_size(tokens)), Ok(tokens));
            let rate = Rate { tokens, per_ns: ms * MS_NS };
            prop_assert_eq!(Rate::parse(&rate.to_string()), Ok(rate));
            let bound = AtMost { tokens, width_ns: ms * MS_NS };
            prop_assert_eq!(AtMost::parse(&bound.to_string()), Ok(bound));
        }

        #[test]
        fn no_text_is_too_odd_to_be_refused(text in ".{0,24}") {
            let _ = (parse_duration(&text), parse_size(&text), Rate::parse(&text), AtMost::parse(&text));
        }
    }
}
