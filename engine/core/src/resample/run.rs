//! The sum of products that resampling consists of, for neighbouring output samples side by side.
#![allow(unsafe_code)] // the processor's wider registers

/// Output samples computed side by side: 10 ms at 8 kHz. Their sums stay in ten registers of AVX2.
pub const RUN: usize = 80;
/// As many as fit into the registers that every x86-64 has.
const NARROW: usize = 16;

/// Adds `taps[t] · inputs[t + i]` for each `t` to `sums[i]`. Bit for bit the same on every processor: the order of additions
/// is the taps', and none is fused with its product.
pub fn add_run(taps: &[f32], inputs: &[f32], sums: &mut [f32; RUN]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2
        return unsafe { add_run_avx2(taps, inputs, sums) };
    }
    for (at, sums) in sums.as_chunks_mut::<NARROW>().0.iter_mut().enumerate() {
        add(taps, &inputs[at * NARROW..], sums);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_run_avx2(taps: &[f32], inputs: &[f32], sums: &mut [f32; RUN]) {
    add(taps, inputs, sums);
}

#[allow(clippy::inline_always)] // a copy for each set of instructions
#[inline(always)]
fn add<const N: usize>(taps: &[f32], inputs: &[f32], sums: &mut [f32; N]) {
    let mut run = *sums;
    for (tap, inputs) in taps.iter().zip(inputs.windows(N)) {
        for (sum, input) in run.iter_mut().zip(inputs) {
            *sum += tap * input;
        }
    }
    *sums = run;
}
