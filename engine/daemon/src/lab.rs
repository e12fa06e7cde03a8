//! `voiced lab`: fake providers with set delays, and telephones that call a daemon with recordings and measure it from
//! the sound alone. Two processes, so that the load is not measured with what it loads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::task::JoinSet;
use voiced_core::resample::Resampler;
use voiced_lab::phone::{CallReport, CallScript, Outcome, Phone, PhoneEvent, PhoneSettings, Step};
use voiced_lab::providers::{Answer, FakeProviders, Latency, Script};
use voiced_models_local::tts::Piper;
use voiced_models_local::weights::{ONNX_RUNTIME, PIPER_VOICE, Weights};

use crate::soak::{self, SoakArgs};

/// Quiet after which a caller takes the agent to be done, in ms.
const QUIET_MS: u64 = 600;
/// A caller goes on with the next line after this, answered or not, in ms.
const ANSWER_MS: u64 = 8_000;
/// Every so many lines one is said over the agent, this long after it began.
const BARGE_IN_EVERY: usize = 4;
const BARGE_IN_AFTER_MS: u64 = 800;
/// Calls start this far apart, so that they are not in step; many within `STAGGER_ALL`, and never more than 40 a second.
const STAGGER: Duration = Duration::from_millis(97);
const STAGGER_ALL: Duration = Duration::from_secs(8);
const STAGGER_MIN: Duration = Duration::from_millis(25);
/// What callers say when no recordings are given, spoken by the offline voice.
const LINES: [&str; 8] = [
    "Hello, my kitchen sink is leaking, and there is water all over the floor.",
    "It began last night. First it was only a drop, now it is getting worse.",
    "I live at twelve Oak Street, on the third floor.",
    "Yes, please.",
    "Could somebody come tomorrow morning, before nine?",
    "My telephone number is five five five, one two three, four five six seven.",
    "No, wait, the afternoon is better, because I have to be at work until two.",
    "That is all, thank you very much.",
];
/// What the fake language model says, in turns.
const REPLIES: [&str; 4] = [
    "Thank you, I have written that down. Is there anything else that I should know about it?",
    "I see. Let me look that up for you, it only takes a moment.",
    "All right, that helps a lot. Could you tell me when it started?",
    "Of course. I can send somebody tomorrow morning, or would the afternoon be better for you?",
];
/// A response later than this is what a caller feels as silence, in ms.
const LATE_MS: u64 = 1_000;
/// A call's first turns, told one by one.
const TURNS_COMPARED: usize = 10;

#[derive(Subcommand)]
pub enum Lab {
    /// Fake Deepgram, `OpenAI` and Cartesia on loopback; prints the environment that points a daemon at them.
    Providers(Delays),
    /// Telephones that call a daemon with recordings, and a table of what they measured.
    Phone(PhoneArgs),
    /// A daemon under calls and random faults for minutes, and a report: what was lost, what leaks.
    Soak(SoakArgs),
}

#[derive(Args)]
#[allow(clippy::struct_field_names)] // the unit stands in each option's name
pub struct Delays {
    /// From sound to the guess that holds it.
    #[arg(long, default_value_t = 200)]
    stt_interim_ms: u64,
    /// From the last guess to the settled text.
    #[arg(long, default_value_t = 50)]
    stt_final_ms: u64,
    /// From a question to its first word.
    #[arg(long, default_value_t = 100)]
    llm_first_ms: u64,
    /// Between two words.
    #[arg(long, default_value_t = 10)]
    llm_word_ms: u64,
    /// From a phrase to its first sound.
    #[arg(long, default_value_t = 50)]
    tts_first_ms: u64,
}

#[derive(Args)]
pub struct PhoneArgs {
    /// Where the daemon listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The daemon's `WEBHOOK_URL`, which signatures are made over.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    public_url: String,
    /// Signs the requests, as Twilio does.
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true)]
    auth_token: String,
    /// Folder of WAV files (mono, 16-bit, any rate): a line of the caller each. Without it the offline voice speaks.
    #[arg(long)]
    speech: Option<PathBuf>,
    /// Calls at once.
    #[arg(long, default_value_t = 1)]
    calls: usize,
    /// How long all of them talk; each call lasts as much longer as it takes to place them all.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Write each call's recording here.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Also write the figures, and each turn, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs what was asked for.
pub async fn run(lab: Lab) -> Result<ExitCode> {
    match lab {
        Lab::Providers(delays) => providers(&delays).await,
        Lab::Phone(args) => phones(&args).await,
        Lab::Soak(args) => soak::run(&args, spoken()?).await,
    }
}

