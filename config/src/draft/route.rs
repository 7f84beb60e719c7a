//! Routes.

use std::time::Duration;

use super::RouteDraft;
use super::action;
use super::identity::text;
use super::lifecycle;
use super::matching;
use crate::flag::FlagName;
use crate::ids::{IssuerName, QuotaName, RouteName};
use crate::quota::Limit;
use crate::route::{Access, Charge, Route};
use crate::spot::{Notes, Spot, Wanted};
use crate::tree::Value;
use crate::upstream::Upstream;

/// Reads one route. What is wrong is noted and left out, so that the rest can still be checked.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>) -> RouteDraft {
    let known = [
        "name",
        "match",
        "priority",
        "upstream",
        "redirect",
        "respond",
        "split",
        "partition",
        "access",
        "quotas",
        "timeout",
        "strip_prefix",
        "rewrite",
        "upgrades",
        "headers",
        "mirror",
        "lifecycle",
        "flags",
    ];
    let Some(mut fields) = spot.fields(notes, &known) else { return RouteDraft::default() };
    let name = fields.required(notes, "name").and_then(|spot| spot.parse(notes, RouteName::parse));
    let matches = fields.required(notes, "match").and_then(|spot| matching::read(notes, &spot));
    let priority = fields.or(notes, "priority", 0, |notes, spot| spot.signed(notes, Route::PRIORITIES));
    let action = action::read(notes, &mut fields);
    let access = fields.required(notes, "access").and_then(|spot| read_access(notes, &spot));
    let charges = fields.optional("quotas").map(|spot| read_charges(notes, &spot)).unwrap_or_default();
    let timeout = fields.optional("timeout").and_then(|spot| spot.duration(notes, Upstream::TIMEOUTS));
    let strip_prefix = fields.or(notes, "strip_prefix", false, |notes, spot| spot.boolean(notes));
    let rewrite = fields.optional("rewrite").and_then(|spot| action::read_rewrite(notes, &spot));
    let upgrades = fields
        .optional("upgrades")
        .map(|spot| spot.texts(notes, Route::UPGRADES_MAX, parse_protocol))
        .unwrap_or_default();
    let headers =
        fields.optional("headers").map(|spot| action::read_headers(notes, &spot)).unwrap_or_default();
    let mirror = fields.optional("mirror").and_then(|spot| action::read_mirror(notes, &spot));
    let lifecycle = fields.optional("lifecycle").and_then(|spot| lifecycle::read(notes, &spot));
    let flags = fields.optional("flags");
    let flags = flags.map(|spot| spot.texts(notes, Route::FLAGS_MAX, FlagName::parse)).unwrap_or_default();
    RouteDraft {
        name,
        matches,
        priority,
        action,
        access,
        charges,
        timeout,
        strip_prefix,
        rewrite,
        upgrades,
        headers,
        mirror,
        lifecycle,
        flags,
    }
}

/// Reads `public`, or `{issuers: [main], scopes: ["orders:read"], serve_stale_for: 10m}`.
fn read_access(notes: &mut Notes, spot: &Spot<'_>) -> Option<Access> {
    if !matches!(spot.value(), Value::Map(_)) {
        return spot.parse(notes, |text| match text {
            "public" => Ok(Access::Public),
            _ => Err(Wanted::from("`public`, or `{issuers: [...], scopes: [...]}`")),
        });
    }
    let mut fields = spot.fields(notes, &["issuers", "scopes", "serve_stale_for"])?;
    let issuers = fields.required(notes, "issuers").map(|spot| {
        if matches!(spot.value(), Value::List(list) if list.is_empty()) {
            spot.wrong(notes, "at least one issuer").help =
                Some("write `access: public` for a route of anyone".into());
        }
        spot.texts(notes, 64, IssuerName::parse)
    });
    let scopes = fields.optional("scopes").map(|spot| spot.texts(notes, 64, parse_scope)).unwrap_or_default();
    let serve_stale_for = fields.or(notes, "serve_stale_for", Duration::ZERO, |notes, spot| {
        spot.duration(notes, Duration::ZERO..=Access::SERVE_STALE_MAX)
    });
    Some(Access::Token { issuers: issuers?, scopes, serve_stale_for })
}

/// RFC 6749 section 3.3: a scope is visible ASCII without `"` and `\`.
fn parse_scope(scope: &str) -> Result<String, Wanted> {
    let plain = scope.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
    if plain { text(scope) } else { Err("one scope of visible ASCII".into()) }
}

/// RFC 9110 section 7.8: a name, and a version perhaps. What comes after an upgrade is not looked at, so it must not be
/// requests.
pub(crate) fn parse_protocol(text: &str) -> Result<String, Wanted> {
    const SIGNS: &str = "!#$%&'*+-.^_`|~";
    let token =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || SIGNS.contains(c));
    let lower = text.to_ascii_lowercase();
    let (name, version) = lower.split_once('/').unwrap_or((&lower, "1"));
    if matches!(name, "h2" | "h2c" | "http" | "tls") {
        let help = Some("requests inside it would pass without token and quota".to_owned());
        return Err(Wanted {
            help,
            ..Wanted::from("a protocol that carries no HTTP requests, such as websocket")
        });
    }
    if lower.len() <= 64 && token(name) && token(version) {
        Ok(lower)
    } else {
        Err("a protocol, such as websocket".into())
    }
}

/// Reads `[per-tenant, {quota: hourly, cost: 2}]`.
fn read_charges(notes: &mut Notes, spot: &Spot<'_>) -> Vec<Option<Charge>> {
    let items = spot.items(notes, Route::CHARGES_MAX);
    items.iter().map(|spot| read_charge(notes, spot)).collect()
}

fn read_charge(notes: &mut Notes, spot: &Spot<'_>) -> Option<Charge> {
    if !matches!(spot.value(), Value::Map(_)) {
        return spot.parse(notes, QuotaName::parse).map(|quota| Charge { quota, cost: 1 });
    }
    let mut fields = spot.fields(notes, &["quota", "cost"])?;
    let quota = fields.required(notes, "quota").and_then(|spot| spot.parse(notes, QuotaName::parse));
    let cost = fields.or(notes, "cost", 1, |notes, spot| spot.integer(notes, 1..=Limit::COST_MAX));
    Some(Charge { quota: quota?, cost })
}
