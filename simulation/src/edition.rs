//! One edition of the gateway document: as its author wrote it, and adopted by the simulator, where its upstreams are
//! hosts and its issuers sign with a secret that callers have.
//!
//! Adopted are endpoints (one host for each upstream, one port for each of its endpoints) and issuers: their names, `iss`
//! and audiences stay; keys, claims and bounds on lifetimes are those of the tokens that callers mint. All else is as it
//! was written: routes, access, scopes, quotas, plans, tenants, timeouts.
//!
//! Which route takes a request, the product's own table says. Callers ask without a query and without cookies, from
//! addresses of 127.0.0.0/8, with the fields that [`CALLERS_FIELDS`] names and no others; for a route that wants more, or
//! that reaches no upstream, no caller can be made, and a document that asks after what differs from caller to caller is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use config::action::{Action, Partition};
use config::gateway::GatewayDocument;
use config::identity::{Algorithm, Issuer, Key, KeyMaterial, SecretSource};
use config::ids::{QuotaName, TenantId};
use config::mistake::{Checked, Mistake, Severity, render};
use config::path::{Path, Segment};
use config::quota::{Limit, Quota};
use config::route::{Access, Condition, Route};
use config::spot::{Wanted, nearest};
use config::upstream::Endpoint;
use http::HeaderMap;
use quorumgate::router::{Asked, Table};

use crate::host::HostNumber;
use crate::people::{NUMBER, SECRET_FILE, UPSTREAM_PORT};
use crate::scene::FIRST_UPSTREAM;

/// One edition.
#[derive(Clone, Debug)]
pub struct Edition {
    /// As its author wrote it.
    pub text: String,
    /// What it says.
    pub document: GatewayDocument,
    /// Of its routes, by their places in the document.
    table: Arc<Table<usize>>,
}

/// All that it says follows from its text.
impl PartialEq for Edition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Edition {}

/// A request that a route takes. The history has the route's name alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The route's name.
    pub route: String,
    /// In capitals.
    pub method: String,
    /// For the `Host` header.
    pub host: String,
    /// Without a query.
    pub path: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.route)
    }
}

impl Target {
    /// Whether sending it twice means the same as once. Source: RFC 9110 section 9.2.2.
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }
}

/// What a token must say to be good for a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Header.
    pub kid: String,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// All that the route wants.
    pub scopes: Vec<String>,
}

/// Tried when a route takes any: the first are what a reader expects, the others are unlikely to be another route's.
const HOSTS: [&str; 2] = ["api.example", "elsewhere.example"];
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"];
const LAST_SEGMENTS: std::ops::RangeInclusive<u8> = 1..=40;

/// Claims that callers' tokens have, and header fields that callers send, with values that differ or not at all: no
/// condition on them can be judged beforehand.
const CALLERS_CLAIMS: [&str; 7] = ["iss", "aud", "sub", "tenant", "scope", "iat", "exp"];
const CALLERS_FIELDS: [&str; 4] = ["host", "authorization", "content-length", NUMBER];

