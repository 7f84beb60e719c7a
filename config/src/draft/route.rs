//! Routes.

use std::time::Duration;

use super::RouteDraft;
use super::identity::text;
use crate::ids::{IssuerName, QuotaName, RouteName, UpstreamName};
use crate::quota::Limit;
use crate::route::{Access, Charge, Match, Route};
use crate::spot::{Notes, Spot, Wanted};
use crate::tree::Value;
use crate::upstream::Upstream;

/// Reads one route. What is wrong is noted and left out, so that the rest can still be checked.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>) -> RouteDraft {
    let known = ["name", "match", "upstream", "access", "quotas", "timeout", "strip_prefix"];
    let Some(mut fields) = spot.fields(notes, &known) else { return RouteDraft::default() };
    let name = fields.required(notes, "name").and_then(|spot| spot.parse(notes, RouteName::parse));
    let matches = fields.required(notes, "match").and_then(|spot| read_match(notes, &spot));
    let upstream = fields.required(notes, "upstream").and_then(|spot| spot.parse(notes, UpstreamName::parse));
    let access = fields.required(notes, "access").and_then(|spot| read_access(notes, &spot));
    let charges = fields.optional("quotas").map(|spot| read_charges(notes, &spot)).unwrap_or_default();
    let timeouts = Duration::from_millis(1)..=Upstream::TIMEOUT_MAX;
    let timeout = fields.optional("timeout").and_then(|spot| spot.duration(notes, timeouts));
    let strip_prefix = fields.or(notes, "strip_prefix", false, |notes, spot| spot.boolean(notes));
    RouteDraft { name, matches, upstream, access, charges, timeout, strip_prefix }
}

/// Reads `{path: /orders, methods: [GET], hosts: [api.example]}`.
fn read_match(notes: &mut Notes, spot: &Spot<'_>) -> Option<Match> {
    let mut fields = spot.fields(notes, &["path", "methods", "hosts"])?;
    let path = fields.required(notes, "path").and_then(|spot| spot.parse(notes, parse_path));
    let mut list = |notes: &mut Notes, key, what, parse: fn(&str) -> Result<String, Wanted>| {
        let Some(spot) = fields.optional(key) else { return Vec::new() };
        if matches!(spot.value(), Value::List(list) if list.is_empty()) {
            spot.wrong(notes, format!("at least one {what}")).help =
                Some(format!("leave `{key}` out for all"));
        }
        spot.texts(notes, Match::ALTERNATIVES_MAX, parse)
    };
    let methods = list(notes, "methods", "method", parse_method);
    let hosts = list(notes, "hosts", "host", parse_host);
    Some(Match { path: path?, methods, hosts })
}

fn parse_path(path: &str) -> Result<String, Wanted> {
    let wanted = "a path such as /orders: visible ASCII without `?`, `#`, `%`, `\\`, empty or dot segments";
    let error = |help: Option<&str>| Wanted { help: help.map(str::to_owned), ..wanted.into() };
    let Some(rest) = path.strip_prefix('/') else { return Err(error(Some("begin it with `/`"))) };
    if rest.is_empty() {
        return Ok(path.to_owned());
    }
    if rest.ends_with('/') {
        return Err(error(Some(
            "leave the last `/` out; a path takes everything below it by whole segments",
        )));
    }
    if rest.contains('*') {
        return Err(error(Some("leave the `*` out; a path takes everything below it by whole segments")));
    }
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'\\');
    let segments = rest.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if segments && path.len() <= 1024 && rest.bytes().all(plain) {
        Ok(path.to_owned())
    } else {
        Err(error(None))
    }
}

fn parse_method(method: &str) -> Result<String, Wanted> {
    let wanted = "a method in capitals, such as GET";
    if (1..=32).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Ok(method.to_owned());
    }
    let lower = !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic());
    Err(Wanted { help: lower.then(|| format!("write {}", method.to_ascii_uppercase())), ..wanted.into() })
}

fn parse_host(host: &str) -> Result<String, Wanted> {
    let wanted = "a host in lower case without a port, such as api.example";
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = address.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    let name = (1..=253).contains(&host.len()) && host.bytes().all(plain) && !host.ends_with('.');
    if address || name { Ok(host.to_owned()) } else { Err(wanted.into()) }
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
