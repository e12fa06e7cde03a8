//! Attention of the computed positions to all positions, the padding's from memory.
#![allow(clippy::inline_always)] // only what is inlined into a function gets that function's instruction set

use super::kernel::vector::{Powers, codes, largest, quantise, sum, vectors_mut};
use super::kernel::{GROUP, Isa, Line, Products, Room, Rows, WIDTH, place};
use super::weights::{Layer, POSITIONS, STATE};
use crate::lanes::Lanes;

/// Width of a head.
const HEAD: usize = 64;
const HEADS: usize = STATE / HEAD;
/// Panels and lines of one head: its keys are columns, its values rows.
const KEY_PANELS: usize = POSITIONS / WIDTH;
const VALUE_PANELS: usize = HEAD / WIDTH;
const KEY_LINES: usize = HEAD / GROUP;
const VALUE_LINES: usize = POSITIONS / GROUP;
/// Positions whose scores are in the first-level cache together.
const BLOCK: usize = 12;
/// Codes in a line.
const LINE: usize = WIDTH * GROUP;
/// Codes are unsigned, a kernel's second matrix is signed.
const SIGN: u8 = 0x80;

/// The keys and values of all positions in one layer, as matrices for the kernel.
pub(super) struct Memory {
    pub(super) keys: Vec<Line>,
    pub(super) values: Vec<Line>,
    /// For each head and position the sum of its key's signed codes.
    pub(super) key_sums: Vec<[i32; WIDTH]>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            keys: vec![Line::ZERO; HEADS * KEY_PANELS * KEY_LINES],
            values: vec![Line::ZERO; HEADS * VALUE_PANELS * VALUE_LINES],
            key_sums: vec![[0; WIDTH]; HEADS * KEY_PANELS],
        }
    }

    /// Whose key the code at a place among all codes of `keys` belongs to.
    pub(super) fn key_position(place: usize) -> usize {
        let (line, at) = (place / LINE, place % LINE);
        line / KEY_LINES % KEY_PANELS * WIDTH + at / GROUP
    }

    /// Whose value the code at a place among all codes of `values` belongs to.
    pub(super) fn value_position(place: usize) -> usize {
        let (line, at) = (place / LINE, place % LINE);
        line % VALUE_LINES * GROUP + at % GROUP
    }

    /// Sums the keys' codes anew.
    pub(super) fn sum_keys(&mut self) {
        for (lines, sums) in self.keys.chunks_exact(KEY_LINES).zip(&mut self.key_sums) {
            *sums = [0; WIDTH];
            for (at, code) in lines.iter().flat_map(|line| line.0.iter().enumerate()) {
                sums[at / GROUP] += i32::from(*code);
            }
        }
    }

    fn copy_from(&mut self, other: &Self) {
        self.keys.copy_from_slice(&other.keys);
        self.values.copy_from_slice(&other.values);
        self.key_sums.copy_from_slice(&other.key_sums);
    }

    /// Keeps a part of a position's key; the parts of a head come in order.
    #[inline(always)]
    fn put_key(&mut self, position: usize, column: usize, codes: &[u8; WIDTH]) {
        let (head, part) = (column / HEAD, column % HEAD);
        let panel = head * KEY_PANELS + position / WIDTH;
        let lines = &mut self.keys[panel * KEY_LINES + part / GROUP..][..WIDTH / GROUP];
        let at = position % WIDTH * GROUP;
        let mut sum = 0;
        for (line, codes) in lines.iter_mut().zip(codes.as_chunks::<GROUP>().0) {
            let signed = codes.map(|code| (code ^ SIGN).cast_signed());
            line.0[at..at + GROUP].copy_from_slice(&signed);
            sum += signed.iter().map(|code| i32::from(*code)).sum::<i32>();
        }
        let sums = &mut self.key_sums[panel][position % WIDTH];
        *sum_from(part, sums) += sum;
    }

    /// Keeps a part of a position's value.
    #[inline(always)]
    fn put_value(&mut self, position: usize, column: usize, codes: &[u8; WIDTH]) {
        let panel = column / WIDTH;
        let (line, first) = place(position, 0);
        let line = &mut self.values[panel * VALUE_LINES + line].0;
        for (lane, code) in codes.iter().enumerate() {
            line[lane * GROUP + first] = (code ^ SIGN).cast_signed();
        }
    }
}

/// A sum that begins with a head's first part.
fn sum_from(part: usize, sum: &mut i32) -> &mut i32 {
    if part == 0 {
        *sum = 0;
    }
    sum
}

/// Room for one layer's attention.
pub(super) struct Attention {
    pub(super) memory: Memory,
    pub(super) context: Vec<u8>,
    queries: Vec<u8>,
    scores: Vec<f32>,
    shares: Vec<u8>,
}

impl Attention {
    pub(super) fn new() -> Self {
        Self {
            memory: Memory::new(),
            context: vec![0; POSITIONS * STATE],
            queries: vec![0; POSITIONS * STATE],
            scores: vec![0.0; BLOCK * POSITIONS],
            shares: vec![0; BLOCK * POSITIONS],
        }
    }

    /// Leaves in `context` what the last `count` positions take from all.
    #[inline(always)]
    pub(super) fn attend<I: Isa>(&mut self, layer: &Layer, normed: &[u8], count: usize, padding: &Memory, room: &mut Room) {
        self.memory.copy_from(padding);
        self.project::<I>(layer, normed, count, room);
        for first in (0..count).step_by(BLOCK) {
            for head in 0..HEADS {
                self.attend_block::<I>(layer, first, (count - first).min(BLOCK), head, room);
            }
        }
    }

