//! What becomes of a route's requests.

use std::collections::{BTreeMap, BTreeSet};

use super::matching::{parse_claim_name, parse_cookie_name, parse_header_name, parse_host};
use crate::action::{
    Action, Branch, ChosenBy, Edits, Headers, Mirror, NewPath, Partition, PartitionBy, Redirect, Respond,
    Rewrite, Scheme, Split, SplitBy,
};
use crate::ids::UpstreamName;
use crate::path::{Template, parse_exact, parse_prefix};
use crate::spot::{Fields, Notes, Spot, Wanted};
use crate::tree::{Value, quote};
use crate::units::Part;
use crate::upstream::Upstream;

const KINDS: [&str; 5] = ["upstream", "redirect", "respond", "split", "partition"];
const ONE_KIND: &str = "exactly one of `upstream`, `redirect`, `respond`, `split`, `partition`";

/// Reads the one of a route's keys that says what becomes of its requests.
pub(super) fn read(notes: &mut Notes, fields: &mut Fields<'_>) -> Option<Action> {
    let given: Vec<_> = KINDS.into_iter().filter_map(|kind| Some((kind, fields.optional(kind)?))).collect();
    let Some((first, _)) = given.first() else {
        fields.spot.wrong(notes, ONE_KIND).found = "none of them".to_owned();
        return None;
    };
    for (kind, spot) in &given[1..] {
        spot.wrong_key(notes, format!("`{kind}` beside `{first}`"), ONE_KIND);
    }
    let read = |notes: &mut Notes, kind: &str, spot: &Spot<'_>| match kind {
        "upstream" => spot.parse(notes, UpstreamName::parse).map(Action::Upstream),
        "redirect" => read_redirect(notes, spot).map(Action::Redirect),
        "respond" => read_respond(notes, spot).map(Action::Respond),
        "split" => read_split(notes, spot).map(Action::Split),
        _ => read_partition(notes, spot).map(Action::Partition),
    };
    let all: Vec<_> = given.iter().map(|(kind, spot)| read(notes, kind, spot)).collect();
    all.into_iter().next().flatten()
}

/// Reads `{status: 308, scheme: https, host: other.example, port: 443, path: /new}`.
fn read_redirect(notes: &mut Notes, spot: &Spot<'_>) -> Option<Redirect> {
    let known = ["status", "scheme", "host", "port", "path", "prefix", "template"];
    let mut fields = spot.fields(notes, &known)?;
    let status = fields.required(notes, "status").and_then(|spot| read_status(notes, &spot));
    let scheme = fields.optional("scheme");
    let host = fields.optional("host");
    let port = fields.optional("port");
    let (some_path, path) = read_path(notes, &mut fields);
    if scheme.is_none() && host.is_none() && port.is_none() && !some_path {
        let wanted = "at least one of `scheme`, `host`, `port`, `path`, `prefix`, `template`";
        spot.wrong(notes, wanted).found = "none of them".to_owned();
    }
    let schemes = [("http", Scheme::Http), ("https", Scheme::Https)];
    let scheme = scheme.and_then(|spot| spot.word(notes, &schemes));
    let host = host.and_then(|spot| spot.parse(notes, parse_one_host));
    let port = port.and_then(|spot| spot.integer(notes, 1..=65_535));
    Some(Redirect { status: status?, scheme, host, port: port.and_then(|port| port.try_into().ok()), path })
}

fn read_status(notes: &mut Notes, spot: &Spot<'_>) -> Option<u16> {
    let known = match spot.value() {
        Value::Integer(number) => Redirect::STATUSES.into_iter().find(|it| i128::from(*it) == *number),
        _ => None,
    };
    if known.is_none() {
        spot.wrong(notes, "one of 301, 302, 303, 307, 308");
    }
    known
}

