//! When a caller speaks, on the phone or in a room: a script advanced by 20 ms, knowing only what a caller would hear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use voiced_core::codec::{mulaw_encode, sample_from_mulaw};

/// A caller's part. When it is over, the caller hangs up.
#[derive(Clone, Debug)]
pub struct CallScript {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// The call is given up after this, in ms.
    pub limit_ms: u64,
}

/// A line of the caller's: its name in the report, and 16-bit sound at 8 kHz.
pub type Line = (String, Vec<i16>);

/// Quiet after which a talking caller takes the agent to be done, in ms.
const QUIET_MS: u64 = 600;
/// A talking caller goes on after this, answered or not, in ms.
const ANSWER_MS: u64 = 8_000;
/// Of so many lines a talking caller says one over the agent, this long after it began, in ms.
const INTERRUPTS_EVERY: usize = 3;
const INTERRUPTS_AFTER_MS: u64 = 800;

impl CallScript {
    /// Lets the agent greet and then says line after line for so long, beginning at the `from`-th: two wait for the
    /// agent's answer, the third is said over the answer to the second.
    pub fn talk(lines: &[Line], from: usize, seconds: u64) -> Self {
        let limit_ms = seconds * 1_000;
        let listen = Step::Listen { quiet_ms: QUIET_MS, at_most_ms: ANSWER_MS };
        let mut steps = vec![listen.clone()];
        let mut planned_ms = 0;
        for (count, (name, pcm8k)) in lines.iter().cycle().skip(from % lines.len().max(1)).enumerate() {
            if planned_ms > limit_ms {
                break;
            }
            planned_ms += pcm8k.len() as u64 / 8 + QUIET_MS;
            let (pcm8k, label) = (pcm8k.clone(), name.clone());
            let place = count % INTERRUPTS_EVERY;
            if place == INTERRUPTS_EVERY - 1 {
                steps.push(Step::SayOver { after_agent_ms: INTERRUPTS_AFTER_MS, pcm8k, label });
            } else {
                steps.push(Step::Say { pcm8k, label });
            }
            if place != INTERRUPTS_EVERY - 2 {
                steps.push(listen.clone());
            }
        }
        Self { steps, limit_ms }
    }
}

/// One thing a caller does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Waits until the agent has spoken and then been quiet.
    Listen {
        /// Quiet that ends it, in ms.
        quiet_ms: u64,
        /// Longest wait, in ms.
        at_most_ms: u64,
    },
    /// Says something.
    Say {
        /// 16-bit sound at 8 kHz.
        pcm8k: Vec<i16>,
        /// Its name in the report.
        label: String,
    },
    /// Speaks over the agent.
    SayOver {
        /// How long after the agent started to speak, in ms.
        after_agent_ms: u64,
        /// 16-bit sound at 8 kHz.
        pcm8k: Vec<i16>,
        /// Its name in the report.
        label: String,
    },
    /// Stays silent, in ms.
    Wait {
        /// How long.
        ms: u64,
    },
    /// Stays silent until a sign is given.
    WaitFor {
        /// What is waited for.
        sign: Sign,
        /// Longest wait, in ms.
        at_most_ms: u64,
    },
    /// The road to the agent stands still, in ms: nothing is sent or read; then what was held back comes at once.
    Stall {
        /// How long.
        ms: u64,
    },
    /// From now on nothing of the agent's is read for so long, in ms, while the caller's sound goes on. The socket of a phone
    /// with such a step buffers little, so that the agent's side soon finds no room.
    Deaf {
        /// How long.
        ms: u64,
    },
    /// Presses a key.
    Dtmf(char),
    /// Hangs up.
    HangUp,
}

/// Tells a caller in the middle of a call to go on.
#[derive(Clone, Debug, Default)]
pub struct Sign(Arc<AtomicBool>);

impl Sign {
    /// Gives the sign, once and for good.
    pub fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// mu-law silence.
pub(crate) const SILENCE: u8 = 0xFF;
/// Bytes of one frame: 20 ms at 8 kHz.
pub(crate) const FRAME_BYTES: usize = 160;
/// Length of a frame, in ms.
pub(crate) const FRAME_MS: u64 = 20;
/// Quiet after which the agent counts as having stopped, in ms: longer than the pauses between words.
pub const PAUSE_MS: u64 = 300;
/// Mean square above which 10 or 20 ms are audible: an RMS of 150, -47 dB of full scale.
pub(crate) const AUDIBLE_POWER: i64 = 150 * 150;

/// Mean square of mu-law sound.
pub(crate) fn power(sound: &[u8]) -> i64 {
    sound.iter().map(|&byte| i64::from(sample_from_mulaw(byte)).pow(2)).sum::<i64>() / sound.len().max(1) as i64
}

/// Whether mu-law sound is audible.
pub(crate) fn is_audible(sound: &[u8]) -> bool {
    power(sound) > AUDIBLE_POWER
}

/// What a step of the script wants done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    Start { label: String, over: bool },
    Stop,
    Dtmf(char),
    Stall(u64),
    Deaf(u64),
    ListenedInVain,
    HangUp,
}

/// What the caller hears of the agent. Times in ms since the stream started.
#[derive(Debug, Default)]
pub(crate) struct AgentHeard {
    /// Start of the agent's latest stretch of speech.
    pub(crate) since_ms: Option<u64>,
    /// End of the latest audible frame.
    pub(crate) last_ms: Option<u64>,
}

/// What a frame of the agent's sound changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Started,
    Stopped,
}