    /// Queries, keys and values of the computed positions.
    #[inline(always)]
    fn project<I: Isa>(&mut self, layer: &Layer, normed: &[u8], count: usize, room: &mut Room) {
        const PANELS: usize = STATE / WIDTH;
        for (row, panel, sums) in Products::<I>::new(Rows::new(normed, STATE, count, STATE), &layer.joined.panels, room) {
            let (kind, part) = (panel / PANELS, panel % PANELS);
            let projection = &layer.projections[kind];
            let product = quantise(layer.joined.products::<I::Lanes>(panel, &sums), projection.product.zero);
            let values = product * I::Lanes::splat(projection.factor) + I::Lanes::load(&projection.term[part]);
            let codes = codes(values, projection.code.zero);
            let position = POSITIONS - count + row;
            match kind {
                0 => self.queries[row * STATE + part * WIDTH..][..WIDTH].copy_from_slice(&codes),
                1 => self.memory.put_key(position, part * WIDTH, &codes),
                _ => self.memory.put_value(position, part * WIDTH, &codes),
            }
        }
    }

    /// One head of a block of positions.
    #[inline(always)]
    fn attend_block<I: Isa>(&mut self, layer: &Layer, first: usize, count: usize, head: usize, room: &mut Room) {
        let [query, key, value] = layer.projections.each_ref().map(|projection| projection.code);
        let signed_zero = |zero: f32| zero as i32 - i32::from(SIGN);
        let (query_zero, key_zero) = (query.zero as i32, signed_zero(key.zero));

        // the codes' zeros, multiplied out: of the row's codes, and of the column's in the products below
        let queries = &self.queries[first * STATE + head * HEAD..];
        let mut row_terms = [0.0; BLOCK];
        for (row, term) in row_terms.iter_mut().enumerate().take(count) {
            let sum: i32 = queries[row * STATE..][..HEAD].iter().map(|code| i32::from(*code)).sum();
            // small enough to be exact
            *term = ((HEAD as i32 * query_zero - sum) * key_zero) as f32;
        }
        let mut key_terms = [[0; WIDTH]; KEY_PANELS];
        for (terms, sums) in key_terms.iter_mut().zip(&self.memory.key_sums[head * KEY_PANELS..]) {
            *terms = sums.map(|sum| query_zero.wrapping_mul(sum).wrapping_neg());
        }
        let keys = &self.memory.keys[head * KEY_PANELS * KEY_LINES..][..KEY_PANELS * KEY_LINES];
        let (scale, zero) = (query.scale * key.scale / layer.score.scale, layer.score.zero);
        for (row, panel, sums) in Products::<I>::new(Rows::new(queries, STATE, count, HEAD), keys, room) {
            let product = I::Lanes::of_sums(&sums, &key_terms[panel]) + I::Lanes::splat(row_terms[row]);
            let scores = quantise(product * I::Lanes::splat(scale), zero);
            self.scores[row * POSITIONS + panel * WIDTH..][..WIDTH].copy_from_slice(scores.array());
        }

        let mut totals = [0; BLOCK];
        for (row, total) in totals.iter_mut().enumerate().take(count) {
            let place = row * POSITIONS..(row + 1) * POSITIONS;
            *total = share_out::<I::Lanes>(&mut self.scores[place.clone()], &layer.powers, layer.share_scale, &mut self.shares[place]);
        }
        let value_zero = signed_zero(value.zero);
        let values = &self.memory.values[head * VALUE_PANELS * VALUE_LINES..][..VALUE_PANELS * VALUE_LINES];
        let (scale, zero) = (layer.share_scale * value.scale / layer.context.scale, layer.context.zero);
        for (row, panel, sums) in Products::<I>::new(Rows::new(&self.shares, POSITIONS, count, POSITIONS), values, room) {
            let taken = I::Lanes::of_sums(&sums, &[-value_zero * totals[row]; WIDTH]) * I::Lanes::splat(scale);
            let to = &mut self.context[(first + row) * STATE + head * HEAD + panel * WIDTH..][..WIDTH];
            to.copy_from_slice(&codes(taken, zero));
        }
    }
}

/// Turns a position's scores into shares of one, in codes, and returns the sum of the codes.
#[inline(always)]
fn share_out<L: Lanes>(scores: &mut [f32], powers: &Powers, share_scale: f32, shares: &mut [u8]) -> i32 {
    let scores = vectors_mut(scores);
    let mut tops = L::splat(f32::NEG_INFINITY);
    for scores in scores.iter() {
        tops = tops.larger(&L::load(scores));
    }
    let top = largest(tops);
    let mut total = L::ZERO;
    for scores in scores.iter_mut() {
        let share = powers.of(L::load(scores), top);
        total = total + share;
        *scores = *share.array();
    }
    let per_code = L::splat(1.0 / (sum(total) * share_scale));
    let mut codes_total = L::ZERO;
    for (scores, shares) in scores.iter().zip(shares.as_chunks_mut().0) {
        let share = L::load(scores) * per_code;
        *shares = codes(share, 0.0);
        codes_total = codes_total + quantise(share, 0.0);
    }
    sum(codes_total) as i32
}
