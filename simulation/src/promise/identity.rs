//! No request reaches an upstream unless its token is good, or its route is public; and it reaches its own route's
//! upstream alone.
//!
//! Which route takes a request is decided here anew, by the gateway document and not by the gateway; while the document
//! changes, any edition that may be in force decides. Source: architecture, "evidence": an unauthenticated request has no
//! way to the upstream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::route::Access;

use super::editions::Editions;
use super::{Promise, Verdict};
use crate::clock::{MS_NS, TrueNs};
use crate::edition::{Edition, Target};
use crate::event::{Event, RequestNumber, Token};
use crate::plan::Plan;
use crate::witness::Counts;

/// So long after another edition is in force, nobody goes by an older one, on the slowest clock of a plan.
const VIEWS_END_NS: TrueNs = 12_000 * MS_NS;

/// The promise.
pub struct Identity {
    gateway: Vec<Edition>,
    /// A node without contact may serve a route as it was for longer than this promise follows.
    stale: bool,
    editions: Editions,
    sent: BTreeMap<RequestNumber, (Arc<Target>, Token, TrueNs)>,
    unwelcome: u64,
}

impl Identity {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        let gateway = plan.scene.gateway.clone();
        let mut routes = gateway.iter().flat_map(|edition| &edition.document.routes);
        let stale = routes.any(|route| route.access.serve_stale_for() > Duration::ZERO);
        Self { gateway, stale, editions: Editions::new(VIEWS_END_NS), sent: BTreeMap::new(), unwelcome: 0 }
    }

    /// Whether an edition lets a request through to an upstream.
    fn lets(&self, edition: usize, target: &Target, token: Token, upstream: &str) -> bool {
        self.gateway[edition].takes(target).is_some_and(|route| {
            // Any branch of a split is right.
            let is_its = route.upstreams().any(|name| name.as_str() == upstream);
            is_its && (route.access == Access::Public || token == Token::Good)
        })
    }
}

impl Promise for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        self.editions.see(at, event);
        match event {
            Event::Sent(request) => {
                let route = self.gateway[0].takes(&request.route);
                let public = route.is_some_and(|route| route.access == Access::Public);
                self.unwelcome += u64::from(!public && request.token != Token::Good);
                self.sent.insert(request.number, (request.route.clone(), request.token, at));
                Ok(())
            }
            Event::Reached { number, upstream, .. } => {
                let Some((target, token, sent_at)) = self.sent.get(number) else {
                    return Err(format!("request {number} reached {upstream}, and nobody had sent it"));
                };
                let since = if self.stale { 0 } else { *sent_at };
                let mut editions = self.editions.between(since, at);
                if editions.any(|edition| self.lets(edition, target, *token, upstream)) {
                    return Ok(());
                }
                Err(format!("request {number} for {target:?} reached {upstream} with token {token:?}"))
            }
            _ => Ok(()),
        }
    }

    fn counts(&self) -> Counts {
        Counts::from([("requests without a good token".to_owned(), self.unwelcome)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, reached, sent};
    use super::*;

    #[test]
    fn a_stranger_at_an_upstream_and_a_wrong_upstream_are_found() {
        let plan = Plan::draw(1, Some(3), 9_000, &[]);
        let judge = |events: &[Event]| judge(&mut Identity::new(&plan), events);
        assert_eq!(judge(&[sent(1, Token::Good), reached(1, "first"), sent(2, Token::Forged)]), Ok(()));
        assert!(judge(&[sent(1, Token::Forged), reached(1, "second")]).is_err());
        assert!(judge(&[sent(1, Token::None), reached(1, "second")]).is_err());
        assert!(judge(&[sent(1, Token::Good), reached(1, "second")]).is_err());
        assert!(judge(&[reached(1, "first")]).is_err());
    }

    #[test]
    fn every_branch_of_a_split_is_right_and_no_other_upstream() {
        let mut plan = Plan::draw(1, Some(3), 9_000, &[]);
        let text = plan.scene.gateway[0].text.clone();
        let split =
            "split: {by: request, branches: [{upstream: first, weight: 1}, {upstream: second, weight: 0}]}";
        let changed = text.replacen("upstream: first,", &format!("{split},"), 1);
        assert_ne!(changed, text);
        plan.scene.gateway[0] = Edition::parse("split", &changed).unwrap_or_else(|why| panic!("{why}"));
        for (upstream, right) in [("first", true), ("second", true), ("third", false)] {
            let events = [sent(1, Token::Good), reached(1, upstream)];
            assert_eq!(judge(&mut Identity::new(&plan), &events).is_ok(), right, "{upstream}");
        }
    }

    #[test]
    fn another_edition_lets_others_in_once_it_may_be_in_force() {
        let mut plan = Plan::draw(1, Some(3), 9_000, &[]);
        let text =
            plan.scene.gateway[1].text.replace("access: {issuers: [dev], scopes: []}", "access: public");
        let text = text
            .replace("quotas: [per-tenant, per-client]", "quotas: []")
            .replace("quotas: [per-tenant]", "quotas: []");
        plan.scene.gateway[1] = Edition::parse("another", &text).unwrap_or_else(|why| panic!("{why}"));
        let open = [sent(1, Token::None), Event::Ordered { edition: 1 }, reached(1, "second")];
        assert_eq!(judge(&mut Identity::new(&plan), &open), Ok(()));
        assert!(judge(&mut Identity::new(&plan), &[open[0].clone(), open[2].clone()]).is_err());
    }
}
