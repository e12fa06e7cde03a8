//! `voiced demo`: the daemon and a phone on loopback, offline models, no keys. A caller speaks with the repairs line,
//! interrupts it once, and what happened is shown as it happens; then the latencies, the events as a receiver got them,
//! and the recording. With `--room` the caller is no phone but a person in a LiveKit room, see [`room`].

mod room;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use voiced_config::Settings;
use voiced_core::leg::LegEvent;
use voiced_core::model::SttEvent;
use voiced_core::resample::Resampler;
use voiced_lab::ema::EmaReceiver;
use voiced_lab::phone::{BargeInReport, CallScript, Phone, PhoneEvent, PhoneSettings, Step};
use voiced_models_local::tts::Piper;

use crate::call::Observed;
use crate::dirs;
use crate::serve::Daemon;

/// What the caller says; the third is said over the agent.
const CALLER: [&str; 4] = ["Hi. My kitchen sink is leaking.", "It is in the kitchen.", "It is twelve Oak Street.", "Yes, please."];
/// Which of them interrupts, and how long after the agent began.
const BARGE_IN: (usize, u64) = (2, 900);
/// Quiet after which the caller takes the agent to be done, in ms.
const QUIET_MS: u64 = 700;
/// The whole demo, and one answer within it, in ms.
const LIMIT_MS: u64 = 90_000;
const ANSWER_MS: u64 = 15_000;
/// How long the last events may take to reach the receiver.
const EVENTS_WITHIN: Duration = Duration::from_secs(10);

/// Options of the demo.
#[derive(Args)]
pub struct DemoArgs {
    /// Also write what happened to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder of the recording and the event store; default: one in the system's folder for temporary files.
    #[arg(long)]
    out: Option<PathBuf>,
    /// In a LiveKit room, on a server of its own, instead of on the phone; needs `make tools`.
    #[arg(long)]
    room: bool,
}

/// Runs the demo; fails when the dialogue did not happen.
pub async fn run(mut settings: Settings, args: DemoArgs) -> Result<ExitCode> {
    let out = args.out.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("voiced-demo-{}", std::process::id())));
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    println!("voiced demo: a caller, the repairs line, all on this machine\n");
    let venue = if args.room { Some(room::Venue::open(&mut settings).await?) } else { None };
    let lines = caller_lines(&settings).await?;
    let ema = EmaReceiver::start(None).await?;
    "127.0.0.1".clone_into(&mut settings.server.bind);
    settings.server.port = 0;
    settings.server.webhook_url = "http://127.0.0.1".into();
    settings.twilio.auth_token = "demo".into();
    settings.twilio.account_sid = String::new();
    settings.ema.api_url = ema.url();
    settings.ema.webhook_secret = "demo".into();
    settings.storage.state_dir = out.display().to_string();
    settings.engine.headroom_percent = 0; // one call is never too many, however busy the machine
    settings.script = voiced_config::load(None, []).map_err(|_| anyhow::anyhow!("the embedded defaults are broken"))?.script;
    let (stt, llm, tts) = ("local/whisper-tiny.en".to_owned(), "local/script".to_owned(), "local/piper".to_owned());
    (settings.agent.stt, settings.agent.llm, settings.agent.tts) = (stt, llm, tts);
    settings.agent.greeting = String::new();
    let daemon = Daemon::start(settings, true).await?;

    let timeline = Arc::new(Timeline { begun: Mutex::new(Instant::now()) });
    let watcher = tokio::spawn(watch(daemon.sessions.observe(), Arc::clone(&timeline)));
    let called = match &venue {
        Some(venue) => venue.call(&daemon, &lines, &out, &timeline).await?,
        None => phone_call(&daemon, lines, &out, &timeline).await?,
    };
    let events = all_events(&ema).await;
    daemon.stop().await;
    watcher.abort();

    let outcome = outcome(&called, &events);
    show(&outcome, &called.recording);
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_vec_pretty(&outcome)?).with_context(|| file.display().to_string())?;
    }
    Ok(verdict(&outcome))
}

/// What the caller's side measured.
struct Called {
    /// For each thing the caller said, how long the answer took, in ms.
    response_ms: Vec<Option<u64>>,
    /// The interruptions, in the form of `--json`.
    barge_ins: Vec<Value>,
    recording: PathBuf,
}

