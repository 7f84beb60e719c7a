//! Where a route's version stands in its life.

use crate::ids::VersionName;
use crate::lifecycle::Lifecycle;
use crate::spot::{Notes, Spot, Wanted};
use crate::units::UnixS;

/// Reads `{version: v1, deprecated: 2026-01-01, sunset: 2026-12-31T00:00:00Z, info: "https://…", successor: "https://…"}`.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>) -> Option<Lifecycle> {
    let mut fields = spot.fields(notes, &["version", "deprecated", "sunset", "info", "successor"])?;
    let version = fields.required(notes, "version").and_then(|spot| spot.parse(notes, VersionName::parse));
    let (deprecated_spot, sunset_spot) = (fields.optional("deprecated"), fields.optional("sunset"));
    let deprecated = deprecated_spot.as_ref().and_then(|spot| spot.parse(notes, UnixS::parse));
    let sunset = sunset_spot.as_ref().and_then(|spot| spot.parse(notes, UnixS::parse));
    if let (Some(spot), Some(deprecated), Some(sunset)) = (&sunset_spot, deprecated, sunset)
        && sunset < deprecated
    {
        spot.wrong(notes, "an instant that is not before `deprecated`");
    }
    let info = fields.optional("info");
    if let (Some(spot), None, None) = (&info, &deprecated_spot, &sunset_spot) {
        let wanted = "`deprecated` or `sunset` beside it";
        spot.wrong_key(notes, "information about the end of what has none".to_owned(), wanted);
    }
    let info = info.and_then(|spot| spot.parse(notes, parse_address));
    let successor = fields.optional("successor").and_then(|spot| spot.parse(notes, parse_address));
    Some(Lifecycle { version: version?, deprecated, sunset, info, successor })
}

/// An address that can stand in a `Link` field as it is.
fn parse_address(text: &str) -> Result<String, Wanted> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'\\'));
    if plain && rest.is_some_and(|rest| !rest.is_empty()) && text.len() <= Lifecycle::ADDRESS_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err("an address such as https://api.example/v2".into())
}
