//! The command line.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use voiced_config::Settings;
use voiced_events::outbox::{Entry, Store};
use voiced_events::sinks::ema::iso;
use voiced_models_local::weights::FileState;
use voiced_models_remote::descriptor::{Descriptor, Provider, Role};

use crate::flight::story::{self, Story};
use crate::{agent, demo, dirs, lab, limits, linger, live, serve};

/// A voice engine that answers phones.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Settings file (TOML); the environment overrides it key by key.
    #[arg(long, global = true, env = "VOICED_CONFIG")]
    config: Option<PathBuf>,
    /// Log as JSON, a line each.
    #[arg(long, global = true, env = "VOICED_LOG_JSON")]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer calls until SIGTERM, then drain.
    Serve {
        /// Let calls outlive a stop of the service: see systemd/voiced.service.
        #[arg(long)]
        linger: bool,
    },
    /// A spoken dialogue on this machine: daemon and phone on loopback, offline models, no keys.
    Demo(demo::DemoArgs),
    /// Say everything that is wrong with the settings, at once.
    Check {
        /// Say instead who runs here, and who still talks.
        #[arg(long)]
        live: bool,
    },
    /// Fake providers, and telephones that measure a daemon.
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Weights of the local models.
    #[command(subcommand)]
    Models(Models),
    /// Events and their delivery.
    #[command(subcommand)]
    Events(Events),
    /// Calls after the fact: what happened, what was decided and why.
    #[command(subcommand)]
    Calls(Calls),
}

#[derive(Subcommand)]
enum Calls {
    /// The newest calls.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// One call, moment by moment.
    Show {
        /// Its session id or CallSid.
        id: String,
        /// As JSON, as `GET /calls/{id}` answers.
        #[arg(long)]
        json: bool,
    },
    /// Runs a call's inputs through the conversation again: the same is decided, or the difference is told.
    Replay {
        /// Its session id or CallSid.
        id: String,
    },
}

#[derive(Subcommand)]
enum Models {
    /// Bring what is missing.
    Fetch {
        /// Only say what is missing and how to bring it here by hand.
        #[arg(long)]
        offline: bool,
    },
    /// Every file, its package, size and licence.
    List,
    /// Compare every file with its sha256.
    Verify,
}

