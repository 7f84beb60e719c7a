//! Which requests a route takes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::path::{Path, PathPattern, Template, parse_exact, parse_prefix};
use crate::pattern::Pattern;
use crate::route::{Condition, Match};
use crate::spot::{Fields, Notes, Spot, Wanted};
use crate::tree::Value;

/// Reads `{path: /orders, methods: [GET], hosts: [api.example]}` and all else that a match may say.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>) -> Option<Match> {
    let known = ["path", "methods", "hosts", "headers", "query", "cookies", "sources", "claims"];
    let mut fields = spot.fields(notes, &known)?;
    let path = fields.required(notes, "path").and_then(|spot| read_path(notes, &spot));
    let methods = list(notes, &mut fields, "methods", "method", parse_method);
    let hosts = list(notes, &mut fields, "hosts", "host", parse_host);
    let headers = conditions(notes, &mut fields, "headers", "header", parse_condition_name);
    let query = conditions(notes, &mut fields, "query", "parameter", parse_parameter_name);
    let cookies = conditions(notes, &mut fields, "cookies", "cookie", parse_cookie_name);
    let sources = list(notes, &mut fields, "sources", "network", parse_source);
    let claims = fields.optional("claims").map(|spot| read_claims(notes, &spot)).unwrap_or_default();
    Some(Match { path: path?, methods, hosts, headers, query, cookies, sources, claims })
}

fn list<T: PartialEq>(
    notes: &mut Notes,
    fields: &mut Fields<'_>,
    key: &str,
    what: &str,
    parse: fn(&str) -> Result<T, Wanted>,
) -> Vec<T> {
    let Some(spot) = fields.optional(key) else { return Vec::new() };
    if matches!(spot.value(), Value::List(list) if list.is_empty()) {
        spot.wrong(notes, format!("at least one {what}")).help = Some(format!("leave `{key}` out for all"));
    }
    spot.texts(notes, Match::ALTERNATIVES_MAX, parse)
}

/// Reads `/orders`, or one of `{exact: …}`, `{prefix: …}`, `{template: …}`, `{regex: …}`.
fn read_path(notes: &mut Notes, spot: &Spot<'_>) -> Option<Path> {
    if !matches!(spot.value(), Value::Map(_)) {
        return spot.parse(notes, parse_prefix).map(Path::Prefix);
    }
    let mut fields = spot.fields(notes, &["exact", "prefix", "template", "regex"])?;
    let kinds = ["exact", "prefix", "template", "regex"];
    let given: Vec<_> = kinds.iter().filter_map(|kind| Some((*kind, fields.optional(kind)?))).collect();
    let [(kind, value)] = given.as_slice() else {
        spot.wrong(notes, "exactly one of `exact`, `prefix`, `template`, `regex`");
        return None;
    };
    match *kind {
        "exact" => value.parse(notes, parse_exact).map(Path::Exact),
        "prefix" => value.parse(notes, parse_prefix).map(Path::Prefix),
        "template" => value.parse(notes, Template::parse).map(Path::Template),
        _ => value.parse(notes, PathPattern::parse).map(Path::Regex),
    }
}

/// Reads a map of names to conditions. A condition that is wrong is noted and left out.
fn conditions(
    notes: &mut Notes,
    fields: &mut Fields<'_>,
    key: &str,
    what: &str,
    name: fn(&str) -> Result<String, Wanted>,
) -> BTreeMap<String, Condition> {
    let Some(spot) = fields.optional(key) else { return BTreeMap::new() };
    if matches!(spot.value(), Value::Map(entries) if entries.is_empty()) {
        spot.wrong(notes, format!("at least one {what}")).help = Some(format!("leave `{key}` out for all"));
    }
    let read = |notes: &mut Notes, spot: &Spot<'_>, _: &String| read_condition(notes, spot);
    let named = spot.named(notes, Match::CONDITIONS_MAX, name, read);
    named.into_iter().filter_map(|(name, condition)| Some((name, condition?))).collect()
}

/// Reads `text`, `{regex: …}` or `{present: …}`.
fn read_condition(notes: &mut Notes, spot: &Spot<'_>) -> Option<Condition> {
    match spot.value() {
        Value::Map(_) => {
            let mut fields = spot.fields(notes, &["regex", "present"])?;
            match (fields.optional("regex"), fields.optional("present")) {
                (Some(spot), None) => spot.parse(notes, Pattern::parse).map(Condition::Regex),
                (None, Some(spot)) => spot.boolean(notes).map(Condition::Present),
                _ => {
                    spot.wrong(notes, "exactly one of `regex`, `present`");
                    None
                }
            }
        }
        Value::Text(_) => spot.parse(notes, parse_text).map(Condition::Equal),
        other => {
            let quotable = matches!(other, Value::Bool(_) | Value::Integer(_) | Value::Float(_));
            let help = quotable.then(|| "put it in quotes if it is meant as a text".to_owned());
            spot.wrong(notes, "a text, `{regex: …}` or `{present: …}`").help = help;
            None
        }
    }
}

