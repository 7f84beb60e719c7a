//! Which route takes a request. Pure.
//!
//! Of the routes whose conditions all hold, the most specific wins: the longest path, then one that names hosts over one
//! that takes any, then one that names methods, then the first by name. So the document's order decides nothing, and two
//! nodes never choose differently.
//!
//! Prefixes form a tree by segments. A search walks down along the path as far as the tree goes, and up again until a
//! node has a route that takes the request: its cost grows with the path, not with the number of routes.

use std::collections::{BTreeSet, HashMap};

use config::ids::RouteName;
use config::route::Match;

/// Routes by what they match. `T` is what a match yields.
#[derive(Debug)]
pub struct Table<T> {
    /// The first is the root, `/`. Nothing iterates over the maps' own order.
    nodes: Vec<Node<T>>,
}

/// One prefix.
#[derive(Debug)]
struct Node<T> {
    /// None: the root.
    parent: Option<usize>,
    /// Next segment → node.
    children: HashMap<Box<str>, usize>,
    by_host: HashMap<Box<str>, Vec<Entry<T>>>,
    any_host: Vec<Entry<T>>,
}

/// One route at a prefix, for one host or all. Sorted: named methods first, then by name.
#[derive(Clone, Debug)]
struct Entry<T> {
    /// Empty: all.
    methods: Box<[Box<str>]>,
    name: RouteName,
    value: T,
}

/// No route takes the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMatch {
    /// Methods with which a route would take host and path; sorted. Empty: no route takes them at all.
    pub allowed: Vec<String>,
}

impl<T> Node<T> {
    fn below(parent: Option<usize>) -> Self {
        Self { parent, children: HashMap::new(), by_host: HashMap::new(), any_host: Vec::new() }
    }

    /// Routes for `host`, in the order in which they are preferred.
    fn entries<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a Entry<T>> {
        self.by_host.get(host).into_iter().flatten().chain(&self.any_host)
    }
}

impl<T: Clone> Table<T> {
    /// A table of these routes.
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a RouteName, &'a Match, T)>) -> Self {
        let mut table = Self { nodes: vec![Node::below(None)] };
        for (name, matches, value) in routes {
            let at = table.node(&matches.path);
            let node = &mut table.nodes[at];
            let methods = matches.methods.iter().map(|method| method.as_str().into()).collect();
            let entry = Entry { methods, name: name.clone(), value };
            if matches.hosts.is_empty() {
                node.any_host.push(entry);
            } else {
                let hosts: BTreeSet<&String> = matches.hosts.iter().collect();
                for host in hosts {
                    node.by_host.entry(host.as_str().into()).or_default().push(entry.clone());
                }
            }
        }
        for node in &mut table.nodes {
            for entries in node.by_host.values_mut().chain([&mut node.any_host]) {
                entries.sort_by(|a, b| (a.methods.is_empty(), &a.name).cmp(&(b.methods.is_empty(), &b.name)));
            }
        }
        table
    }

    /// The prefix's node, made when missing.
    fn node(&mut self, prefix: &str) -> usize {
        let mut at = 0;
        for segment in prefix.split('/').filter(|segment| !segment.is_empty()) {
            at = match self.nodes[at].children.get(segment) {
                Some(child) => *child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::below(Some(at)));
                    self.nodes[at].children.insert(segment.into(), child);
                    child
                }
            };
        }
        at
    }
}

impl<T> Table<T> {
    /// The route that takes the request. `host` in lower case without port; `path` without query.
    ///
    /// # Errors
    /// [`NoMatch`], with the methods that would do.
    pub fn find(&self, host: &str, path: &str, method: &str) -> Result<&T, NoMatch> {
        let takes =
            |entry: &&Entry<T>| entry.methods.is_empty() || entry.methods.iter().any(|m| **m == *method);
        let found = self.upwards(path).find_map(|node| node.entries(host).find(takes));
        found.map(|entry| &entry.value).ok_or_else(|| self.no_match(host, path))
    }

    /// Nodes whose prefix the path has, longest first.
    fn upwards(&self, path: &str) -> impl Iterator<Item = &Node<T>> {
        let longest = path.strip_prefix('/').map(|inner| {
            let mut at = 0;
            for segment in inner.split('/') {
                match self.nodes[at].children.get(segment) {
                    Some(child) => at = *child,
                    None => break,
                }
            }
            &self.nodes[at]
        });
        std::iter::successors(longest, |node| node.parent.map(|parent| &self.nodes[parent]))
    }

