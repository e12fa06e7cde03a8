//! How long to wait after the caller's last speech frame before the turn is over.
//!
//! No witness is trusted alone. The end-of-turn model is weak on telephone speech and the transcript comes late, so
//! both only move one number, the log-odds that the caller is done, and the wait is a smooth function of it: no answer
//! of either can cost more than `endpoint_ms_max`, and none has to come at all. With the default 280..1400 ms:
//!
//! | model says | text without marks | complete | open |
//! |---|---|---|---|
//! | nothing, or 0.5 and more | 460 ms | 391 ms | 937 ms |
//! | 0.3 and less | 549 ms | 453 ms | 1064 ms |
//!
//! The model can lengthen a wait and not shorten it: where it is surest that the turn is over it is wrong too often, and
//! a caller who was spoken into has lost more than one who was answered 50 ms later.
//!
//! A caller who pauses long, or whom we have cut off, is given more: [`Endpoint::patience_ms`] is added to each wait.

use super::AskId;
use crate::leg::{TextEnding, TranscriptHint};

/// Answers from which on the model says nothing, and from which down it is as doubtful as can be. Of 118 ends of real turns it puts 61 %
/// above 0.8 and 24 % below 0.35; of 102 pauses of 350 to 700 ms inside them 36 % and 50 %; between, both are alike.
const MODEL_SILENT: f32 = 0.5;
const MODEL_DOUBTFUL: f32 = 0.3;
/// Log-odds against an end that its doubt is worth: less than the 0.7 of that ratio, for a quarter of all true ends pay for it.
const MODEL_DOUBT: f32 = 0.5;
/// Log-odds of a settled text that ends a sentence.
const COMPLETE: f32 = 0.55;
/// Log-odds of an unsettled text that does.
const SEEMS_COMPLETE: f32 = 0.3;
/// Log-odds of a text that stops where nobody stops.
const OPEN: f32 = -2.0;
/// Puts "unknown" at 16 % of the range.
const OFFSET: f32 = 1.65;

/// What it is shown of a pause, in ms, however late it is asked: it was trained with 200 ms, and by measure tells ends from
/// pauses worse with 320 ms and more (AUC 0.60 at 260 ms, 0.57 at 370 ms).
pub const JUDGED_PAUSE_MS: u64 = 250;
/// It is asked so long before its answer is needed, in ms: time for a few that pause together. A late answer is done without.
pub const ANSWER_MS: u64 = 60;
/// An answer that cannot move the wait by more than this is not worth its cost, in ms: the text has spoken.
const WORTH_MS: u64 = 80;
/// Quiet after which a pause without a single word was noise, in ms: later than any transcript of the turn.
pub const NOISE_MS: u64 = 2_500;

/// Pauses inside turns up to this are everybody's, in ms; longer ones on average ask for patience.
const USUAL_PAUSE_MS: f32 = 450.0;
/// How far pauses are from their mean, before anything is known of a caller's, in ms.
const USUAL_SPREAD_MS: f32 = 300.0;
/// Share that a pause has in what is known of the caller's.
const NEWEST_PAUSE: f32 = 0.3;
/// So many mean deviations over the mean are some five in six of the caller's pauses. A longer one is an end, without asking.
const OWN_PAUSES: f32 = 1.25;
/// Patience that long pauses can earn, in ms.
const PAUSE_PATIENCE_MS_MAX: f32 = 100.0;
/// Patience that one false cut-off earns, and what they can earn together, in ms: nobody is to be spoken into twice in a row.
const CUT_SHORT_MS: f32 = 100.0;
const CUT_SHORT_MS_MAX: f32 = 300.0;
/// What is left of that patience after each turn that ended well.
const FORGIVENESS: f32 = 0.6;

/// What is known about the end of one caller's turn.
#[derive(Clone, Debug)]
pub struct Endpoint {
    ms_min: u32,
    ms_max: u32,
    next_ask: AskId,
    waiting_for: Option<AskId>,
    /// Once a pause is enough: 100 ms later it knows no better.
    asked: bool,
    probability: Option<f32>,
    /// Mean of this caller's pauses inside turns, and how far they are from it.
    pause_ms: f32,
    spread_ms: f32,
    cut_short_ms: f32,
}

