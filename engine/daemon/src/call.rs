//! One call on the rim: `select → apply`. Whatever happens (the line, the leg, a provider, time) becomes an input of the
//! pure [`Conversation`]; the actions that it answers are carried out here, each by one short function.

mod ear;
mod hearing;
mod reporter;
mod tools;

use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Duration, sleep};
use voiced_core::conversation::{Action, Conversation, Input, TurnTiming};
use voiced_core::event::{CallEventKind, EventSpeaker};
use voiced_core::id::{GuestId, TurnId};
use voiced_core::leg::{Command, LegEvent};
use voiced_core::line::{FromLine, Gone, ToLine};
use voiced_core::model::SttEvent;
use voiced_core::packet::{Codec, Packet};
use voiced_core::time::MediaTime;
use voiced_events::deliver::unix_ms;
use voiced_events::outbox::Outbox;
use voiced_models_remote::llm::Llm;
use voiced_models_remote::tts::Tts;
use voiced_rt::{CallPort, GuestPort, SoundConsumer};

use crate::agent::Agent;
use crate::flight::Flight;
use crate::metrics::Metrics;
use crate::replies::{Replies, Said};
use crate::traces::CallTrace;
use hearing::Hearing;
use reporter::reporter;
use tools::ToolRunner;

/// How often timeouts are looked at; a little less than the leg wakes the call for a caller's sound.
const TICK: Duration = Duration::from_millis(90);
/// They are looked at so late where nothing else wakes the call.
const TICK_MAX: Duration = Duration::from_millis(150);
/// What a full ring or line did not take is offered again after this: a packet's length.
const AGAIN: Duration = Duration::from_millis(20);
/// What providers may say before the call has taken it in: seconds of sound; they wait beyond it.
const SAID_MAX: usize = 128;
/// Who may be shown a call's sound: its room and a recording, with room for a second of each.
const TAPS_MAX: usize = 4;
/// A line that takes nothing this long is dead; Twilio's socket buffers more than a second before that.
const LINE_STUCK_MAX: Duration = Duration::from_secs(5);

/// What a watcher of a call may see, e.g. the demo's timeline.
#[derive(Clone, Debug)]
pub enum Observed {
    Leg(LegEvent),
    Transcript(SttEvent),
    Phrase { turn: TurnId, phrase: u32, text: String },
    Said { speaker: EventSpeaker, text: String },
    Timing(TurnTiming),
}

/// The two ends of a line, whatever the transport. Dropping `to` hangs up.
pub struct Line {
    /// What comes from the caller; the last message is `Gone`.
    pub from: mpsc::Receiver<FromLine>,
    /// What goes to the caller; none where the line takes it from the audio thread.
    pub to: Option<mpsc::Sender<ToLine>>,
}

/// Whose sound it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Caller,
    Agent,
}

/// Shown each packet of both sides, in real time; false: no more.
pub type Tap = Box<dyn FnMut(Side, &Packet) -> bool + Send>;

/// What a transport asks of a call besides its line.
pub enum Request {
    /// To the conversation.
    Tell(Input),
    /// Show the call's sound.
    Tap(Tap),
    /// Let somebody else into the call.
    Guest {
        codec: Codec,
        to_caller: bool,
        to_agent: bool,
        /// Where the guest's packets are to go; dropped when there is no room.
        joined: oneshot::Sender<GuestPort>,
    },
    /// A guest leaves.
    GuestLeft(GuestId),
}

/// Who a call is, and what it shares with the daemon.
pub struct CallContext {
    pub session_id: String,
    pub call_sid: Option<String>,
    pub metadata: std::collections::BTreeMap<String, String>,
    pub agent: Arc<Agent>,
    pub outbox: Outbox,
    pub metrics: Arc<Metrics>,
    /// What the call was told and decided.
    pub flight: Option<Flight>,
    pub trace: CallTrace,
    pub observed: broadcast::Sender<(String, Observed)>,
    /// Told as well, of this call alone.
    pub watcher: Option<mpsc::Sender<Observed>>,
    /// True: end now, whoever speaks.
    pub cancel: watch::Receiver<Option<Gone>>,
    /// True: the daemon's patience with draining is over.
    pub drained: watch::Receiver<bool>,
}

