//! From what a request shows to the bucket that counts it.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr};

use config::quota::{KeyPart, Quota};
use siphasher::sip::SipHasher24;

use super::ids::{Key, LimitId};

/// Public: a limit's id must be equal in every cluster that has the quota. "quorumgate quota" in ASCII.
const LIMIT_ID_KEY: &[u8; 16] = b"quorumgate quota";

/// What a quota can count by, as far as it is known of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValues<'a> {
    /// The token's tenant.
    pub tenant: Option<&'a str>,
    /// The token's client.
    pub client: Option<&'a str>,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The client's address.
    pub address: Option<IpAddr>,
}

/// The id of a quota: follows its name and key expression alone, so that a changed amount is the same quota.
pub fn limit_id(quota: &Quota) -> LimitId {
    let mut parts = Parts::under(LIMIT_ID_KEY);
    parts.text(Some(quota.name.as_str()));
    for part in &quota.key {
        parts.0.write_u8(part_tag(*part));
    }
    LimitId(parts.0.finish())
}

/// The hash of a tenant in [`Key::tenant`]: never 0, which says "not by tenant".
pub fn tenant_hash(secret: &[u8; 16], tenant: &str) -> u64 {
    let mut parts = Parts::under(secret);
    parts.0.write_u8(b'T');
    parts.text(Some(tenant));
    parts.0.finish().max(1)
}