impl AgentHeard {
    /// Takes what was played in the frame that ends at `now_ms`.
    pub(crate) fn hear(&mut self, now_ms: u64, frame: &[u8]) -> Change {
        let quiet_ms = self.last_ms.map(|last| now_ms - last);
        if is_audible(frame) {
            let started = quiet_ms.is_none_or(|quiet| quiet > PAUSE_MS);
            self.last_ms = Some(now_ms);
            if started {
                self.since_ms = Some(now_ms.saturating_sub(FRAME_MS));
                return Change::Started;
            }
        } else if quiet_ms.is_some_and(|quiet| (PAUSE_MS..PAUSE_MS + FRAME_MS).contains(&quiet)) {
            return Change::Stopped;
        }
        Change::Nothing
    }
}

/// Plays a script.
#[derive(Debug)]
pub(crate) struct Player {
    steps: std::vec::IntoIter<Step>,
    step: Option<Step>,
    /// When the step began.
    since_ms: u64,
    /// mu-law still to be said.
    saying: Vec<u8>,
    said: usize,
}

impl Player {
    pub(crate) fn new(script: CallScript) -> Self {
        let mut steps = script.steps.into_iter();
        let step = steps.next();
        Self { steps, step, since_ms: 0, saying: Vec::new(), said: 0 }
    }

    /// The caller's next 20 ms, which begin at `now_ms`.
    pub(crate) fn frame(&mut self, now_ms: u64, agent: &AgentHeard, cue: &mut impl FnMut(Cue)) -> [u8; FRAME_BYTES] {
        self.advance(now_ms, agent, cue);
        let mut frame = [SILENCE; FRAME_BYTES];
        let rest = &self.saying[self.said..];
        let len = rest.len().min(FRAME_BYTES);
        frame[..len].copy_from_slice(&rest[..len]);
        self.said += len;
        frame
    }

    /// Goes through the steps that are over; a step that says something is over when all was said.
    fn advance(&mut self, now_ms: u64, agent: &AgentHeard, cue: &mut impl FnMut(Cue)) {
        loop {
            if !self.saying.is_empty() {
                if self.said < self.saying.len() {
                    return;
                }
                self.saying.clear();
                self.said = 0;
                cue(Cue::Stop);
                self.next(now_ms);
                continue;
            }
            let waited_ms = now_ms - self.since_ms;
            match &self.step {
                Some(Step::Listen { quiet_ms, at_most_ms }) => {
                    let heard = agent.last_ms.is_some_and(|last| last > self.since_ms && now_ms - last >= *quiet_ms);
                    if !heard && waited_ms < *at_most_ms {
                        return;
                    }
                    if !heard {
                        cue(Cue::ListenedInVain);
                    }
                }
                Some(Step::SayOver { after_agent_ms, .. }) if !self.is_time_to_interrupt(now_ms, agent, *after_agent_ms) => {
                    return;
                }
                Some(Step::Say { pcm8k, label } | Step::SayOver { pcm8k, label, .. }) if !pcm8k.is_empty() => {
                    self.saying = vec![0; pcm8k.len()];
                    mulaw_encode(pcm8k, &mut self.saying);
                    cue(Cue::Start { label: label.clone(), over: matches!(self.step, Some(Step::SayOver { .. })) });
                    return;
                }
                Some(Step::Wait { ms }) if waited_ms < *ms => return,
                Some(Step::WaitFor { sign, at_most_ms }) if waited_ms < *at_most_ms && !sign.is_given() => return,
                // nothing to say, or waited long enough
                Some(Step::Say { .. } | Step::SayOver { .. } | Step::Wait { .. } | Step::WaitFor { .. }) => {}
                Some(Step::Stall { ms }) => cue(Cue::Stall(*ms)),
                Some(Step::Deaf { ms }) => cue(Cue::Deaf(*ms)),
                Some(Step::Dtmf(key)) => cue(Cue::Dtmf(*key)),
                Some(Step::HangUp) | None => return cue(Cue::HangUp),
            }
            self.next(now_ms);
        }
    }

    /// The agent has been speaking for so long, in a stretch that is not over.
    fn is_time_to_interrupt(&self, now_ms: u64, agent: &AgentHeard, after_agent_ms: u64) -> bool {
        let (Some(since), Some(last)) = (agent.since_ms, agent.last_ms) else { return false };
        last > self.since_ms && now_ms - last <= PAUSE_MS && now_ms - since >= after_agent_ms
    }

    fn next(&mut self, now_ms: u64) {
        self.step = self.steps.next();
        self.since_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_waits_for_the_agent_speaks_over_it_and_hangs_up() {
        let say = Step::SayOver { after_agent_ms: 100, pcm8k: vec![9_000; 320], label: "wait".to_owned() };
        let listen = Step::Listen { quiet_ms: 400, at_most_ms: 5_000 };
        let mut player = Player::new(CallScript { steps: vec![say, Step::Dtmf('1'), listen], limit_ms: 10_000 });
        let (mut agent, mut cues) = (AgentHeard::default(), Vec::new());
        for now_ms in (0..2_000).step_by(20) {
            // the agent speaks from 200 to 600 ms
            let sound = if (200..600).contains(&now_ms) { [0x20; FRAME_BYTES] } else { [SILENCE; FRAME_BYTES] };
            player.frame(now_ms, &agent, &mut |cue| cues.push((now_ms, cue)));
            agent.hear(now_ms + 20, &sound);
            if cues.iter().any(|(_, cue)| *cue == Cue::HangUp) {
                break;
            }
        }
        let start = Cue::Start { label: "wait".to_owned(), over: true };
        let expected = [(300, start), (340, Cue::Stop), (340, Cue::Dtmf('1')), (1_000, Cue::HangUp)];
        assert_eq!(cues, expected);
    }
}
