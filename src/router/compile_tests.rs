use std::net::IpAddr;
use std::time::Duration;

use config::action::{Branch, Headers, Partition, PartitionBy, Respond, Split};
use config::identity::{Algorithm, Key, KeyMaterial};
use config::ids::{IssuerName, RouteName};
use config::path::Path;
use config::quota::OnQuorumLoss;
use config::route::{Charge, Match};
use config::upstream::Endpoint;
use http::HeaderMap;

use super::super::asked::Asked;
use super::*;

pub(in super::super) fn secret() -> Secret {
    Secret::from_bytes(vec![b's'; 32]).expect("long enough")
}

fn quota(name: &str, key: &[KeyPart]) -> Quota {
    Quota {
        name: QuotaName::parse(name).expect("a name"),
        key: key.to_vec(),
        limit: Limit { tokens: 10, per_ns: 1_000_000_000, burst: 10 },
        wait: None,
        on_quorum_loss: OnQuorumLoss::Deny,
    }
}

fn charge(name: &str) -> Charge {
    Charge { quota: QuotaName::parse(name).expect("a name"), cost: 1 }
}

/// One route `/api` with tokens of one issuer, counted by address and by tenant.
pub(in super::super) fn document() -> GatewayDocument {
    let issuer = IssuerName::parse("ours").expect("a name");
    let upstream = UpstreamName::parse("echo").expect("a name");
    let material = KeyMaterial::Secret {
        source: SecretSource::File("dev.secret".into()),
        fingerprint: Some(secret().fingerprint()),
    };
    GatewayDocument {
        upstreams: vec![Upstream::of(
            upstream.clone(),
            vec![Endpoint { host: "127.0.0.1".into(), port: 3000 }],
        )],
        issuers: vec![Issuer {
            name: issuer.clone(),
            issuer: "https://id.example".into(),
            audiences: vec!["api".into()],
            types: vec![],
            keys: vec![Key { kid: None, algorithm: Algorithm::HS256, material }],
            leeway: Duration::ZERO,
            lifetime_max: None,
            tenant_claim: "tenant".into(),
            client_claim: "sub".into(),
            scope_claim: "scope".into(),
        }],
        quotas: vec![quota("by-address", &[KeyPart::Address]), quota("by-tenant", &[KeyPart::Tenant])],
        routes: vec![Route {
            name: RouteName::parse("api").expect("a name"),
            matches: Match::of(Path::Prefix("/api".into())),
            priority: 0,
            action: Action::Upstream(upstream),
            access: Access::Token {
                issuers: vec![issuer],
                scopes: vec!["write".into(), "read".into()],
                serve_stale_for: std::time::Duration::ZERO,
            },
            charges: vec![charge("by-tenant"), charge("by-address")],
            timeout: None,
            strip_prefix: false,
            rewrite: None,
            upgrades: vec![],
            headers: Headers::default(),
            mirror: None,
            lifecycle: None,
            flags: vec![],
        }],
        ..GatewayDocument::default()
    }
}

fn source(revision: u64, document: GatewayDocument) -> Source {
    Source { revision: Revision(revision), document: Arc::new(document), secret: [7; 16] }
}

fn compiled(revision: u64, document: GatewayDocument, last: Option<&Published>) -> Published {
    compile(&source(revision, document), last, |_| Ok(secret())).expect("a complete document")
}

/// The route of `GET /api/x`.
pub(in super::super) fn find(published: &Published) -> &Arc<RouteRule> {
    let asked = Asked {
        method: "GET",
        host: "h",
        path: "/api/x",
        query: None,
        headers: &HeaderMap::new(),
        address: IpAddr::from([127, 0, 0, 1]),
    };
    published.table.find(&asked, |_| false).expect("the route")
}

fn refused(document: GatewayDocument) -> String {
    compile(&source(1, document), None, |_| Ok(secret())).expect_err("not servable")
}

#[test]
fn quotas_by_connection_facts_are_screened_and_the_others_come_after_authentication() {
    let published = compiled(1, document(), None);
    let rule = find(&published);
    let names =
        |rules: &[ChargeRule]| rules.iter().map(|rule| rule.quota.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&rule.screens), ["by-address"]);
    assert_eq!(names(&rule.charges), ["by-tenant"]);
    let AccessRule::Token(access) = &rule.access else { panic!("the route wants a token") };
    assert!(access.needs_tenant && !access.needs_client);
    assert_eq!(access.scopes.join(" "), "read write");
}

#[test]
fn whatever_counts_without_a_token_is_counted_before_it_is_looked_at() {
    let parts = [KeyPart::Tenant, KeyPart::Client, KeyPart::Route, KeyPart::Address];
    for set in 0..1_u8 << parts.len() {
        // given a quota by any of the parts
        let chosen = parts.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
        let key: Vec<KeyPart> = chosen.map(|(_, part)| *part).collect();
        let free = !key.iter().any(|part| part.is_authenticated());
        let mut document = document();
        document.quotas = vec![quota("q", &key)];
        document.routes[0].charges = vec![charge("q")];
        // when it counts a route of tokens
        let published = compiled(1, document, None);
        let rule = find(&published);
        // then it is a screen if nothing of it has to be proved
        assert_eq!((rule.screens.len(), rule.charges.len()), if free { (1, 0) } else { (0, 1) }, "{key:?}");
    }
}