    fn no_match(&self, host: &str, path: &str) -> NoMatch {
        let entries = self.upwards(path).flat_map(|node| node.entries(host));
        let methods: BTreeSet<&str> =
            entries.flat_map(|entry| entry.methods.iter().map(AsRef::as_ref)).collect();
        NoMatch { allowed: methods.into_iter().map(str::to_owned).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Rule = (RouteName, Match);

    fn rule(name: &str, path: &str, hosts: &[&str], methods: &[&str]) -> Rule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let matches = Match { path: path.into(), methods: owned(methods), hosts: owned(hosts) };
        (RouteName::parse(name).expect("a name"), matches)
    }

    fn table(rules: &[Rule]) -> Table<String> {
        Table::new(rules.iter().map(|(name, matches)| (name, matches, name.to_string())))
    }

    /// The reference: tries every route, and says what the words on top of this file say.
    fn naive(rules: &[Rule], host: &str, path: &str, method: &str) -> Result<String, NoMatch> {
        let segments = |text: &str| -> Vec<String> {
            text.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
        };
        let here = rules.iter().filter(|(_, matches)| {
            let hosts = &matches.hosts;
            segments(path).starts_with(&segments(&matches.path))
                && (hosts.is_empty() || hosts.iter().any(|h| h == host))
        });
        let takes = |rule: &&Rule| rule.1.methods.is_empty() || rule.1.methods.iter().any(|m| m == method);
        let best = here.clone().filter(takes).max_by_key(|(name, matches)| {
            let named = (!matches.hosts.is_empty(), !matches.methods.is_empty());
            (segments(&matches.path).len(), named, Reverse(name.clone()))
        });
        let allowed: BTreeSet<String> = here.flat_map(|(_, matches)| matches.methods.clone()).collect();
        best.map(|(name, _)| name.to_string()).ok_or(NoMatch { allowed: allowed.into_iter().collect() })
    }

    #[test]
    fn a_prefix_is_matched_by_whole_segments() {
        let table = table(&[rule("api", "/api", &[], &[])]);
        for path in ["/api", "/api/", "/api/x/y"] {
            assert_eq!(table.find("h", path, "GET").map(String::as_str), Ok("api"), "{path}");
        }
        for path in ["/", "/apix", "/ap", "/x/api", "*", ""] {
            assert_eq!(table.find("h", path, "GET"), Err(NoMatch { allowed: vec![] }), "{path}");
        }
    }

    #[test]
    fn the_most_specific_route_wins() {
        let rules = [
            rule("z-root", "/", &[], &[]),
            rule("b-any", "/a", &[], &[]),
            rule("a-any", "/a", &[], &[]),
            rule("get", "/a", &[], &["GET"]),
            rule("host", "/a", &["h"], &[]),
            rule("host-get", "/a", &["h"], &["GET"]),
        ];
        let table = table(&rules);
        let find = |host, path, method| table.find(host, path, method).expect("the root takes all").as_str();
        assert_eq!(find("h", "/a/b", "GET"), "host-get");
        assert_eq!(find("h", "/a/b", "PUT"), "host");
        assert_eq!(find("i", "/a/b", "GET"), "get");
        assert_eq!(find("i", "/a/b", "PUT"), "a-any");
        assert_eq!(find("h", "/b", "GET"), "z-root");
    }

    #[test]
    fn methods_that_would_do_are_told() {
        let table = table(&[rule("a", "/a", &[], &["PUT", "GET"]), rule("b", "/a/b", &[], &["POST", "GET"])]);
        let refused = table.find("h", "/a/b/c", "DELETE").expect_err("no such method");
        assert_eq!(refused.allowed, ["GET", "POST", "PUT"]);
    }

    #[test]
    fn a_shorter_path_takes_a_method_that_the_longer_does_not() {
        let table = table(&[rule("long", "/a/b", &[], &["GET"]), rule("short", "/a", &[], &[])]);
        assert_eq!(table.find("h", "/a/b", "PUT").map(String::as_str), Ok("short"));
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let path = vec("[ab]", 0..4).prop_map(|segments| format!("/{}", segments.join("/")));
        let one = (path, vec("[hi]", 0..3), vec("GET|PUT|POST", 0..3));
        vec(one, 0..12).prop_map(|parts| {
            let made = |(number, (path, hosts, methods))| {
                let name = RouteName::parse(&format!("r{number}")).expect("a name");
                (name, Match { path, methods, hosts })
            };
            parts.into_iter().enumerate().map(made).collect()
        })
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_trying_every_route_finds(
            rules in rules(),
            host in "[hij]",
            path in vec("[abc]", 0..5).prop_map(|segments| format!("/{}", segments.join("/"))),
            slash: bool,
            method in "GET|PUT|POST|DELETE",
        ) {
            let path = if slash && path != "/" { format!("{path}/") } else { path };
            let table = table(&rules);
            let found = table.find(&host, &path, &method).cloned();
            prop_assert_eq!(found, naive(&rules, &host, &path, &method));
        }

        #[test]
        fn the_documents_order_decides_nothing(rules in rules(), path in "(/[ab]){1,4}") {
            let reversed: Vec<Rule> = rules.iter().rev().cloned().collect();
            let (one, other) = (table(&rules), table(&reversed));
            prop_assert_eq!(one.find("h", &path, "GET"), other.find("h", &path, "GET"));
        }
    }
}