/// What draws a share. Each draws for itself: who is in the share of one is in that of another no more likely than anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw<'a> {
    /// The route of this name that splits its requests.
    Split(&'a str),
    /// The route of this name that mirrors some.
    Mirror(&'a str),
    /// The flag of this name.
    Flag(&'a str),
}

/// What a share goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn<'a> {
    /// The token's tenant.
    Tenant(Option<&'a str>),
    /// The token's client.
    Client(Option<&'a str>),
    /// The client's address, as quotas count it.
    Address(IpAddr),
    /// The request's number.
    Request(u128),
}

/// A number that is the same on every node of a cluster, and even over all values: which share one falls into.
pub fn share(secret: &[u8; 16], draw: Draw<'_>, drawn: Drawn<'_>) -> u64 {
    let mut parts = Parts::under(secret);
    let (tag, name) = match draw {
        Draw::Split(route) => (b'S', route),
        Draw::Mirror(route) => (b'M', route),
        Draw::Flag(flag) => (b'F', flag),
    };
    parts.0.write_u8(tag);
    parts.text(Some(name));
    match drawn {
        Drawn::Tenant(tenant) => {
            parts.0.write_u8(1);
            parts.text(tenant);
        }
        Drawn::Client(client) => {
            parts.0.write_u8(2);
            parts.text(client);
        }
        Drawn::Address(address) => {
            parts.0.write_u8(3);
            parts.address(Some(address));
        }
        Drawn::Request(number) => {
            parts.0.write_u8(4);
            parts.bytes(Some(&number.to_le_bytes()));
        }
    }
    parts.0.finish()
}

/// The bucket that counts a request in `quota`.
///
/// A value that the request does not have is a value of its own: all requests without it share a bucket.
/// Of a quota by tenant alone, the value is the tenant again: that tells the ledger that a tenant has one bucket there.
/// Key spaces of addresses without an authenticated part are folded into [`Key::SHARED_SLOTS`] slots, for good:
/// a key that moved between a slot and a bucket of its own would get a second burst.
pub fn key(secret: &[u8; 16], quota: &Quota, values: &KeyValues<'_>) -> Key {
    let limit = limit_id(quota);
    let mut parts = Parts::under(secret);
    parts.0.write_u8(b'K');
    parts.0.write(&limit.0.to_le_bytes());
    let mut tenant = 0;
    for part in &quota.key {
        parts.0.write_u8(part_tag(*part));
        match part {
            KeyPart::Tenant => {
                parts.text(values.tenant);
                tenant = values.tenant.map_or(0, |tenant| tenant_hash(secret, tenant));
            }
            KeyPart::Client => parts.text(values.client),
            KeyPart::Route => parts.text(values.route),
            KeyPart::Address => parts.address(values.address),
        }
    }
    if quota.key == [KeyPart::Tenant] && tenant != 0 {
        return Key { limit, tenant, value: tenant };
    }
    let hash = parts.0.finish();
    let shared = quota.is_screen() && quota.key.contains(&KeyPart::Address);
    Key { limit, tenant, value: if shared { hash % Key::SHARED_SLOTS } else { hash } }
}

/// Fixed for ever: it is part of every key.
fn part_tag(part: KeyPart) -> u8 {
    match part {
        KeyPart::Tenant => 1,
        KeyPart::Client => 2,
        KeyPart::Route => 3,
        KeyPart::Address => 4,
    }
}

/// A hash of parts, each with its length before it, so that no two lists of parts read the same.
struct Parts(SipHasher24);

impl Parts {
    fn under(key: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.0.write_u8(0),
            Some(bytes) => {
                self.0.write_u8(1);
                self.0.write(&(bytes.len() as u64).to_le_bytes());
                self.0.write(bytes);
            }
        }
    }

    fn text(&mut self, text: Option<&str>) {
        self.bytes(text.map(str::as_bytes));
    }

    /// IPv4 whole, also where it is mapped into IPv6; IPv6 by its first 64 bits, which one subscriber holds alone.
    fn address(&mut self, address: Option<IpAddr>) {
        match address.map(|address| address.to_canonical()) {
            None => self.bytes(None),
            Some(IpAddr::V4(address)) => self.bytes(Some(&Ipv4Addr::octets(&address))),
            Some(IpAddr::V6(address)) => self.bytes(Some(&address.octets()[..8])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::quota;
    use super::*;

    const SECRET: [u8; 16] = [7; 16];

    #[test]
    fn a_changed_amount_keeps_the_limit_and_a_changed_key_does_not() {
        let plain = quota("a", &[KeyPart::Tenant], 10, 10);
        assert_eq!(limit_id(&plain), limit_id(&quota("a", &[KeyPart::Tenant], 99, 1)));
        assert_ne!(limit_id(&plain), limit_id(&quota("a", &[KeyPart::Client], 10, 10)));
        assert_ne!(limit_id(&plain), limit_id(&quota("b", &[KeyPart::Tenant], 10, 10)));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let both = quota("a", &[KeyPart::Tenant, KeyPart::Client], 1, 1);
        let of = |tenant, client| {
            let values = KeyValues { tenant: Some(tenant), client: Some(client), ..KeyValues::default() };
            key(&SECRET, &both, &values)
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_eq!(of("ab", "c").tenant, of("ab", "d").tenant);
        assert_ne!(of("ab", "c").value, of("ab", "d").value);
    }

    #[test]
    fn an_address_counts_as_its_64_and_a_mapped_one_as_ipv4() {
        let by_address = quota("a", &[KeyPart::Address], 1, 1);
        let of = |text: &str| {
            let address = Some(text.parse::<IpAddr>().expect("an address"));
            key(&SECRET, &by_address, &KeyValues { address, ..KeyValues::default() })
        };
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("10.0.0.1"), of(&Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().to_string()));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn a_share_follows_from_the_route_and_one_value_of_one_kind() {
        let all = [
            share(&SECRET, Draw::Split("r"), Drawn::Tenant(Some("a"))),
            share(&SECRET, Draw::Split("r"), Drawn::Tenant(Some("b"))),
            share(&SECRET, Draw::Split("r"), Drawn::Tenant(None)),
            share(&SECRET, Draw::Split("r"), Drawn::Client(Some("a"))),
            share(&SECRET, Draw::Split("s"), Drawn::Tenant(Some("a"))),
            share(&[8; 16], Draw::Split("r"), Drawn::Tenant(Some("a"))),
            share(&SECRET, Draw::Mirror("r"), Drawn::Tenant(Some("a"))),
            share(&SECRET, Draw::Flag("r"), Drawn::Tenant(Some("a"))),
            share(&SECRET, Draw::Split("r"), Drawn::Request(1)),
            share(&SECRET, Draw::Split("r"), Drawn::Request(2)),
        ];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        let of =
            |text: &str| share(&SECRET, Draw::Split("r"), Drawn::Address(text.parse().expect("an address")));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn only_keys_that_cost_nothing_to_mint_share_slots() {
        let values =
            KeyValues { client: Some("c"), address: "10.0.0.1".parse().ok(), ..KeyValues::default() };
        let screen = quota("a", &[KeyPart::Address], 1, 1);
        let known = quota("a", &[KeyPart::Client, KeyPart::Address], 1, 1);
        assert!(key(&SECRET, &screen, &values).value < Key::SHARED_SLOTS);
        assert!(key(&SECRET, &known, &values).value >= Key::SHARED_SLOTS);
    }
}
