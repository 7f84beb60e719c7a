//! Which route takes a request. Pure.
//!
//! Of the routes whose conditions all hold, one wins, by the first of these that tells two of them apart:
//!
//! 1. the higher priority;
//! 2. an exact path before all others;
//! 3. the longest path: more literal segments, then more segments. A regular expression has the whole literal segments with
//!    which every path that it takes begins, and no others;
//! 4. a template before a prefix before a regular expression;
//! 5. the closest host: itself before the longer wildcard before the shorter one before any;
//! 6. named methods before any;
//! 7. more conditions on headers, then on the query, then on cookies, then on claims;
//! 8. named sources before any;
//! 9. the first by name.
//!
//! So the document's order decides nothing, and two nodes never choose differently.
//!
//! Paths form a tree by segments; a regular expression stands at the node of its literal ones. A search walks down to every
//! node that the path reaches, which is one for each segment, and more only where a template has a capture beside a
//! literal. At a node, the routes of one host are sorted by the words above: the first that takes the request is the best of
//! them, and a search leaves them where the best so far is preferred to the next one. Its cost grows with the path,
//! and with the routes that share a path and a host, not with the number of routes.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use config::path::{Path, Segment};
use config::route::Route;

use super::asked::Asked;
use super::entry::{Candidate, Entry, HostFit};

/// Routes by what they match. `T` is what a match yields.
#[derive(Debug)]
pub struct Table<T> {
    /// The preferred first, whatever the host.
    pub(super) entries: Vec<Entry<T>>,
    /// The first is the root, `/`. Nothing iterates over the maps' own order.
    nodes: Vec<Node>,
}

/// One beginning of paths.
#[derive(Debug, Default)]
struct Node {
    /// Next segment → node.
    children: HashMap<Box<str>, usize>,
    /// The node of any next segment.
    capture: Option<usize>,
    /// For paths that end here.
    here: Shelf,
    /// For those, and for all paths that go on.
    below: Shelf,
    /// For paths that go on by one segment or more.
    beyond: Shelf,
}

/// Places in `entries`, by host; they rise, so that the preferred come first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    by_host: HashMap<Box<str>, Vec<usize>>,
    /// What stands behind the star, with its dot.
    by_wildcard: HashMap<Box<str>, Vec<usize>>,
    any_host: Vec<usize>,
}

/// No route takes the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMatch<'t, T> {
    /// Methods with which a route would take all the rest of it; sorted. Empty: no route takes it at all. Those of routes
    /// with claims are told where there are no others, so that no token is looked at for an answer that needs none.
    pub allowed: Vec<String>,
    /// The preferred of the routes that the token does not agree with: of those that take the rest, else of those that take
    /// it but for the method.
    pub lacking: Option<&'t T>,
}

/// What a search of the table has come to.
pub(super) struct Search<'t, T> {
    /// The best of the routes that take the request.
    pub(super) best: Option<Candidate<'t, T>>,
    /// The best of those that would, if the token agreed. All of them were looked at where nothing takes the request.
    pub(super) lacking: Option<Candidate<'t, T>>,
}

