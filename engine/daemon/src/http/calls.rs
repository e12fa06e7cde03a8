//! The telephone calls that LiveKit has told of: kept in memory, the oldest forgotten first, for whoever debugs a line.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use super::rooms::Participant;

/// Calls remembered: half a day of a busy host, some 300 KB.
const CALLS_MAX: usize = 1_000;

/// One caller's stay in a room.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// The telephone network's, else the participant's.
    #[serde(rename = "callId")]
    id: String,
    room_name: String,
    participant_identity: String,
    #[serde(skip)]
    participant_sid: String,
    from: Option<String>,
    to: Option<String>,
    /// `dialing`, `ringing`, `automation`, `active`, `hangup` as the telephone side said when they came; `ended`.
    state: String,
    /// ms since the Unix epoch.
    started_at_unix_ms: u64,
    ended_at_unix_ms: Option<u64>,
}

/// The calls, oldest first.
#[derive(Default)]
pub struct CallBook(Mutex<VecDeque<Call>>);

impl CallBook {
    /// Notes a caller who has come; the same told again changes nothing.
    pub fn joined(&self, room: &str, caller: &Participant, at_unix_ms: u64) {
        let mut calls = self.calls();
        if calls.iter().any(|call| call.participant_sid == caller.sid) {
            return;
        }
        if calls.len() == CALLS_MAX {
            calls.pop_front();
        }
        let attribute = |name: &str| caller.attributes.get(name).filter(|value| !value.is_empty()).cloned();
        calls.push_back(Call {
            id: attribute("sip.callID").unwrap_or_else(|| caller.sid.clone()),
            room_name: room.to_owned(),
            participant_identity: caller.identity.clone(),
            participant_sid: caller.sid.clone(),
            from: attribute("sip.phoneNumber"),
            to: attribute("sip.trunkPhoneNumber"),
            state: attribute("sip.callStatus").unwrap_or_else(|| "active".to_owned()),
            started_at_unix_ms: at_unix_ms,
            ended_at_unix_ms: None,
        });
    }

    /// Notes that someone has left.
    pub fn left(&self, caller: &Participant, at_unix_ms: u64) {
        self.end(|call| call.participant_sid == caller.sid, at_unix_ms);
    }

    /// Notes that all have left.
    pub fn finished(&self, room: &str, at_unix_ms: u64) {
        self.end(|call| call.room_name == room && call.started_at_unix_ms <= at_unix_ms, at_unix_ms);
    }

    /// The newest call that it is.
    pub fn find(&self, is: impl Fn(&Call) -> bool) -> Option<Call> {
        self.calls().iter().rev().find(|call| is(call)).cloned()
    }

    fn end(&self, is: impl Fn(&Call) -> bool, at_unix_ms: u64) {
        for call in self.calls().iter_mut().filter(|call| call.ended_at_unix_ms.is_none() && is(call)) {
            "ended".clone_into(&mut call.state);
            call.ended_at_unix_ms = Some(at_unix_ms);
        }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, VecDeque<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    /// By its id.
    pub fn is(&self, call_id: &str) -> bool {
        self.id == call_id
    }

    /// By its room.
    pub fn is_in(&self, room: &str) -> bool {
        self.room_name == room
    }
}
