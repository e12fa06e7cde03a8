//! Records read back: the list of calls, one call told moment by moment, and one call run again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use utoipa::ToSchema;
use voiced_core::conversation::{Action, Conversation, Input, Spoken, TurnTiming};
use voiced_core::leg::LegEvent;
use voiced_core::model::{LlmEvent, SttEvent, ToolOutcome};
use voiced_core::time::MediaTime;

use super::{Head, Moment};

/// What is read of one record at most, in bytes: more than is ever written.
const READ_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Characters of a tool's answer that are told: a few lines.
const ANSWER_CHARS_MAX: usize = 300;

/// A call after the fact.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    pub session_id: String,
    pub call_sid: Option<String>,
    pub from: String,
    pub to: String,
    pub started_at_unix_ms: u64,
    /// From the call's begin to the last line of its record.
    pub duration_ms: u64,
    /// Why it ended; none: it goes on, or was cut off with the daemon.
    pub ended: Option<String>,
    /// Utterances of both sides.
    pub utterances: usize,
    /// Each answered turn: ms from the caller's last speech frame to each step.
    #[schema(value_type = Vec<Object>)]
    pub turns: Vec<TurnTiming>,
    /// Everything that happened and was decided, in order.
    pub moments: Vec<Told>,
    /// Providers that failed, stopped or were switched.
    pub faults: Vec<Told>,
    /// The record ends before the call did.
    pub is_cut: bool,
    /// Lines that are not told: from the first that cannot be read on.
    pub unreadable_lines: usize,
}

/// One line of the story.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// ms since the call's begin.
    pub at_ms: u64,
    pub what: String,
}

/// A record as it was written.
pub struct Record {
    pub head: Head,
    pub moments: Vec<Moment>,
    /// Lines behind the moments: the first of them is damaged, and without it the others tell of another call.
    pub unreadable_lines: usize,
}

/// The newest calls of a folder, newest first; why not where a record cannot be read.
pub fn list(folder: &Path, limit: usize) -> impl Iterator<Item = Result<Story>> {
    let has_begun = |file: &PathBuf| fs::metadata(file).is_ok_and(|of| of.len() > 0); // a new call's first line is not written yet
    files(folder).into_iter().filter(has_begun).take(limit).map(|file| Ok(read(&file)?.story()))
}

/// The newest call of this session, or `CallSid`.
pub fn find(folder: &Path, id: &str) -> Result<Record> {
    let id = id.strip_prefix("phone-").unwrap_or(id);
    let names = [format!(".{id}.jsonl"), format!(".phone-{id}.jsonl")];
    let has_name = |file: &&PathBuf| file.file_name().and_then(|name| name.to_str()).is_some_and(|file| names.iter().any(|name| file.ends_with(name)));
    let files = files(folder);
    let file = files.iter().find(has_name).with_context(|| format!("no record of {id} in {}", folder.display()))?;
    read(file)
}

/// Newest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}

fn read(file: &Path) -> Result<Record> {
    let size = fs::metadata(file)?.len();
    anyhow::ensure!(size <= READ_BYTES_MAX, "{} has {size} bytes: no record of ours", file.display());
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let head = serde_json::from_str(lines.next().unwrap_or_default()).with_context(|| format!("{}: its first line is damaged", file.display()))?;
    // a daemon that was killed may have left half a line at the end: that is no damage
    let whole = lines.clone().count().saturating_sub(usize::from(!text.ends_with('\n')));
    let moments: Vec<_> = lines.map_while(|line| serde_json::from_str(line).ok()).collect();
    let unreadable_lines = whole.saturating_sub(moments.len());
    Ok(Record { head, moments, unreadable_lines })
}

/// Runs a record's inputs through the conversation again. `Err` names the first moment at which something else is decided,
/// or how much of the record could not be run.
pub fn replay(record: &Record) -> Result<Story, Box<(Story, String)>> {
    let mut difference = None;
    run(record, |moment, decided| {
        if difference.is_none() && moment.decided != decided {
            difference = Some(format!("something else was decided: at {} ms then {:?}, now {decided:?}", moment.at, moment.decided));
        }
    });
    let damage = || (record.unreadable_lines > 0).then(|| format!("the same decisions up to {} damaged lines, which were not run", record.unreadable_lines));
    let story = record.story();
    match difference.or_else(damage) {
        None => Ok(story),
        Some(difference) => Err(Box::new((story, difference))),
    }
}

/// Gives each moment and what is decided at it now; returns the answered turns.
fn run(record: &Record, mut each: impl FnMut(&Moment, Vec<String>)) -> Vec<TurnTiming> {
    let mut conversation = Conversation::new(record.head.settings.clone());
    let (mut actions, mut timings) = (Vec::new(), Vec::new());
    for moment in &record.moments {
        for &tick in &moment.ticks {
            conversation.apply(MediaTime(tick), Input::Tick, &mut actions);
        }
        let Some(input) = moment.input.clone() else { break };
        conversation.apply(MediaTime(moment.at), input, &mut actions);
        timings.extend(actions.iter().filter_map(|action| if let Action::Timing(timing) = action { Some(*timing) } else { None }));
        each(moment, actions.drain(..).filter_map(|action| action.decision()).collect());
    }
    timings
}

