//! What a telephone call holds in memory: counted by an allocator that remembers who asked for it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use voiced_lab::providers::{FakeProviders, Latency, Script};

use crate::lab::{self, Lab};
use crate::serve::Daemon;

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

/// Names the file that [`calls_under_the_meter`] writes, and how many calls there are to be.
const FILE: &str = "HEAP_FILE";
const CALLS: &str = "HEAP_CALLS";
/// What requests are signed for; nobody is there.
const PUBLIC: &str = "http://127.0.0.1";

/// A holder, by what is in the names of the functions that asked; the first that fits.
const HOLDERS: [(&str, &[&str]); 10] = [
    ("rings to the audio thread", &["voiced_rt::port", "voiced_rt::sound_ring", "voiced_rt::bell", "Engine::admit"]),
    ("a place on the audio thread", &["voiced_rt::", "inference::"]),
    ("speech to text", &["call::hearing", "models_remote::stt", "models_remote::deepgram", "chain::stt"]),
    ("language model", &["remote::llm", "remote::openai", "chain::llm"]),
    ("voice", &["remote::tts", "remote::cartesia", "chain::tts", "voiced::replies"]),
    ("record and trace", &["voiced::flight", "voiced::traces"]),
    ("event store", &["voiced_events"]),
    ("the call", &["voiced_core::conversation", "voiced::call", "voiced::sessions"]),
    ("the line's stream", &["voiced_twilio"]),
    ("HTTP, sockets and timers", &["hyper", "axum", "tokio", "mio"]),
];

#[test]
fn a_telephone_call_holds_less_than_a_megabyte_and_it_is_known_what_holds_it() {
    let (few, many) = (held_with(4), held_with(16));
    let per_call = |name: &&str| (many.get(*name).copied().unwrap_or(0) - few.get(*name).copied().unwrap_or(0)) / 12;
    let names: Vec<&str> = HOLDERS.iter().map(|(name, _)| *name).chain(["others"]).collect();
    for name in &names {
        println!("{name:<28} {:>8} bytes a call", per_call(name));
    }
    let all: i64 = names.iter().map(per_call).sum();
    println!("{:<28} {all:>8} bytes a call", "all");
    assert!((20_000..1_000_000).contains(&all), "{all} bytes a call");
    assert!(per_call(&"others") < all / 10, "{} of {all} bytes a call are nobody's", per_call(&"others"));
}

/// Bytes by holder while so many calls talk; in a process of its own, since other tests hold memory too.
fn held_with(calls: usize) -> BTreeMap<&'static str, i64> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("heap.json");
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "memory::calls_under_the_meter", "--ignored", "--nocapture"]);
    let done = child.env(FILE, &file).env(CALLS, calls.to_string()).output().expect("this test again");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    by_holder(&serde_json::from_slice(&std::fs::read(&file).expect("a profile")).expect("JSON"))
}

fn by_holder(profile: &Value) -> BTreeMap<&'static str, i64> {
    let frames: Vec<&str> = profile["ftbl"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut held = BTreeMap::new();
    for point in profile["pps"].as_array().into_iter().flatten() {
        let stack: Vec<&str> = point["fs"].as_array().into_iter().flatten().filter_map(|frame| frames.get(frame.as_u64()? as usize).copied()).collect();
        let asked = |names: &&[&str]| names.iter().any(|name| stack.iter().any(|frame| frame.contains(name)));
        let holder = HOLDERS.iter().find(|(_, names)| asked(names)).map_or("others", |(name, _)| name);
        *held.entry(holder).or_default() += point["eb"].as_i64().unwrap_or_default();
    }
    held
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn calls_under_the_meter() {
    let (Ok(file), Ok(calls)) = (std::env::var(FILE), std::env::var(CALLS)) else { return };
    let profiler = dhat::Profiler::builder().file_name(Path::new(&file)).trim_backtraces(None).build();
    let mut lab = Command::new(std::env::current_exe().expect("this test"));
    lab.args(["--exact", "memory::the_labs_side", "--ignored", "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut lab = lab.spawn().expect("this test once more");
    let (mut to_lab, from_lab) = (lab.stdin.take().expect("its input"), lab.stdout.take().expect("its output"));
    let mut lines = BufReader::new(from_lab).lines().map_while(Result::ok).filter_map(|line| line.strip_prefix(TOLD).map(str::to_owned));
    let [deepgram, openai, cartesia] = std::array::from_fn(|_| lines.next().expect("an address"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let state = tempfile::tempdir().expect("a folder");
        let environment = [
            ("PORT", "0"),
            ("WEBHOOK_URL", PUBLIC),
            ("STATE_DIRECTORY", state.path().to_str().expect("a name")),
            ("TWILIO_AUTH_TOKEN", "lab"),
            ("DEEPGRAM_API_KEY", "lab"),
            ("OPENAI_API_KEY", "lab"),
            ("CARTESIA_API_KEY", "lab"),
            ("DEEPGRAM_BASE_URL", &deepgram),
            ("OPENAI_BASE_URL", &openai),
            ("CARTESIA_BASE_URL", &cartesia),
            ("VOICED_AGENT__STT", "deepgram/nova-3:en"),
            ("VOICED_AGENT__LLM", "openai/gpt-4o-mini"),
            ("VOICED_AGENT__TTS", "cartesia/sonic-3:lab"),
            ("VOICED_ENGINE__THREADS", "1"),
            ("VOICED_ENGINE__CALLS_PER_THREAD", &calls),
            ("VOICED_ENGINE__HEADROOM_PERCENT", "0"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let daemon = Daemon::start(voiced_config::load(None, environment).expect("settings"), false).await.expect("a daemon");
        writeln!(to_lab, "http://{}", daemon.address).expect("the lab reads");
        let wanted = calls.parse().expect("a number");
        let all_talk = async {
            while daemon.sessions.list().len() < wanted {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), all_talk).await.expect("all of them call");
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(daemon.sessions.list().len(), wanted, "all of them still talk");
        drop(profiler);
        // nobody waits for the calls
        lab.kill().and_then(|()| lab.wait()).expect("the lab ends");
        std::process::exit(0);
    });
}

#[derive(Parser)]
struct Phones {
    #[command(subcommand)]
    lab: Lab,
}

/// Before each address that the lab's side tells.
const TOLD: &str = "provider ";

#[test]
#[ignore = "run by the test above in a process of its own"]
fn the_labs_side() {
    let Ok(calls) = std::env::var(CALLS) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let caller = |_: usize, _: usize| "there is water all over the kitchen floor".repeat(20);
        let fakes = FakeProviders::start(Latency::default(), Script { caller: Arc::new(caller), ..Script::default() }).await.expect("providers");
        for address in [&fakes.deepgram.base_url, &fakes.openai_chat.base_url, &fakes.cartesia.base_url] {
            println!("\n{TOLD}{address}");
        }
        let mut url = String::new();
        std::io::stdin().read_line(&mut url).expect("the daemon's address");
        let url = url.trim();
        let phones = Phones::parse_from(["lab", "phone", "--url", url, "--public-url", PUBLIC, "--auth-token", "lab", "--calls", &calls, "--seconds", "30"]);
        let _ = lab::run(phones.lab).await; // the meter ends first
    });
}
