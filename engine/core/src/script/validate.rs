//! Whether a script can be followed; each error names the stage and the mend.

use super::{Kind, Script, Stage, slots_of};

/// Why a script cannot be followed, with the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// No stage at all.
    #[error("the script has no stages: add at least one with `name` and `say`")]
    Empty,
    /// A stage without a name.
    #[error("stage number {number} has no name: give it a `name`")]
    Unnamed {
        /// Place in the list, from 1.
        number: usize,
    },
    /// Two stages of one name.
    #[error("stage `{stage}` is there twice: rename one of them")]
    Twice {
        /// The name.
        stage: String,
    },
    /// Nothing to say.
    #[error("stage `{stage}` says nothing: fill its `say`")]
    Mute {
        /// The stage.
        stage: String,
    },
    /// A way to nowhere.
    #[error("stage `{stage}` leads to `{target}`, which does not exist: use one of {known}")]
    UnknownTarget {
        /// The stage.
        stage: String,
        /// Where it wants to go.
        target: String,
        /// All stages.
        known: String,
    },
    /// A stage that nobody can leave.
    #[error("stage `{stage}` has no way out: give it `next` or `accept`, or `end = true`")]
    NoWayOut {
        /// The stage.
        stage: String,
    },
    /// An end that goes on.
    #[error("stage `{stage}` ends the call and also leads on: remove `end`, or `next` and `accept`")]
    EndGoesOn {
        /// The stage.
        stage: String,
    },
    /// A yes-or-no stage that waits for another word.
    #[error("stage `{stage}` wants yes or no but accepts `{word}`: use `yes` and `no`, or another `kind`")]
    NotYesNo {
        /// The stage.
        stage: String,
        /// The word.
        word: String,
    },
    /// A placeholder that nothing fills.
    #[error("stage `{stage}` mentions {{{slot}}}, which no stage collects: add `collect = \"{slot}\"` to an earlier stage")]
    UnknownSlot {
        /// The stage.
        stage: String,
        /// The placeholder.
        slot: String,
    },
}

impl Script {
    /// Checks that the script can be followed; the error names the stage and the mend.
    pub fn validate(&self) -> Result<(), ScriptError> {
        if self.stages.is_empty() {
            return Err(ScriptError::Empty);
        }
        for (index, stage) in self.stages.iter().enumerate() {
            if stage.name.trim().is_empty() {
                return Err(ScriptError::Unnamed { number: index + 1 });
            }
            if self.stages[..index].iter().any(|other| other.name == stage.name) {
                return Err(ScriptError::Twice { stage: stage.name.clone() });
            }
        }
        for stage in &self.stages {
            let name = || stage.name.clone();
            if stage.say.trim().is_empty() {
                return Err(ScriptError::Mute { stage: name() });
            }
            self.validate_ways(stage)?;
            let texts = [Some(&stage.say), stage.reprompt.as_ref()];
            for slot in texts.into_iter().flatten().flat_map(|text| slots_of(text)) {
                if !self.stages.iter().any(|other| other.collect.as_deref() == Some(slot)) {
                    return Err(ScriptError::UnknownSlot { stage: name(), slot: slot.to_owned() });
                }
            }
        }
        Ok(())
    }

    fn validate_ways(&self, stage: &Stage) -> Result<(), ScriptError> {
        let name = || stage.name.clone();
        let ways = || stage.accept.values().chain(&stage.next);
        if stage.end && ways().next().is_some() {
            return Err(ScriptError::EndGoesOn { stage: name() });
        }
        if !stage.end && ways().next().is_none() {
            return Err(ScriptError::NoWayOut { stage: name() });
        }
        if let Some(target) = ways().find(|target| self.position(target).is_none()) {
            let known = self.stages.iter().map(|stage| format!("`{}`", stage.name)).collect::<Vec<_>>().join(", ");
            return Err(ScriptError::UnknownTarget { stage: name(), target: target.clone(), known });
        }
        let strange = stage.accept.keys().find(|word| !matches!(word.as_str(), "yes" | "no"));
        match strange {
            Some(word) if stage.kind == Kind::YesNo => Err(ScriptError::NotYesNo { stage: name(), word: word.clone() }),
            _ => Ok(()),
        }
    }
}
