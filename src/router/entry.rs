//! One route as the table holds it: whether it takes a request, and whether it is preferred to another that does. Pure.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use config::ids::RouteName;
use config::path::{Path, Segment};
use config::route::{Condition, Match, Route};

use super::asked::{Asked, fits};

/// A route, and what it yields.
#[derive(Debug)]
pub struct Entry<T> {
    name: RouteName,
    matches: Match,
    rank: Rank,
    pub(super) value: T,
}

/// What decides between routes, but for the host and the name.
#[derive(Debug)]
struct Rank {
    priority: i16,
    kind: Kind,
    literals: usize,
    segments: usize,
    named_methods: bool,
    headers: usize,
    query: usize,
    cookies: usize,
    claims: usize,
    sources: bool,
}

/// Kinds of paths, the first preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Template,
    Prefix,
    Regex,
}

/// How closely a route names a request's host. A greater one is preferred: the host itself, then the longest `*.` before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostFit(usize);

impl HostFit {
    pub(super) const ANY: Self = Self(0);
    pub(super) const EXACT: Self = Self(usize::MAX);

    /// - `below`: what stands behind the star.
    pub(super) fn wildcard(below: &str) -> Self {
        Self(below.len())
    }
}

/// A condition of a route that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'e> {
    /// The path.
    Path,
    /// The host.
    Host,
    /// The method.
    Method,
    /// The field of this name.
    Header(&'e str, &'e Condition),
    /// The query parameter of this name.
    Query(&'e str, &'e Condition),
    /// The cookie of this name.
    Cookie(&'e str, &'e Condition),
    /// The client's address.
    Source,
    /// The token's claim of this name, and its texts that would do.
    Claim(&'e str, &'e [String]),
}

impl<T> Entry<T> {
    pub(super) fn new(route: &Route, value: T) -> Self {
        let matches = &route.matches;
        let literals = matches.path.segments().filter(|it| matches!(it, Segment::Literal(_))).count();
        let rank = Rank {
            priority: route.priority,
            kind: match &matches.path {
                Path::Exact(_) => Kind::Exact,
                Path::Template(_) => Kind::Template,
                Path::Prefix(_) => Kind::Prefix,
                Path::Regex(_) => Kind::Regex,
            },
            literals,
            segments: matches.path.segments().count(),
            named_methods: !matches.methods.is_empty(),
            headers: matches.headers.len(),
            query: matches.query.len(),
            cookies: matches.cookies.len(),
            claims: matches.claims.len(),
            sources: !matches.sources.is_empty(),
        };
        Self { name: route.name.clone(), matches: matches.clone(), rank, value }
    }

    /// Of the route.
    pub fn name(&self) -> &RouteName {
        &self.name
    }

    /// What the route wants.
    pub fn matches(&self) -> &Match {
        &self.matches
    }

    /// What the route yields.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Whether it looks at the token.
    pub(super) fn has_claims(&self) -> bool {
        !self.matches.claims.is_empty()
    }

    /// The first claim of which the token has no text that would do.
    pub(super) fn unmet_claim(&self, has: impl Fn(&str, &str) -> bool) -> Option<Unmet<'_>> {
        let mut claims = self.matches.claims.iter();
        let unmet = claims.find(|(name, texts)| !texts.iter().any(|text| has(name, text)));
        unmet.map(|(name, texts)| Unmet::Claim(name, texts))
    }

    /// Whether it takes a request, claims aside, whose path leads to it and whose host is one of its.
    pub(super) fn takes(&self, asked: &Asked<'_>) -> bool {
        self.fits_method(asked.method) && self.fits_path(asked.path) && self.unmet(asked).is_none()
    }

    /// Whether the path fits, if it led here through the table's segments.
    pub(super) fn fits_path(&self, path: &str) -> bool {
        match &self.matches.path {
            Path::Regex(regex) => regex.fits(path),
            Path::Prefix(_) | Path::Exact(_) | Path::Template(_) => true,
        }
    }

    pub(super) fn fits_method(&self, method: &str) -> bool {
        let methods = &self.matches.methods;
        methods.is_empty() || methods.iter().any(|it| it == method)
    }

    /// The first condition that does not hold, path, host, method and claims aside.
    pub(super) fn unmet(&self, asked: &Asked<'_>) -> Option<Unmet<'_>> {
        let Match { headers, query, cookies, sources, .. } = &self.matches;
        let mut header = headers.iter().filter(|(name, wanted)| !fits(wanted, asked.header(name)));
        let mut query = query.iter().filter(|(name, wanted)| !fits(wanted, asked.parameter(name)));
        let mut cookie = cookies.iter().filter(|(name, wanted)| !fits(wanted, asked.cookie(name)));
        let source = || {
            let address = asked.address.to_canonical();
            let fits = sources.is_empty() || sources.iter().any(|net| net.contains(&address));
            (!fits).then_some(Unmet::Source)
        };
        (header.next().map(|(name, wanted)| Unmet::Header(name, wanted)))
            .or_else(|| query.next().map(|(name, wanted)| Unmet::Query(name, wanted)))
            .or_else(|| cookie.next().map(|(name, wanted)| Unmet::Cookie(name, wanted)))
            .or_else(source)
    }
}

