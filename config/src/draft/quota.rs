//! Quotas, plans and tenants.

use std::collections::BTreeMap;
use std::time::Duration;

use super::amount;
use crate::ids::{PlanName, QuotaName, TenantId};
use crate::quota::{KeyPart, Limit, OnQuorumLoss, Plan, Quota, Tenant};
use crate::spot::{Fields, Notes, Spot};
use crate::tree::Value;

const KEY_PARTS: [(&str, KeyPart); 4] = [
    ("tenant", KeyPart::Tenant),
    ("client", KeyPart::Client),
    ("route", KeyPart::Route),
    ("address", KeyPart::Address),
];

/// Reads `{key: tenant, limit: 100/s, burst: 100, wait: 50ms, on_quorum_loss: deny}`.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>, name: &QuotaName) -> Option<Quota> {
    let mut fields = spot.fields(notes, &["key", "limit", "burst", "wait", "on_quorum_loss"])?;
    let key = fields.required(notes, "key").and_then(|spot| read_key(notes, &spot));
    let burst = fields.optional("burst");
    let limit = fields.required(notes, "limit").map(|spot| amount::read(notes, &spot, burst));
    let wait =
        fields.optional("wait").and_then(|spot| spot.duration(notes, Duration::ZERO..=Quota::WAIT_MAX));
    let losses = [("deny", OnQuorumLoss::Deny), ("local-share", OnQuorumLoss::LocalShare)];
    let on_quorum_loss =
        fields.or(notes, "on_quorum_loss", OnQuorumLoss::Deny, |notes, spot| spot.word(notes, &losses));
    Some(Quota { name: name.clone(), key: key?, limit: limit?, wait, on_quorum_loss })
}

/// One part, a list of parts, or `all`: one bucket for the whole quota.
fn read_key(notes: &mut Notes, spot: &Spot<'_>) -> Option<Vec<KeyPart>> {
    let before = notes.mistakes.len();
    let mut key = match spot.value() {
        Value::Text(text) if text == "all" => return Some(Vec::new()),
        Value::List(list) if list.is_empty() => {
            spot.wrong(notes, "a part").help =
                Some("write `key: all` for one bucket that counts everything".into());
            return None;
        }
        Value::List(_) => {
            let mut key: Vec<KeyPart> = Vec::new();
            for part_spot in spot.items(notes, KEY_PARTS.len()) {
                let Some(part) = part_spot.word(notes, &KEY_PARTS) else { continue };
                if key.contains(&part) {
                    part_spot.wrong(notes, "each part once");
                } else {
                    key.push(part);
                }
            }
            key
        }
        _ => {
            let words: Vec<(&str, Option<KeyPart>)> =
                KEY_PARTS.iter().map(|(word, part)| (*word, Some(*part))).chain([("all", None)]).collect();
            spot.word(notes, &words)?.into_iter().collect()
        }
    };
    key.sort_unstable();
    (notes.mistakes.len() == before).then_some(key)
}

/// Reads `{limits: {per-tenant: 1000/s}}`.
pub(super) fn read_plan(notes: &mut Notes, spot: &Spot<'_>, name: &PlanName) -> Plan {
    let mut fields = spot.fields(notes, &["limits"]);
    let limits = fields.as_mut().map(|fields| read_limits(notes, fields)).unwrap_or_default();
    Plan { name: name.clone(), limits }
}

/// Reads `{plan: gold, limits: {per-tenant: 10/s}}`.
pub(super) fn read_tenant(notes: &mut Notes, spot: &Spot<'_>, id: &TenantId) -> Tenant {
    let Some(mut fields) = spot.fields(notes, &["plan", "limits"]) else {
        return Tenant { id: id.clone(), plan: None, limits: BTreeMap::new() };
    };
    let plan = fields.optional("plan").and_then(|spot| spot.parse(notes, PlanName::parse));
    Tenant { id: id.clone(), plan, limits: read_limits(notes, &mut fields) }
}

fn read_limits(notes: &mut Notes, fields: &mut Fields<'_>) -> BTreeMap<QuotaName, Limit> {
    let Some(spot) = fields.optional("limits") else { return BTreeMap::new() };
    spot.named(notes, 1_000, QuotaName::parse, |notes, spot, _| amount::read(notes, spot, None))
}
