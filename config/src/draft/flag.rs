//! Feature flags.

use super::matching::parse_header_name;
use crate::flag::{Flag, FlagName};
use crate::ids::TenantId;
use crate::spot::{Notes, Spot};
use crate::units::Part;

/// Reads `{tenants: [acme], share: 20%, header: x-beta}`.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>, name: &FlagName) -> Option<Flag> {
    let mut fields = spot.fields(notes, &["tenants", "share", "header"])?;
    let tenants = fields.optional("tenants");
    let tenants = tenants.map(|spot| spot.texts(notes, Flag::TENANTS_MAX, TenantId::parse));
    let share = fields.optional("share").and_then(|spot| spot.parse(notes, Part::parse));
    let header = fields.optional("header").and_then(|spot| spot.parse(notes, parse_header_name));
    Some(Flag { name: name.clone(), tenants: tenants.into_iter().flatten().collect(), share, header })
}