async fn providers(delays: &Delays) -> Result<ExitCode> {
    let latency = Latency {
        stt_interim_ms: delays.stt_interim_ms,
        stt_final_ms: delays.stt_final_ms,
        llm_first_ms: delays.llm_first_ms,
        llm_word_ms: delays.llm_word_ms,
        tts_first_ms: delays.tts_first_ms,
    };
    // more words than any recording has time for: how long the caller speaks decides how many are heard
    let caller = |_: usize, utterance: usize| (0..400).map(|word| format!("word{utterance}x{word}")).collect::<Vec<_>>().join(" ");
    let agent = |request: &serde_json::Value| {
        let turns = request["messages"].as_array().map_or(0, Vec::len);
        Answer::text(REPLIES[turns % REPLIES.len()])
    };
    let fakes = FakeProviders::start(latency, Script { caller: Arc::new(caller), agent: Arc::new(agent), ..Script::default() }).await?;
    println!("DEEPGRAM_BASE_URL={}", fakes.deepgram.base_url);
    println!("OPENAI_BASE_URL={}", fakes.openai_chat.base_url);
    println!("CARTESIA_BASE_URL={}", fakes.cartesia.base_url);
    println!("DEEPGRAM_API_KEY=lab OPENAI_API_KEY=lab CARTESIA_API_KEY=lab");
    println!("VOICED_AGENT__STT=deepgram/nova-3:en VOICED_AGENT__LLM=openai/gpt-4o-mini VOICED_AGENT__TTS=cartesia/sonic-3:lab");
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}

