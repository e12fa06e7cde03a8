//! Where records go: a thread that appends pages to files and keeps the newest calls.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Pages that wait for the disk, of all calls: some 30 MB when it hangs.
const PAGES_MAX: usize = 2_048;
/// Calls that end between two looks for records that are too many.
const ENDED_BETWEEN_LOOKS: u32 = 16;

/// Takes the records of all calls.
#[derive(Clone)]
pub struct Recorder(Option<SyncSender<(Arc<Path>, Page)>>, Arc<Path>);

/// Lines of one record.
pub struct Page {
    pub lines: Vec<u8>,
    pub last: bool,
}

/// Where one call's pages go.
pub struct Pages {
    to: SyncSender<(Arc<Path>, Page)>,
    file: Arc<Path>,
}

impl Recorder {
    /// Keeps the newest records in this folder; 0: none are made.
    pub fn start(folder: PathBuf, kept_max: usize) -> Self {
        let shared: Arc<Path> = folder.clone().into();
        if kept_max == 0 {
            return Self(None, shared);
        }
        let (to, pages) = sync_channel(PAGES_MAX);
        let started = fs::create_dir_all(&folder)
            .and_then(|()| thread::Builder::new().name("recorder".into()).spawn(move || write(&folder, kept_max, &pages)))
            .inspect_err(|error| tracing::error!(%error, "calls are not recorded for `voiced calls`"));
        Self(started.is_ok().then_some(to), shared)
    }

    /// Where the records are.
    pub fn folder(&self) -> &Path {
        &self.1
    }

    /// A file for one call; `None` where none is wanted.
    pub fn open(&self, started_at_unix_ms: u64, session_id: &str) -> Option<Pages> {
        let name: String = session_id.chars().map(|char| if char.is_ascii_alphanumeric() || matches!(char, '_' | '-') { char } else { '_' }).collect();
        let file = self.1.join(format!("{started_at_unix_ms:013}.{name}.jsonl")).into();
        self.0.clone().map(|to| Pages { to, file })
    }
}

impl Pages {
    /// False when the disk is too far behind.
    pub fn send(&self, page: Page) -> bool {
        self.to.try_send((Arc::clone(&self.file), page)).is_ok()
    }
}

fn write(folder: &Path, kept_max: usize, pages: &Receiver<(Arc<Path>, Page)>) {
    let mut ended = 0;
    let mut failed = false;
    prune(folder, kept_max);
    while let Ok((file, page)) = pages.recv() {
        // names and numbers of callers are nobody else's business
        let written = OpenOptions::new().create(true).append(true).mode(0o600).open(&file).and_then(|mut file| file.write_all(&page.lines));
        if let Err(error) = &written
            && !failed
        {
            tracing::error!(%error, file = %file.display(), "a call's record is not written");
        }
        failed = written.is_err();
        ended += u32::from(page.last);
        if ended >= ENDED_BETWEEN_LOOKS {
            ended = 0;
            prune(folder, kept_max);
        }
    }
}

/// Deletes the oldest: their names begin with their time.
fn prune(folder: &Path, kept_max: usize) {
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort_unstable();
    let too_many = files.len().saturating_sub(kept_max);
    for file in &files[..too_many] {
        let _ = fs::remove_file(file); // it may be gone already
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::*;

    /// Waits until exactly these files are there.
    fn until(folder: &TempDir, expected: &[&str]) {
        let begun = Instant::now();
        loop {
            let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort_unstable();
            if names == expected {
                return;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "{names:?} instead of {expected:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_oldest_records_go_while_calls_end_and_at_the_next_start() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("notes.txt"), "not a record").unwrap();
        let recorder = Recorder::start(folder.path().to_owned(), 2);
        // newest first: what counts is when a call began
        for began in (1..=u64::from(ENDED_BETWEEN_LOOKS)).rev() {
            assert!(recorder.open(began, "phone-CA1").unwrap().send(Page { lines: b"{}\n".to_vec(), last: true }));
        }
        until(&folder, &["0000000000015.phone-CA1.jsonl", "0000000000016.phone-CA1.jsonl", "notes.txt"]);
        drop(recorder);
        let _fewer = Recorder::start(folder.path().to_owned(), 1);
        until(&folder, &["0000000000016.phone-CA1.jsonl", "notes.txt"]);
        assert!(Recorder::start(folder.path().to_owned(), 0).open(17, "phone-CA1").is_none());
    }
}
