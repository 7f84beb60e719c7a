//! `quorumgate route`: which route takes a request, and why no other does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use config::gateway::GatewayDocument;
use config::mistake::render;
use http::Uri;
use tokio::time::Instant;

use crate::journey::caller::Caller;
use crate::journey::received::{Arrival, Received, RequestId};
use crate::router::explain::Why;
use crate::router::{Asked, Table};
use crate::upstream::body::ClientBody;

/// `quorumgate route`.
#[derive(Debug, clap::Args)]
pub struct Route {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the route that takes a request; and of every other with its path or its host, the first condition that does
    /// not hold, or by what rule it lost. Exit code 1 if no route takes it.
    Explain(Explain),
}

/// `quorumgate route explain`.
#[derive(Debug, clap::Args)]
struct Explain {
    /// The gateway document.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    request: Request,
}

#[derive(Debug, clap::Args)]
struct Request {
    /// In capitals, as methods are sent.
    #[arg(long, default_value = "GET")]
    method: String,
    /// As the `Host` field says it.
    #[arg(long)]
    host: String,
    /// Without a query.
    #[arg(long)]
    path: String,
    /// A field, as `name: value`; repeat for more.
    #[arg(long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// What stands behind `?`, as it is sent.
    #[arg(long)]
    query: Option<String>,
    /// A claim of the token, as `name=text`; repeat for more, or for more texts of one. The token counts as good.
    #[arg(long = "claim", value_name = "CLAIM", value_parser = super::claim)]
    claims: Vec<(String, String)>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    source: IpAddr,
}

impl Route {
    /// Carries the action out.
    ///
    /// # Errors
    /// If the file cannot be read or has mistakes, or the request is none.
    pub fn run(self) -> Result<ExitCode, String> {
        let Action::Explain(Explain { file, request }) = self.action;
        let text =
            std::fs::read_to_string(&file).map_err(|error| format!("reading {}: {error}", file.display()))?;
        let name = file.display().to_string();
        let document =
            config::gateway::parse(&text).map_err(|mistakes| render(&name, &text, &mistakes))?.value;
        let received = request.received()?;
        let (taken, told) = explain(&document, &received, &super::by_name(request.claims));
        print!("{told}");
        Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Request {
    /// The request as a node would receive it.
    fn received(&self) -> Result<Received, String> {
        if self.path.contains(['?', '#']) {
            return Err(format!("found the path {:?}, wanted one alone; --query is for the rest", self.path));
        }
        let target = match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        };
        let target: Uri = target.parse().map_err(|error| format!("found the target {target:?}: {error}"))?;
        let mut request = http::Request::builder().method(self.method.as_str()).uri(target);
        request = request.header(http::header::HOST, &self.host);
        for header in &self.headers {
            let field = header.split_once(':');
            let (name, value) =
                field.ok_or_else(|| format!("found the header {header:?}, wanted `name: value`"))?;
            request = request.header(name.trim(), value.trim());
        }
        let (parts, ()) = request.body(()).map_err(|error| error.to_string())?.into_parts();
        let caller = Arc::new(Caller::plain((self.source, 0).into()));
        let arrival = Arrival { id: RequestId(0), caller, at: Instant::now() };
        Received::check(parts, ClientBody::empty(), arrival, u64::MAX).map_err(|refusal| refusal.to_string())
    }
}

/// Whether a route takes the request, and the whole answer.
fn explain(
    document: &GatewayDocument,
    received: &Received,
    claims: &BTreeMap<String, Vec<String>>,
) -> (bool, String) {
    let table = Table::new(document.routes.iter().map(|route| (route, ())));
    let asked = Asked::of(received);
    let explained = table.explain(&asked, claims);
    let mut out = String::new();
    let winner = match &explained.winner {
        Ok(entry) => {
            let path = &entry.matches().path;
            tell(&mut out, format_args!("{} takes it, by {} {}", entry.name(), path.kind(), path.text()));
            entry.name().as_str()
        }
        Err(none) => {
            let instead = match none.allowed.as_slice() {
                [] => String::new(),
                methods => format!("; one would take it with {}", methods.join(", ")),
            };
            tell(&mut out, format_args!("no route takes it{instead}"));
            ""
        }
    };
    for (entry, why) in &explained.others {
        match why {
            Why::Unmet(unmet) => {
                tell(&mut out, format_args!("  not {}: {}", entry.name(), unmet.tell(entry, &asked, claims)));
            }
            Why::Lost(preference) => {
                tell(&mut out, format_args!("  not {}: {winner} goes before it: {preference}", entry.name()));
            }
        }
    }
    (explained.winner.is_ok(), out)
}

fn tell(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document of the README.
    fn document() -> GatewayDocument {
        let readme = include_str!("../../README.md");
        let (_, block) = readme.split_once("```yaml\n# routes.yaml\n").expect("the README has the block");
        let (text, _) = block.split_once("```").expect("the block ends");
        config::gateway::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}")).value
    }

