//! Each parser takes its seeds and seeded mutations of them without a panic. `VOICED_FUZZ_INPUTS` asks for more than the
//! usual number, `VOICED_FUZZ_SEED` for the run that failed.

use std::panic::catch_unwind;

use voiced_fuzz::{Mutations, PARSERS, Parser, seeds};

/// Inputs per parser: a second or two of each, unoptimised.
const INPUTS: usize = 20_000;
fn asked<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_input_makes_a_parser_panic() {
    let (inputs, seed) = (asked("VOICED_FUZZ_INPUTS").unwrap_or(INPUTS), asked("VOICED_FUZZ_SEED").unwrap_or(1));
    let runs = PARSERS.iter().map(|parser| (parser.name, std::thread::spawn(move || run(parser, inputs, seed)))).collect::<Vec<_>>();
    let failed: Vec<_> = runs.into_iter().filter_map(|(name, run)| run.join().is_err().then_some(name)).collect();
    assert!(failed.is_empty(), "{failed:?} panicked, see above");
}

fn run(parser: &Parser, inputs: usize, seed: u64) {
    let feed = parser.feed;
    for (number, input) in Mutations::new(seeds(parser.name), seed).take(inputs).enumerate() {
        assert!(catch_unwind(|| feed(&input)).is_ok(), "{} with seed {seed}, input {number}: {:?}", parser.name, String::from_utf8_lossy(&input));
    }
}