#[test]
fn what_has_not_changed_is_shared_with_the_revision_before() {
    // given revision 1, and revision 2 that changes one quota
    let first = compiled(1, document(), None);
    let mut changed = document();
    changed.quotas[0].limit.burst = 20;
    let second =
        compile(&source(2, changed), Some(&first), |_| panic!("no secret is read again")).expect("complete");
    // then keys and the other quota are the same, and the changed one keeps its number
    assert!(Arc::ptr_eq(&first.verifiers, &second.verifiers));
    let ids: Vec<_> = document().quotas.iter().map(limit_id).collect();
    assert!(!Arc::ptr_eq(&first.quotas[&ids[0]], &second.quotas[&ids[0]]));
    assert!(Arc::ptr_eq(&first.quotas[&ids[1]], &second.quotas[&ids[1]]));
    assert_eq!(second.quotas[&ids[0]].limit.burst, 20);
}

#[test]
fn changed_keys_make_new_verifiers() {
    let first = compiled(1, document(), None);
    let mut changed = document();
    changed.issuers[0].keys[0].kid = Some("new".into());
    let second = compiled(2, changed, Some(&first));
    assert_ne!(first.verifiers.since(), second.verifiers.since());
}

#[test]
fn verifiers_keep_the_claims_that_routes_look_at_and_are_new_when_those_change() {
    // given a revision whose route looks at a claim, and one more that parts by another
    let first = compiled(1, document(), None);
    let mut by_plan = document();
    by_plan.routes[0].matches.claims = [("plan".to_owned(), vec!["gold".to_owned()])].into();
    let second = compiled(2, by_plan.clone(), Some(&first));
    let upstreams = [("eu".to_owned(), document().upstreams[0].name.clone())].into();
    let by = PartitionBy::Claim("region".into());
    by_plan.routes[0].action = Action::Partition(Partition { by, upstreams, otherwise: None });
    let third = compiled(3, by_plan.clone(), Some(&second));
    // then tokens that were verified before, whose claims are not known, are verified again
    let since = [&first, &second, &third].map(|published| published.verifiers.since().0);
    assert_eq!(since, [1, 2, 3]);
    assert_eq!(compiled(4, by_plan.clone(), Some(&third)).verifiers.since().0, 3);
    // and a public route has no claims to look at
    by_plan.routes[0].access = Access::Public;
    by_plan.routes[0].charges.clear();
    assert!(refused(by_plan).contains("claims on a public route"));
}

#[test]
fn a_revision_that_hangs_together_badly_is_refused_with_all_reasons() {
    let mut bad = document();
    bad.routes.push(Route {
        action: Action::Upstream(UpstreamName::parse("gone").expect("a name")),
        ..bad.routes[0].clone()
    });
    bad.routes.push(Route { access: Access::Public, ..bad.routes[0].clone() });
    bad.routes
        .push(Route { charges: vec![charge("by-tenant"), charge("by-tenant")], ..bad.routes[0].clone() });
    bad.routes
        .push(Route { charges: vec![Charge { cost: 0, ..charge("by-tenant") }], ..bad.routes[0].clone() });
    let why = refused(bad);
    for words in ["called gone", "public route", "twice", "cost"] {
        assert!(why.contains(words), "{words:?} is missing in {why:?}");
    }
}

#[test]
fn a_revision_without_its_secret_is_refused() {
    let none = compile(&source(1, document()), None, |_| Err("no such file".into())).expect_err("no secret");
    assert!(none.contains("issuer ours") && none.contains("no such file"), "{none}");
}

#[test]
fn a_split_by_tenant_asks_for_a_token_that_names_one() {
    let branch = |name: &str| Branch { upstream: UpstreamName::parse(name).expect("a name"), weight: 1 };
    let split = |by, other: &str| {
        Action::Split(Split { by, branches: vec![branch("echo"), branch(other)], chosen_by: None })
    };
    // given a route without quotas that is split by tenant
    let mut split_by_tenant = document();
    split_by_tenant
        .upstreams
        .push(Upstream { name: branch("other").upstream, ..document().upstreams[0].clone() });
    let route = &mut split_by_tenant.routes[0];
    (route.charges, route.action) = (vec![], split(SplitBy::Tenant, "other"));
    // when it is compiled, then it has both upstreams, and takes no token without a tenant
    let published = compiled(1, split_by_tenant.clone(), None);
    let rule = find(&published);
    let names: Vec<&str> = rule.upstreams.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["echo", "other"]);
    assert!(matches!(&rule.access, AccessRule::Token(token) if token.needs_tenant && !token.needs_client));
    // and what a node of another version may let in is refused
    for (action, access, words) in [
        (split(SplitBy::Tenant, "gone"), None, "called gone"),
        (split(SplitBy::Client, "other"), Some(Access::Public), "public route"),
        (Action::Respond(Respond { status: 99, body: String::new(), content_type: None }), None, "status 99"),
    ] {
        let mut bad = split_by_tenant.clone();
        bad.routes[0].action = action;
        bad.routes[0].access = access.unwrap_or(bad.routes[0].access.clone());
        let why = refused(bad);
        assert!(why.contains(words), "{words:?} is missing in {why:?}");
    }
}