/// Reads at most one of `path: /new`, `prefix: /new`, `template: "/new/{name}"`. Whether there is one, and what it says.
fn read_path(notes: &mut Notes, fields: &mut Fields<'_>) -> (bool, Option<NewPath>) {
    let kinds = ["path", "prefix", "template"];
    let given: Vec<_> = kinds.into_iter().filter_map(|kind| Some((kind, fields.optional(kind)?))).collect();
    let Some((first, _)) = given.first() else { return (false, None) };
    for (kind, spot) in &given[1..] {
        let wanted = "at most one of `path`, `prefix`, `template`";
        spot.wrong_key(notes, format!("`{kind}` beside `{first}`"), wanted);
    }
    let read = |notes: &mut Notes, kind: &str, spot: &Spot<'_>| match kind {
        "path" => spot.parse(notes, parse_exact).map(NewPath::Path),
        "prefix" => spot.parse(notes, parse_prefix).map(NewPath::Prefix),
        _ => spot.parse(notes, Template::parse_new).map(NewPath::Template),
    };
    let all: Vec<_> = given.iter().map(|(kind, spot)| read(notes, kind, spot)).collect();
    (true, all.into_iter().next().flatten())
}

/// A host without a wildcard.
fn parse_one_host(text: &str) -> Result<String, Wanted> {
    let wanted = "a host in lower case without a port, such as api.example";
    if text.contains('*') { Err(wanted.into()) } else { parse_host(text) }
}

/// A host, and a port perhaps.
fn parse_host_field(text: &str) -> Result<String, Wanted> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|it| it.to_string() == port));
    match parse_one_host(host) {
        Ok(_) if good_port => Ok(text.to_owned()),
        _ => Err("a host in lower case, such as internal.example or internal.example:8080".into()),
    }
}

/// Reads `{status: 200, body: text, content_type: text/plain}`.
fn read_respond(notes: &mut Notes, spot: &Spot<'_>) -> Option<Respond> {
    let mut fields = spot.fields(notes, &["status", "body", "content_type"])?;
    let status = fields.required(notes, "status").and_then(|spot| {
        let (low, high) = Respond::STATUSES.into_inner();
        spot.integer(notes, u64::from(low)..=u64::from(high)).and_then(|status| u16::try_from(status).ok())
    });
    let body = fields.optional("body");
    if let (Some(status), Some(spot)) = (status.filter(|it| Respond::BODILESS.contains(it)), &body) {
        spot.wrong_key(notes, format!("a body with status {status}"), "none").help =
            Some("answers of status 204, 205 and 304 have no body".to_owned());
    }
    let content_type = fields.optional("content_type");
    if let (None, Some(spot)) = (&body, &content_type) {
        spot.wrong_key(notes, "a content type without a body".to_owned(), "a `body` beside it");
    }
    let body = body.and_then(|spot| spot.parse(notes, parse_body)).unwrap_or_default();
    let content_type = content_type.and_then(|spot| spot.parse(notes, parse_content_type));
    Some(Respond { status: status?, body, content_type })
}

fn parse_body(text: &str) -> Result<String, Wanted> {
    if text.len() <= Respond::BODY_BYTES_MAX && !text.is_empty() {
        return Ok(text.to_owned());
    }
    Err("a text of 1 B to 64 KiB".into())
}

fn parse_content_type(text: &str) -> Result<String, Wanted> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && text.trim() == text;
    let parts = text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
    if plain && parts && text.len() <= 256 {
        return Ok(text.to_owned());
    }
    Err("a media type, such as text/plain or application/json".into())
}

/// Reads `{by: tenant, branches: [{upstream: blue, weight: 95}, {upstream: green, weight: 5}]}`.
fn read_split(notes: &mut Notes, spot: &Spot<'_>) -> Option<Split> {
    let mut fields = spot.fields(notes, &["by", "branches", "override"])?;
    let words = [
        ("tenant", SplitBy::Tenant),
        ("client", SplitBy::Client),
        ("address", SplitBy::Address),
        ("request", SplitBy::Request),
    ];
    let by = fields.required(notes, "by").and_then(|spot| spot.word(notes, &words));
    let branches = fields.required(notes, "branches").and_then(|spot| read_branches(notes, &spot));
    let chosen_by = fields.optional("override").and_then(|spot| read_chosen_by(notes, &spot));
    Some(Split { by: by?, branches: branches?, chosen_by })
}

