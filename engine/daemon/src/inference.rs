//! What runs on and beside the audio threads: their settings and their models.

use anyhow::Result;
use voiced_config::Settings;
use voiced_core::model::{Denoise, TurnFeatures, TurnJudge};
use voiced_models_local::denoise::Gtcrn;
use voiced_models_local::end_of_turn::{SmartTurn, SmartTurnFeatures};
use voiced_models_local::vad::Silero;
use voiced_models_local::weights::{GTCRN, Weights};
use voiced_rt::{EngineSettings, ThreadModels};

/// How the audio threads run.
pub fn engine(settings: &Settings) -> EngineSettings {
    let engine = &settings.engine;
    EngineSettings {
        threads: engine.threads,
        calls_per_thread: engine.calls_per_thread,
        realtime_priority: (engine.realtime_priority > 0).then_some(engine.realtime_priority),
        pin_cores: engine.pin_cores,
        lock_memory: engine.lock_memory,
    }
}

/// The end-of-turn model, which all threads share, where it is wanted.
pub fn turn_model(settings: &Settings, weights: &Weights) -> Result<Option<SmartTurn>> {
    if !settings.agent.turn_detection_enabled {
        return Ok(None);
    }
    let model = SmartTurn::load(&weights.path("smart-turn-v3.2-cpu.onnx")?)?;
    tracing::info!(kernel = model.instruction_set(), "end of turn loaded");
    Ok(Some(model))
}

/// The models of one audio thread.
pub fn thread_models(settings: &Settings, weights: &Weights, turn_model: Option<&SmartTurn>, slots: usize) -> Result<ThreadModels> {
    let profile = &settings.agent;
    // a job in a room may ask for it, whatever the profile says
    let may_denoise = profile.noise_cancellation_enabled || !settings.livekit.url.is_empty();
    let denoise = if may_denoise { Some(Box::new(Gtcrn::load(&weights.path(GTCRN)?, slots)?) as Box<dyn Denoise>) } else { None };
    let end_of_turn = turn_model.map(|model| {
        let judge = Box::new(model.clone()) as Box<dyn TurnJudge>;
        (Box::new(SmartTurnFeatures::new(slots)) as Box<dyn TurnFeatures>, judge)
    });
    let vad = Silero::load(&weights.path("silero_vad_16k_sequence.onnx")?, slots)?;
    tracing::info!(slots, kernel = vad.instruction_set(), "voice activity loaded");
    Ok(ThreadModels { denoise, vad: Box::new(vad), end_of_turn })
}