#[derive(Subcommand)]
enum Events {
    /// Deliveries, newest last; those not sent, or all.
    List {
        /// Those that were sent too.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One event and what became of it at each sink.
    Show {
        /// Its number, from `list`.
        id: i64,
    },
    /// Owe parked events again: one, or all.
    Retry {
        /// Its number; without one, all.
        id: Option<i64>,
    },
}

/// Runs what the command line asks for.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("VOICED_LOG").unwrap_or_else(|_| {
        let quiet = matches!(cli.command, Command::Demo(_) | Command::Models(_) | Command::Events(_) | Command::Calls(_) | Command::Check { .. });
        tracing_subscriber::EnvFilter::new(if quiet { "warn" } else { "info" })
    });
    // whatever level is asked for: at this one it writes the heads of requests, keys included
    let tells_no_key = filter_fn(|of| !(of.target().starts_with("tungstenite") && *of.level() == Level::TRACE));
    // colours are for terminals: in a journal or a file they are noise; a log that cannot be written must not end a call
    let colours = !cli.log_json && std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt::layer().log_internal_errors(false).with_ansi(colours).with_writer(std::io::stderr);
    let log = if cli.log_json { log.json().flatten_event(true).boxed() } else { log.boxed() };
    tracing_subscriber::registry().with(filter).with(log.with_filter(tells_no_key)).init();
    match carry_out(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("voiced: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(cli: Cli) -> Result<ExitCode> {
    let (settings, mut problems) = read(cli.config.as_deref());
    if let (Command::Check { live: false }, Some(settings)) = (&cli.command, &settings) {
        problems.extend(beyond_settings(settings));
    }
    let Some(settings) = settings.filter(|_| problems.is_empty()) else {
        for problem in &problems {
            eprintln!("voiced: {problem}");
        }
        eprintln!("voiced: {} problem(s) in the settings", problems.len());
        return Ok(ExitCode::FAILURE);
    };
    // before anything is done, and in both processes of one that lingers: both have read the keys
    if matches!(cli.command, Command::Serve { .. }) && !settings.server.core_dumps {
        limits::no_core_dumps()?;
    }
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime does not start");
    match cli.command {
        Command::Serve { linger: true } => return runtime()?.block_on(linger::watch()),
        Command::Serve { linger: false } => {
            if settings.engine.pin_cores {
                voiced_rt::leave_audio_cores(settings.engine.threads);
            }
            runtime()?.block_on(serve::until_stopped(settings))?;
        }
        Command::Demo(args) => return runtime()?.block_on(demo::run(settings, args)),
        Command::Lab(lab) => return runtime()?.block_on(lab::run(lab)),
        Command::Check { live: true } => live::print(&settings)?,
        Command::Check { live: false } => println!("settings are good"),
        Command::Models(models) => return runtime()?.block_on(self::models(&settings, models)),
        Command::Events(events) => self::events(&settings, &events)?,
        Command::Calls(calls) => return self::calls(&dirs::calls(&settings.storage), calls),
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings, and everything that is wrong with them.
fn read(path: Option<&Path>) -> (Option<Settings>, Vec<String>) {
    let text = match path.map(std::fs::read_to_string).transpose() {
        Ok(text) => text,
        Err(error) => return (None, vec![format!("{}: {error}", path.unwrap_or(Path::new("")).display())]),
    };
    let name = path.map(|path| path.display().to_string()).unwrap_or_default();
    // a variable that is not UTF-8 is none of ours
    let environment = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let (settings, problems) = voiced_config::examine(text.as_deref().map(|text| (name.as_str(), text)), environment);
    (settings, problems.iter().map(ToString::to_string).collect())
}

/// What the settings' own checks cannot know: whether providers, keys, script and weights fit.
fn beyond_settings(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    let roles = [(Role::Stt, &settings.agent.stt), (Role::Llm, &settings.agent.llm), (Role::Tts, &settings.agent.tts)];
    for (role, text) in roles {
        match Descriptor::chain(role, text) {
            Err(error) => problems.push(format!("agent.{error}")),
            Ok(named) => problems.extend(named.iter().filter_map(|named| missing_key(settings, named))),
        }
    }
    if settings.agent.realtime {
        match Descriptor::parse(Role::Realtime, &settings.agent.realtime_model) {
            Err(error) => problems.push(format!("agent.{error}")),
            Ok(named) => problems.extend(missing_key(settings, &named).map(|missing| format!("agent.realtime: {missing}"))),
        }
    }
    problems.extend(agent::script(settings).err().map(|error| format!("{error:#}")));
    let weights = dirs::weights(&settings.storage);
    let missing = weights.verify().iter().filter(|file| file.state != FileState::Good).count();
    if missing > 0 {
        problems.push(format!("{missing} weight files are missing or wrong in {}: run `voiced models fetch`", weights.dir().display()));
    }
    if settings.twilio.auth_token.is_empty() {
        eprintln!("voiced: note: TWILIO_AUTH_TOKEN is not set, so every Twilio request will be refused");
    }
    problems
}

fn missing_key(settings: &Settings, named: &Descriptor) -> Option<String> {
    let (provider, variable) = match named.provider {
        Provider::Local => return None,
        Provider::Deepgram => (&settings.providers.deepgram, "DEEPGRAM_API_KEY"),
        Provider::OpenAi => (&settings.providers.openai, "OPENAI_API_KEY"),
        Provider::Cartesia => (&settings.providers.cartesia, "CARTESIA_API_KEY"),
    };
    (provider.api_key.is_empty() && provider.base_url.is_empty()).then(|| format!("{named} needs {variable}"))
}

async fn models(settings: &Settings, command: Models) -> Result<ExitCode> {
    let weights = dirs::weights(&settings.storage);
    match command {
        Models::Fetch { offline } => println!("{} in {}", weights.fetch(None, offline).await?, weights.dir().display()),
        Models::List => {
            for (package, file) in weights.list() {
                println!("{:<36} {:>6.1} MB  {:<28} {:<14} {}", file.name, file.bytes as f64 / 1e6, package.requirement(), package.licence, file.purpose);
            }
        }
        Models::Verify => {
            let mut code = ExitCode::SUCCESS;
            for file in weights.verify() {
                let state = match file.state {
                    FileState::Good => "good".to_owned(),
                    FileState::Missing => "missing".to_owned(),
                    FileState::Differs { sha256 } => format!("differs: sha256 {sha256}"),
                    FileState::Unreadable { reason } => format!("unreadable: {reason}"),
                };
                if state != "good" {
                    code = ExitCode::FAILURE;
                }
                println!("{:<36} {state}", file.name);
            }
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn events(settings: &Settings, command: &Events) -> Result<()> {
    let file = dirs::event_store(&settings.storage);
    if !file.exists() {
        bail!("no events yet: {} does not exist (storage.state_dir)", file.display());
    }
    let mut store = Store::open(&file, &[])?;
    match command {
        Events::List { all, limit } => store.list(!all, *limit)?.iter().for_each(line),
        Events::Show { id } => {
            let entries = store.show(*id)?;
            let first = entries.first().with_context(|| format!("no event {id}: see `voiced events list --all`"))?;
            println!("{}", serde_json::to_string_pretty(&first.event)?);
            entries.iter().for_each(line);
        }
        Events::Retry { id } => println!("{} event(s) will be delivered again", store.retry(*id)?),
    }
    Ok(())
}

fn line(entry: &Entry) {
    let Entry { id, event, sink, state, attempts, reason } = entry;
    println!("{id:>8}  {:<40} #{:<4} {sink:<8} {state:?} after {attempts} tries  {}", event.session_id, event.sequence, reason.as_deref().unwrap_or(""));
}

fn calls(folder: &Path, calls: Calls) -> Result<ExitCode> {
    match calls {
        Calls::List { limit } => {
            for call in story::list(folder, limit) {
                let Story { session_id, started_at_unix_ms, duration_ms, ended, utterances, faults, from, .. } = match call {
                    Ok(story) => story,
                    Err(error) => {
                        eprintln!("not listed: {error:#}");
                        continue;
                    }
                };
                let ended = ended.as_deref().unwrap_or("-");
                println!(
                    "{}  {session_id}  from {from}  {} s  {utterances} utterances  {} faults  {ended}",
                    iso(started_at_unix_ms),
                    duration_ms / 1_000,
                    faults.len()
                );
            }
        }
        Calls::Show { id, json: true } => println!("{}", serde_json::to_string_pretty(&story::find(folder, &id)?.story())?),
        Calls::Show { id, json: false } => tell(&story::find(folder, &id)?.story()),
        Calls::Replay { id } => match story::replay(&story::find(folder, &id)?) {
            Ok(story) => {
                tell(&story);
                println!("run again: {} moments, the same decisions", story.moments.len());
            }
            Err(failed) => {
                tell(&failed.0);
                println!("run again: {}", failed.1);
                return Ok(ExitCode::FAILURE);
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(story: &Story) {
    println!("{}  {} → {}  {}", story.session_id, story.from, story.to, iso(story.started_at_unix_ms));
    for moment in &story.moments {
        println!("{:>9.3}  {}", moment.at_ms as f64 / 1_000.0, moment.what);
    }
    let ms = |step: Option<u32>| step.map_or_else(|| "-".into(), |ms| ms.to_string());
    println!("turn  over  text  model  phrase  voice  heard   (ms after the caller's last word)");
    for turn in &story.turns {
        let steps = [turn.ended_ms, turn.transcript_ms, turn.llm_ms, turn.phrase_ms, turn.tts_ms, turn.reply_ms].map(ms);
        let [ended, text, model, phrase, voice, heard] = steps;
        println!("{:>4}  {ended:>4}  {text:>4}  {model:>5}  {phrase:>6}  {voice:>5}  {heard:>5}", turn.turn.0);
    }
    if story.is_cut {
        println!("the record ends before the call does");
    }
    if story.unreadable_lines > 0 {
        println!("the record is damaged: its last {} lines cannot be told", story.unreadable_lines);
    }
}
