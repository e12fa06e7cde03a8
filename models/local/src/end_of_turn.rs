//! End of turn: has the caller finished, or only paused? Smart Turn v3.2 answers from the last 8 s of sound.
//!
//! The work is split where its cost changes. [`SmartTurnFeatures`] belongs to the audio thread: it takes each 10 ms
//! of a call as it comes, turns it into one column of a log-mel picture (a few µs), and at a pause writes the picture
//! into a [`TurnQuery`]. [`SmartTurn`] belongs to a worker: it asks the model (tens of ms) and returns a probability.
//! The model is one signal among several, so a failed inference says "undecided" and the call goes on.

mod features;
mod mel;

use std::path::Path;

use ort::session::Session;
use ort::value::TensorRef;
use voiced_core::model::{TURN_FRAMES, TURN_MELS, TurnJudge, TurnQuery};

pub use features::SmartTurnFeatures;

use crate::onnx::{OnnxError, open_session};

/// The answer when the model cannot say: neither side of any threshold gains by it.
const UNDECIDED: f32 = 0.5;

/// Smart Turn v3.2 on ONNX Runtime; one per worker thread.
pub struct SmartTurn {
    session: Session,
}

impl SmartTurn {
    /// Loads `smart-turn-v3.2-cpu.onnx` and asks it once, so that a wrong file is found now and not in a call.
    pub fn load(onnx_library: &Path, model: &Path) -> Result<Self, OnnxError> {
        let mut smart_turn = Self { session: open_session(onnx_library, model)? };
        smart_turn.probability(&TurnQuery::default()).map_err(|reason| OnnxError::Model { path: model.to_path_buf(), reason: reason.to_string() })?;
        Ok(smart_turn)
    }

    fn probability(&mut self, query: &TurnQuery) -> ort::Result<f32> {
        let features = TensorRef::from_array_view(([1, TURN_MELS, TURN_FRAMES], &*query.features))?;
        let outputs = self.session.run(ort::inputs!["input_features" => features])?;
        let (_, values) = outputs[0].try_extract_tensor::<f32>()?;
        values.first().copied().ok_or_else(|| ort::Error::new("the model gave no probability"))
    }
}

impl TurnJudge for SmartTurn {
    fn judge(&mut self, query: &TurnQuery) -> f32 {
        let undecided = |error| {
            tracing::warn!(%error, "end-of-turn inference failed");
            UNDECIDED
        };
        self.probability(query).unwrap_or_else(undecided).clamp(0.0, 1.0)
    }
}