async fn phone_call(daemon: &Daemon, lines: Vec<Vec<i16>>, out: &Path, timeline: &Timeline) -> Result<Called> {
    let phone = Phone::new(PhoneSettings {
        base_url: format!("http://{}", daemon.address).parse()?,
        auth_token: "demo".into(),
        account_sid: format!("AC{:032x}", 1),
        from: "+15550100".into(),
        to: "+15550199".into(),
        public_url: "http://127.0.0.1".parse()?,
    });
    let observer = |at_ms: u64, event: PhoneEvent<'_>| timeline.phone(at_ms, event);
    let report = phone.call(script(lines), &observer).await?;
    let recording = out.join("call.wav");
    report.recording.write_wav(&recording).with_context(|| recording.display().to_string())?;
    let cut = |cut: &BargeInReport| json!({ "caller": cut.label, "clear_ms": cut.clear_ms, "quiet_ms": cut.stopped_ms });
    Ok(Called {
        response_ms: report.utterances.iter().map(|utterance| utterance.response_ms).collect(),
        barge_ins: report.barge_ins.iter().map(cut).collect(),
        recording,
    })
}

/// The caller's voice: the same local voice, so that no recording is shipped.
async fn caller_lines(settings: &Settings) -> Result<Vec<Vec<i16>>> {
    let weights = dirs::weights(&settings.storage);
    let (library, model, voice) =
        (weights.path("libonnxruntime.so.1.31.1")?, weights.path("en_US-joe-medium.onnx")?, weights.path("en_US-joe-medium.onnx.json")?);
    tokio::task::spawn_blocking(move || {
        let mut piper = Piper::load(&library, &model, &voice)?;
        let speak = |text: &&str| {
            let (mut sound, mut at_8k) = (Vec::new(), Vec::new());
            let rate = piper.synthesize(text, &mut sound)?;
            Resampler::new(rate, 8_000).process_i16(&sound, &mut at_8k);
            anyhow::Ok(at_8k)
        };
        CALLER.iter().map(speak).collect::<Result<_>>()
    })
    .await?
}

fn script(lines: Vec<Vec<i16>>) -> CallScript {
    let mut steps = Vec::new();
    for (number, (pcm8k, text)) in lines.into_iter().zip(CALLER).enumerate() {
        let label = text.to_owned();
        if number == BARGE_IN.0 {
            steps.push(Step::SayOver { after_agent_ms: BARGE_IN.1, pcm8k, label });
        } else {
            // the line before an interruption is not waited for
            steps.push(Step::Listen { quiet_ms: QUIET_MS, at_most_ms: ANSWER_MS });
            steps.push(Step::Say { pcm8k, label });
        }
    }
    steps.push(Step::Listen { quiet_ms: 2 * QUIET_MS, at_most_ms: ANSWER_MS });
    steps.push(Step::HangUp);
    CallScript { steps, limit_ms: LIMIT_MS }
}