impl Edition {
    /// Reads an edition.
    ///
    /// - `name`: whose mistakes they are, as a reader finds it.
    ///
    /// # Errors
    /// All its mistakes, as a text.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let text = format!("{}\n", text.trim_end());
        match config::gateway::parse(&text) {
            Ok(Checked { value, .. }) => {
                let mistakes = judged_by_chance(&value);
                if !mistakes.is_empty() {
                    return Err(render(name, &text, &mistakes));
                }
                let routes = value.routes.iter().enumerate();
                let table = Arc::new(Table::new(routes.map(|(place, route)| (route, place))));
                Ok(Self { text, document: value, table })
            }
            Err(mistakes) => Err(render(name, &text, &mistakes)),
        }
    }

    /// What should be said about it though it may be used, as a text.
    pub fn warnings(&self, name: &str) -> String {
        let warnings = config::gateway::parse(&self.text).map(|checked| checked.warnings).unwrap_or_default();
        render(name, &self.text, &warnings)
    }

    /// A quota.
    pub fn quota(&self, name: &str) -> Option<&Quota> {
        self.document.quotas.iter().find(|quota| quota.name.as_str() == name)
    }

    /// What a quota allows a tenant: the tenant's own limit, else its plan's, else the quota's. None: no such quota.
    pub fn limit(&self, quota: &str, tenant: &str) -> Option<Limit> {
        let general = self.quota(quota)?;
        let name: &QuotaName = &general.name;
        let own = TenantId::parse(tenant).ok().and_then(|id| {
            let tenants = &self.document.tenants;
            let tenant = &tenants[tenants.binary_search_by(|it| it.id.cmp(&id)).ok()?];
            let plan = || {
                let plans = &self.document.plans;
                plans.iter().find(|plan| Some(&plan.name) == tenant.plan.as_ref())?.limits.get(name)
            };
            tenant.limits.get(name).or_else(plan).copied()
        });
        Some(own.unwrap_or(general.limit))
    }

    /// The route that takes a request.
    pub fn takes(&self, target: &Target) -> Option<&Route> {
        let asked = Asked {
            method: &target.method,
            host: &target.host,
            path: &target.path,
            query: None,
            headers: &HeaderMap::new(),
            address: IpAddr::from([127, 0, 0, 1]),
        };
        self.table.find(&asked, |_| false).ok().map(|place| &self.document.routes[*place])
    }

    /// A request that the route of this name takes, of `method` or the first that it takes. None: there is no such route.
    ///
    /// # Errors
    /// What would be right, if no request with that method can reach the route.
    pub fn target(&self, route: &str, method: Option<&str>) -> Option<Result<Target, Wanted>> {
        let held = self.document.routes.iter().find(|held| held.name.as_str() == route)?;
        let it = &held.matches;
        if let Some(why) = beyond_callers(held) {
            let wanted =
                format!("a route that callers can ask for; no caller can be made for this route: {why}");
            return Some(Err(Wanted { wanted, help: None }));
        }
        let (hosts, methods) = (strs(&it.hosts, &HOSTS), strs(&it.methods, &METHODS));
        let methods = method.map_or(methods.clone(), |method| vec![method]);
        let all = methods.iter().flat_map(|method| {
            let below = hosts
                .iter()
                .flat_map(move |host| LAST_SEGMENTS.map(move |last| (host, path(&it.path, last))));
            below.map(move |(host, path)| Target {
                route: route.to_owned(),
                method: (*method).to_owned(),
                // One label before the wildcard's.
                host: host.replacen('*', "any", 1),
                path,
            })
        });
        let found =
            all.into_iter().find(|target| self.takes(target).is_some_and(|taken| taken.name == held.name));
        Some(found.ok_or_else(|| {
            let others = if it.methods.is_empty() {
                "one that no other route takes".to_owned()
            } else {
                it.methods.join(", ")
            };
            Wanted { wanted: format!("a method of route {route}: {others}"), help: None }
        }))
    }

    /// What a token must say to be good for a route; for a public one, to be good elsewhere. None: there are no issuers.
    pub fn pass(&self, route: &Route) -> Option<Pass> {
        let (name, scopes) = match &route.access {
            Access::Token { issuers, scopes, .. } => (issuers.first(), scopes.clone()),
            Access::Public => (None, Vec::new()),
        };
        let issuers = &self.document.issuers;
        let issuer =
            name.map_or(issuers.first(), |name| issuers.iter().find(|issuer| issuer.name == *name))?;
        Some(Pass {
            kid: issuer.name.to_string(),
            issuer: issuer.issuer.clone(),
            audience: issuer.audiences.first()?.clone(),
            scopes,
        })
    }

    /// The document as the cluster gets it, in its canonical form.
    ///
    /// - `upstreams`: the names of all editions' upstreams, in the order of their hosts.
    pub fn adopted(&self, upstreams: &[String]) -> String {
        let mut document = self.document.clone();
        for upstream in &mut document.upstreams {
            // Simulated ones speak in the clear.
            upstream.tls = None;
            let index = upstreams.iter().position(|name| name == upstream.name.as_str());
            let host = upstream_host(index.expect("every edition's upstreams are among them"));
            for (number, endpoint) in (0..).zip(&mut upstream.endpoints) {
                *endpoint = Endpoint { host: format!("127.0.0.{host}"), port: UPSTREAM_PORT + number };
            }
        }
        for route in &mut document.routes {
            // A copy is no request of a caller's, and no version ends within a run.
            (route.mirror, route.lifecycle) = (None, None);
        }
        for issuer in &mut document.issuers {
            let source = SecretSource::File(SECRET_FILE.to_owned());
            let material = KeyMaterial::Secret { source, fingerprint: None };
            let kid = Some(issuer.name.to_string());
            *issuer = Issuer {
                audiences: issuer.audiences.clone(),
                keys: vec![Key { kid, algorithm: Algorithm::HS256, material }],
                ..Issuer::of(issuer.name.clone(), issuer.issuer.clone())
            };
        }
        document.to_canonical_json()
    }
}

