//! What rooms cost and how they sound, on a real livekit-server, ours beside the official Python SDK in the same run:
//!
//! - `chain`: `voiced serve` with callers in 1, 6 and 20 rooms: response, barge-in to quiet, a core's share and memory per call;
//! - `transport`: participants who give back what they hear: packets as they are, decoded and encoded again by the engine,
//!   and the SDK's; a core's share and memory per participant;
//! - `loss`: the same echoes while 0, 5, 10 and 20 % of the packets to them are lost: log-spectral distance to the clean sound;
//! - `delay`: from a mouth in the room through the echo to an ear in the room;
//! - `bridge`: from a telephone call to its room, and what encoding that leg in Opus would cost.
//!
//! `cargo bench -p voiced-benches --bench rooms -- [PART…] [--rooms 1,6,20] [--speech FOLDER]`; all parts without any. Lines
//! are spoken by the offline voice, or come from a folder of WAV files. Needs `make tools` and, for `chain` and `bridge`,
//! `make build`. A table goes to stdout, progress to stderr, and `target/bench/rooms.json` gets
//! `{machine, chain: [{rooms, response_ms: {p50, p95}, quiet_ms: {p50, p95}, cpu_percent_per_call, rss_kb_per_call, rss_kb_per_further_call, …}],
//! transport: [{who, participants, cpu_percent, rss_kb, calls_per_core}], loss: [{who, loss_percent, lsd_db}],
//! delay: [{who, p50_ms, p95_ms, added_ms}], bridge: {to_room_ms: {p50, p95}, opus_us_per_packet, opus_percent_of_core}}`.
//!
//! What is measured runs in processes of its own; the server, the callers and the fake providers are others.

mod bridge;
mod chain;
mod delay;
mod echo;
mod host;
mod loss;
mod people;
mod probe;
mod process;
mod report;
mod subject;
mod transport;
mod voice;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use voiced_lab::livekit::{Peer, Server};

use voice::Voice;

/// The parts, in the order in which they run.
const PARTS: [&str; 5] = ["chain", "transport", "loss", "delay", "bridge"];

/// What was asked for.
struct Options {
    parts: BTreeSet<String>,
    rooms: Vec<usize>,
    speech: Option<PathBuf>,
}

/// What the parts share.
struct Stage {
    server: Server,
    python: PathBuf,
    voice: Voice,
    rooms: Vec<usize>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let run = async {
        match echo::asked() {
            Some(path) => echo::run(path).await,
            None => measure(options(&arguments)?).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rooms: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: Options) -> Result<()> {
    let (binary, python) = match (Server::find(), Peer::find()) {
        (Ok(binary), Ok(python)) => (binary, python),
        (Err(missing), _) | (_, Err(missing)) => {
            eprintln!("rooms: skipped, {missing}");
            return Ok(());
        }
    };
    let begun = Instant::now();
    let voice = Voice::of(options.speech.as_deref())?;
    let stage = Stage { server: Server::start(&binary, None).await?, python, voice, rooms: options.rooms };
    let mut results = Map::from_iter([("machine".to_owned(), process::machine())]);
    for part in PARTS.iter().filter(|part| options.parts.contains(**part)) {
        let since = Instant::now();
        eprintln!("{part} …");
        let result = match *part {
            "chain" => chain::run(&stage).await,
            "transport" => transport::run(&stage).await,
            "loss" => loss::run(&stage).await,
            "delay" => delay::run(&stage).await,
            _ => bridge::run(&stage).await,
        };
        match result {
            Ok(result) => {
                report::print(part, &result);
                results.insert((*part).to_owned(), result);
            }
            Err(error) => {
                eprintln!("{part}: {error:#}");
                results.insert((*part).to_owned(), json!({ "failed": format!("{error:#}") }));
            }
        }
        eprintln!("{part}: {:.0} s", since.elapsed().as_secs_f32());
    }
    eprintln!("in all {:.0} s", begun.elapsed().as_secs_f32());
    write(&Value::Object(results))
}

fn write(results: &Value) -> Result<()> {
    let file = process::target_folder()?.join("bench/rooms.json");
    std::fs::create_dir_all(file.parent().context("a folder")?)?;
    std::fs::write(&file, serde_json::to_vec_pretty(results)?).with_context(|| file.display().to_string())?;
    eprintln!("written to {}", file.display());
    Ok(())
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { parts: BTreeSet::new(), rooms: vec![1, 6, 20], speech: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // cargo's own
            "--bench" => {}
            "--rooms" => {
                let counts = arguments.next().context("--rooms 1,6,20")?.split(',').map(str::parse);
                options.rooms = counts.collect::<Result<_, _>>().context("--rooms 1,6,20")?;
            }
            "--speech" => options.speech = Some(arguments.next().context("--speech FOLDER")?.into()),
            part if PARTS.contains(&part) => _ = options.parts.insert(part.to_owned()),
            other => bail!("{other}: give parts of {}, --rooms 1,6,20, --speech FOLDER", PARTS.join(", ")),
        }
    }
    if options.parts.is_empty() {
        options.parts = PARTS.iter().map(|part| (*part).to_owned()).collect();
    }
    Ok(options)
}