fn read_branches(notes: &mut Notes, spot: &Spot<'_>) -> Option<Vec<Branch>> {
    let (least, most) = Split::BRANCHES.into_inner();
    let items = spot.items(notes, most);
    if matches!(spot.value(), Value::List(list) if list.len() < least) {
        spot.wrong(notes, format!("{least} to {most} branches")).found = format!("{} of them", items.len());
    }
    let mut seen = BTreeSet::new();
    let mut branches = Vec::new();
    for item in items {
        let Some(mut fields) = item.fields(notes, &["upstream", "weight"]) else { continue };
        let upstream = fields.required(notes, "upstream").and_then(|spot| {
            let name = spot.parse(notes, UpstreamName::parse)?;
            if !seen.insert(name.clone()) {
                spot.wrong(notes, "an upstream of its own").found = format!("{} again", quote(name.as_str()));
            }
            Some(name)
        });
        let weights = 0..=u64::from(Branch::WEIGHT_MAX);
        let weight = fields.required(notes, "weight").and_then(|spot| spot.integer(notes, weights));
        if let (Some(upstream), Some(weight)) = (upstream, weight.and_then(|it| u32::try_from(it).ok())) {
            branches.push(Branch { upstream, weight });
        }
    }
    if branches.len() >= least && branches.iter().all(|branch| branch.weight == 0) {
        spot.wrong(notes, "at least one weight above 0").found = "weights of 0 alone".to_owned();
    }
    (!branches.is_empty()).then_some(branches)
}

fn read_chosen_by(notes: &mut Notes, spot: &Spot<'_>) -> Option<ChosenBy> {
    let mut fields = spot.fields(notes, &["header", "cookie"])?;
    match (fields.optional("header"), fields.optional("cookie")) {
        (Some(spot), None) => spot.parse(notes, parse_header_name).map(ChosenBy::Header),
        (None, Some(spot)) => spot.parse(notes, parse_cookie_name).map(ChosenBy::Cookie),
        _ => {
            spot.wrong(notes, "exactly one of `header`, `cookie`");
            None
        }
    }
}

/// Reads `{by: {claim: region}, upstreams: {eu: upstream-eu, us: upstream-us}, otherwise: upstream-us}`.
fn read_partition(notes: &mut Notes, spot: &Spot<'_>) -> Option<Partition> {
    let mut fields = spot.fields(notes, &["by", "upstreams", "otherwise"])?;
    let by = fields.required(notes, "by").and_then(|spot| read_partition_by(notes, &spot));
    let upstreams = fields.required(notes, "upstreams").map(|spot| {
        if matches!(spot.value(), Value::Map(entries) if entries.is_empty()) {
            spot.wrong(notes, "at least one part");
        }
        let read = |notes: &mut Notes, spot: &Spot<'_>, _: &String| spot.parse(notes, UpstreamName::parse);
        let named = spot.named(notes, Partition::PARTS_MAX, parse_part, read);
        named.into_iter().filter_map(|(part, upstream)| Some((part, upstream?))).collect()
    });
    let otherwise = fields.optional("otherwise").and_then(|spot| spot.parse(notes, UpstreamName::parse));
    Some(Partition { by: by?, upstreams: upstreams?, otherwise })
}

/// Reads `tenant`, `{claim: region}` or `{header: x-region}`.
fn read_partition_by(notes: &mut Notes, spot: &Spot<'_>) -> Option<PartitionBy> {
    let wanted = "`tenant`, `{claim: …}` or `{header: …}`";
    if !matches!(spot.value(), Value::Map(_)) {
        return spot.parse(notes, |text| match text {
            "tenant" => Ok(PartitionBy::Tenant),
            _ => Err(Wanted::from(wanted)),
        });
    }
    let mut fields = spot.fields(notes, &["claim", "header"])?;
    match (fields.optional("claim"), fields.optional("header")) {
        (Some(spot), None) => spot.parse(notes, parse_claim_name).map(PartitionBy::Claim),
        (None, Some(spot)) => spot.parse(notes, parse_header_name).map(PartitionBy::Header),
        _ => {
            spot.wrong(notes, "exactly one of `claim`, `header`");
            None
        }
    }
}

fn parse_part(text: &str) -> Result<String, Wanted> {
    let max = Partition::PART_BYTES_MAX;
    let plain = !text.chars().any(char::is_control) && text.trim() == text;
    if plain && (1..=max).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    let wanted = format!("1 to {max} bytes without control characters and without white space at the ends");
    Err(wanted.as_str().into())
}