impl Endpoint {
    /// Waits between `ms_min` and `ms_max`.
    pub fn new(ms_min: u32, ms_max: u32) -> Self {
        Self {
            ms_min,
            ms_max: ms_max.max(ms_min),
            next_ask: AskId::default(),
            waiting_for: None,
            asked: false,
            probability: None,
            pause_ms: USUAL_PAUSE_MS,
            spread_ms: USUAL_SPREAD_MS,
            cut_short_ms: 0.0,
        }
    }

    /// A pause begins: what was known about the one before is void.
    pub fn pause(&mut self) {
        self.waiting_for = None;
        self.asked = false;
        self.probability = None;
    }

    /// The question to put to the model now, if any: as late as its answer is still in time, since the caller may go on,
    /// and only where the answer would count: not where the text has spoken, nor in a pause longer than this caller's are.
    pub fn ask(&mut self, quiet_ms: u64, hint: TranscriptHint) -> Option<AskId> {
        if self.asked {
            return None;
        }
        let [shortest, longest] = [1.0, 0.0].map(|probability| self.wait_if(Some(probability), hint));
        let is_worth_it = longest - shortest > WORTH_MS;
        let is_time = quiet_ms + ANSWER_MS >= shortest;
        let is_clear = quiet_ms as f32 > self.pause_ms + OWN_PAUSES * self.spread_ms;
        (is_worth_it && is_time && !is_clear).then(|| {
            let ask = self.next_ask;
            self.next_ask = AskId(ask.0.wrapping_add(1));
            self.waiting_for = Some(ask);
            self.asked = true;
            ask
        })
    }

    /// Takes an answer; false when nobody waits for it any more.
    pub fn answer(&mut self, ask: AskId, probability: f32) -> bool {
        let awaited = self.waiting_for == Some(ask);
        if awaited {
            self.waiting_for = None;
            self.probability = (0.0..=1.0).contains(&probability).then_some(probability);
        }
        awaited
    }

    /// The model's word on this pause.
    pub fn probability(&self) -> Option<f32> {
        self.probability
    }

    /// How long to wait in all after the last speech frame, in ms.
    pub fn wait_ms(&self, hint: TranscriptHint) -> u64 {
        self.wait_if(self.probability, hint)
    }

    fn wait_if(&self, probability: Option<f32>, hint: TranscriptHint) -> u64 {
        let share = wait_share(probability, hint);
        let range = (self.ms_max - self.ms_min) as f32;
        let wait = self.ms_min as f32 + share * range + self.patience_ms();
        u64::from(self.ms_max.min(wait as u32))
    }

    /// What this caller is given beyond everybody's wait, in ms.
    pub fn patience_ms(&self) -> f32 {
        let for_pauses = (self.pause_ms - USUAL_PAUSE_MS).max(0.0) * 0.5;
        for_pauses.min(PAUSE_PATIENCE_MS_MAX) + self.cut_short_ms
    }

    /// The caller went on after a pause of this length.
    pub fn went_on(&mut self, pause_ms: u64) {
        let beyond = pause_ms as f32 - self.pause_ms;
        self.spread_ms += NEWEST_PAUSE * (beyond.abs() - self.spread_ms);
        self.pause_ms += NEWEST_PAUSE * beyond;
    }

    /// The caller had not been done at all, and went on after a pause of this length.
    pub fn cut_short(&mut self, pause_ms: u64) {
        // a longer one was ours: an answer that took its time
        if pause_ms <= u64::from(self.ms_max) {
            self.went_on(pause_ms);
        }
        self.cut_short_ms = CUT_SHORT_MS_MAX.min(self.cut_short_ms + CUT_SHORT_MS);
    }

    /// The turn was answered, and heard out.
    pub fn ended_well(&mut self) {
        self.cut_short_ms *= FORGIVENESS;
    }
}

