//! End of turn off the tick. The audio thread hands a snapshot of features over in one of a few reused boxes; the judge
//! thread answers as it gets to it; the box comes back with the answer. When all boxes are out the question is not asked
//! and the caller is judged by pause and transcript alone: bounded work, no queue to grow stale.
//!
//! The judge thread also frees what retired calls leave behind, since the audio thread must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};
use voiced_core::call::{AskId, Verdict};
use voiced_core::model::{TurnJudge, TurnQuery};

use crate::port::SlotPort;

/// Questions under way at once. One takes 20–45 ms, an answer after ~300 ms is no use: more than this cannot be answered in time.
const ASKS_MAX: usize = 8;
/// How often the judge looks for questions: small beside an inference, cheap beside a core.
const POLL: Duration = Duration::from_millis(2);

/// A question about a slot's current call.
pub(crate) struct Ask {
    pub(crate) slot: usize,
    pub(crate) call: u64,
    pub(crate) id: AskId,
    pub(crate) query: TurnQuery,
}

/// An answer, with the box to be used again.
pub(crate) struct Answer {
    pub(crate) slot: usize,
    pub(crate) call: u64,
    pub(crate) verdict: Verdict,
    pub(crate) query: TurnQuery,
}

/// The audio thread's end.
pub(crate) struct JudgeLink {
    pub(crate) asks: Producer<Ask>,
    pub(crate) answers: Consumer<Answer>,
    pub(crate) spare: Vec<TurnQuery>,
    pub(crate) retired: Producer<SlotPort>,
}

/// The judge's end; [`Judge::step`] does all the work there is.
pub struct Judge {
    asks: Consumer<Ask>,
    answers: Producer<Answer>,
    retired: Consumer<SlotPort>,
    model: Option<Box<dyn TurnJudge>>,
}

pub(crate) fn open(model: Option<Box<dyn TurnJudge>>, slots: usize) -> (JudgeLink, Judge) {
    let (asks_in, asks) = RingBuffer::new(ASKS_MAX);
    let (answers_in, answers) = RingBuffer::new(ASKS_MAX);
    // every slot may retire in one tick
    let (retired_in, retired) = RingBuffer::new(slots.max(1) * 2);
    let spare = if model.is_some() { (0..ASKS_MAX).map(|_| TurnQuery::default()).collect() } else { Vec::new() };
    (JudgeLink { asks: asks_in, answers, spare, retired: retired_in }, Judge { asks, answers: answers_in, retired, model })
}

impl Judge {
    /// Answers every waiting question and frees every retired call.
    pub fn step(&mut self) {
        while self.retired.pop().is_ok() {}
        while let Ok(Ask { slot, call, id, query }) = self.asks.pop() {
            let Some(model) = &mut self.model else { return };
            let probability = model.judge(&query);
            // there are as many places for answers as there are boxes
            let _ = self.answers.push(Answer { slot, call, verdict: Verdict { ask: id, probability }, query });
        }
    }

    pub(crate) fn run(mut self, stop: &Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            self.step();
            std::thread::sleep(POLL);
        }
    }
}
