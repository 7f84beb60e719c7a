//! Times in plans: whole milliseconds, as `72ms`, `31.250s` or `5s`.

use config::units::parse_duration;

/// What a time looks like.
pub const RULE: &str = "a time such as 250ms, 31.250s, 10s or 2m";

/// Prints a time: in seconds, with three decimals where there is a part of a second.
pub fn show(ms: u64) -> String {
    match (ms / 1_000, ms % 1_000) {
        (0, part) if part > 0 => format!("{part}ms"),
        (whole, 0) => format!("{whole}s"),
        (whole, part) => format!("{whole}.{part:03}s"),
    }
}

/// Reads what [`show`] prints, and every duration of the other documents, in milliseconds.
///
/// # Errors
/// [`RULE`].
pub fn parse(text: &str) -> Result<u64, &'static str> {
    let decimal = || {
        let (whole, part) = text.strip_suffix('s')?.split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 3 {
            return None;
        }
        whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(format!("{part:0<3}").parse().ok()?)
    };
    let whole = || u64::try_from(parse_duration(text).ok()?.as_millis()).ok();
    decimal().or_else(whole).ok_or(RULE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_it_is_written() {
        for ms in [0, 1, 72, 999, 1_000, 1_001, 31_250, 60_000, 3_600_000, 7_199_999] {
            assert_eq!(parse(&show(ms)), Ok(ms));
        }
        for (text, ms) in [("1.5s", 1_500), ("0.25s", 250), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(ms), "{text}");
        }
        for text in
            ["", "1", "1.s", ".5s", "1.2345s", "1.5m", "-1s", "1..2s", "1 s", "99999999999999999999.1s"]
        {
            assert_eq!(parse(text), Err(RULE), "{text}");
        }
    }
}