impl Record {
    /// The record as a story.
    pub fn story(&self) -> Story {
        let (mut moments, mut faults) = (Vec::new(), Vec::new());
        let (mut utterances, mut ended) = (0, None);
        for moment in &self.moments {
            let told = |what: String| Told { at_ms: moment.at, what };
            if let Some(input) = &moment.input {
                moments.extend(happened(input).map(told));
                faults.extend(fault(input).map(told));
            }
            utterances += moment.utterances;
            ended = moment.ended.clone().or(ended);
            moments.extend(moment.decided.iter().map(|what| told(format!("→ {what}"))));
        }
        let head = &self.head;
        Story {
            session_id: head.session_id.clone(),
            call_sid: head.call_sid.clone(),
            from: head.from.clone(),
            to: head.to.clone(),
            started_at_unix_ms: head.started_at_unix_ms,
            duration_ms: self.moments.last().map_or(0, |moment| moment.at),
            ended,
            utterances,
            turns: run(self, |_, _| {}),
            moments,
            faults,
            is_cut: self.moments.last().is_none_or(|moment| moment.input.is_none()),
            unreadable_lines: self.unreadable_lines,
        }
    }
}

/// An input in words, with its reason where it has one; what only moves sound along is no news.
fn happened(input: &Input) -> Option<String> {
    Some(match input {
        Input::Leg(event) => leg(event)?,
        Input::Stt(SttEvent::Interim(text)) => format!("heard so far: {text}"),
        Input::Stt(SttEvent::Final(text)) => format!("heard: {text}"),
        Input::Stt(SttEvent::Finalized) => "the text is settled".into(),
        Input::Stt(SttEvent::Switched(reason) | SttEvent::Failed(reason)) => format!("speech to text: {reason}"),
        Input::Llm { event: LlmEvent::By(name), .. } => format!("answered by {name}"),
        Input::Llm { event: LlmEvent::Stage(stage), .. } => format!("the model moves to {stage}"),
        Input::Llm { event: LlmEvent::HangUp, .. } => "the model ends the call".into(),
        Input::Llm { event: LlmEvent::Failed(reason), .. } => format!("the model failed: {reason}"),
        Input::Tool { number, outcome: ToolOutcome::Answered(text) } => format!("tool call {number} is answered: {}", short(text)),
        Input::Tool { number, outcome: ToolOutcome::Failed(reason) } => format!("tool call {number} failed: {reason}"),
        Input::Tick
        | Input::Llm { event: LlmEvent::Token(_) | LlmEvent::Calls(_) | LlmEvent::Done, .. }
        | Input::Tts { event: Spoken::Audio { .. } | Spoken::PhraseDone(_), .. } => return None,
        Input::Tts { event: Spoken::By(name), .. } => format!("spoken by {name}"),
        Input::Tts { event: Spoken::Failed(reason), .. } => format!("the voice failed: {reason}"),
        Input::Typed(text) => format!("typed: {text}"),
        Input::Whispered(text) => format!("a supervisor tells the agent: {text}"),
        Input::AgentMaySpeak(may) => if *may { "the agent has the floor back" } else { "a human takes over" }.into(),
        Input::Gone(gone) => format!("the line is gone: {gone:?}"),
        Input::MaxDuration => "the call has lasted as long as it may".into(),
        Input::Drain => "the daemon stops".into(),
        Input::Idle => "the line has been dead for too long".into(),
        Input::Started => "the call is up".into(),
    })
}

/// The beginning of a tool's answer; all of it is in the record.
fn short(text: &str) -> String {
    text.chars().take(ANSWER_CHARS_MAX).collect()
}

fn leg(event: &LegEvent) -> Option<String> {
    Some(match *event {
        LegEvent::SpeechStarted { at, .. } => format!("the caller speaks since {} ms", at.ms()),
        LegEvent::Paused { turn, at } => format!("the caller pauses since {} ms: perhaps the end, turn {}", at.ms(), turn.0),
        LegEvent::Resumed { turn, .. } => format!("the caller goes on: it was no end, turn {}", turn.0),
        LegEvent::TurnEnded { by_agent: true, turn, .. } => format!("the agent takes the floor, turn {}", turn.0),
        LegEvent::TurnEnded { turn, wait_ms, probability, .. } if probability.is_nan() => {
            format!("turn {} is over after {wait_ms} ms, by pause and transcript", turn.0)
        }
        LegEvent::TurnEnded { turn, wait_ms, probability, .. } => {
            format!("turn {} is over after {wait_ms} ms, with {:.0} % by its sound", turn.0, probability * 100.0)
        }
        LegEvent::ReplyStarted { turn, .. } => format!("turn {} begins to be heard", turn.0),
        LegEvent::PhraseHeard { .. } => return None,
        LegEvent::Held { turn, at, cleared_at } => {
            format!("the caller speaks over turn {} since {} ms: held, {} ms later", turn.0, at.ms(), cleared_at.since(at))
        }
        LegEvent::Unheld { turn, .. } => format!("it was no interruption: turn {} goes on", turn.0),
        LegEvent::Interrupted { cut, heard, .. } => {
            format!("it was an interruption: turn {} is cut in phrase {} after {} ms of it", cut.0, heard.phrase, heard.phrase_ms)
        }
        LegEvent::ReplyHeard { turn, .. } => format!("turn {} was heard to its end", turn.0),
        LegEvent::Dtmf(_) => "a key is pressed".into(), // which one may be a secret
        LegEvent::Silence { quiet_ms } => format!("nobody has spoken for {quiet_ms} ms"),
    })
}

fn fault(input: &Input) -> Option<String> {
    match input {
        Input::Stt(SttEvent::Switched(_) | SttEvent::Failed(_))
        | Input::Llm { event: LlmEvent::Failed(_), .. }
        | Input::Tool { outcome: ToolOutcome::Failed(_), .. }
        | Input::Tts { event: Spoken::Failed(_), .. } => happened(input),
        _ => None,
    }
}