/// By what one of two routes that take a request is preferred. The order is that of the words on top of `table.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The higher priority.
    Priority,
    /// An exact path.
    ExactPath,
    /// More literal segments.
    LiteralSegments,
    /// More segments.
    Segments,
    /// A template before a prefix before a regular expression.
    PathKind,
    /// A closer host.
    Host,
    /// Named methods.
    Methods,
    /// More conditions on headers.
    Headers,
    /// More conditions on the query.
    Query,
    /// More conditions on cookies.
    Cookies,
    /// More conditions on claims.
    Claims,
    /// Named sources.
    Sources,
    /// The first by name.
    Name,
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Priority => "its priority is higher",
            Self::ExactPath => "its path is exact",
            Self::LiteralSegments => "its path has more literal segments",
            Self::Segments => "its path has more segments",
            Self::PathKind => "at equal length a template goes before a prefix, a prefix before a regex",
            Self::Host => "it names the host more closely",
            Self::Methods => "it names methods",
            Self::Headers => "it has more conditions on headers",
            Self::Query => "it has more conditions on the query",
            Self::Cookies => "it has more conditions on cookies",
            Self::Claims => "it has more conditions on claims",
            Self::Sources => "it names sources",
            Self::Name => "its name is the first",
        })
    }
}

/// A route that takes a request, and how closely it names the request's host.
pub(super) struct Candidate<'e, T> {
    pub(super) entry: &'e Entry<T>,
    pub(super) host: HostFit,
}

impl<T> Clone for Candidate<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Candidate<'_, T> {}

type Step<T> = (Preference, fn(&Candidate<'_, T>, &Candidate<'_, T>) -> Ordering);

impl<'e, T> Candidate<'e, T> {
    /// For comparing routes as if neither named a host.
    pub(super) fn of_any_host(entry: &'e Entry<T>) -> Self {
        Self { entry, host: HostFit::ANY }
    }

    /// The order of routes, the preferred first.
    const ORDER: [Step<T>; 13] = [
        (Preference::Priority, |a, b| b.entry.rank.priority.cmp(&a.entry.rank.priority)),
        (Preference::ExactPath, |a, b| {
            let exact = |it: &Candidate<'_, T>| Reverse(it.entry.rank.kind == Kind::Exact);
            exact(a).cmp(&exact(b))
        }),
        (Preference::LiteralSegments, |a, b| b.entry.rank.literals.cmp(&a.entry.rank.literals)),
        (Preference::Segments, |a, b| b.entry.rank.segments.cmp(&a.entry.rank.segments)),
        (Preference::PathKind, |a, b| a.entry.rank.kind.cmp(&b.entry.rank.kind)),
        (Preference::Host, |a, b| b.host.cmp(&a.host)),
        (Preference::Methods, |a, b| b.entry.rank.named_methods.cmp(&a.entry.rank.named_methods)),
        (Preference::Headers, |a, b| b.entry.rank.headers.cmp(&a.entry.rank.headers)),
        (Preference::Query, |a, b| b.entry.rank.query.cmp(&a.entry.rank.query)),
        (Preference::Cookies, |a, b| b.entry.rank.cookies.cmp(&a.entry.rank.cookies)),
        (Preference::Claims, |a, b| b.entry.rank.claims.cmp(&a.entry.rank.claims)),
        (Preference::Sources, |a, b| b.entry.rank.sources.cmp(&a.entry.rank.sources)),
        (Preference::Name, |a, b| a.entry.name.cmp(&b.entry.name)),
    ];

    /// Less: this one is preferred. And by what it was decided.
    pub(super) fn compare(&self, other: &Self) -> (Ordering, Preference) {
        let decided = Self::ORDER.iter().find_map(|(preference, compare)| {
            let order = compare(self, other);
            order.is_ne().then_some((order, *preference))
        });
        decided.unwrap_or((Ordering::Equal, Preference::Name))
    }
}
