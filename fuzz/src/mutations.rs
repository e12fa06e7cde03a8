//! Inputs made of seeds: first the seeds themselves, then changed ones without end, the same for the same number.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Longest input that is made, in bytes: longer messages than Twilio's and shorter than any limit of ours, for speed.
pub const INPUT_BYTES_MAX: usize = 4_096;
/// Pieces that parsers look for.
const DICTIONARY: [&[u8]; 24] = [
    b"\"",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"=",
    b"&",
    b"%00",
    b"%",
    b"\r\n\r\n",
    b"data: ",
    b"[DONE]",
    b"\0",
    b"\xff\xff\xff\xff",
    b"<",
    b"://",
    b":",
    b"\xe2\x80\xae",
    b"NaN",
];

/// The inputs, one after another.
pub struct Mutations {
    seeds: Vec<Vec<u8>>,
    given: usize,
    random: SmallRng,
}

impl Mutations {
    /// Of seeds, of which there is one at least, by a number.
    pub fn new(seeds: Vec<Vec<u8>>, number: u64) -> Self {
        Self { seeds, given: 0, random: SmallRng::seed_from_u64(number) }
    }
}

impl Iterator for Mutations {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let Self { seeds, given, random } = self;
        let mut input = seeds.get(*given % seeds.len().max(1))?.clone();
        if *given >= seeds.len() {
            let other = &seeds[random.random_range(0..seeds.len())];
            for _ in 0..random.random_range(1..6) {
                mutate(&mut input, other, random);
            }
            input.truncate(INPUT_BYTES_MAX);
        }
        *given += 1;
        Some(input)
    }
}

/// One change: of a bit or a byte, of a stretch that goes, comes twice or from elsewhere, or deeper nesting.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut SmallRng) {
    let at = random.random_range(0..=input.len());
    let until = (at + random.random_range(0..32)).min(input.len());
    match random.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random(),
        2 => drop(input.drain(at..until)),
        3 => drop(input.splice(at..at, input[at..until].to_vec())),
        4 => drop(input.splice(at..at, DICTIONARY[random.random_range(0..DICTIONARY.len())].iter().copied())),
        5 if !other.is_empty() => {
            let from = random.random_range(0..other.len());
            let to = (from + random.random_range(1..64)).min(other.len());
            drop(input.splice(at..until, other[from..to].iter().copied()));
        }
        6 => drop(input.splice(at..at, std::iter::repeat_n(*b"[{".get(random.random_range(0..2)).unwrap_or(&b'['), random.random_range(1..300)))),
        _ => input.truncate(at),
    }
}
