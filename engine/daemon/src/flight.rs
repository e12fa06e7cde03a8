//! The flight recorder: what a call was told and what it decided, to be asked afterwards.
//!
//! A record is a file of JSON lines. The first holds who called and the conversation's settings; each further one an input
//! of the pure conversation, when it came, and the decisions that followed. So a record can be told as a story ([`story`])
//! and run again through the same code ([`story::replay`]), which has to decide the same. Ticks that decided nothing are
//! kept as times only.

mod recorder;
pub mod story;

use serde::{Deserialize, Serialize};
use voiced_core::conversation::{Action, Input, Settings};
use voiced_core::event::CallEventKind;
use voiced_core::time::MediaTime;

pub use recorder::Recorder;
use recorder::{Page, Pages};

/// What is kept of one call, in bytes: an hour of lively talk. The rest of a longer one is not recorded.
const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Ticks between two lines, ten minutes of a call in which nothing happens: then one becomes a line.
const TICKS_MAX: usize = 6_000;
/// Lines that wait for the disk, in bytes.
const PAGE_BYTES: usize = 16 * 1024;

/// The first line of a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    pub session_id: String,
    pub call_sid: Option<String>,
    pub from: String,
    pub to: String,
    pub started_at_unix_ms: u64,
    /// Who may hear, best first; who answers and speaks is told with each reply.
    pub providers: Vec<String>,
    pub settings: Settings,
}

/// A further line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// ms since the call's begin.
    pub at: u64,
    /// Ticks since the last line, which decided nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ticks: Vec<u64>,
    /// What happened; `None`: the record was cut here.
    pub input: Option<Input>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<String>,
    /// Utterances that were reported with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub utterances: usize,
    /// Why the call ended with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Moment {
    fn new(at: u64, input: Option<Input>) -> Self {
        Self { at, ticks: Vec::new(), input, decided: Vec::new(), utterances: 0, ended: None }
    }
}

/// Records one call. Never waits: when the disk is too far behind the record ends there, without the call's end.
pub struct Flight {
    pages: Pages,
    lines: Vec<u8>,
    ticks: Vec<u64>,
    bytes: usize,
    cut: bool,
}

impl Flight {
    /// Begins a record; `None` where none is wanted.
    pub fn begin(recorder: &Recorder, head: &Head) -> Option<Self> {
        let pages = recorder.open(head.started_at_unix_ms, &head.session_id)?;
        let mut flight = Self { pages, lines: Vec::new(), ticks: Vec::new(), bytes: 0, cut: false };
        flight.line(head);
        flight.turn_page(false);
        Some(flight)
    }

    /// The line of an input, before the conversation consumes it.
    pub fn moment(&self, now: MediaTime, input: &Input) -> Option<Moment> {
        (!self.cut).then(|| Moment::new(now.ms(), Some(input.clone())))
    }

    /// Keeps it with what was decided.
    pub fn decided(&mut self, mut moment: Moment, actions: &[Action]) {
        moment.decided = actions.iter().filter_map(Action::decision).collect();
        moment.utterances = actions.iter().filter(|action| matches!(action, Action::Report(CallEventKind::Utterance { .. }))).count();
        moment.ended = actions.iter().find_map(|action| if let Action::End { reason } = action { Some((*reason).to_owned()) } else { None });
        let is_tick = matches!(moment.input, Some(Input::Tick));
        // a hint is no decision that is told, but it shows that the tick mattered
        if is_tick && actions.is_empty() && self.ticks.len() < TICKS_MAX {
            return self.ticks.push(moment.at);
        }
        moment.ticks = std::mem::take(&mut self.ticks);
        self.line(&moment);
        let ended = moment.ended.is_some();
        if self.bytes > RECORD_BYTES_MAX && !ended {
            self.cut = true;
            self.line(&Moment::new(moment.at, None));
        }
        // what was reported is worth a look even if the host dies now
        if ended || self.cut || self.lines.len() > PAGE_BYTES || actions.iter().any(|action| matches!(action, Action::Report(_))) {
            self.turn_page(ended);
        }
    }

    fn line(&mut self, line: &impl Serialize) {
        let before = self.lines.len();
        if serde_json::to_writer(&mut self.lines, line).is_ok() {
            self.lines.push(b'\n');
        } else {
            self.lines.truncate(before); // never: all of it fits JSON
        }
        self.bytes += self.lines.len() - before;
    }

    fn turn_page(&mut self, last: bool) {
        let lines = std::mem::take(&mut self.lines);
        if !self.pages.send(Page { lines, last }) {
            // a record with a hole could not be run again
            self.cut = true;
            tracing::warn!("a call's record ends early: the disk is too far behind");
        }
    }
}
