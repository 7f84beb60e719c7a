//! Which branch of a split takes a request. Pure.
//!
//! A keyed hash of the route's name and of what the split goes by is a point between 0 and 1; the branches, in the document's
//! order, cover that line by their weights. So every node chooses alike, and weights that change move only what lies
//! between the old and the new ends.

use cluster::state::key::{Draw, Drawn, share};
use config::action::{ChosenBy, Split, SplitBy};

use super::asked::Asked;
use crate::auth::Identity;
use crate::journey::received::RequestId;

/// A split, compiled.
#[derive(Debug)]
pub struct SplitRule {
    by: SplitBy,
    chosen_by: Option<ChosenBy>,
    /// Each branch's upstream, and the sum of the weights up to it.
    branches: Box<[(Box<str>, u64)]>,
    /// The cluster's.
    secret: [u8; 16],
}

impl SplitRule {
    /// # Errors
    /// What is wrong, if there is nothing to choose from.
    pub fn compile(split: &Split, secret: [u8; 16]) -> Result<Self, String> {
        let mut sum = 0;
        let branches = split.branches.iter().map(|branch| {
            sum += u64::from(branch.weight);
            (branch.upstream.as_str().into(), sum)
        });
        let branches: Box<[_]> = branches.collect();
        if sum == 0 {
            return Err("found a split without weights, wanted one above 0".to_owned());
        }
        Ok(Self { by: split.by, chosen_by: split.chosen_by.clone(), branches, secret })
    }

    /// The place of the branch that takes a request.
    pub fn branch(
        &self,
        route: &str,
        asked: &Asked<'_>,
        identity: Option<&Identity>,
        id: RequestId,
    ) -> usize {
        if let Some(place) = self.chosen(asked) {
            return place;
        }
        let drawn = match self.by {
            SplitBy::Tenant => {
                Drawn::Tenant(identity.and_then(|who| who.tenant.as_ref()).map(|it| it.as_str()))
            }
            SplitBy::Client => Drawn::Client(identity.and_then(|who| who.client.as_deref())),
            SplitBy::Address => Drawn::Address(asked.address),
            // Numbers are drawn from the world's chance.
            SplitBy::Request => Drawn::Request(id.0),
        };
        self.at(share(&self.secret, Draw::Split(route), drawn))
    }

    /// The branch that the request names itself.
    fn chosen(&self, asked: &Asked<'_>) -> Option<usize> {
        let place = |name: &str| self.branches.iter().position(|(upstream, _)| **upstream == *name);
        match self.chosen_by.as_ref()? {
            ChosenBy::Header(name) => asked.header(name).flatten().find_map(|value| place(value.trim())),
            ChosenBy::Cookie(name) => asked.cookie(name).flatten().find_map(|value| place(&value)),
        }
    }