    fn request(method: &str, host: &str, path: &str) -> Request {
        let source = IpAddr::from([127, 0, 0, 1]);
        let (method, host, path) = (method.to_owned(), host.to_owned(), path.to_owned());
        Request { method, host, path, headers: vec![], query: None, claims: vec![], source }
    }

    fn told(request: &Request) -> (bool, String) {
        let received = request.received().unwrap_or_else(|why| panic!("{why}"));
        explain(&document(), &received, &super::super::by_name(request.claims.clone()))
    }

    #[test]
    fn every_other_route_says_what_it_lacked_or_by_what_it_lost() {
        let get = request("GET", "Shop.Example:8080", "/users/7/orders/1");
        let expected = r#"order takes it, by template /users/{user}/orders/{order}
  not beta: headers.x-stage: found nothing, wanted "beta"
  not health: path: found /users/7/orders/1, wanted exact /health
  not shop: order goes before it: its path has more literal segments
  not beta-by-cookie: path: found /users/7/orders/1, wanted regex /v[0-9]+/.*
"#;
        assert_eq!(told(&get), (true, expected.to_owned()));
    }

    #[test]
    fn a_request_is_given_with_all_that_routes_look_at() {
        let headers = ["X-Stage: alpha", "x-stage:beta", "cookie: stage=old"].map(str::to_owned).to_vec();
        let source = "192.0.2.1".parse().expect("an address");
        let get = Request { headers, source, ..request("GET", "a.shop.example", "/health") };
        let expected = r#"beta takes it, by prefix /
  not health: sources: found 192.0.2.1, wanted 10.0.0.0/8
  not order: path: found /health, wanted template /users/{user}/orders/{order}
  not shop: beta goes before it: its priority is higher
  not beta-by-cookie: path: found /health, wanted regex /v[0-9]+/.*
"#;
        assert_eq!(told(&get), (true, expected.to_owned()));
        // and with a query that it may not have
        let (_, expected) =
            told(&Request { path: "/v1/x".to_owned(), query: Some("debug=%zz".to_owned()), ..get });
        for line in [
            "shop takes it, by prefix /\n",
            "  not beta: query.debug: found what is no text, wanted {present: false}\n",
            "  not beta-by-cookie: cookies.stage: found \"old\", wanted {regex: \"beta|next\"}\n",
        ] {
            assert!(expected.contains(line), "{expected}");
        }
    }

    #[test]
    fn claims_are_told_like_everything_else() {
        let text = include_str!("../../config/examples/routing.yaml");
        let document = config::gateway::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}")).value;
        let get = request("GET", "h", "/shop").received().unwrap_or_else(|why| panic!("{why}"));
        let told = |claims: &[(&str, &str)]| {
            let claims = claims.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            explain(&document, &get, &super::super::by_name(claims.collect())).1
        };
        let gold = told(&[("plan", "silver"), ("plan", "gold")]);
        assert!(gold.starts_with("gold takes it"), "{gold}");
        assert!(
            gold.contains("  not shop: gold goes before it: it has more conditions on claims\n"),
            "{gold}"
        );
        let silver = told(&[("plan", "silver")]);
        let line = "  not gold: claims.plan: found \"silver\", wanted \"gold\" or \"platinum\"\n";
        assert!(silver.starts_with("shop takes it") && silver.contains(line), "{silver}");
        assert!(told(&[]).contains("claims.plan: found nothing"));
    }

    #[test]
    fn a_request_that_no_route_takes_learns_what_would_do() {
        let put = request("PUT", "elsewhere.example", "/users/7/orders/1");
        let expected = r#"no route takes it; one would take it with GET
  not beta: headers.x-stage: found nothing, wanted "beta"
  not health: path: found /users/7/orders/1, wanted exact /health
  not order: methods: found PUT, wanted GET
  not shop: hosts: found elsewhere.example, wanted shop.example, *.shop.example
  not beta-by-cookie: path: found /users/7/orders/1, wanted regex /v[0-9]+/.*
"#;
        assert_eq!(told(&put), (false, expected.to_owned()));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (path, headers) in
            [("/a?b", vec![]), ("a", vec![]), ("/a/../b", vec![]), ("/", vec!["x".to_owned()])]
        {
            let bad = Request { headers, ..request("GET", "h", path) };
            assert!(bad.received().is_err(), "{path}");
        }
        assert!(request("GET", "", "/").received().is_err());
    }
}
