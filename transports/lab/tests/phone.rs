//! The phone against the transport it is made for, over real sockets.

use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use voiced_core::line::{FromLine, Gone, Said, ToLine};
use voiced_lab::phone::{CallError, CallScript, Outcome, Phone, PhoneEvent, PhoneSettings, Step};
use voiced_twilio::{Accepted, IncomingCall, Refused, Secret, Switchboard, TwilioCounters, TwilioSettings, router};

const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Says to every caller what the caller says, marks it, and clears on `#`.
#[derive(Default)]
struct Echo {
    marks: Mutex<Vec<u32>>,
    gone: Mutex<Vec<Gone>>,
    statuses: Mutex<Vec<String>>,
    over: Arc<Notify>,
}

struct EchoBoard(Arc<Echo>);

impl Switchboard for EchoBoard {
    fn may_admit(&self, _promised: usize) -> bool {
        true
    }

    fn connected(&self, call: IncomingCall, from: mpsc::Receiver<FromLine>) -> Result<Accepted, Refused> {
        let (to, mut said) = mpsc::channel(256);
        let source = move |context: &mut Context<'_>| {
            said.poll_recv(context).map(|said| Said { what: said.unwrap_or(ToLine::HangUp), said_at: Instant::now(), due_at: None })
        };
        assert_eq!((call.from.as_str(), call.to.as_str()), ("+15550001111", "+15552223333"));
        tokio::spawn(echo(self.0.clone(), from, to));
        Ok(Accepted { packets: None, to: Box::new(source) })
    }

    fn status(&self, _: &str, status: &str) {
        self.0.statuses.lock().expect("no panic").push(status.to_owned());
    }
}

async fn echo(echo: Arc<Echo>, mut from: mpsc::Receiver<FromLine>, to: mpsc::Sender<ToLine>) {
    let mut number = 0;
    while let Some(from_line) = from.recv().await {
        let said = match from_line {
            FromLine::Audio(packet) => {
                number += 1;
                vec![ToLine::Audio(packet), ToLine::Mark(number)]
            }
            FromLine::Dtmf('#') => vec![ToLine::Clear],
            FromLine::Dtmf(_) => vec![ToLine::HangUp],
            FromLine::Mark(mark) => {
                echo.marks.lock().expect("no panic").push(mark);
                Vec::new()
            }
            FromLine::Gone(gone) => {
                echo.gone.lock().expect("no panic").push(gone);
                Vec::new()
            }
        };
        for to_line in said {
            let _ = to.send(to_line).await;
        }
    }
    echo.over.notify_one();
}

async fn phone(echo: &Arc<Echo>, auth_token: &str) -> Phone {
    let public_url: url::Url = "https://voice.example.test".parse().expect("a URL");
    let mut settings = TwilioSettings::new(public_url.clone());
    settings.auth_token = Some(Secret::new(AUTH_TOKEN));
    let routes = router(settings, Arc::new(EchoBoard(echo.clone())), Arc::new(TwilioCounters::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base_url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Phone::new(PhoneSettings {
        base_url,
        auth_token: auth_token.to_owned(),
        account_sid: "AC22222222222222222222222222222222".to_owned(),
        from: "+15550001111".to_owned(),
        to: "+15552223333".to_owned(),
        public_url,
    })
}

fn tone() -> Vec<i16> {
    (0..2_400).map(|at| if at % 16 < 8 { 6_000 } else { -6_000 }).collect()
}

#[tokio::test]
async fn a_caller_hears_the_echo_and_hangs_up() {
    let echo = Arc::new(Echo::default());
    let phone = phone(&echo, AUTH_TOKEN).await;
    let steps = vec![Step::Say { pcm8k: tone(), label: "tone".to_owned() }, Step::Wait { ms: 200 }, Step::Dtmf('#'), Step::Wait { ms: 60 }];
    let events = Mutex::new(Vec::new());
    let observer = |_, event: PhoneEvent<'_>| events.lock().expect("no panic").push(format!("{event:?}"));
    let report = phone.call(CallScript { steps, limit_ms: 5_000 }, &observer).await.expect("a call");
    echo.over.notified().await;

    assert_eq!(report.outcome, Outcome::CallerHungUp);
    assert_eq!((report.counts.clears, report.counts.warnings), (1, 0));
    assert_eq!(report.utterances[0].label, "tone");
    assert_eq!(report.utterances[0].until_ms - report.utterances[0].from_ms, 300);
    assert!(report.utterances[0].cut_off, "an echo speaks into the caller's words");
    // every byte that the caller said is played back, later
    let loud = |side: &[u8]| side.iter().filter(|&&byte| byte != 0xFF).count();
    assert_eq!(loud(&report.recording.caller), 2_400);
    assert_eq!(loud(&report.recording.agent), 2_400);
    let marks = echo.marks.lock().expect("no panic").clone();
    assert!(marks.len() > 15 && marks.is_sorted(), "{marks:?}");
    assert_eq!(*echo.gone.lock().expect("no panic"), [Gone::HungUp]);
    assert_eq!(*echo.statuses.lock().expect("no panic"), ["completed"]);
    let events = events.into_inner().expect("no panic");
    for expected in ["Connected", "CallerStarted(\"tone\")", "AgentStarted", "Dtmf('#')", "Cleared", "Over(CallerHungUp)"] {
        assert!(events.iter().any(|event| event == expected), "{expected} in {events:?}");
    }

    let wav = tempfile::NamedTempFile::new().expect("a file");
    report.recording.write_wav(wav.path()).expect("written");
    let reader = hound::WavReader::open(wav.path()).expect("a WAV");
    assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, 8_000));
}

#[tokio::test]
async fn an_agent_can_hang_up_too() {
    let echo = Arc::new(Echo::default());
    let phone = phone(&echo, AUTH_TOKEN).await;
    let steps = vec![Step::Dtmf('0'), Step::Wait { ms: 4_000 }];
    let report = phone.call(CallScript { steps, limit_ms: 5_000 }, &|_, _| {}).await.expect("a call");
    assert_eq!(report.outcome, Outcome::AgentHungUp);
}

#[tokio::test]
async fn a_phone_with_another_auth_token_is_refused() {
    let phone = phone(&Arc::new(Echo::default()), "another").await;
    let script = CallScript { steps: Vec::new(), limit_ms: 1_000 };
    assert!(matches!(phone.call(script, &|_, _| {}).await, Err(CallError::Refused(403))));
}