/// Carries a call from its first packet to its last event.
pub async fn run(context: CallContext, line: Line, port: CallPort, requests: Option<mpsc::Receiver<Request>>) {
    let Line { mut from, to } = line;
    let (mut requests, mut asked) = (requests, true);
    let (said_in, mut said) = mpsc::channel(SAID_MAX);
    let (reports, reporter) = reporter(&context);
    let mut call = Call {
        conversation: Conversation::new(context.agent.conversation.clone()),
        tools: ToolRunner::new(said_in.clone()),
        replies: Replies::new(context.agent.leg.rate, said_in),
        started: Instant::now(),
        port,
        to,
        hearing: Hearing::new(Arc::clone(&context.agent), Arc::clone(&context.metrics)),
        reports,
        ended: false,
        stuck_since: None,
        left_over: false,
        taps: Vec::new(),
        next_guest: 0,
        turn: TurnId(0),
        context,
    };
    call.report(CallEventKind::CallInitiated { metadata: call.context.metadata.clone(), started_at_unix_ms: unix_ms() }).await;
    call.context.agent.llm.warm(); // a room does not ring
    call.apply(Input::Started).await;
    // made once, and again after each order: a future of its own in each round would take two locks to come and two to go
    let orders = orders(call.context.cancel.clone(), call.context.drained.clone());
    tokio::pin!(orders);
    let bell = Arc::clone(&call.port.bell);
    let mut end_at = Some(call.started + Duration::from_secs(call.context.agent.max_duration_s));
    let mut ticked = Instant::now();
    let idle = sleep(TICK_MAX);
    tokio::pin!(idle);
    let mut line_open = true;
    while !call.ended {
        let mut woken_at = None;
        tokio::select! {
            // what comes most often and is bounded by the tick goes first: the others are not even looked at then
            biased;
            at = bell.rung() => {
                woken_at = Some(at);
                call.serve_leg().await;
            }
            from = from.recv(), if line_open => if let Some(from) = from {
                call.take_in(from).await;
            } else {
                line_open = false;
                call.apply(Input::Gone(Gone::Lost)).await;
            },
            event = call.hearing.event() => call.hear(event).await,
            Some(said) = said.recv() => {
                woken_at = Some(Instant::now());
                call.said(said).await;
            }
            request = next(&mut requests), if asked => match request {
                Some(request) => call.asked(request).await,
                None => asked = false,
            },
            () = sleep(AGAIN), if call.left_over => call.serve_leg().await,
            () = &mut idle => {}
            Some(order) = orders.next() => call.apply(order).await,
        }
        let handed = call.replies.hand_over(&mut call.port.speech);
        call.left_over |= handed.leaves;
        let now = Instant::now();
        if handed.begins {
            call.port.reply_due(woken_at.unwrap_or(now));
        }
        if now - ticked >= TICK {
            ticked = now;
            idle.as_mut().reset((now + TICK_MAX).into());
            call.apply(Input::Tick).await;
            if end_at.take_if(|end_at| now >= *end_at).is_some() {
                call.apply(Input::MaxDuration).await; // told once: the goodbye needs ticks like everything else
            }
        }
    }
    if let Some(to) = &call.to {
        let _ = to.try_send(ToLine::HangUp); // a line that is gone needs none
    }
    drop(call);
    let _ = reporter.await; // the call's last event is on disk before its place is free
}

/// What the daemon orders: to end now, and to come to an end.
fn orders(cancel: watch::Receiver<Option<Gone>>, drained: watch::Receiver<bool>) -> impl Stream<Item = Input> {
    let cancelled = stream::unfold(cancel, |mut cancel| async {
        cancel.changed().await.ok()?;
        let gone = cancel.borrow_and_update().unwrap_or(Gone::HungUp);
        Some((Input::Gone(gone), cancel))
    });
    let drains = stream::unfold(drained, |mut drained| async {
        drained.changed().await.ok()?;
        Some((Input::Drain, drained))
    });
    stream::select(cancelled, drains)
}

