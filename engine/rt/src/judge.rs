//! End of turn off the tick. The audio thread hands a snapshot of features over in one of a few reused boxes; the judge
//! thread answers as it gets to it; the box comes back with the answer. When all boxes are out the question is not asked
//! and the caller is judged by pause and transcript alone: bounded work, no queue to grow stale.
//!
//! It runs below the audio thread and the rim, so that the model gets the time that is left. Where that does not do for
//! all questions, the newest is answered first and one whose answer would come too late is given back without: the busier
//! the core, the fewer pauses the model is asked about, and nobody waits for it.
//!
//! The judge thread also frees what retired calls leave behind, since the audio thread must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};
use voiced_core::call::{AskId, Verdict};
use voiced_core::model::{TurnJudge, TurnQuery};
use voiced_core::time::TICK_MS;
use voiced_core::turn::endpoint::ANSWER_MS;

use crate::meter::Meter;
use crate::port::SlotPort;
use crate::realtime;

/// Questions under way at once. One takes 10 to 45 ms: more than this cannot be answered in time.
const ASKS_MAX: usize = 8;
/// How often the judge looks by itself whether it is to stop.
const REST: Duration = Duration::from_millis(100);
/// An answer after this moves no wait any more, in ticks.
const ANSWER_MAX: f32 = (ANSWER_MS / TICK_MS) as f32;
/// Share of a new inference in the time that one is expected to take.
const NEWEST: f32 = 0.25;

/// A question about a slot's current call.
pub(crate) struct Ask {
    pub(crate) slot: usize,
    pub(crate) call: u64,
    pub(crate) id: AskId,
    /// Ticks of this thread when it was asked.
    pub(crate) asked_at: u64,
    pub(crate) query: TurnQuery,
}

/// An answer, with the box to be used again.
pub(crate) struct Answer {
    pub(crate) slot: usize,
    pub(crate) call: u64,
    /// None: there was no time for one.
    pub(crate) verdict: Option<Verdict>,
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
    /// Taken from the ring, oldest first.
    waiting: Vec<Ask>,
    /// What an inference takes here and now, in ticks.
    expected: f32,
    meter: Arc<Meter>,
}

pub(crate) fn open(model: Option<Box<dyn TurnJudge>>, slots: usize, meter: Arc<Meter>) -> (JudgeLink, Judge) {
    let (asks_in, asks) = RingBuffer::new(ASKS_MAX);
    let (answers_in, answers) = RingBuffer::new(ASKS_MAX);
    // every slot may retire in one tick
    let (retired_in, retired) = RingBuffer::new(slots.max(1) * 2);
    let spare = if model.is_some() { (0..ASKS_MAX).map(|_| TurnQuery::default()).collect() } else { Vec::new() };
    let judge = Judge { asks, answers: answers_in, retired, model, waiting: Vec::with_capacity(ASKS_MAX), expected: 0.0, meter };
    (JudgeLink { asks: asks_in, answers, spare, retired: retired_in }, judge)
}

impl Judge {
    /// Answers every waiting question that can still be answered in time, and frees every retired call.
    pub fn step(&mut self) {
        while self.retired.pop().is_ok() {}
        loop {
            while let Ok(ask) = self.asks.pop() {
                self.waiting.push(ask);
            }
            let Some(ask) = self.waiting.pop() else { return };
            let verdict = self.judge(&ask);
            // there are as many places for answers as there are boxes
            let _ = self.answers.push(Answer { slot: ask.slot, call: ask.call, verdict, query: ask.query });
        }
    }

    fn judge(&mut self, ask: &Ask) -> Option<Verdict> {
        let model = self.model.as_mut()?;
        let begun = self.meter.ticks();
        if begun.saturating_sub(ask.asked_at) as f32 + self.expected > ANSWER_MAX {
            self.meter.ask_dropped();
            // a stall is forgotten, or nothing would ever be asked again
            self.expected *= 1.0 - NEWEST;
            return None;
        }
        let probability = model.judge(&ask.query);
        self.expected += ((self.meter.ticks() - begun) as f32 - self.expected) * NEWEST;
        self.meter.ask_answered();
        Some(Verdict { ask: ask.id, probability })
    }

    /// Works whenever the thread is unparked, until it is to stop.
    pub(crate) fn run(mut self, stop: &Arc<AtomicBool>) {
        realtime::step_back();
        while !stop.load(Ordering::Relaxed) {
            self.step();
            std::thread::park_timeout(REST);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Takes so many ticks for an answer, which is the number of frames in the question.
    struct Slow {
        ticks: u64,
        meter: Arc<Meter>,
    }

    impl TurnJudge for Slow {
        fn judge(&mut self, query: &TurnQuery) -> f32 {
            (0..self.ticks).for_each(|_| self.meter.tick(Duration::ZERO, Duration::ZERO));
            query.frames as f32
        }
    }

    #[test]
    fn the_newest_question_is_answered_first_and_one_that_would_be_late_costs_nothing() {
        let meter = Arc::new(Meter::default());
        let (mut link, mut judge) = open(Some(Box::new(Slow { ticks: 4, meter: Arc::clone(&meter) })), 4, Arc::clone(&meter));
        for slot in 0..3 {
            let query = TurnQuery { frames: slot, ..link.spare.pop().unwrap() };
            link.asks.push(Ask { slot, call: 1, id: AskId(slot as u32), asked_at: meter.ticks(), query }).ok().unwrap();
        }
        judge.step();
        let answers: Vec<_> =
            std::iter::from_fn(|| link.answers.pop().ok()).map(|answer| (answer.slot, answer.verdict.map(|verdict| verdict.probability))).collect();
        assert_eq!(answers, [(2, Some(2.0)), (1, Some(1.0)), (0, None)], "the last would have come after 12 ticks");
        let reading = meter.read();
        assert_eq!((reading.asks_answered, reading.asks_dropped, reading.ticks), (2, 1, 8));
    }
}
