//! What callers say, spoken by the offline voice so that no recording is needed, and how they behave.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use voiced_core::resample::Resampler;
use voiced_lab::phone::{CallReport, CallScript, Phone, Sign, Step};
use voiced_models_local::tts::Piper;
use voiced_models_local::weights::{ONNX_RUNTIME, PIPER_VOICE, Weights};

/// Quiet after which a caller takes the agent to be done, in ms: longer than a busy machine makes a voice stutter.
const QUIET_MS: u64 = 1_000;
/// A caller waits this long for an agent, in ms: longer than the daemon waits for its providers.
const AT_MOST_MS: u64 = 20_000;
/// A caller waits this long for a sign of the test, in ms.
const SIGN_AT_MOST_MS: u64 = 40_000;
/// No call of these tests is longer, in ms.
const LIMIT_MS: u64 = 80_000;

/// Waits until the agent has spoken.
pub fn listen() -> Step {
    Step::Listen { quiet_ms: QUIET_MS, at_most_ms: AT_MOST_MS }
}

/// Waits for a sign of the test.
pub fn wait_for(sign: &Sign) -> Step {
    Step::WaitFor { sign: sign.clone(), at_most_ms: SIGN_AT_MOST_MS }
}

/// Says something.
pub fn say(text: &'static str) -> Step {
    Step::Say { pcm8k: spoken(text), label: text.to_owned() }
}

/// A caller who does this and hangs up.
pub fn script(steps: impl Into<Vec<Step>>) -> CallScript {
    CallScript { steps: steps.into(), limit_ms: LIMIT_MS }
}

/// A caller who listens, says each of these and listens to the answer.
pub fn conversation(lines: &[&'static str]) -> CallScript {
    let answered = lines.iter().flat_map(|line| [say(line), listen()]);
    script(std::iter::once(listen()).chain(answered).collect::<Vec<_>>())
}

/// Places a call; nobody watches.
pub async fn call(phone: &Phone, script: CallScript) -> CallReport {
    phone.call(script, &|_, _| {}).await.expect("a call")
}

struct Voice {
    piper: Option<Piper>,
    lines: BTreeMap<&'static str, Vec<i16>>,
}

/// A line at 8 kHz, made once.
pub fn spoken(text: &'static str) -> Vec<i16> {
    static VOICE: Mutex<Voice> = Mutex::new(Voice { piper: None, lines: BTreeMap::new() });
    let mut voice = VOICE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(line) = voice.lines.get(text) {
        return line.clone();
    }
    let piper = voice.piper.get_or_insert_with(|| {
        let weights = Weights::at(Weights::default_dir());
        let path = |name: &str| weights.path(name).expect("weights: run `voiced models fetch`");
        Piper::load(&path(ONNX_RUNTIME), &path(PIPER_VOICE), &path(&format!("{PIPER_VOICE}.json"))).expect("the voice")
    });
    let (mut sound, mut at_8k) = (Vec::new(), Vec::new());
    let rate = piper.synthesize(text, &mut sound).expect("speech");
    Resampler::new(rate, 8_000).process_i16(&sound, &mut at_8k);
    voice.lines.insert(text, at_8k.clone());
    at_8k
}