async fn next(requests: &mut Option<mpsc::Receiver<Request>>) -> Option<Request> {
    match requests {
        Some(requests) => requests.recv().await,
        None => None,
    }
}

struct Call {
    conversation: Conversation,
    replies: Replies,
    tools: ToolRunner,
    started: Instant,
    port: CallPort,
    to: Option<mpsc::Sender<ToLine>>,
    hearing: Hearing,
    reports: mpsc::Sender<(u64, CallEventKind)>,
    ended: bool,
    /// Since when the line takes nothing.
    stuck_since: Option<Instant>,
    /// Something waits for room.
    left_over: bool,
    taps: Vec<Tap>,
    next_guest: u32,
    /// The latest that was over, heard or cut: what is reported belongs to it.
    turn: TurnId,
    context: CallContext,
}

impl Call {
    fn now(&self) -> MediaTime {
        MediaTime(self.started.elapsed().as_millis() as u64)
    }

    async fn take_in(&mut self, from: FromLine) {
        match from {
            FromLine::Audio(packet) => {
                if self.port.packets.push(&packet).is_err() {
                    self.context.metrics.packets_dropped.add(1);
                }
            }
            FromLine::Dtmf(digit) => self.command(Command::Dtmf(digit)),
            FromLine::Mark(number) => self.command(Command::Mark(number)),
            FromLine::Gone(gone) => self.apply(Input::Gone(gone)).await,
        }
    }

    async fn asked(&mut self, request: Request) {
        match request {
            Request::Tell(input) => self.apply(input).await,
            Request::Tap(tap) if self.taps.len() < TAPS_MAX => {
                self.taps.push(tap);
                self.port.hear_along();
            }
            Request::Guest { codec, to_caller, to_agent, joined } => {
                let id = GuestId(self.next_guest);
                self.next_guest = self.next_guest.wrapping_add(1);
                match self.port.join(id, codec) {
                    // who has stopped waiting leaves by dropping the port
                    Ok(port) => drop(joined.send(port)),
                    Err(error) => return tracing::warn!(session = self.context.session_id, %error, "a guest is not heard"),
                }
                self.command(Command::Guest { id, to_caller, to_agent });
            }
            Request::GuestLeft(id) => self.command(Command::GuestLeft(id)),
            Request::Tap(_) => tracing::warn!(session = self.context.session_id, "the call's sound is shown to too many already"),
        }
    }

    fn tap(&mut self, side: Side, packet: &Packet) {
        self.taps.retain_mut(|tap| tap(side, packet));
    }

    async fn hear(&mut self, event: SttEvent) {
        self.observe(Observed::Transcript(event.clone()));
        self.apply(Input::Stt(event)).await;
    }

    async fn said(&mut self, said: Said) {
        let input = match said {
            Said::Conversation(input) => Some(input),
            Said::Sound { turn, attempt, event } => self.replies.sound(turn, attempt, event),
        };
        if let Some(input) = input {
            self.apply(input).await;
        }
    }

    /// The leg's rings, both ways.
    async fn serve_leg(&mut self) {
        self.take_ear(); // before the events: what was heard before a pause is settled at it
        while let Ok(event) = self.port.events.pop() {
            self.observe(Observed::Leg(event));
            self.context.metrics.leg(&event);
            self.hearing.turn(&event);
            self.apply(Input::Leg(event)).await;
        }
        while let Some(packet) = self.port.agent.as_mut().and_then(SoundConsumer::pop) {
            self.tap(Side::Agent, &packet);
        }
        self.left_over = false;
        let Some(to) = self.to.clone() else { return };
        while !self.port.outgoing.is_empty() {
            if to.capacity() == 0 && !to.is_closed() {
                if self.stuck_since.get_or_insert_with(Instant::now).elapsed() > LINE_STUCK_MAX {
                    self.apply(Input::Gone(Gone::Lost)).await;
                }
                self.left_over = true;
                return;
            }
            let Some(item) = self.port.outgoing.pop() else { return };
            if to.try_send(item).is_ok() {
                self.stuck_since = None;
            }
            // a room's line is the agent alone already, in real time
            if let (ToLine::Audio(packet), None) = (&item, &self.port.agent) {
                self.tap(Side::Agent, packet);
            }
        }
    }

