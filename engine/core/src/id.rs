//! Names of calls and turns.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The public name of a call or session, e.g. `phone-CA…`; cheap to clone, unique on this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(Arc<str>);

impl CallId {
    /// Takes any non-empty name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The epoch of a conversation. Whatever carries an older `TurnId` than the call's current one is void: barge-in
/// and a caller who goes on after a pause are both one comparison. Grows by one for each guess at a turn's end and
/// each cut reply; it never wraps within a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TurnId(pub u32);

impl TurnId {
    /// The epoch that voids this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Somebody else in a call besides its caller, as the rim numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestId(pub u32);