    /// The branch at a point of 2^64.
    fn at(&self, point: u64) -> usize {
        let sum = self.branches.last().map_or(0, |(_, end)| *end);
        let scaled = (u128::from(point) * u128::from(sum)) >> 64;
        let taken = self.branches.iter().position(|(_, end)| scaled < u128::from(*end));
        taken.expect("a point lies below the sum of all weights, which is not 0")
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use config::action::Branch;
    use config::ids::{IssuerName, TenantId, UpstreamName};
    use http::HeaderMap;

    use super::*;

    const TENANTS: usize = 10_000;

    fn rule(by: SplitBy, chosen_by: Option<ChosenBy>, weights: &[(&str, u32)]) -> SplitRule {
        rule_under([5; 16], by, chosen_by, weights)
    }

    fn rule_under(
        secret: [u8; 16],
        by: SplitBy,
        chosen_by: Option<ChosenBy>,
        weights: &[(&str, u32)],
    ) -> SplitRule {
        let branch = |(name, weight): &(&str, u32)| Branch {
            upstream: UpstreamName::parse(name).expect("a name"),
            weight: *weight,
        };
        let split = Split { by, branches: weights.iter().map(branch).collect(), chosen_by };
        SplitRule::compile(&split, secret).expect("there are weights")
    }

    fn asked<'a>(headers: &'a HeaderMap, address: &str) -> Asked<'a> {
        let address: IpAddr = address.parse().expect("an address");
        Asked { method: "GET", host: "h", path: "/", query: None, headers, address }
    }

    /// Each tenant's branch.
    fn by_tenant(weights: &[(&str, u32)]) -> Vec<usize> {
        let rule = rule(SplitBy::Tenant, None, weights);
        let of = |number| {
            let tenant = TenantId::parse(&format!("tenant-{number}")).ok();
            let identity = Identity {
                issuer: IssuerName::parse("i").expect("a name"),
                tenant,
                client: None,
                scopes: Box::new([]),
                claims: Default::default(),
            };
            rule.branch(
                "shop",
                &asked(&HeaderMap::new(), "10.0.0.1"),
                Some(&identity),
                RequestId(number as u128),
            )
        };
        (0..TENANTS).map(of).collect()
    }

    /// Over 10 000 values a share's standard deviation is at most 0.5 %.
    fn assert_shares(branches: &[usize], weights: &[(&str, u32)], off_max: f64) {
        let sum: u32 = weights.iter().map(|(_, weight)| weight).sum();
        for (place, (name, weight)) in weights.iter().enumerate() {
            let found = branches.iter().filter(|it| **it == place).count() as f64 / branches.len() as f64;
            let wanted = f64::from(*weight) / f64::from(sum);
            assert!((found - wanted).abs() < off_max, "{name}: found {found}, wanted {wanted}");
            assert!(*weight > 0 || found == 0.0, "{name} has no weight and takes requests");
        }
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        for weights in [
            [("blue", 95), ("green", 5), ("red", 0)],
            [("blue", 1), ("green", 1), ("red", 1)],
            [("blue", 0), ("green", 700), ("red", 300)],
        ] {
            assert_shares(&by_tenant(&weights), &weights, 0.01);
        }
    }

    #[test]
    fn no_secret_favours_a_branch() {
        let (headers, weights) = (HeaderMap::new(), [("blue", 1), ("green", 1), ("red", 2)]);
        for byte in 0..16 {
            let rule = rule_under([byte; 16], SplitBy::Request, None, &weights);
            let at = |id| rule.branch("shop", &asked(&headers, "10.0.0.1"), None, RequestId(id));
            assert_shares(&(0..10_000).map(at).collect::<Vec<_>>(), &weights, 0.02);
        }
    }

    #[test]
    fn a_canary_that_grows_takes_from_the_other_alone_and_gives_all_of_it_back() {
        // given all tenants on blue
        let begin = by_tenant(&[("blue", 100), ("green", 0)]);
        let mut last = begin.clone();
        // when green grows
        for green in [5, 50, 100] {
            let weights = [("blue", 100 - green), ("green", green)];
            let next = by_tenant(&weights);
            // then tenants move from blue to green and never back
            assert!(last.iter().zip(&next).all(|(last, next)| last <= next), "at {green}");
            assert_shares(&next, &weights, 0.01);
            last = next;
        }
        // and when it goes, all are where they were
        assert_eq!(by_tenant(&[("blue", 100), ("green", 0)]), begin);
    }

    #[test]
    fn requests_and_addresses_are_split_too() {
        let weights = [("blue", 3), ("green", 1)];
        let headers = HeaderMap::new();
        let each = rule(SplitBy::Request, None, &weights);
        let at = |id| each.branch("shop", &asked(&headers, "10.0.0.1"), None, RequestId(id));
        assert_shares(&(0..10_000).map(at).collect::<Vec<_>>(), &weights, 0.01);
        let by_address = rule(SplitBy::Address, None, &weights);
        let at = |text: &str| by_address.branch("shop", &asked(&headers, text), None, RequestId(0));
        let all: Vec<usize> = (0..10_000).map(|it| at(&format!("10.0.{}.{}", it / 250, it % 250))).collect();
        assert_shares(&all, &weights, 0.01);
        assert_eq!(at("2001:db8::1"), at("2001:db8::2"));
    }

    #[test]
    fn two_routes_split_the_same_tenants_differently() {
        let rule = rule(SplitBy::Address, None, &[("blue", 1), ("green", 1)]);
        let headers = HeaderMap::new();
        let of = |route: &str| -> Vec<usize> {
            let at = |it| rule.branch(route, &asked(&headers, &format!("10.0.0.{it}")), None, RequestId(0));
            (0..100).map(at).collect()
        };
        assert_ne!(of("one"), of("other"));
        assert_eq!(of("one"), of("one"));
    }

    #[test]
    fn a_tester_names_a_branch_and_nothing_else() {
        let weights = [("blue", 1), ("green", 0)];
        let by_header = rule(SplitBy::Request, Some(ChosenBy::Header("x-branch".into())), &weights);
        let by_cookie = rule(SplitBy::Request, Some(ChosenBy::Cookie("branch".into())), &weights);
        for (value, place) in [("green", 1), ("blue", 0), ("red", 0), ("Green", 0), ("", 0)] {
            let mut headers = HeaderMap::new();
            headers.insert("x-branch", value.parse().expect("a value"));
            headers.insert("cookie", format!("a=b; branch={value}").parse().expect("a value"));
            for rule in [&by_header, &by_cookie] {
                let found = rule.branch("shop", &asked(&headers, "10.0.0.1"), None, RequestId(1));
                assert_eq!(found, place, "{value}");
            }
        }
    }

    #[test]
    fn weights_of_nothing_are_refused() {
        let branches = ["blue", "green"]
            .map(|name| Branch { upstream: UpstreamName::parse(name).expect("a name"), weight: 0 });
        let split = Split { by: SplitBy::Request, branches: branches.into(), chosen_by: None };
        assert!(SplitRule::compile(&split, [7; 16]).is_err());
    }
}