    /// What came from the caller and what the leg has heard of it, to speech to text.
    fn take_ear(&mut self) {
        while let Some(packet) = self.port.line.pop() {
            self.hearing.packet(packet.payload());
            self.tap(Side::Caller, &packet);
        }
        let Some(ear) = &mut self.port.ear else { return };
        while let Ok(frame) = ear.pop() {
            self.hearing.frame(&frame.samples);
        }
    }

    async fn apply(&mut self, input: Input) {
        self.context.trace.input(&input);
        if let Input::Leg(
            LegEvent::TurnEnded { turn, .. }
            | LegEvent::ReplyStarted { turn, .. }
            | LegEvent::ReplyHeard { turn, .. }
            | LegEvent::Interrupted { cut: turn, .. },
        ) = input
        {
            self.turn = turn;
        }
        let (now, mut actions) = (self.now(), Vec::new());
        let moment = self.context.flight.as_ref().and_then(|flight| flight.moment(now, &input));
        self.conversation.apply(now, input, &mut actions);
        if let (Some(flight), Some(moment)) = (&mut self.context.flight, moment) {
            flight.decided(moment, &actions);
        }
        for action in actions {
            self.carry_out(action).await;
        }
    }

    async fn carry_out(&mut self, action: Action) {
        let agent = Arc::clone(&self.context.agent);
        match action {
            Action::Command(command) => self.command(command),
            Action::Finalize => {
                self.take_ear();
                self.hearing.finalize();
            }
            Action::Ask { attempt, request } => self.replies.ask(attempt, request, &agent.llm, agent.tts.rate_hz()),
            Action::CancelBefore(turn) => self.replies.cancel_before(turn),
            Action::Synthesize { turn, attempt, phrase, text } => {
                self.observe(Observed::Phrase { turn, phrase, text: text.clone() });
                self.replies.synthesize(turn, attempt, phrase, text, &agent.tts);
            }
            Action::EndReply { turn, attempt, phrases } => self.replies.end(turn, attempt, phrases),
            Action::Release { turn, attempt } => self.replies.release(turn, attempt, agent.tts.rate_hz()),
            Action::CallTool { turn, number, call } => self.tools.call(&self.context, turn, number, call),
            Action::Report(kind) => self.report(kind).await,
            Action::Timing(timing) => {
                self.context.metrics.timing(&timing);
                let TurnTiming { turn, ended_ms, transcript_ms, llm_ms, tts_ms, reply_ms, .. } = timing;
                tracing::info!(session = self.context.session_id, turn = turn.0, ended_ms, transcript_ms, llm_ms, tts_ms, reply_ms, "answered");
                self.context.trace.answered(&timing);
                self.observe(Observed::Timing(timing));
            }
            Action::End { reason } => {
                tracing::info!(session = self.context.session_id, reason, "call ended");
                self.context.metrics.ended(reason);
                self.context.trace.ended(reason);
                self.ended = true;
            }
        }
    }

    fn command(&mut self, command: Command) {
        if self.port.commands.push(command).is_err() {
            self.context.metrics.commands_dropped.add(1);
            tracing::warn!(session = self.context.session_id, ?command, "the audio thread does not take commands: it is overloaded");
        }
    }

    fn observe(&self, observed: Observed) {
        if let Some(watcher) = &self.context.watcher {
            let _ = watcher.try_send(observed.clone()); // a watcher that falls behind misses captions, the call nothing
        }
        let _ = self.context.observed.send((self.context.session_id.clone(), observed)); // nobody watching is fine
    }

    async fn report(&mut self, kind: CallEventKind) {
        self.context.trace.reported(&kind);
        if let CallEventKind::Utterance { speaker, text, stage, .. } = &kind {
            tracing::info!(session = self.context.session_id, turn = self.turn.0, ?speaker, stage, text, "said");
            self.observe(Observed::Said { speaker: *speaker, text: text.clone() });
        }
        if self.reports.send((unix_ms(), kind)).await.is_err() {
            tracing::error!(session = self.context.session_id, "an event was lost: the event store has stopped");
        }
    }
}
