//! Which upstream holds a request's part. Pure.
//!
//! The part is one text: of the token's tenant, of a claim, or of a header field. What names none, or two different ones,
//! has no part, for nobody could say which of them was meant.

use std::borrow::Cow;
use std::collections::BTreeMap;

use config::action::{Partition, PartitionBy};

use super::asked::Asked;
use crate::auth::Identity;

/// A partition, compiled.
#[derive(Debug)]
pub struct PartitionRule {
    by: PartitionBy,
    /// Part → its upstream's place among the route's.
    places: BTreeMap<Box<str>, usize>,
    /// Of all that has no part.
    otherwise: Option<usize>,
}

impl PartitionRule {
    /// Places are those of `Action::upstreams`.
    pub fn compile(partition: &Partition) -> Self {
        let parts = partition.upstreams.keys().enumerate();
        Self {
            by: partition.by.clone(),
            places: parts.map(|(place, part)| (part.as_str().into(), place)).collect(),
            otherwise: partition.otherwise.as_ref().map(|_| partition.upstreams.len()),
        }
    }

    /// The place of the upstream that holds a request's part; none: no upstream does.
    pub fn place(&self, asked: &Asked<'_>, identity: Option<&Identity>) -> Option<usize> {
        let part = match &self.by {
            PartitionBy::Tenant => {
                identity.and_then(|who| who.tenant.as_ref()).map(|tenant| Cow::Borrowed(tenant.as_str()))
            }
            PartitionBy::Claim(claim) => identity.and_then(|who| who.only(claim)).map(Cow::Borrowed),
            PartitionBy::Header(name) => {
                let mut values = asked.header(name);
                let first = values.next().flatten();
                first.filter(|first| values.all(|it| it.as_ref() == Some(first)))
            }
        };
        part.and_then(|part| self.places.get(&*part).copied()).or(self.otherwise)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use config::ids::{IssuerName, TenantId, UpstreamName};
    use http::HeaderMap;

    use super::*;

    fn rule(by: PartitionBy, otherwise: bool) -> PartitionRule {
        let name = |text: &str| UpstreamName::parse(text).expect("a name");
        let upstreams = [("eu", "one"), ("us", "two"), ("uk", "one")];
        let upstreams = upstreams.map(|(part, upstream)| (part.to_owned(), name(upstream))).into();
        PartitionRule::compile(&Partition { by, upstreams, otherwise: otherwise.then(|| name("three")) })
    }

    fn identity(tenant: &str, regions: &[&str]) -> Identity {
        Identity {
            issuer: IssuerName::parse("i").expect("a name"),
            tenant: TenantId::parse(tenant).ok(),
            client: None,
            scopes: Box::new([]),
            claims: [("region".into(), regions.iter().map(|it| Box::from(*it)).collect())].into(),
        }
    }

    fn place(rule: &PartitionRule, headers: &[&str], identity: Option<&Identity>) -> Option<usize> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append("x-region", value.parse().expect("a value"));
        }
        let address = IpAddr::from([10, 0, 0, 1]);
        let asked = Asked { method: "GET", host: "h", path: "/", query: None, headers: &map, address };
        rule.place(&asked, identity)
    }

    #[test]
    fn a_part_is_held_where_the_document_says() {
        // Places follow the parts' names: eu, uk, us.
        let by_claim = rule(PartitionBy::Claim("region".into()), false);
        for (regions, wanted) in [
            (vec!["eu"], Some(0)),
            (vec!["us"], Some(2)),
            (vec!["EU"], None),
            (vec!["eu", "us"], None),
            (vec![], None),
        ] {
            assert_eq!(place(&by_claim, &[], Some(&identity("a", &regions))), wanted, "{regions:?}");
        }
        let by_tenant = rule(PartitionBy::Tenant, false);
        assert_eq!(place(&by_tenant, &[], Some(&identity("uk", &[]))), Some(1));
        assert_eq!(place(&by_tenant, &[], Some(&identity("acme", &[]))), None);
        assert_eq!(place(&by_tenant, &[], None), None);
    }

    #[test]
    fn a_field_that_is_sent_twice_means_something_only_if_it_says_the_same() {
        let rule = rule(PartitionBy::Header("x-region".into()), false);
        assert_eq!(place(&rule, &["us"], None), Some(2));
        assert_eq!(place(&rule, &["us", "us"], None), Some(2));
        for nothing in [vec!["us", "eu"], vec!["eu, us"], vec![""], vec![]] {
            assert_eq!(place(&rule, &nothing, None), None, "{nothing:?}");
        }
    }

    #[test]
    fn what_has_no_part_goes_where_the_rest_goes() {
        let rule = rule(PartitionBy::Header("x-region".into()), true);
        for (headers, wanted) in [(vec!["eu"], 0), (vec!["asia"], 3), (vec![], 3), (vec!["eu", "us"], 3)] {
            assert_eq!(place(&rule, &headers, None), Some(wanted), "{headers:?}");
        }
    }
}