async fn phones(args: &PhoneArgs) -> Result<ExitCode> {
    let lines = Arc::new(args.speech.as_deref().map_or_else(spoken, recordings)?);
    let phone = Arc::new(Phone::new(PhoneSettings {
        base_url: args.url.parse().context("--url")?,
        auth_token: args.auth_token.clone(),
        account_sid: format!("AC{:032x}", 1),
        from: "+15550100".into(),
        to: "+15550199".into(),
        public_url: args.public_url.parse().context("--public-url")?,
    }));
    let mut calls = JoinSet::new();
    let stagger = STAGGER.min(STAGGER_ALL / args.calls.max(1) as u32).max(STAGGER_MIN);
    let length = Duration::from_secs(args.seconds) + stagger * (args.calls.max(1) - 1) as u32;
    for number in 0..args.calls {
        let (phone, script) = (Arc::clone(&phone), script(&lines, number, length));
        calls.spawn(async move {
            tokio::time::sleep(stagger * number as u32).await;
            phone.call(script, &|_: u64, _: PhoneEvent<'_>| {}).await
        });
    }
    let bar = ProgressBar::new(args.calls as u64).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} calls ended  {elapsed}")?);
    let (mut reports, mut failed) = (Vec::new(), 0);
    while let Some(report) = calls.join_next().await {
        bar.inc(1);
        match report? {
            Ok(report) => reports.push(report),
            Err(error) => {
                failed += 1;
                bar.suspend(|| eprintln!("a call failed: {error}"));
            }
        }
    }
    bar.finish_and_clear();
    if let Some(folder) = &args.record {
        std::fs::create_dir_all(folder)?;
        for report in &reports {
            report.recording.write_wav(&folder.join(format!("{}.wav", report.call_sid)))?;
        }
    }
    let figures = figures(&reports, failed);
    println!("{}", serde_json::to_string_pretty(&figures)?);
    if let Some(file) = &args.json {
        let mut figures = figures;
        figures["turns"] = reports.iter().flat_map(turns).collect();
        std::fs::write(file, figures.to_string()).with_context(|| file.display().to_string())?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn script(lines: &[(String, Vec<i16>)], number: usize, length: Duration) -> CallScript {
    let limit_ms = length.as_millis() as u64;
    let listen = Step::Listen { quiet_ms: QUIET_MS, at_most_ms: ANSWER_MS };
    // callers know nothing of each other: each interrupts at another of its turns, and none the greeting
    let interrupts = |count: usize| count > 0 && (count + number) % BARGE_IN_EVERY == BARGE_IN_EVERY - 1;
    let mut steps = vec![listen.clone()];
    let mut planned_ms = 0;
    // each call begins elsewhere in the recordings
    for (count, (name, pcm8k)) in lines.iter().cycle().skip(number * 7 % lines.len()).enumerate() {
        if planned_ms > limit_ms {
            break;
        }
        planned_ms += pcm8k.len() as u64 / 8 + QUIET_MS;
        let (pcm8k, label) = (pcm8k.clone(), name.clone());
        if interrupts(count) {
            steps.push(Step::SayOver { after_agent_ms: BARGE_IN_AFTER_MS, pcm8k, label });
        } else {
            steps.push(Step::Say { pcm8k, label });
        }
        if !interrupts(count + 1) {
            steps.push(listen.clone());
        }
    }
    CallScript { steps, limit_ms }
}

fn figures(reports: &[CallReport], failed: usize) -> serde_json::Value {
    let utterances: Vec<_> = reports.iter().flat_map(|report| &report.utterances).collect();
    let mut responses: Vec<u64> = utterances.iter().filter_map(|utterance| utterance.response_ms).collect();
    let mut clears: Vec<u64> = reports.iter().flat_map(|report| &report.barge_ins).filter_map(|cut| cut.clear_ms).collect();
    let barge_ins: usize = reports.iter().map(|report| report.barge_ins.len()).sum();
    let late = responses.iter().filter(|&&ms| ms > LATE_MS).count();
    let cut_off = utterances.iter().filter(|utterance| utterance.cut_off).count();
    let ended = reports.iter().filter(|report| report.outcome == Outcome::AgentHungUp).count();
    let share = |n: usize, of: usize| if of == 0 { 0.0 } else { (n as f64 * 1_000.0 / of as f64).round() / 10.0 };
    let sum = |count: fn(&CallReport) -> u64| reports.iter().map(count).sum::<u64>();
    json!({
        "calls": reports.len(), "failed": failed, "ended_by_the_agent": ended, "utterances": utterances.len(), "answered": responses.len(),
        "response_ms": { "p50": percentile(&mut responses, 50), "p95": percentile(&mut responses, 95), "max": responses.last() },
        "response_p50_ms_by_turn": by_turn(reports),
        "later_than_1_s_percent": share(late, responses.len()),
        "cut_off_percent": share(cut_off, utterances.len()),
        "barge_in_to_clear_ms": { "asked": barge_ins, "cleared": clears.len(), "p50": percentile(&mut clears, 50), "p95": percentile(&mut clears, 95), "p99": percentile(&mut clears, 99) },
        "media": sum(|report| report.counts.media), "gaps": sum(|report| report.counts.gaps),
        "warnings": sum(|report| report.counts.warnings), "late_frames_of_the_phone": sum(|report| report.counts.late_frames),
    })
}

/// The median response to each call's first utterance, its second, and so on: whether connections are ready from the first on.
fn by_turn(reports: &[CallReport]) -> Vec<Option<u64>> {
    let response = |report: &CallReport, turn: usize| report.utterances.get(turn).and_then(|said| said.response_ms);
    let median = |turn| percentile(&mut reports.iter().filter_map(|report| response(report, turn)).collect::<Vec<_>>(), 50);
    (0..TURNS_COMPARED).map(median).collect()
}

/// Each thing said in a call, and how it was taken.
fn turns(report: &CallReport) -> impl Iterator<Item = serde_json::Value> {
    report.utterances.iter().map(|said| {
        let barge_in = report.barge_ins.iter().find(|cut| cut.at_ms == said.from_ms);
        json!({
            "call": report.call_sid, "said": said.label, "from_ms": said.from_ms, "until_ms": said.until_ms, "response_ms": said.response_ms,
            "cut_off": said.cut_off, "clear_ms": barge_in.and_then(|cut| cut.clear_ms), "stopped_ms": barge_in.and_then(|cut| cut.stopped_ms),
        })
    })
}

fn percentile(values: &mut [u64], percent: usize) -> Option<u64> {
    values.sort_unstable();
    values.get((values.len().saturating_sub(1)) * percent / 100).copied()
}

/// The lines of nobody in particular.
fn spoken() -> Result<Vec<(String, Vec<i16>)>> {
    let weights = Weights::at(Weights::default_dir());
    let mut voice = Piper::load(&weights.path(ONNX_RUNTIME)?, &weights.path(PIPER_VOICE)?, &weights.path(&format!("{PIPER_VOICE}.json"))?)?;
    let line = |text: &&str| {
        let (mut sound, mut at_8k) = (Vec::new(), Vec::new());
        let rate = voice.synthesize(text, &mut sound)?;
        let mut resampler = Resampler::new(rate, 8_000);
        resampler.process_i16(&sound, &mut at_8k);
        resampler.finish_i16(&mut at_8k);
        Ok(((*text).to_owned(), at_8k))
    };
    LINES.iter().map(line).collect()
}

/// Every WAV file of a folder at 8 kHz, by name.
fn recordings(folder: &Path) -> Result<Vec<(String, Vec<i16>)>> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wav") {
            lines.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), at_8k(&path)?));
        }
    }
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    if lines.is_empty() {
        bail!("no .wav files in {}", folder.display());
    }
    Ok(lines)
}

fn at_8k(path: &Path) -> Result<Vec<i16>> {
    let mut file = hound::WavReader::open(path).with_context(|| path.display().to_string())?;
    let format = file.spec();
    if format.channels != 1 || format.bits_per_sample != 16 {
        bail!("{} is not mono 16-bit", path.display());
    }
    let sound = file.samples::<i16>().collect::<Result<Vec<_>, _>>().with_context(|| path.display().to_string())?;
    if format.sample_rate == 8_000 {
        return Ok(sound);
    }
    let mut at_8k = Vec::new();
    let mut resampler = Resampler::new(format.sample_rate, 8_000);
    resampler.process_i16(&sound, &mut at_8k);
    resampler.finish_i16(&mut at_8k);
    Ok(at_8k)
}
