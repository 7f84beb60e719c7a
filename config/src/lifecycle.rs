//! Versions of an API: until when they are there, and what comes after them.

use serde::{Deserialize, Serialize};

use crate::ids::VersionName;
use crate::units::UnixS;

/// Where a route's version stands in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// What it is called in metrics and by operators.
    pub version: VersionName,
    /// Since when, or from when on, nobody should begin to use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<UnixS>,
    /// When it ends; not before `deprecated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset: Option<UnixS>,
    /// An address that tells people of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<String>,
    /// The address of the version that takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

impl Lifecycle {
    /// The longest address.
    pub const ADDRESS_BYTES_MAX: usize = 1 << 10;
}
