//! A chain of language models as one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use voiced_core::model::{LlmEvent, LlmRequest};

use super::{Link, Order};
use crate::breaker::Permit;
use crate::llm::{EVENTS_MAX, Llm};

/// How long the first word of one model is waited for before the next is asked as well.
const FIRST_WORD: Duration = Duration::from_millis(1_200);
/// Longest pause within an answer where another model could go on with it, and how far it may fall behind being spoken.
const PAUSE_MAX: Duration = Duration::from_millis(1_500);
/// Speech of one character, by a quick voice.
const CHAR_SPOKEN: Duration = Duration::from_millis(45);

/// Language models, best first.
pub struct LlmChain {
    links: Arc<[Link<dyn Llm>]>,
}

impl LlmChain {
    /// A chain of at least one.
    pub fn new(links: Vec<Link<dyn Llm>>) -> Self {
        Self { links: links.into() }
    }

    /// The same chain behind another model.
    #[must_use]
    pub fn behind(&self, first: Link<dyn Llm>) -> Self {
        Self { links: std::iter::once(first).chain(self.links.iter().cloned()).collect() }
    }
}

impl Llm for LlmChain {
    fn ask(&self, request: LlmRequest) -> mpsc::Receiver<LlmEvent> {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let links = Arc::clone(&self.links);
        tokio::spawn(async move {
            tokio::select! {
                () = events.closed() => {} // nobody listens any more: the questions go with the future
                () = answer(&links, request, &events) => {}
            }
        });
        receiver
    }

    fn warm(&self) {
        for link in self.links.iter() {
            link.provider.warm();
        }
    }
}

/// The models that were asked and have not said a word.
struct Race<'a> {
    links: &'a [Link<dyn Llm>],
    order: Order,
    permits: BTreeMap<usize, (Instant, Permit)>,
    firsts: JoinSet<First>,
}

/// A model's first event, and where the others come from.
struct First {
    link: usize,
    event: Option<LlmEvent>,
    rest: mpsc::Receiver<LlmEvent>,
}

async fn answer(links: &[Link<dyn Llm>], request: LlmRequest, events: &mpsc::Sender<LlmEvent>) {
    let order = Order::new(links.len(), request.tries as usize);
    let mut race = Race { links, order, permits: BTreeMap::new(), firsts: JoinSet::new() };
    let mut reasons = Vec::new();
    loop {
        if race.firsts.is_empty() && !race.ask_next(&request) {
            return say(events, LlmEvent::Failed(reasons.join("; "))).await;
        }
        let has_more = race.order.has_more(links);
        tokio::select! {
            Some(Ok(First { link, event, rest })) = race.firsts.join_next() => {
                let Some((_, permit)) = race.permits.remove(&link) else { continue };
                match event {
                    Some(LlmEvent::Failed(reason)) => {
                        permit.failed(&reason);
                        reasons.push(reason);
                    }
                    None => permit.failed("ended without an answer"),
                    Some(first) => {
                        race.won();
                        say(events, LlmEvent::By(links[link].breaker.name().to_owned())).await;
                        return tell(first, rest, permit, links.len() > 1, events).await;
                    }
                }
            }
            () = sleep(FIRST_WORD), if has_more => {
                race.ask_next(&request);
            }
        }
    }
}

impl Race<'_> {
    fn ask_next(&mut self, request: &LlmRequest) -> bool {
        let Some((link, permit)) = self.order.next(self.links) else { return false };
        let mut rest = self.links[link].provider.ask(request.clone());
        self.permits.insert(link, (Instant::now(), permit));
        self.firsts.spawn(async move { First { link, event: rest.recv().await, rest } });
        true
    }

    /// Another one has spoken first; those that had their time have failed.
    fn won(&mut self) {
        self.firsts.abort_all();
        for (asked_at, permit) in std::mem::take(&mut self.permits).into_values() {
            if asked_at.elapsed() >= FIRST_WORD {
                permit.failed(&format!("no word within {} ms", FIRST_WORD.as_millis()));
            }
        }
    }
}

/// Passes on an answer that has begun, as long as it keeps up with a voice where another model could go on with it.
async fn tell(first: LlmEvent, mut rest: mpsc::Receiver<LlmEvent>, permit: Permit, may_be_left: bool, events: &mpsc::Sender<LlmEvent>) {
    let mut event = first;
    // how long the model was waited for beyond what its words take to be spoken
    let mut behind = Duration::ZERO;
    loop {
        match &event {
            LlmEvent::Done => {
                permit.worked();
                return say(events, event).await;
            }
            LlmEvent::Failed(reason) => {
                permit.failed(reason);
                return say(events, event).await;
            }
            LlmEvent::Token(text) => {
                behind = behind.saturating_sub(CHAR_SPOKEN * text.chars().count() as u32);
                if may_be_left && behind > PAUSE_MAX {
                    event = LlmEvent::Failed("the answer comes slower than it is spoken".into());
                    continue;
                }
            }
            _ => {}
        }
        say(events, event).await;
        let asked = Instant::now();
        let next = if may_be_left { timeout(PAUSE_MAX, rest.recv()).await } else { Ok(rest.recv().await) };
        behind += asked.elapsed();
        event = match next {
            Ok(next) => next.unwrap_or_else(|| LlmEvent::Failed("the answer broke off".into())),
            Err(_) => LlmEvent::Failed(format!("the answer stopped for {} ms", PAUSE_MAX.as_millis())),
        };
    }
}

async fn say(events: &mpsc::Sender<LlmEvent>, event: LlmEvent) {
    let _ = events.send(event).await; // who has gone needs no answer
}
