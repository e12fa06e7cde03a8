//! ONNX Runtime: its shared library is loaded once per process, from the path that the weights manifest gives.
//!
//! Every session runs on one thread. The engine has as many workers as the host can give them cores, and a session
//! with threads of its own would compete with the audio threads.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The shared library of ONNX Runtime is missing or too old.
    #[error("cannot load ONNX Runtime from {path}: {reason}")]
    Library {
        /// Where it was looked for.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// The model file is missing, damaged, or not the model that was expected.
    #[error("cannot load the model {path}: {reason}")]
    Model {
        /// Where it was looked for.
        path: PathBuf,
        /// What ONNX Runtime says, or what differs.
        reason: String,
    },
    /// A model failed while it ran.
    #[error("the model failed: {0}")]
    Run(#[from] ort::Error),
}

/// Opens a model for one thread. The library named by the first call of the process serves all later ones.
pub fn open_session(library: &Path, model: &Path) -> Result<Session, OnnxError> {
    let environment = load_library(library)?;
    build_session(&environment, model).map_err(|reason| OnnxError::Model { path: model.to_path_buf(), reason: reason.to_string() })
}

/// The one environment that ONNX Runtime allows per process; kept for good, since sessions live as long as the daemon.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

fn load_library(library: &Path) -> Result<Environment, OnnxError> {
    let mut loaded = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    let refused = |reason: String| OnnxError::Library { path: library.to_path_buf(), reason };
    let environment =
        ort::init_from(library).map_err(|error| refused(error.to_string()))?.with_name("voiced").build().map_err(|error| refused(error.to_string()))?;
    *loaded = Some(environment.clone());
    Ok(environment)
}

fn build_session(environment: &Environment, model: &Path) -> ort::Result<Session> {
    Session::builder(environment)?.with_optimization_level(GraphOptimizationLevel::All)?.with_intra_threads(1)?.with_inter_threads(1)?.commit_from_file(model)
}
