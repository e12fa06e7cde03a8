//! Recordings made by LiveKit's Egress service, where the server has one beside it.
//!
//! Sound only: the agent on the left channel, everyone else on the right. The service writes the file itself, to its own
//! disk or to a bucket; how that went is told by the server's `egress_ended` webhook.

use super::{ApiError, ApiFailure, ServerApi};
use crate::token::Secret;
use livekit_api::services::ServerErrorCode;
use livekit_api::services::egress::{AudioMixing, EgressOutput, RoomCompositeOptions};
use livekit_protocol as proto;
use std::time::Duration;

/// Longest wait for an answer: the service starts a recorder first.
pub(super) const EGRESS_WAIT: Duration = Duration::from_secs(15);

/// Where a recording goes.
#[derive(Clone, Debug)]
pub struct EgressFile {
    /// Its path, on the service's disk or in the bucket. Its ending says what it is: `.ogg`, `.mp3` or `.mp4`.
    pub path: String,
    /// The bucket, if it goes to one.
    pub bucket: Option<S3Bucket>,
}

/// A bucket that speaks S3.
#[derive(Clone, Debug)]
pub struct S3Bucket {
    /// Its name.
    pub name: String,
    /// Its region; may be empty where there is an endpoint.
    pub region: String,
    /// Where it is, when not at AWS.
    pub endpoint: Option<String>,
    /// The key that may write there; empty where the service has its own.
    pub access_key: String,
    /// What goes with the key.
    pub secret: Secret,
}

/// A recording of the service's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Names it.
    pub id: String,
    /// How far it is.
    pub state: EgressState,
    /// What went wrong, if something did.
    pub error: String,
}

/// How far a recording is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressState {
    /// It is about to begin.
    Starting,
    /// It runs.
    Active,
    /// It is being finished.
    Ending,
    /// The file is whole.
    Complete,
    /// There is no file, or only part of one.
    Failed,
}

impl ServerApi {
    /// Lets the service record the sound of a room.
    pub async fn start_egress(&self, room: &str, file: &EgressFile) -> Result<Egress, ApiError> {
        let options = RoomCompositeOptions { audio_only: true, audio_mixing: AudioMixing::DualChannelAgent, ..RoomCompositeOptions::default() };
        let started = self.egress.start_room_composite_egress(room, vec![EgressOutput::File(output(file))], options).await;
        started.map(Egress::from).map_err(|error| self.error("record the room", room, error))
    }

    /// Ends a recording of a room. [`ApiFailure::NotFound`] when there is none of this id, or it is over.
    pub async fn stop_egress(&self, room: &str, egress_id: &str) -> Result<Egress, ApiError> {
        let stopped = self.egress.stop_egress(egress_id).await;
        stopped.map(Egress::from).map_err(|error| match self.error("end the recording of the room", room, error) {
            // what the server says of one that has failed or is complete
            error if matches!(&error.failure, ApiFailure::Rejected { code, .. } if code == ServerErrorCode::FAILED_PRECONDITION) => {
                ApiError { failure: ApiFailure::NotFound, ..error }
            }
            error => error,
        })
    }
}

fn output(file: &EgressFile) -> proto::EncodedFileOutput {
    use proto::EncodedFileType as Type;
    let ending = file.path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let file_type = match ending.as_deref() {
        Some("ogg") => Type::Ogg,
        Some("mp3") => Type::Mp3,
        Some("mp4") => Type::Mp4,
        _ => Type::DefaultFiletype,
    };
    let upload = file.bucket.as_ref().map(|bucket| {
        proto::encoded_file_output::Output::S3(proto::S3Upload {
            access_key: bucket.access_key.clone(),
            secret: bucket.secret.expose().to_owned(),
            region: bucket.region.clone(),
            endpoint: bucket.endpoint.clone().unwrap_or_default(),
            bucket: bucket.name.clone(),
            // a bucket of one's own has no name in the DNS
            force_path_style: bucket.endpoint.is_some(),
            ..Default::default()
        })
    });
    proto::EncodedFileOutput { file_type: file_type as i32, filepath: file.path.clone(), output: upload, ..Default::default() }
}

impl From<proto::EgressInfo> for Egress {
    fn from(info: proto::EgressInfo) -> Self {
        use proto::EgressStatus as Status;
        let state = match info.status() {
            Status::EgressStarting => EgressState::Starting,
            Status::EgressActive => EgressState::Active,
            Status::EgressEnding => EgressState::Ending,
            Status::EgressComplete => EgressState::Complete,
            Status::EgressFailed | Status::EgressAborted | Status::EgressLimitReached => EgressState::Failed,
        };
        Self { id: info.egress_id, state, error: super::shortened(&info.error) }
    }
}