/// The events once the call's end is among them, or what came in time.
async fn all_events(ema: &EmaReceiver) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let events: Vec<Value> = ema.received().into_iter().map(|received| received.body).collect();
        if events.iter().any(|event| event["event_type"] == "call_ended") || begun.elapsed() > EVENTS_WITHIN {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What happened, in the form of `--json`: each of the caller's utterances with the agent's answer to it.
fn outcome(called: &Called, events: &[Value]) -> Value {
    let utterances: Vec<&Value> = events.iter().filter(|event| event["event_type"] == "utterance").map(|event| &event["data"]).collect();
    let mut times = called.response_ms.iter().copied();
    let mut turns = Vec::new();
    for (index, said) in utterances.iter().enumerate().filter(|(_, said)| said["speaker"] == "tenant") {
        let answer = utterances.get(index + 1).filter(|next| next["speaker"] == "agent");
        let (agent, stage) = answer.map_or((&Value::Null, &said["stage"]), |answer| (&answer["text"], &answer["stage"]));
        turns.push(json!({ "caller": said["text"], "agent": agent, "stage": stage, "response_ms": times.next().flatten() }));
    }
    json!({ "turns": turns, "barge_ins": called.barge_ins, "events": events, "recording": called.recording })
}

fn show(outcome: &Value, recording: &Path) {
    let text = |value: &Value| value.as_str().unwrap_or("(nothing)").to_owned();
    let ms = |value: &Value| value.as_u64().map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"));
    println!("\nresponse, from the caller's last sound to the agent's first, measured on the recording");
    for turn in outcome["turns"].as_array().into_iter().flatten() {
        println!("  {:>8}  {:<10} {:<40} → {}", ms(&turn["response_ms"]), text(&turn["stage"]), text(&turn["caller"]), text(&turn["agent"]));
    }
    for cut in outcome["barge_ins"].as_array().into_iter().flatten() {
        println!("  barge-in: from the caller's first sound to clear {}, to quiet {}", ms(&cut["clear_ms"]), ms(&cut["quiet_ms"]));
    }
    println!("\nevents, as the receiver got them");
    for event in outcome["events"].as_array().into_iter().flatten() {
        println!("  {:<15} {}", text(&event["event_type"]), event["data"]);
    }
    println!("\nrecording (caller left, agent right): {}", recording.display());
}

/// The dialogue happened: at least three answered turns, one interruption, and the whole story at the receiver.
fn verdict(outcome: &Value) -> ExitCode {
    let answered = outcome["turns"].as_array().into_iter().flatten().filter(|turn| turn["agent"].is_string() && turn["response_ms"].is_u64()).count();
    let barge_ins = outcome["barge_ins"].as_array().into_iter().flatten().filter(|cut| cut["quiet_ms"].is_u64()).count();
    let ended = outcome["events"].as_array().into_iter().flatten().any(|event| event["event_type"] == "call_ended");
    if answered >= 3 && barge_ins >= 1 && ended {
        return ExitCode::SUCCESS;
    }
    eprintln!("the dialogue did not happen: {answered} answered turns (3 wanted), {barge_ins} barge-ins (1 wanted), call_ended received: {ended}");
    ExitCode::FAILURE
}

/// Prints what happens as it happens, in seconds since the call began.
struct Timeline {
    begun: Mutex<Instant>,
}

impl Timeline {
    fn line(&self, who: &str, what: &str) {
        let at = self.begun.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        println!("{:>7.2} s  {who:<8} {what}", at.as_secs_f64());
    }

    fn phone(&self, _at_ms: u64, event: PhoneEvent<'_>) {
        match event {
            PhoneEvent::Connected => {
                *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                self.line("phone", "connected");
            }
            PhoneEvent::CallerStarted(text) => self.line("caller", &format!("▶ {text}")),
            PhoneEvent::CallerStopped(_) => self.line("caller", "■"),
            PhoneEvent::AgentStarted => self.line("agent", "▶ audible"),
            PhoneEvent::AgentStopped => self.line("agent", "■"),
            PhoneEvent::Cleared => self.line("phone", "clear: what was queued is dropped"),
            PhoneEvent::Over(outcome) => self.line("phone", &format!("call over: {outcome:?}")),
            other => self.line("phone", &format!("{other:?}")),
        }
    }

    fn engine(&self, observed: Observed) {
        match observed {
            Observed::Leg(LegEvent::Paused { .. }) => self.line("engine", "  pause: thinking ahead"),
            Observed::Leg(LegEvent::Resumed { .. }) => self.line("engine", "  the caller goes on"),
            Observed::Leg(LegEvent::TurnEnded { wait_ms, probability, by_agent: false, .. }) => {
                self.line("engine", &format!("  turn over after {wait_ms} ms (end-of-turn probability {probability:.2})"));
            }
            Observed::Leg(LegEvent::Held { .. }) => self.line("engine", "  caller speaks over the agent: held"),
            Observed::Leg(LegEvent::Unheld { .. }) => self.line("engine", "  only a backchannel: the agent goes on"),
            Observed::Leg(LegEvent::Interrupted { .. }) => self.line("engine", "  barge-in: the reply is cut"),
            Observed::Transcript(SttEvent::Final(text)) => self.line("stt", &format!("  “{}”", text.trim())),
            Observed::Phrase { text, .. } => self.line("tts", &format!("  “{}”", text.trim())),
            Observed::Timing(timing) => self.line("engine", &format!("  {timing:?}")),
            _ => {}
        }
    }
}

async fn watch(mut observed: Receiver<(String, Observed)>, timeline: Arc<Timeline>) {
    while let Ok((_, observed)) = observed.recv().await {
        timeline.engine(observed);
    }
}
