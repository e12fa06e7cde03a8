//! The network compiled once for each instruction set, chosen when it starts.
#![allow(unsafe_code)] // calls of #[target_feature] functions, each behind the check of the processor

use super::network::Network;
use super::slot::Group;
use super::weights::Weights;
use crate::lanes::Plain;
#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx2, Avx512};

/// The network for this processor.
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512(Box<Wide<Avx512>>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Box<Narrow<Avx2>>),
    /// The target's own instructions: NEON, SSE2.
    Portable(Box<Narrow<Plain>>),
    /// The weights as AVX-512 reads them, for processors without it.
    #[cfg(test)]
    PortableWide(Box<Wide<Plain>>),
}

/// Blocks for 32 vector registers that each hold all lanes.
#[cfg(any(target_arch = "x86_64", test))]
type Wide<L> = Network<L, 8>;
/// Blocks for registers that hold half or a quarter of the lanes.
type Narrow<L> = Network<L, 4>;

impl Kernel {
    pub(super) fn new(weights: Weights) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512(Box::new(Network::new(weights)));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2(Box::new(Network::new(weights)));
            }
        }
        Self::portable(weights)
    }

    pub(super) fn portable(weights: Weights) -> Self {
        Self::Portable(Box::new(Network::new(weights)))
    }

    /// All that this processor can run.
    #[cfg(test)]
    pub(super) fn available(weights: impl Fn() -> Weights) -> Vec<Self> {
        let mut all = vec![Self::new(weights()), Self::portable(weights()), Self::PortableWide(Box::new(Network::new(weights())))];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            all.push(Self::Avx2(Box::new(Network::new(weights()))));
        }
        all
    }

    pub(super) fn instruction_set(&self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2 + FMA",
            Self::Portable(_) => "portable",
            #[cfg(test)]
            Self::PortableWide(_) => "portable",
        }
    }

    /// The next frame of every member of the group.
    pub(super) fn run(&mut self, group: &mut Group<'_>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the variant is only made when the processor has AVX-512F
            Self::Avx512(network) => unsafe { run_avx512(network, group) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the variant is only made when the processor has AVX2 and FMA
            Self::Avx2(network) => unsafe { run_avx2(network, group) },
            Self::Portable(network) => network.run(group),
            #[cfg(test)]
            Self::PortableWide(network) => network.run(group),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn run_avx512(network: &mut Wide<Avx512>, group: &mut Group<'_>) {
    network.run(group);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(network: &mut Narrow<Avx2>, group: &mut Group<'_>) {
    network.run(group);
}
