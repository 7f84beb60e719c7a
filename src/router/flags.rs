//! Which flags are on for a request. Pure.
//!
//! A keyed hash of the flag's name and of the tenant is a point between 0 and 1; the flag is on below its share. So every
//! node says the same, a share that grows takes nothing back, and one flag says nothing about another.

use std::fmt::Write as _;
use std::sync::Arc;

use cluster::state::key::{Draw, Drawn, share};
use config::flag::Flag;
use http::HeaderValue;

use super::asked::Asked;
use crate::auth::Identity;
use crate::fields;

/// A route's flags, compiled.
#[derive(Debug)]
pub struct FlagsRule {
    /// Sorted by name.
    flags: Box<[Arc<Flag>]>,
    /// The cluster's.
    secret: [u8; 16],
}

impl FlagsRule {
    /// Of these flags, in any order; none: there are none.
    pub fn new(mut flags: Vec<Arc<Flag>>, secret: [u8; 16]) -> Option<Self> {
        flags.sort_by(|a, b| a.name.cmp(&b.name));
        (!flags.is_empty()).then(|| Self { flags: flags.into(), secret })
    }

    /// Those that are on for a request, as a list of tokens (RFC 9651); none: none is.
    pub fn on(&self, asked: &Asked<'_>, identity: Option<&Identity>) -> Option<HeaderValue> {
        let mut on = self.flags.iter().filter(|flag| self.is_on(flag, asked, identity)).peekable();
        on.peek()?;
        fields::value(|text| {
            for (place, flag) in on.enumerate() {
                text.write_str(if place > 0 { ", " } else { "" })?;
                text.write_str(flag.name.as_str())?;
            }
            Ok(())
        })
    }

    fn is_on(&self, flag: &Flag, asked: &Asked<'_>, identity: Option<&Identity>) -> bool {
        let tenant = identity.and_then(|who| who.tenant.as_ref());
        let drawn = match tenant {
            Some(tenant) => Drawn::Tenant(Some(tenant.as_str())),
            None => Drawn::Address(asked.address),
        };
        let point = || share(&self.secret, Draw::Flag(flag.name.as_str()), drawn);
        let named = |field: &String| {
            let mut values = asked.header(field).flatten();
            values.any(|value| value.split(',').any(|name| name.trim() == flag.name.as_str()))
        };
        tenant.is_some_and(|tenant| flag.tenants.contains(tenant))
            || flag.share.is_some_and(|share| share.holds(point()))
            || flag.header.as_ref().is_some_and(named)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use config::flag::FlagName;
    use config::ids::{IssuerName, TenantId};
    use config::units::Part;
    use http::HeaderMap;

    use super::*;

    const TENANTS: usize = 10_000;

    fn flag(name: &str, tenants: &[&str], share: Option<&str>, header: Option<&str>) -> Arc<Flag> {
        Arc::new(Flag {
            name: FlagName::parse(name).expect("a name"),
            tenants: tenants.iter().map(|it| TenantId::parse(it).expect("a tenant")).collect(),
            share: share.map(|text| Part::parse(text).expect("a share")),
            header: header.map(str::to_owned),
        })
    }

    fn on(rule: &FlagsRule, tenant: Option<&str>, headers: &[&str], address: [u8; 4]) -> String {
        let identity = tenant.map(|tenant| Identity {
            issuer: IssuerName::parse("i").expect("a name"),
            tenant: TenantId::parse(tenant).ok(),
            client: None,
            scopes: Box::new([]),
            claims: Default::default(),
        });
        let mut map = HeaderMap::new();
        for value in headers {
            map.append("x-beta", value.parse().expect("a value"));
        }
        let address = IpAddr::from(address);
        let asked = Asked { method: "GET", host: "h", path: "/", query: None, headers: &map, address };
        let value = rule.on(&asked, identity.as_ref());
        value.map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
    }

    /// For which tenants each of the flags is on.
    fn by_tenant(flags: &[Arc<Flag>]) -> Vec<String> {
        let rule = FlagsRule::new(flags.to_vec(), [5; 16]).expect("some");
        (0..TENANTS).map(|number| on(&rule, Some(&format!("tenant-{number}")), &[], [10, 0, 0, 1])).collect()
    }

    #[test]
    fn flags_that_are_on_are_one_sorted_list() {
        let flags = vec![
            flag("new-checkout", &["acme"], None, None),
            flag("dark", &["acme", "x"], None, Some("x-beta")),
        ];
        let rule = FlagsRule::new(flags, [5; 16]).expect("some");
        let at = [10, 0, 0, 1];
        assert_eq!(on(&rule, Some("acme"), &[], at), "dark, new-checkout");
        assert_eq!(on(&rule, Some("x"), &[], at), "dark");
        assert_eq!(on(&rule, Some("y"), &[], at), "");
        // and a tester names a flag that listens to the field, and no other
        for (headers, wanted) in [
            (vec!["dark"], "dark"),
            (vec!["a, dark ,b"], "dark"),
            (vec!["a", "dark"], "dark"),
            (vec!["darkest"], ""),
            (vec!["new-checkout"], ""),
            (vec![""], ""),
        ] {
            assert_eq!(on(&rule, None, &headers, at), wanted, "{headers:?}");
        }
        assert!(FlagsRule::new(vec![], [5; 16]).is_none());
    }

    #[test]
    fn a_share_is_of_tenants_grows_without_taking_back_and_is_drawn_for_each_flag() {
        let count = |all: &[String], name: &str| {
            let on = all.iter().filter(|it| it.split(", ").any(|it| it == name)).count();
            on as f64 / TENANTS as f64
        };
        // given two flags with the same share: five standard deviations of a draw are 2 %
        let both = by_tenant(&[flag("a", &[], Some("20%"), None), flag("b", &[], Some("20%"), None)]);
        assert!((count(&both, "a") - 0.2).abs() < 0.02 && (count(&both, "b") - 0.2).abs() < 0.02);
        // then both are on for the product of the shares, as if neither knew of the other
        let together = both.iter().filter(|it| *it == "a, b").count() as f64 / TENANTS as f64;
        assert!((together - 0.04).abs() < 0.01, "{together}");
        // when one grows
        let grown = by_tenant(&[flag("a", &[], Some("60%"), None)]);
        assert!((count(&grown, "a") - 0.6).abs() < 0.025);
        assert!(both.iter().zip(&grown).all(|(before, after)| !before.contains('a') || after == "a"));
        assert!(by_tenant(&[flag("a", &[], Some("100%"), None)]).iter().all(|it| it == "a"));
    }

    #[test]
    fn who_has_no_tenant_is_drawn_by_address() {
        let rule = FlagsRule::new(vec![flag("a", &[], Some("50%"), None)], [5; 16]).expect("some");
        let all: Vec<String> = (0..200).map(|it| on(&rule, None, &[], [10, 0, 0, it])).collect();
        let count = all.iter().filter(|it| *it == "a").count();
        assert!((60..140).contains(&count), "{count}");
        assert_eq!(on(&rule, None, &[], [10, 0, 0, 7]), all[7]);
    }
}
