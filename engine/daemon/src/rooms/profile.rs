//! A job's wishes laid over the host's own profile. A wish that cannot be met is told and left out: a caller is waiting.

use std::sync::Arc;

use anyhow::Result;
use voiced_config::Agent as Profile;
use voiced_core::frame::Rate;
use voiced_livekit::job::JobSettings;
use voiced_models_remote::descriptor::{Descriptor, Role};

use crate::agent::{Agent, Agents};

/// What a job wants, as far as it can be had.
pub struct JobProfile {
    profile: Profile,
    fallback: Profile,
}

impl JobProfile {
    /// The job's metadata over the host's profile; what is wrong with it is logged with the room's name.
    pub fn new(room: &str, metadata: &str, host: &Profile) -> Self {
        let (job, mut warnings) = JobSettings::parse(metadata);
        let mut profile = host.clone();
        for (role, key, wish, place) in
            [(Role::Stt, "stt", job.stt, &mut profile.stt), (Role::Llm, "llm", job.llm, &mut profile.llm), (Role::Tts, "tts", job.tts, &mut profile.tts)]
        {
            let Some(wish) = wish else { continue };
            match Descriptor::chain(role, &wish) {
                Ok(_) => *place = wish,
                Err(error) => warnings.push(format!("{key}: {error}")),
            }
        }
        match job.realtime_model.as_deref().map(|wish| Descriptor::parse(Role::Realtime, wish)) {
            Some(Err(error)) => warnings.push(error.to_string()),
            wished => lay(&mut profile.realtime_model, wished.and(job.realtime_model)),
        }
        lay(&mut profile.realtime, job.realtime);
        lay(&mut profile.realtime_voice, job.realtime_voice);
        lay(&mut profile.prompt, job.prompt);
        lay(&mut profile.greeting, job.greeting);
        lay(&mut profile.vad_enabled, job.vad_enabled);
        lay(&mut profile.turn_detection_enabled, job.turn_detection_enabled);
        lay(&mut profile.noise_cancellation_enabled, job.noise_cancellation_enabled);
        lay(&mut profile.noise_cancellation_type, job.noise_cancellation_type.map(|kind| kind.name().to_owned()));
        for warning in warnings {
            tracing::warn!(room, "the job's metadata: {warning}");
        }
        Self { profile, fallback: host.clone() }
    }

    /// The agent for lines of this rate; the host's own where the wished one cannot be made.
    pub fn agent(&self, agents: &Agents, rate: Rate) -> Result<Arc<Agent>> {
        agents.agent(&self.profile, rate).or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "the job's agent cannot be made, the host's own answers");
            agents.agent(&self.fallback, rate)
        })
    }
}

fn lay<T>(place: &mut T, wish: Option<T>) {
    if let Some(wish) = wish {
        *place = wish;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_may_wish_for_a_realtime_model_and_keeps_the_hosts_where_its_own_is_unknown() {
        let (settings, _) = voiced_config::examine(None, std::iter::empty());
        let host = settings.expect("the default").agent;
        let wished = JobProfile::new("room", r#"{"realtime": true, "realtime_model": "openai/gpt-realtime-mini", "realtime_voice": "cedar"}"#, &host).profile;
        assert_eq!((wished.realtime, wished.realtime_model.as_str(), wished.realtime_voice.as_str()), (true, "openai/gpt-realtime-mini", "cedar"));
        let unknown = JobProfile::new("room", r#"{"realtime": "true", "realtime_model": "gpt-realtime"}"#, &host).profile;
        assert_eq!((unknown.realtime, &unknown.realtime_model), (true, &host.realtime_model));
        assert!(!JobProfile::new("room", "{}", &host).profile.realtime);
    }
}