/// Reads `{prefix: /new, host: internal.example}`.
pub(super) fn read_rewrite(notes: &mut Notes, spot: &Spot<'_>) -> Option<Rewrite> {
    let mut fields = spot.fields(notes, &["path", "prefix", "template", "host"])?;
    let (some_path, path) = read_path(notes, &mut fields);
    let host = fields.optional("host");
    if host.is_none() && !some_path {
        let wanted = "at least one of `path`, `prefix`, `template`, `host`";
        spot.wrong(notes, wanted).found = "none of them".to_owned();
    }
    let host = host.and_then(|spot| spot.parse(notes, parse_host_field));
    Some(Rewrite { path, host })
}

/// Reads `{upstream: shadow, share: 10%, body_bytes_max: 64KiB, timeout: 5s}`.
pub(super) fn read_mirror(notes: &mut Notes, spot: &Spot<'_>) -> Option<Mirror> {
    let mut fields = spot.fields(notes, &["upstream", "share", "body_bytes_max", "timeout"])?;
    let upstream = fields.required(notes, "upstream").and_then(|spot| spot.parse(notes, UpstreamName::parse));
    let share = fields.required(notes, "share").and_then(|spot| spot.parse(notes, Part::parse));
    let body_bytes_max = fields.or(notes, "body_bytes_max", Mirror::BODY_BYTES_DEFAULT, |notes, spot| {
        spot.size(notes, 0..=Mirror::BODY_BYTES_MAX)
    });
    let timeout = fields.or(notes, "timeout", Mirror::TIMEOUT_DEFAULT, |notes, spot| {
        spot.duration(notes, Upstream::TIMEOUTS)
    });
    Some(Mirror { upstream: upstream?, share: share?, body_bytes_max, timeout })
}

/// Reads `{request: {set: {x-a: "1"}, add: {x-b: "2"}, remove: [x-c]}, response: {…}}`.
pub(super) fn read_headers(notes: &mut Notes, spot: &Spot<'_>) -> Headers {
    let Some(mut fields) = spot.fields(notes, &["request", "response"]) else { return Headers::default() };
    let request = fields.optional("request").map(|spot| read_edits(notes, &spot)).unwrap_or_default();
    let response = fields.optional("response").map(|spot| read_edits(notes, &spot)).unwrap_or_default();
    Headers { request, response }
}

fn read_edits(notes: &mut Notes, spot: &Spot<'_>) -> Edits {
    let Some(mut fields) = spot.fields(notes, &["set", "add", "remove"]) else { return Edits::default() };
    let remove = fields.optional("remove");
    let remove = remove.map(|spot| spot.texts(notes, Edits::LEN_MAX, parse_removed)).unwrap_or_default();
    let mut values = |key: &str| -> BTreeMap<String, String> {
        let Some(spot) = fields.optional(key) else { return BTreeMap::new() };
        let read = |notes: &mut Notes, spot: &Spot<'_>, _: &String| spot.parse(notes, parse_field_value);
        let named = spot.named(notes, Edits::LEN_MAX, parse_set, read);
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    };
    Edits { remove, set: values("set"), add: values("add") }
}

fn parse_removed(name: &str) -> Result<String, Wanted> {
    let name = parse_header_name(name)?;
    if Edits::may_remove(&name) {
        return Ok(name);
    }
    Err("a field that is not the connection's, the framing's or the gateway's own".into())
}

fn parse_set(name: &str) -> Result<String, Wanted> {
    let name = parse_removed(name)?;
    if Edits::may_set(&name) {
        return Ok(name);
    }
    let help = Some("it may be removed".to_owned());
    Err(Wanted { help, ..Wanted::from("a field that is no credential") })
}

fn parse_field_value(text: &str) -> Result<String, Wanted> {
    let plain = !text.chars().any(|it| it.is_control() && it != '\t') && text.trim() == text;
    if plain && text.len() <= Edits::VALUE_BYTES_MAX {
        return Ok(text.to_owned());
    }
    let max = Edits::VALUE_BYTES_MAX;
    let wanted = format!(
        "a text of at most {max} bytes without control characters and without white space at its ends"
    );
    Err(wanted.as_str().into())
}
