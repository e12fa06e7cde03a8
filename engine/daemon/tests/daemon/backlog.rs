//! A receiver that stays down must not fill the disk: beyond a limit new calls are refused, and nothing else is.

use voiced_lab::phone::Outcome;
use voiced_lab::providers::Script;

use crate::caller::{call, conversation, script};
use crate::host::Host;
use crate::{story, until};

#[tokio::test]
async fn too_many_undelivered_events_refuse_new_calls_but_keep_every_event_of_running_ones() {
    let host = Host::start(Script::default(), &[("VOICED_EVENTS__BACKLOG_MAX", "2")]).await;
    host.receiver_fails(true);
    let phone = host.phone();
    let running = call(&phone, conversation(&["My kitchen sink is leaking."]));
    let refused = async {
        until("two events are owed", async || host.metric("voiced_outbox_pending{sink=\"ema\"}").await >= 2).await;
        until("the daemon says that calls are refused", async || host.log().contains("events.backlog_max")).await;
        assert_eq!(call(&phone, script([])).await.outcome, Outcome::Apology);
        assert_eq!(host.metric("voiced_calls_refused_total").await, 1);
    };
    let (running, ()) = tokio::join!(running, refused);
    assert_eq!(running.outcome, Outcome::CallerHungUp);
    until("the call's end is on disk", async || host.calls().await.is_empty()).await;
    assert_eq!(host.log().matches("events.backlog_max").count(), 1, "said once, not at every call");

    host.receiver_fails(false);
    let story = story::of(&host, &running.call_sid).await;
    assert!(story.said().len() >= 3, "{:?}", story.said());
    until("calls are taken again", async || call(&phone, script([])).await.outcome == Outcome::CallerHungUp).await;
}
