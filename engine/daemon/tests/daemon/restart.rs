//! Restarts that nobody on the phone notices, and the end of those that cannot wait.

use voiced_lab::phone::{Outcome, Sign, Step};
use voiced_lab::providers::Script;

use crate::caller::{call, conversation, listen, say, script, wait_for};
use crate::host::{AUTH_TOKEN, Host};
use crate::{story, stranger, until};

#[tokio::test]
async fn a_restart_loses_no_call_the_old_process_talks_on_while_the_new_one_answers() {
    let mut host = Host::start_lingering(Script::default(), &[]).await;
    let (phone, answered) = (host.phone(), Sign::default());
    let lines = [listen(), say("My kitchen sink is leaking."), listen(), wait_for(&answered), say("It is in the kitchen."), listen()];
    let talking = call(&phone, script(lines));
    let restart = async {
        until("the greeting", async || host.stored().len() > 1).await;
        // as `systemctl restart` does: stop the main process, wait for it alone, start the next on the same socket
        host.terminate();
        let old = host.stand_by();
        until("the old main process has ended", async || !old.log().is_empty() && old.log().contains("draining")).await;
        // who calls while nobody is there waits in the socket that systemd holds
        let (meanwhile, ()) = tokio::join!(call(&phone, conversation(&["My kitchen sink is leaking."])), host.restart());
        assert!(meanwhile.utterances[0].response_ms.is_some(), "and is answered by the new process");
        until("the old call alone is left, and told of", async || {
            let told = String::from_utf8(host.voiced(&["check", "--live"]).stdout).expect("text");
            told.contains("draining") && told.contains("takes calls") && told.matches("phone-CA").count() == 1
        })
        .await;
        let fresh = call(&phone, conversation(&["My kitchen sink is leaking."])).await;
        assert_eq!(fresh.outcome, Outcome::CallerHungUp);
        assert!(host.log().contains(&fresh.call_sid), "the new process took it");
        assert!(!old.log().contains(&fresh.call_sid), "and the old one did not see it");
        answered.give();
        (old, fresh)
    };
    let (talking, (mut old, fresh)) = tokio::join!(talking, restart);
    assert_eq!(talking.outcome, Outcome::CallerHungUp, "it ended as the caller wished");
    assert!(talking.utterances.iter().all(|said| said.response_ms.is_some()), "{:?}", talking.utterances);
    for report in [&talking, &fresh] {
        let events = story::of(&host, &report.call_sid).await.said().len() + 2;
        assert_eq!(story::taken(&host, &report.call_sid).len(), events, "each event came once");
    }
    until("the old process is gone", async || !old.lives()).await;
    assert!(host.calls().await.is_empty());
}

#[tokio::test]
async fn what_an_old_process_could_not_deliver_is_delivered_by_the_new_one() {
    let mut host = Host::start_lingering(Script::default(), &[]).await;
    host.receiver_fails(true);
    let phone = host.phone();
    let report = call(&phone, conversation(&["My kitchen sink is leaking."])).await;
    host.terminate();
    let mut old = host.stand_by();
    host.restart().await;
    until("the old process is gone", async || !old.lives()).await;
    host.receiver_fails(false);
    assert_eq!(story::of(&host, &report.call_sid).await.said().len(), 3);
}

#[tokio::test]
async fn neither_process_of_a_daemon_that_lingers_leaves_its_memory_in_a_core_dump() {
    let host = Host::start_lingering(Script::default(), &[]).await;
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{file}")).expect("a file of the process");
    let main = host.pid();
    let child = of(&format!("{main}/task/{main}/children")).trim().to_owned();
    for pid in [main.to_string(), child] {
        let limits = of(&format!("{pid}/limits"));
        let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a limit");
        assert_eq!(cores.split_whitespace().collect::<Vec<_>>()[..2], ["0", "0"], "of process {pid}");
    }
}

#[tokio::test]
async fn while_a_host_drains_callers_are_sent_to_another_one_where_configured() {
    let elsewhere = "https://other.example.test/twilio/voice?a=1&b=2";
    let host = Host::start(Script::default(), &[("VOICED_TWILIO__DRAIN_REDIRECT_URL", elsewhere)]).await;
    let phone = host.phone();
    let go = Sign::default();
    let running = call(&phone, script([wait_for(&go)]));
    let stop = async {
        until("the call", async || !host.calls().await.is_empty()).await;
        host.terminate();
        until("the drain", async || host.get("/health").await.0 == 503).await;
        let (status, twiml) = stranger::post(&host, "/twilio/voice", &[("CallSid", "CA1"), ("From", "+15550001111")], AUTH_TOKEN).await;
        assert_eq!(status, 200);
        assert!(twiml.contains(r#"<Redirect method="POST">https://other.example.test/twilio/voice?a=1&amp;b=2</Redirect>"#), "{twiml}");
        go.give();
    };
    let (running, ()) = tokio::join!(running, stop);
    assert_eq!(running.outcome, Outcome::CallerHungUp);
}

#[tokio::test]
async fn calls_that_outlast_the_drain_are_ended_with_a_goodbye() {
    let settings = [("VOICED_SERVER__DRAIN_S", "1"), ("VOICED_AGENT__GOODBYE", "Goodbye.")];
    let mut host = Host::start(Script::default(), &settings).await;
    let phone = host.phone();
    let running = call(&phone, script([Step::Wait { ms: 40_000 }]));
    let stop = async {
        until("the greeting", async || host.stored().len() > 1).await;
        host.terminate();
    };
    let (running, ()) = tokio::join!(running, stop);
    assert_eq!(running.outcome, Outcome::AgentHungUp);
    assert_eq!(host.exit().await.code(), Some(0));
    assert_eq!(story::of(&host, &running.call_sid).await.agent(), ["Hello.", "Goodbye."]);
}
