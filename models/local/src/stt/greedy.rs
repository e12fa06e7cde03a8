//! Greedy search: always the likeliest token, of those that may stand in a transcript, until the model says that the
//! text ends, repeats itself, or has used up what so short an utterance can hold.

use serde::Deserialize;

use super::decoder::{Decoder, DecoderState};
use super::vocabulary::Vocabulary;
use crate::exp::exp;

/// Tokens of one utterance at most: some 70 words, more than anyone says in 28 s without a breath.
const TOKENS_MAX: usize = 96;
/// Tokens for each second; quick speech has about 5.
const TOKENS_PER_SECOND_MAX: f32 = 8.0;
/// Tokens on top, for punctuation and numbers in short answers.
const TOKENS_SPARE: usize = 8;
/// The longest phrase, in tokens, whose repetition is looked for: half of all.
const REPEATED_PHRASE_TOKENS_MAX: usize = TOKENS_MAX / 2;
/// The model's own probability of "no speech" from which an unsure text is not believed; speech lies below 0.3.
const NO_SPEECH_MIN: f32 = 0.6;
/// Mean log probability of a text below which it is unsure; what the model writes over a pure tone reaches -0.66.
const SURE_MIN: f32 = -0.5;
/// Mean log probability below which a text is not believed whatever the model says of speech.
const GUESSED_MIN: f32 = -1.6;

/// Which tokens start, end and may not stand in a transcript.
pub struct Search {
    start: usize,
    end: usize,
    no_speech: usize,
    no_timestamps: usize,
    suppressed: Vec<usize>,
    suppressed_first: Vec<usize>,
}

/// What a search found.
pub struct Outcome {
    /// The text's tokens.
    pub tokens: Vec<usize>,
    /// Mean natural logarithm of the chosen tokens' probabilities.
    pub mean_log_probability: f32,
    /// The model's probability that nobody speaks.
    pub no_speech: f32,
}

#[derive(Deserialize)]
struct Config {
    suppress_ids: Vec<usize>,
    suppress_ids_begin: Vec<usize>,
}

impl Search {
    /// Takes the suppressed tokens from the model's `config.json`.
    pub fn parse(config: &[u8], vocabulary: &Vocabulary) -> Result<Self, String> {
        let config: Config = serde_json::from_slice(config).map_err(|error| error.to_string())?;
        if config.suppress_ids.iter().chain(&config.suppress_ids_begin).any(|&token| token >= vocabulary.len()) {
            return Err("suppresses a token that is not in the vocabulary".into());
        }
        Ok(Self {
            start: vocabulary.special("<|startoftranscript|>")?,
            end: vocabulary.special("<|endoftext|>")?,
            no_speech: vocabulary.special("<|nocaptions|>")?,
            no_timestamps: vocabulary.special("<|notimestamps|>")?,
            suppressed: config.suppress_ids,
            suppressed_first: config.suppress_ids_begin,
        })
    }

    /// Writes the text of what the decoder listens to, `seconds` long.
    pub fn run(&self, decoder: &Decoder, state: &mut DecoderState, seconds: f32) -> Outcome {
        let limit = TOKENS_MAX.min((seconds * TOKENS_PER_SECOND_MAX) as usize + TOKENS_SPARE);
        let no_speech = log_share(decoder.step(self.start, state), self.no_speech).exp();
        let mut tokens = Vec::with_capacity(limit);
        let (mut previous, mut sum, mut steps) = (self.no_timestamps, 0.0, 0);
        while tokens.len() < limit {
            let scores = decoder.step(previous, state);
            self.suppress(scores, tokens.is_empty());
            previous = likeliest(scores);
            sum += log_share(scores, previous);
            steps += 1;
            if previous == self.end {
                break;
            }
            tokens.push(previous);
            if let Some(length) = without_repetition(&tokens) {
                tokens.truncate(length);
                break;
            }
        }
        Outcome { tokens, mean_log_probability: sum / steps.max(1) as f32, no_speech }
    }

    fn suppress(&self, scores: &mut [f32], is_first: bool) {
        let first = if is_first { &self.suppressed_first[..] } else { &[] };
        for &token in self.suppressed.iter().chain(first) {
            scores[token] = f32::MIN;
        }
        // everything from here on is a time, which we do not ask for
        scores[self.no_timestamps..].fill(f32::MIN);
    }
}

impl Outcome {
    /// Whether someone spoke, rather than the model having written over silence or noise.
    pub fn is_speech(&self) -> bool {
        let is_unsure = self.mean_log_probability < SURE_MIN;
        !(is_unsure && self.no_speech > NO_SPEECH_MIN) && self.mean_log_probability >= GUESSED_MIN
    }
}

fn likeliest(scores: &[f32]) -> usize {
    let best = scores.iter().copied().fold(f32::MIN, f32::max);
    scores.iter().position(|&score| score == best).unwrap_or(0)
}

/// Natural logarithm of the share that softmax would give a token.
fn log_share(scores: &[f32], token: usize) -> f32 {
    let top = scores.iter().copied().fold(f32::MIN, f32::max);
    let sum: f32 = scores.iter().map(|score| exp(score - top)).sum();
    scores[token] - top - sum.ln()
}

/// When the text ends in one phrase over and over, the length up to and with its first time.
///
/// A single token may stand five times ("0 0 0 0 0" in a number), a short phrase two or three times ("no, no, no"); a
/// whole sentence said twice word for word is the model looping, as it does on a window shorter than it was trained on.
fn without_repetition(tokens: &[usize]) -> Option<usize> {
    (1..=REPEATED_PHRASE_TOKENS_MAX).find_map(|length| {
        let times = match length {
            1 => 6,
            2 => 4,
            3..6 => 3,
            _ => 2,
        };
        let start = tokens.len().checked_sub(length * times)?;
        let tail = &tokens[start..];
        tail.chunks(length).all(|phrase| phrase == &tail[..length]).then_some(start + length)
    })
}

#[cfg(test)]
mod tests {
    use super::without_repetition;

    #[test]
    fn a_phrase_said_over_and_over_is_kept_once() {
        assert_eq!(without_repetition(&[7, 1, 2, 3, 1, 2, 3, 1, 2, 3]), Some(4));
        assert_eq!(without_repetition(&[7, 1, 2, 3, 1, 2, 3, 1, 2]), None);
        assert_eq!(without_repetition(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]), Some(6));
        assert_eq!(without_repetition(&[5, 5, 5, 5, 5]), None);
    }
}
