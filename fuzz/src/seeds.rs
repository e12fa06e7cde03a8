//! Where inputs begin: the files under `seeds/NAME`, and of the providers the golden files, a message a line.

use std::fs;
use std::path::Path;

/// The seeds of a parser.
///
/// # Panics
/// When there are none: a parser without seeds is hardly tested.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = fuzz.join("../models/remote/tests/golden");
    let mut seeds: Vec<Vec<u8>> = files(&fuzz.join("seeds").join(name));
    for file in files(&golden.join(format!("{name}.jsonl"))) {
        seeds.extend(file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    }
    // the first byte says how the stream is cut
    seeds.extend(files(&golden.join(format!("{name}.sse"))).into_iter().map(|file| [&[30], &*file].concat()));
    assert!(!seeds.is_empty(), "no seeds in fuzz/seeds/{name}");
    seeds
}

/// A file, or all files of a folder in the order of their names.
fn files(path: &Path) -> Vec<Vec<u8>> {
    let Ok(folder) = fs::read_dir(path) else { return fs::read(path).into_iter().collect() };
    let mut paths: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}
