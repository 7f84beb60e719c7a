//! Why a request goes where it goes, for people: the table's own judgement of every route. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::asked::Asked;
use super::entry::{Candidate, Entry, HostFit, Preference, Unmet};
use super::table::{NoMatch, Table};

/// What the table has to say about a request.
#[derive(Debug)]
pub struct Explanation<'t, T> {
    /// The route that takes it.
    pub winner: Result<&'t Entry<T>, NoMatch<'t, T>>,
    /// Other routes with its path or its host, and why they do not take it. The preferred first.
    pub others: Vec<(&'t Entry<T>, Why<'t>)>,
}

/// Why a route does not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why<'t> {
    /// Something does not fit.
    Unmet(Unmet<'t>),
    /// All fits, and the winner is preferred by this.
    Lost(Preference),
}

impl<T> Table<T> {
    /// Why the route that takes the request does, and others do not. Looks at every route.
    ///
    /// - `claims`: claim → texts, of a token that is good wherever it is wanted.
    pub fn explain<'t>(
        &'t self,
        asked: &Asked<'_>,
        claims: &BTreeMap<String, Vec<String>>,
    ) -> Explanation<'t, T> {
        let has =
            |name: &str, text: &str| claims.get(name).is_some_and(|texts| texts.iter().any(|it| it == text));
        let agrees = |entry: &Entry<T>| entry.unmet_claim(has).is_none();
        let (searched, _) = self.search(asked, &mut { agrees });
        let found = searched.best;
        let mut with_path = BTreeSet::new();
        self.walk(asked.path, &mut |shelf| {
            with_path.extend(shelf.all().filter(|place| self.entries[*place].fits_path(asked.path)));
        });
        let mut with_host: BTreeMap<usize, HostFit> = BTreeMap::new();
        for (host, places) in self.shelves().flat_map(|shelf| shelf.of_host(asked.host)) {
            for place in places {
                let closest = with_host.entry(*place).or_insert(host);
                *closest = host.max(*closest);
            }
        }
        let mut others = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            let (fits_path, host) = (with_path.contains(&place), with_host.get(&place).copied());
            let wins = found.is_some_and(|found| std::ptr::eq(found.entry, entry));
            if wins || (!fits_path && host.is_none()) {
                continue;
            }
            let unmet = match host {
                _ if !fits_path => Some(Unmet::Path),
                None => Some(Unmet::Host),
                Some(_) if !entry.fits_method(asked.method) => Some(Unmet::Method),
                Some(_) => entry.unmet(asked).or_else(|| entry.unmet_claim(has)),
            };
            let why = match (unmet, host, found) {
                (None, Some(host), Some(found)) => Why::Lost(found.compare(&Candidate { entry, host }).1),
                (unmet, ..) => Why::Unmet(unmet.expect("a route that takes the request leaves a winner")),
            };
            others.push((entry, why));
        }
        let winner = found
            .map(|found| found.entry)
            .ok_or_else(|| self.no_match(asked, searched.lacking, &mut { agrees }));
        Explanation { winner, others }
    }
}

impl Unmet<'_> {
    /// The condition's place in a match, what the request has there, and what `entry` wants.
    pub fn tell<T>(
        self,
        entry: &Entry<T>,
        asked: &Asked<'_>,
        claims: &BTreeMap<String, Vec<String>>,
    ) -> String {
        let matches = entry.matches();
        let list = |texts: &[String]| texts.join(", ");
        let (key, found, wanted) = match self {
            Self::Path => ("path".to_owned(), asked.path.to_owned(), {
                format!("{} {}", matches.path.kind(), matches.path.text())
            }),
            Self::Host => ("hosts".to_owned(), asked.host.to_owned(), list(&matches.hosts)),
            Self::Method => ("methods".to_owned(), asked.method.to_owned(), list(&matches.methods)),
            Self::Header(name, wanted) => {
                (format!("headers.{name}"), values(asked.header(name)), wanted.to_string())
            }
            Self::Query(name, wanted) => {
                (format!("query.{name}"), values(asked.parameter(name)), wanted.to_string())
            }
            Self::Cookie(name, wanted) => {
                (format!("cookies.{name}"), values(asked.cookie(name)), wanted.to_string())
            }
            Self::Source => {
                let nets: Vec<String> = matches.sources.iter().map(ToString::to_string).collect();
                ("sources".to_owned(), asked.address.to_string(), list(&nets))
            }
            Self::Claim(name, wanted) => {
                let found = claims.get(name).into_iter().flatten();
                let found = values(found.map(|text| Some(Cow::Borrowed(text.as_str()))));
                let wanted: Vec<String> = wanted.iter().map(|text| format!("{text:?}")).collect();
                (format!("claims.{name}"), found, wanted.join(" or "))
            }
        };
        format!("{key}: found {found}, wanted {wanted}")
    }
}

fn values<'v>(values: impl Iterator<Item = Option<Cow<'v, str>>>) -> String {
    let shown = |value: Option<Cow<'_, str>>| match value {
        Some(value) => format!("{value:?}"),
        None => "what is no text".to_owned(),
    };
    let all: Vec<String> = values.map(shown).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}