impl<T> Table<T> {
    /// A table of these routes.
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a Route, T)>) -> Self {
        let mut entries: Vec<_> = routes.into_iter().map(|(route, value)| Entry::new(route, value)).collect();
        entries.sort_by(|a, b| Candidate::of_any_host(a).compare(&Candidate::of_any_host(b)).0);
        let mut table = Self { entries, nodes: vec![Node::default()] };
        for place in 0..table.entries.len() {
            table.put(place);
        }
        table
    }

    fn put(&mut self, place: usize) {
        let Self { entries, nodes } = self;
        let matches = entries[place].matches();
        let (mut at, mut has_rest) = (0, false);
        for segment in matches.path.segments() {
            let next = match segment {
                Segment::Literal(text) => nodes[at].children.get(text).copied(),
                Segment::Capture(_) => nodes[at].capture,
                Segment::Rest(_) => {
                    has_rest = true;
                    break;
                }
            };
            at = next.unwrap_or_else(|| {
                let made = nodes.len();
                nodes.push(Node::default());
                match segment {
                    Segment::Literal(text) => drop(nodes[at].children.insert(text.into(), made)),
                    Segment::Capture(_) | Segment::Rest(_) => nodes[at].capture = Some(made),
                }
                made
            });
        }
        let shelf = match &matches.path {
            Path::Template(_) if has_rest => &mut nodes[at].beyond,
            Path::Exact(_) | Path::Template(_) => &mut nodes[at].here,
            Path::Prefix(_) | Path::Regex(_) => &mut nodes[at].below,
        };
        if matches.hosts.is_empty() {
            shelf.any_host.push(place);
        }
        for host in matches.hosts.iter().collect::<BTreeSet<_>>() {
            let (hosts, host) = match host.strip_prefix('*') {
                Some(below) => (&mut shelf.by_wildcard, below),
                None => (&mut shelf.by_host, host.as_str()),
            };
            hosts.entry(host.into()).or_default().push(place);
        }
    }

    /// The route that takes the request.
    ///
    /// - `agrees`: whether the request's token has the claims that a route wants. Asked only of a route that wants some, takes
    ///   all else of the request, and would win; so no token is looked at for others.
    ///
    /// # Errors
    /// [`NoMatch`], with the methods that would do.
    pub fn find(
        &self,
        asked: &Asked<'_>,
        mut agrees: impl FnMut(&Entry<T>) -> bool,
    ) -> Result<&T, NoMatch<'_, T>> {
        let (found, _) = self.search(asked, &mut agrees);
        match found.best {
            Some(best) => Ok(&best.entry.value),
            None => Err(self.no_match(asked, found.lacking, &mut agrees)),
        }
    }

    /// What it has come to, and how many routes were looked at.
    pub(super) fn search(
        &self,
        asked: &Asked<'_>,
        agrees: &mut impl FnMut(&Entry<T>) -> bool,
    ) -> (Search<'_, T>, usize) {
        let (mut best, mut looked): (Option<Candidate<'_, T>>, usize) = (None, 0);
        let mut lacking = None;
        self.walk(asked.path, &mut |shelf| {
            for (host, places) in shelf.of_host(asked.host) {
                for place in places {
                    looked += 1;
                    let next = Candidate { entry: &self.entries[*place], host };
                    if best.is_some_and(|best| next.compare(&best).0 != Ordering::Less) {
                        break;
                    }
                    if !next.entry.takes(asked) {
                        continue;
                    }
                    if next.entry.has_claims() && !agrees(next.entry) {
                        prefer(&mut lacking, next);
                        continue;
                    }
                    best = Some(next);
                    break;
                }
            }
        });
        (Search { best, lacking }, looked)
    }

    /// - `lacking`: what a search has found.
    pub(super) fn no_match<'t>(
        &'t self,
        asked: &Asked<'_>,
        lacking: Option<Candidate<'t, T>>,
        agrees: &mut impl FnMut(&Entry<T>) -> bool,
    ) -> NoMatch<'t, T> {
        let (mut methods, mut with_claims) = (BTreeSet::new(), Vec::new());
        self.walk(asked.path, &mut |shelf| {
            for (host, places) in shelf.of_host(asked.host) {
                let all = places.iter().map(|place| Candidate { entry: &self.entries[*place], host });
                for next in all {
                    if !next.entry.fits_path(asked.path) || next.entry.unmet(asked).is_some() {
                        continue;
                    }
                    if next.entry.has_claims() {
                        with_claims.push(next);
                    } else {
                        methods.extend(&next.entry.matches().methods);
                    }
                }
            }
        });
        let mut lacking_method = None;
        if methods.is_empty() {
            for next in with_claims {
                if agrees(next.entry) {
                    methods.extend(&next.entry.matches().methods);
                } else {
                    prefer(&mut lacking_method, next);
                }
            }
        }
        let lacking = lacking.or(lacking_method).map(|lacking| &lacking.entry.value);
        NoMatch { allowed: methods.into_iter().cloned().collect(), lacking }
    }

    /// Every shelf, whatever the path.
    pub(super) fn shelves(&self) -> impl Iterator<Item = &Shelf> {
        self.nodes.iter().flat_map(|node| [&node.here, &node.below, &node.beyond])
    }

    /// Shows the shelves whose paths the path has, the longest first.
    pub(super) fn walk<'t>(&'t self, path: &str, see: &mut impl FnMut(&'t Shelf)) {
        if let Some(inner) = path.strip_prefix('/') {
            self.descend(0, (!inner.is_empty()).then_some(inner), see);
        }
    }

    /// - `rest`: what is left of the path behind the node; none: it ends here. The empty one: it ends with a `/`.
    ///
    /// As deep as the longest path of a route at most, which is some hundred segments.
    fn descend<'t>(&'t self, at: usize, rest: Option<&str>, see: &mut impl FnMut(&'t Shelf)) {
        let node = &self.nodes[at];
        let Some(rest) = rest else {
            see(&node.here);
            return see(&node.below);
        };
        let (segment, behind) = match rest.split_once('/') {
            Some((segment, behind)) => (segment, Some(behind)),
            None => (rest, None),
        };
        if let Some(child) = node.children.get(segment) {
            self.descend(*child, behind, see);
        }
        if !segment.is_empty() {
            if let Some(child) = node.capture {
                self.descend(child, behind, see);
            }
            see(&node.beyond);
        }
        see(&node.below);
    }
}

/// Keeps the preferred of the two.
fn prefer<'t, T>(best: &mut Option<Candidate<'t, T>>, next: Candidate<'t, T>) {
    if best.is_none_or(|best| next.compare(&best).0 == Ordering::Less) {
        *best = Some(next);
    }
}

impl Shelf {
    /// Routes for `host`, by how closely they name it.
    pub(super) fn of_host<'s>(&'s self, host: &str) -> impl Iterator<Item = (HostFit, &'s [usize])> {
        let exact = self.by_host.get(host).map(|places| (HostFit::EXACT, places.as_slice()));
        // No label stands before a dot at the beginning.
        let dots = host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        let dots = dots.take_while(|_| !self.by_wildcard.is_empty());
        let wildcards = dots.filter_map(|at| {
            let below = &host[at..];
            Some((HostFit::wildcard(below), self.by_wildcard.get(below)?.as_slice()))
        });
        exact.into_iter().chain(wildcards).chain([(HostFit::ANY, self.any_host.as_slice())])
    }

    /// All routes of the shelf, each once for each of its hosts.
    pub(super) fn all(&self) -> impl Iterator<Item = usize> {
        let hosts = self.by_host.values().chain(self.by_wildcard.values()).flatten();
        hosts.chain(&self.any_host).copied()
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