/// A path that a route takes, with this segment where it takes several.
fn path(path: &Path, last: u8) -> String {
    match path {
        Path::Exact(text) => text.clone(),
        Path::Prefix(_) | Path::Regex(_) => format!("{}/{last}", path.text().trim_end_matches('/')),
        Path::Template(template) => {
            let segment = |segment| match segment {
                Segment::Literal(literal) => format!("/{literal}"),
                Segment::Capture(_) | Segment::Rest(_) => format!("/{last}"),
            };
            template.segments().map(segment).collect()
        }
    }
}

/// What a route wants that callers do not send.
fn beyond_callers(route: &Route) -> Option<String> {
    let it = &route.matches;
    let wants = |what: &str, (name, condition): (&String, &Condition)| {
        (*condition != Condition::Present(false)).then(|| format!("it wants {what} {name}: {condition}"))
    };
    let mut headers = it.headers.iter().filter_map(|wanted| wants("the header", wanted));
    let mut query = it.query.iter().filter_map(|wanted| wants("the query parameter", wanted));
    let mut cookies = it.cookies.iter().filter_map(|wanted| wants("the cookie", wanted));
    let here = IpAddr::from([127, 0, 0, 1]);
    let unreached = route.upstreams().next().is_none();
    let unreached = unreached.then(|| format!("`{}` answers it, and no upstream", route.action.key()));
    let elsewhere = !it.sources.is_empty() && !it.sources.iter().any(|net| net.contains(&here));
    let pattern = matches!(it.path, Path::Regex(_)).then(|| "its path is a regular expression".to_owned());
    let address = elsewhere.then(|| "callers come from 127.0.0.0/8".to_owned());
    let claims = (!it.claims.is_empty()).then(|| "it wants claims of their tokens".to_owned());
    let parted = match &route.action {
        Action::Partition(Partition { otherwise: None, .. }) => {
            Some("it holds parts that callers may not name, and has no `otherwise`".to_owned())
        }
        _ => None,
    };
    let pattern = unreached.or(pattern).or(claims).or(parted);
    pattern.or_else(|| headers.next()).or_else(|| query.next()).or_else(|| cookies.next()).or(address)
}

/// Conditions that some callers meet and others do not, and changes of what tells requests apart.
fn judged_by_chance(document: &GatewayDocument) -> Vec<Mistake> {
    let mistake = |place: usize, key: String, found: String, wanted: &str| Mistake {
        severity: Severity::Error,
        line: 0,
        column: 0,
        path: format!("routes[{place}].{key}"),
        found,
        wanted: wanted.to_owned(),
        help: Some("the simulator must know beforehand which route a caller's requests take".to_owned()),
    };
    let mut mistakes = Vec::new();
    for (place, route) in document.routes.iter().enumerate() {
        for name in route.matches.headers.keys().filter(|name| CALLERS_FIELDS.contains(&name.as_str())) {
            let wanted = "a header that the simulator's callers do not send";
            mistakes.push(mistake(place, format!("match.headers.{name}"), format!("{name:?}"), wanted));
        }
        for name in route.matches.claims.keys().filter(|name| CALLERS_CLAIMS.contains(&name.as_str())) {
            let wanted = "a claim that tokens of the simulator's callers do not have";
            mistakes.push(mistake(place, format!("match.claims.{name}"), format!("{name:?}"), wanted));
        }
        for (key, edits) in [("request", &route.headers.request), ("response", &route.headers.response)] {
            let names = edits.remove.iter().chain(edits.set.keys()).chain(edits.add.keys());
            for name in names.filter(|name| *name == NUMBER) {
                let wanted = "no change of the field by which the simulator knows a request";
                mistakes.push(mistake(place, format!("headers.{key}"), format!("{name:?}"), wanted));
            }
        }
        for net in &route.matches.sources {
            if net.network().is_loopback() && net.network().is_ipv4() && net.prefix_len() > 8 {
                let wanted = "all of 127.0.0.0/8, where the simulator's callers are, or nothing of it";
                mistakes.push(mistake(place, "match.sources".to_owned(), net.to_string(), wanted));
            }
        }
    }
    mistakes
}