/// Share of the range of waits, 0..1: a logistic curve over the log-odds that the turn is over.
fn wait_share(probability: Option<f32>, hint: TranscriptHint) -> f32 {
    let doubt = probability.map_or(0.0, |p| ((MODEL_SILENT - p) / (MODEL_SILENT - MODEL_DOUBTFUL)).clamp(0.0, 1.0));
    let transcript = match (hint.ending, hint.settled) {
        (TextEnding::Unmarked, _) => 0.0,
        (TextEnding::Complete, true) => COMPLETE,
        (TextEnding::Complete, false) => SEEMS_COMPLETE,
        (TextEnding::Open, _) => OPEN,
    };
    1.0 / (1.0 + (OFFSET + transcript - MODEL_DOUBT * doubt).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(probability: Option<f32>, ending: TextEnding) -> u64 {
        let mut endpoint = Endpoint::new(280, 1_400);
        endpoint.probability = probability;
        endpoint.wait_ms(TranscriptHint { words: 3, backchannel: false, ending, settled: true })
    }

    #[test]
    fn the_wait_is_the_documented_function_of_what_is_known() {
        let row = |p| [TextEnding::Unmarked, TextEnding::Complete, TextEnding::Open].map(|ending| wait(p, ending));
        let table = [None, Some(0.05)].map(row);
        insta::assert_compact_debug_snapshot!(table, @"[[460, 391, 937], [549, 453, 1064]]");
        assert_eq!((row(None), row(Some(0.05))), (row(Some(0.5)), row(Some(0.3))));
        assert!(row(Some(0.4))[0] > 490 && row(Some(0.4))[0] < 520);
    }

    #[test]
    fn a_caller_who_was_cut_short_is_given_more_time_and_later_less_again() {
        let mut endpoint = Endpoint::new(280, 1_400);
        let before = endpoint.wait_ms(TranscriptHint::default());
        endpoint.cut_short(400);
        let after = endpoint.wait_ms(TranscriptHint::default());
        assert_eq!(after, before + 100);
        for _ in 0..10 {
            endpoint.cut_short(400);
        }
        assert_eq!(endpoint.wait_ms(TranscriptHint::default()), before + 300);
        for _ in 0..20 {
            endpoint.ended_well();
        }
        assert!(endpoint.wait_ms(TranscriptHint::default()) < before + 10);
    }

    #[test]
    fn the_model_is_asked_where_it_counts_and_no_sooner_than_needed() {
        let asked_at = |ending, settled| {
            let mut endpoint = Endpoint::new(280, 1_400);
            let hint = TranscriptHint { words: 3, backchannel: false, ending, settled };
            (0..1_400).step_by(10).find(|&quiet_ms| endpoint.ask(quiet_ms, hint).is_some())
        };
        assert_eq!(asked_at(TextEnding::Unmarked, true), Some(400));
        assert_eq!(asked_at(TextEnding::Complete, true), None);
        assert_eq!(asked_at(TextEnding::Open, true), None, "a pause of 880 ms is nobody's");
    }

    #[test]
    fn a_pause_beyond_the_callers_own_ones_is_an_end_without_the_model() {
        let is_asked_after = |pauses: &[u64]| {
            let mut endpoint = Endpoint::new(280, 1_400);
            pauses.iter().cycle().take(12).for_each(|pause_ms| endpoint.went_on(*pause_ms));
            endpoint.ask(400, TranscriptHint::default()).is_some()
        };
        assert!(!is_asked_after(&[150, 200, 250]));
        assert!(is_asked_after(&[250, 420]));
        assert!(is_asked_after(&[150, 200, 250, 600]));
    }

    #[test]
    fn only_the_awaited_answer_counts() {
        let mut endpoint = Endpoint::new(280, 1_400);
        let old = endpoint.ask(450, TranscriptHint::default()).unwrap();
        endpoint.pause();
        let new = endpoint.ask(450, TranscriptHint::default()).unwrap();
        assert!(!endpoint.answer(old, 1.0));
        assert_eq!(endpoint.probability(), None);
        assert!(endpoint.answer(new, f32::NAN));
        assert_eq!(endpoint.probability(), None);
    }
}