/// Reads `{plan: gold, region: [eu, us]}`.
fn read_claims(notes: &mut Notes, spot: &Spot<'_>) -> BTreeMap<String, Vec<String>> {
    if matches!(spot.value(), Value::Map(entries) if entries.is_empty()) {
        spot.wrong(notes, "at least one claim").help = Some("leave `claims` out for all".to_owned());
    }
    let read = |notes: &mut Notes, spot: &Spot<'_>, _: &String| {
        if matches!(spot.value(), Value::List(list) if list.is_empty()) {
            spot.wrong(notes, "at least one text");
        }
        spot.texts(notes, Match::ALTERNATIVES_MAX, parse_text)
    };
    spot.named(notes, Match::CONDITIONS_MAX, parse_claim_name, read)
}

pub(super) fn parse_claim_name(name: &str) -> Result<String, Wanted> {
    let max = Match::CLAIM_BYTES_MAX;
    if (1..=max).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(name.to_owned());
    }
    Err(format!("the name of a claim: 1 to {max} bytes without control characters").as_str().into())
}

fn parse_text(text: &str) -> Result<String, Wanted> {
    if text.trim() != text {
        let help = "`regex` finds white space".to_owned();
        return Err(Wanted { help: Some(help), ..Wanted::from("a text without white space at its ends") });
    }
    if text.len() > Condition::TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let max = Condition::TEXT_BYTES_MAX;
        return Err(format!(
            "a text of at most {max} bytes without control characters; `regex` finds others"
        )
        .as_str()
        .into());
    }
    Ok(text.to_owned())
}

/// RFC 9110 section 5.6.2: a token.
fn is_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=256).contains(&text.len()) && text.bytes().all(plain)
}

pub(super) fn parse_header_name(name: &str) -> Result<String, Wanted> {
    let lower = name.to_ascii_lowercase();
    if is_token(name) && name == lower {
        return Ok(lower);
    }
    let help = is_token(name).then(|| format!("write {lower}"));
    Err(Wanted { help, ..Wanted::from("the name of a header in lower case, such as x-version") })
}

/// The host is what `hosts` compares, whichever way the request says it.
fn parse_condition_name(name: &str) -> Result<String, Wanted> {
    if name.eq_ignore_ascii_case("host") {
        let help = Some("write `hosts`".to_owned());
        return Err(Wanted { help, ..Wanted::from("the name of a header that is not the host's") });
    }
    parse_header_name(name)
}

fn parse_parameter_name(name: &str) -> Result<String, Wanted> {
    if (1..=256).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(name.to_owned());
    }
    Err("the name of a query parameter: 1 to 256 bytes without control characters".into())
}

pub(super) fn parse_cookie_name(name: &str) -> Result<String, Wanted> {
    if is_token(name) { Ok(name.to_owned()) } else { Err("the name of a cookie, such as session".into()) }
}

fn parse_method(method: &str) -> Result<String, Wanted> {
    let wanted = "a method in capitals, such as GET";
    if (1..=32).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Ok(method.to_owned());
    }
    let lower = !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic());
    Err(Wanted { help: lower.then(|| format!("write {}", method.to_ascii_uppercase())), ..wanted.into() })
}

pub(super) fn parse_host(host: &str) -> Result<String, Wanted> {
    let wanted = "a host in lower case without a port, such as api.example";
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = address.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
    let below = host.strip_prefix("*.").filter(|rest| !rest.starts_with('.'));
    let base = below.unwrap_or(host);
    let name = !base.is_empty() && host.len() <= 253 && base.bytes().all(plain) && !host.ends_with('.');
    if address || name {
        return Ok(host.to_owned());
    }
    let help = match host {
        "*" | "*." => Some("leave `hosts` out for all"),
        _ if host.contains('*') => Some("`*.` stands first, for one or more labels: *.example.com"),
        _ => None,
    };
    Err(Wanted { help: help.map(str::to_owned), ..wanted.into() })
}

pub(super) fn parse_source(text: &str) -> Result<IpNet, Wanted> {
    let error = |help: Option<String>| Wanted { help, ..Wanted::from("a network such as 10.0.0.0/8") };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(error(Some(format!("write {}", IpNet::from(address)))));
    }
    let net: IpNet = text.parse().map_err(|_| error(None))?;
    if net.addr() != net.network() {
        return Err(error(Some(format!("write {}, or {}", net.trunc(), IpNet::from(net.addr())))));
    }
    match net.network() {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() && net.prefix_len() >= 96 => Err(error(
            Some("write the IPv4 network; connections of both kinds are compared with it".to_owned()),
        )),
        _ => Ok(net),
    }
}