fn strs<'a>(given: &'a [String], others: &[&'a str]) -> Vec<&'a str> {
    if given.is_empty() { others.to_vec() } else { given.iter().map(String::as_str).collect() }
}

/// The host of the upstream with this place among all.
pub fn upstream_host(index: usize) -> HostNumber {
    FIRST_UPSTREAM + HostNumber::try_from(index).expect("as many upstreams as there are hosts for them")
}

/// The names of all editions' upstreams, sorted.
pub fn upstreams(editions: &[Edition]) -> Vec<String> {
    let names = editions.iter().flat_map(|edition| &edition.document.upstreams);
    names.map(|upstream| upstream.name.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The first edition that has a route of this name, and the route.
pub fn first_with<'e>(editions: &'e [Edition], route: &str) -> Option<(&'e Edition, &'e Route)> {
    editions.iter().find_map(|edition| {
        let found = edition.document.routes.iter().find(|held| held.name.as_str() == route)?;
        Some((edition, found))
    })
}

/// That a route's name is known: a parser for plans.
///
/// # Errors
/// The names that are.
pub fn known_route(editions: &[Edition], name: &str) -> Result<String, Wanted> {
    if first_with(editions, name).is_some() {
        return Ok(name.to_owned());
    }
    let routes = editions.iter().flat_map(|edition| &edition.document.routes);
    let names: BTreeSet<&str> = routes.map(|route| route.name.as_str()).collect();
    let few: Vec<&str> = names.iter().copied().take(12).collect();
    Err(Wanted {
        wanted: format!(
            "the name of a route: {}{}",
            few.join(", "),
            if names.len() > few.len() { ", …" } else { "" }
        ),
        help: nearest(name, names.iter().copied()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
upstreams:
  db: {endpoints: ["http://10.0.0.1:80", "http://10.0.0.2:80"]}
  web: {endpoints: ["http://web.internal:8080"]}
issuers:
  main:
    issuer: https://id.example
    audiences: [api]
    tenant_claim: org
    lifetime_max: 10m
    keys: [{kid: k1, algorithm: RS256, public_key: {file: main.pem}}]
quotas:
  per-tenant: {key: tenant, limit: 10/s}
plans:
  gold: {limits: {per-tenant: 100/s}}
tenants:
  acme: {plan: gold}
  globex: {plan: gold, limits: {per-tenant: 5/s}}
routes:
  - {name: all, match: {path: /}, upstream: web, access: public}
  - {name: one, match: {path: /1}, upstream: web, access: public}
  - {name: orders, match: {path: /orders}, upstream: db, access: {issuers: [main], scopes: [a, b]}, quotas: [per-tenant]}
  - {name: get-orders, match: {path: /orders, methods: [GET]}, upstream: web, access: {issuers: [main]}}
  - {name: other-host, match: {path: /, hosts: [b.example]}, upstream: db, access: public}
"#;

    fn edition() -> Edition {
        Edition::parse("text", TEXT).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn every_route_has_a_request_that_reaches_it() {
        let edition = edition();
        let target = |route: &str, method| edition.target(route, method).expect("there is one");
        for route in ["all", "one", "orders", "get-orders", "other-host"] {
            let found = target(route, None).unwrap_or_else(|wanted| panic!("{wanted:?}"));
            assert_eq!(edition.takes(&found).map(|taken| taken.name.as_str()), Some(route));
        }
        assert_eq!(target("all", None).map(|it| it.path), Ok("/2".to_owned()), "/1 is another route's");
        assert_eq!(
            target("orders", None).map(|it| it.method),
            Ok("POST".to_owned()),
            "GET is another route's"
        );
        assert!(target("orders", Some("GET")).is_err());
        assert!(target("get-orders", Some("POST")).is_err_and(|it| it.wanted.ends_with(": GET")));
        assert_eq!(edition.target("ordes", None), None);
        let editions = [edition.clone()];
        assert_eq!(
            known_route(&editions, "ordes").unwrap_err().help,
            Some("did you mean `orders`?".to_owned())
        );
    }

    #[test]
    fn routes_that_callers_cannot_reach_are_told_apart_from_those_that_they_can() {
        // given routes with all kinds of paths and conditions
        let route = |name: &str, rest: &str| {
            format!("  - {{name: {name}, upstream: web, access: public, match: {{{rest}}}}}\n")
        };
        let text = TEXT.to_owned()
            + &route("exact", "path: {exact: /exact}")
            + &route("template", "path: {template: '/t/{a}/{rest*}'}, hosts: ['*.c.example']")
            + &route("no-cookie", "path: /cookies, cookies: {a: {present: false}}")
            + &route("cookie", "path: /cookies, cookies: {a: b}")
            + &route("home", "path: /home, sources: [127.0.0.0/8]")
            + &route("away", "path: /away, sources: [10.0.0.0/8]")
            + &route("header", "path: /header, headers: {x-a: {present: true}}")
            + &route("query", "path: /query, query: {a: {regex: b}}")
            + &route("regex", "path: {regex: '/regex/.*'}");
        let edition = Edition::parse("text", &text).unwrap_or_else(|why| panic!("{why}"));
        let target = |route: &str| edition.target(route, None).expect("there is one");
        // when, then some have requests that reach them
        for (route, host, path) in [
            ("exact", "api.example", "/exact"),
            ("template", "any.c.example", "/t/1/1"),
            ("no-cookie", "api.example", "/cookies/1"),
            ("home", "api.example", "/home/1"),
        ] {
            let found = target(route).unwrap_or_else(|wanted| panic!("{wanted:?}"));
            assert_eq!((found.host.as_str(), found.path.as_str()), (host, path));
        }
        // and the others say why there are none
        for (route, why) in [
            ("cookie", "it wants the cookie a: \"b\""),
            ("away", "callers come from 127.0.0.0/8"),
            ("header", "it wants the header x-a: {present: true}"),
            ("query", "it wants the query parameter a: {regex: \"b\"}"),
            ("regex", "its path is a regular expression"),
        ] {
            let wanted = target(route).expect_err(route).wanted;
            let told = format!("no caller can be made for this route: {why}");
            assert!(wanted.ends_with(&told), "{route}: {wanted}");
        }
    }

    #[test]
    fn a_condition_that_callers_meet_by_chance_is_refused() {
        for condition in ["headers: {authorization: {present: true}}", "sources: [127.0.0.9/32]"] {
            let text = TEXT.replace("match: {path: /1}", &format!("match: {{path: /1, {condition}}}"));
            let why = Edition::parse("text", &text).expect_err(condition);
            assert!(why.contains("routes[1].match."), "{why}");
        }
    }

    #[test]
    fn a_route_without_an_upstream_has_no_callers_and_one_with_several_has() {
        // given a split, a redirect and an answer in place of an upstream
        let split = "split: {by: request, branches: [{upstream: db, weight: 1}, {upstream: web, weight: 1}]}";
        let others = ["redirect: {status: 308, path: /2}", "respond: {status: 200, body: hello}"];
        let of = |action: &str| {
            let text = TEXT.replace("path: /1}, upstream: web", &format!("path: /1}}, {action}"));
            assert_ne!(text, TEXT);
            Edition::parse("text", &text).unwrap_or_else(|why| panic!("{why}"))
        };
        // when callers are made, then only for the split, whose branches are all right
        let edition = of(split);
        assert!(edition.target("one", None).expect("there is one").is_ok());
        let names: Vec<&str> = edition.document.routes[1].upstreams().map(|name| name.as_str()).collect();
        assert_eq!(names, ["db", "web"]);
        for other in others {
            let why = of(other).target("one", None).expect("there is one").expect_err("nothing is reached");
            assert!(why.wanted.contains("no caller can be made for this route"), "{}", why.wanted);
        }
        // and a route may not touch what tells requests apart
        let edits = TEXT.replace(
            "path: /1}, upstream: web",
            "path: /1}, upstream: web, headers: {response: {remove: [x-number]}}",
        );
        let why = Edition::parse("text", &edits).expect_err("the number is the simulator's");
        assert!(why.contains("routes[1].headers.response"), "{why}");
    }

    #[test]
    fn a_tenants_own_limit_stands_over_its_plans_and_that_over_the_quotas() {
        let limit = |tenant| edition().limit("per-tenant", tenant).map(|limit| limit.to_string());
        assert_eq!(limit("acme").as_deref(), Some("100/s"));
        assert_eq!(limit("globex").as_deref(), Some("5/s"));
        assert_eq!(limit("guest").as_deref(), Some("10/s"));
        assert_eq!(edition().limit("hourly", "acme"), None);
    }

    #[test]
    fn an_adopted_document_is_sound_and_needs_nothing_from_outside() {
        let edition = edition();
        let names = upstreams(std::slice::from_ref(&edition));
        assert_eq!(names, ["db", "web"]);
        let adopted = GatewayDocument::from_canonical_json(&edition.adopted(&names));
        let adopted = adopted.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let endpoints: Vec<String> = adopted
            .upstreams
            .iter()
            .flat_map(|it| &it.endpoints)
            .map(|it| format!("{}:{}", it.host, it.port))
            .collect();
        assert_eq!(endpoints, ["127.0.0.21:8000", "127.0.0.21:8001", "127.0.0.22:8000"]);
        let issuer = &adopted.issuers[0];
        assert_eq!((issuer.issuer.as_str(), issuer.tenant_claim.as_str()), ("https://id.example", "tenant"));
        assert_eq!((issuer.lifetime_max, issuer.keys[0].algorithm), (None, Algorithm::HS256));
        assert_eq!(adopted.routes, edition.document.routes);
        let pass = edition.pass(&edition.document.routes[2]).expect("there is an issuer");
        assert_eq!((pass.kid.as_str(), pass.audience.as_str()), ("main", "api"));
        assert_eq!(pass.scopes, ["a", "b"]);
    }
}
