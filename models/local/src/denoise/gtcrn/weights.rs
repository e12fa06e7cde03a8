//! GTCRN's tensors, as the file has them, in the shape in which the network computes.
//!
//! Three things are settled here once rather than in every frame: batch normalisation is part of the convolution before
//! it; a convolution over neighbouring bands that were first put side by side is one convolution with more taps; and a
//! transposed convolution of stride 2 is one convolution for the even and one for the odd outputs.

use super::fourier::BINS;
use super::layers::{GruLayers, Layer};
use super::network::{BANDS, LOW_BANDS};
use crate::onnx_tensors::{Tensors, TensorsError};

/// Channels of every layer between the first and the last.
pub(super) const CHANNELS: usize = 16;
/// Half of them: a block works on the first half and passes the second.
pub(super) const HALF: usize = CHANNELS / 2;
/// Bands in the middle of the network.
pub(super) const MIDDLE: usize = 33;
/// Bins above those that are bands of their own.
pub(super) const HIGH_BINS: usize = BINS - LOW_BANDS;
/// Bands that join several bins.
const JOINED: usize = BANDS - LOW_BANDS;
/// What the graph adds to a variance before its root.
const VARIANCE_FLOOR: f32 = 1e-5;

/// The network's parameters.
pub(super) struct Weights {
    pub(super) join: Bands,
    pub(super) spread: Bands,
    /// The first convolution for the first band, those between and the last: `[tap 0..7][feature 0..3]`.
    pub(super) first: [Layer; 3],
    pub(super) first_slope: f32,
    /// The second, by group: `[tap 0..5][input 0..8]`.
    pub(super) second: [Layer; 2],
    pub(super) second_slope: f32,
    pub(super) encoder: [BlockLayers; 3],
    pub(super) paths: [PathLayers; 2],
    pub(super) decoder: [BlockLayers; 3],
    /// The last but one, by group, for even and odd outputs.
    pub(super) widen: [[Layer; 2]; 2],
    pub(super) widen_slope: f32,
    /// The last, for even and odd outputs.
    pub(super) mask: [Layer; 2],
}

/// A convolution block that looks back in time.
pub(super) struct BlockLayers {
    /// Frames from one tap to the next.
    pub(super) dilation: usize,
    /// `[tap 0..3][input 0..8]` to all channels.
    pub(super) spread: Layer,
    pub(super) spread_slope: f32,
    /// `[frame, oldest first][band]` of each channel, and its bias.
    pub(super) depth: Vec<([f32; 9], f32)>,
    pub(super) depth_slope: f32,
    /// All channels to half of them.
    pub(super) gather: Layer,
    pub(super) attention: GruLayers,
    pub(super) attend: Layer,
}

/// A path along the bands, then one along time for each band.
pub(super) struct PathLayers {
    /// Group 0 upwards, downwards, group 1 upwards, downwards.
    pub(super) along_bands: [GruLayers; 4],
    pub(super) along_time: [GruLayers; 2],
    pub(super) after_bands: (Layer, Norm),
    pub(super) after_time: (Layer, Norm),
}

/// Scale and offset of a normalisation over all bands and channels.
pub(super) struct Norm {
    pub(super) scale: Vec<f32>,
    pub(super) offset: Vec<f32>,
}

/// A sparse matrix: for each output its first input and the weights from there on.
pub(super) struct Bands(pub(super) Vec<(usize, Vec<f32>)>);

/// Names of a block's tensors in the file.
struct BlockNames {
    dilation: usize,
    convolutions: Convolutions,
    slopes: [u16; 2],
    /// Input, hidden, bias.
    gru: [u16; 3],
    attend: u16,
    attend_bias: &'static str,
}

enum Convolutions {
    /// Weights and bias, normalisation folded in.
    Folded([[u16; 2]; 3]),
    /// Of the decoder's block.
    Transposed(usize),
}

const ENCODER: [BlockNames; 3] = [
    BlockNames {
        dilation: 1,
        convolutions: Convolutions::Folded([[3386, 3387], [3389, 3390], [3392, 3393]]),
        slopes: [3431, 3432],
        gru: [3451, 3452, 3453],
        attend: 3454,
        attend_bias: "encoder.en_convs.2.tra.att_fc.bias",
    },
    BlockNames {
        dilation: 2,
        convolutions: Convolutions::Folded([[3395, 3396], [3398, 3399], [3401, 3402]]),
        slopes: [3472, 3473],
        gru: [3492, 3493, 3494],
        attend: 3495,
        attend_bias: "encoder.en_convs.3.tra.att_fc.bias",
    },
    BlockNames {
        dilation: 5,
        convolutions: Convolutions::Folded([[3404, 3405], [3407, 3408], [3410, 3411]]),
        slopes: [3513, 3514],
        gru: [3533, 3534, 3535],
        attend: 3536,
        attend_bias: "encoder.en_convs.4.tra.att_fc.bias",
    },
];

const DECODER: [BlockNames; 3] = [
    BlockNames {
        dilation: 5,
        convolutions: Convolutions::Transposed(0),
        slopes: [3834, 3835],
        gru: [3854, 3855, 3856],
        attend: 3857,
        attend_bias: "decoder.de_convs.0.tra.att_fc.bias",
    },
    BlockNames {
        dilation: 2,
        convolutions: Convolutions::Transposed(1),
        slopes: [3867, 3868],
        gru: [3887, 3888, 3889],
        attend: 3890,
        attend_bias: "decoder.de_convs.1.tra.att_fc.bias",
    },
    BlockNames {
        dilation: 1,
        convolutions: Convolutions::Transposed(2),
        slopes: [3900, 3901],
        gru: [3920, 3921, 3922],
        attend: 3923,
        attend_bias: "decoder.de_convs.2.tra.att_fc.bias",
    },
];

/// A path's tensors: units along bands of each group (input, hidden, bias, for both directions), its dense layer, and
/// the same along time.
struct PathNames {
    name: &'static str,
    along_bands: [[u16; 3]; 2],
    after_bands: u16,
    along_time: [[u16; 3]; 2],
    after_time: u16,
}

const PATHS: [PathNames; 2] = [
    PathNames {
        name: "dpgrnn1",
        along_bands: [[3595, 3596, 3594], [3638, 3639, 3637]],
        after_bands: 3640,
        along_time: [[3661, 3662, 3663], [3681, 3682, 3683]],
        after_time: 3684,
    },
    PathNames {
        name: "dpgrnn2",
        along_bands: [[3733, 3734, 3732], [3776, 3777, 3775]],
        after_bands: 3778,
        along_time: [[3799, 3800, 3801], [3819, 3820, 3821]],
        after_time: 3822,
    },
];

impl Weights {
    pub(super) fn read(tensors: &Tensors) -> Result<Self, TensorsError> {
        let file = File(tensors);
        let [encoder_0, encoder_1, encoder_2] = &ENCODER;
        let [decoder_0, decoder_1, decoder_2] = &DECODER;
        let [path_0, path_1] = &PATHS;
        Ok(Self {
            join: file.bands(3414, HIGH_BINS, JOINED)?,
            spread: file.bands(3932, JOINED, HIGH_BINS)?,
            first: file.first()?,
            first_slope: file.slope(3422)?,
            second: file.second()?,
            second_slope: file.slope(3423)?,
            encoder: [file.block(encoder_0)?, file.block(encoder_1)?, file.block(encoder_2)?],
            paths: [file.path(path_0)?, file.path(path_1)?],
            decoder: [file.block(decoder_0)?, file.block(decoder_1)?, file.block(decoder_2)?],
            widen: file.widen()?,
            widen_slope: file.slope(3927)?,
            mask: file.mask()?,
        })
    }
}

struct File<'a>(&'a Tensors);

impl<'a> File<'a> {
    /// A tensor that the exporter named by the operation that reads it.
    fn of(&self, operation: &str, number: u16, dims: &[usize]) -> Result<&'a [f32], TensorsError> {
        self.0.take(&format!("onnx::{operation}_{number}"), dims)
    }

    fn slope(&self, number: u16) -> Result<f32, TensorsError> {
        Ok(self.of("PRelu", number, &[1, 1, 1])?[0])
    }

    fn bands(&self, number: u16, inputs: usize, outputs: usize) -> Result<Bands, TensorsError> {
        let matrix = self.of("MatMul", number, &[inputs, outputs])?;
        let band = |output: usize| {
            let column: Vec<f32> = (0..inputs).map(|input| matrix[input * outputs + output]).collect();
            let used = |weight: &f32| *weight != 0.0;
            let first = column.iter().position(used).unwrap_or(0);
            let end = column.iter().rposition(used).map_or(first, |last| last + 1);
            (first, column[first..end].to_vec())
        };
        Ok(Bands((0..outputs).map(band).collect()))
    }

    /// Each of three features stands three times in the input: one band below, itself, one above. At the ends the
    /// convolution's own padding hides some of them, which is why these have weights of their own.
    fn first(&self) -> Result<[Layer; 3], TensorsError> {
        const TAPS: usize = 5;
        const SHIFTS: usize = 3;
        const FEATURES: usize = 3;
        let weights = self.of("Conv", 3380, &[CHANNELS, FEATURES * SHIFTS, 1, TAPS])?;
        let bias = self.of("Conv", 3381, &[CHANNELS])?;
        let layer = |seen: std::ops::Range<usize>| {
            let weight = |output: usize, column: usize| {
                let (reach, feature) = (column / FEATURES, column % FEATURES);
                let of = |tap: usize, shift: usize| weights[((output * FEATURES + feature) * SHIFTS + shift) * TAPS + tap];
                seen.clone().filter(|tap| (*tap..tap + SHIFTS).contains(&reach)).map(|tap| of(tap, reach - tap)).sum()
            };
            Layer::from_fn(CHANNELS, (TAPS + SHIFTS - 1) * FEATURES, weight, |output| bias[output])
        };
        Ok([layer(2..TAPS), layer(0..TAPS), layer(0..3)])
    }

    fn second(&self) -> Result<[Layer; 2], TensorsError> {
        const TAPS: usize = 5;
        let weights = self.of("Conv", 3383, &[CHANNELS, HALF, 1, TAPS])?;
        let bias = self.of("Conv", 3384, &[CHANNELS])?;
        let group = |group: usize| {
            let weight = |output: usize, column: usize| weights[((group * HALF + output) * HALF + column % HALF) * TAPS + column / HALF];
            Layer::from_fn(HALF, TAPS * HALF, weight, |output| bias[group * HALF + output])
        };
        Ok([group(0), group(1)])
    }

    fn widen(&self) -> Result<[[Layer; 2]; 2], TensorsError> {
        let weights = self.0.take("decoder.de_convs.3.conv.weight", &[CHANNELS, HALF, 1, 5])?;
        let normal = self.normal("decoder.de_convs.3.conv", "decoder.de_convs.3.bn", CHANNELS)?;
        let group = |group: usize| {
            let outputs = &normal[group * HALF..(group + 1) * HALF];
            halves(outputs, HALF, |input, output, tap| weights[((group * HALF + input) * HALF + output) * 5 + tap])
        };
        Ok([group(0), group(1)])
    }

    fn mask(&self) -> Result<[Layer; 2], TensorsError> {
        let weights = self.0.take("decoder.de_convs.4.conv.weight", &[CHANNELS, 2, 1, 5])?;
        let normal = self.normal("decoder.de_convs.4.conv", "decoder.de_convs.4.bn", 2)?;
        Ok(halves(&normal, CHANNELS, |input, output, tap| weights[(input * 2 + output) * 5 + tap]))
    }

    /// Scale and bias of each output, normalisation and the convolution's own bias in one.
    fn normal(&self, convolution: &str, norm: &str, outputs: usize) -> Result<Vec<(f32, f32)>, TensorsError> {
        let take = |name: &str| self.0.take(name, &[outputs]);
        let (bias, scale, offset) = (take(&format!("{convolution}.bias"))?, take(&format!("{norm}.weight"))?, take(&format!("{norm}.bias"))?);
        let (mean, variance) = (take(&format!("{norm}.running_mean"))?, take(&format!("{norm}.running_var"))?);
        let of = |output: usize| {
            let scale = scale[output] / (variance[output] + VARIANCE_FLOOR).sqrt();
            (scale, (bias[output] - mean[output]) * scale + offset[output])
        };
        Ok((0..outputs).map(of).collect())
    }

    fn block(&self, names: &BlockNames) -> Result<BlockLayers, TensorsError> {
        let [spread_slope, depth_slope] = names.slopes;
        let (spread, depth, gather) = match names.convolutions {
            Convolutions::Folded(numbers) => self.folded(numbers)?,
            Convolutions::Transposed(block) => self.transposed(block)?,
        };
        Ok(BlockLayers {
            dilation: names.dilation,
            spread,
            spread_slope: self.slope(spread_slope)?,
            depth,
            depth_slope: self.slope(depth_slope)?,
            gather,
            attention: self.gru(names.gru, 0, 1, HALF, CHANNELS)?,
            attend: self.dense(names.attend, names.attend_bias, HALF)?,
        })
    }

    fn folded(&self, [spread, depth, gather]: [[u16; 2]; 3]) -> Result<BlockConvolutions, TensorsError> {
        let take = |[weights, bias]: [u16; 2], dims: [usize; 4]| Ok::<_, TensorsError>((self.of("Conv", weights, &dims)?, self.of("Conv", bias, &dims[..1])?));
        let (weights, bias) = take(spread, [CHANNELS, 3 * HALF, 1, 1])?;
        let spread = Layer::from_fn(CHANNELS, 3 * HALF, |output, column| weights[output * 3 * HALF + side_by_side(column)], |output| bias[output]);
        let (weights, bias) = take(depth, [CHANNELS, 1, 3, 3])?;
        let depth = (0..CHANNELS).map(|channel| (std::array::from_fn(|tap| weights[channel * 9 + tap]), bias[channel])).collect();
        let (weights, bias) = take(gather, [HALF, CHANNELS, 1, 1])?;
        let gather = Layer { weights: weights.to_vec(), bias: bias.to_vec() };
        Ok((spread, depth, gather))
    }

    fn transposed(&self, block: usize) -> Result<BlockConvolutions, TensorsError> {
        let name = |part: &str| format!("decoder.de_convs.{block}.{part}");
        let weights = self.0.take(&name("point_conv1.weight"), &[3 * HALF, CHANNELS, 1, 1])?;
        let normal = self.normal(&name("point_conv1"), &name("point_bn1"), CHANNELS)?;
        let weight = |output: usize, column: usize| weights[side_by_side(column) * CHANNELS + output] * normal[output].0;
        let spread = Layer::from_fn(CHANNELS, 3 * HALF, weight, |output| normal[output].1);

        let weights = self.0.take(&name("depth_conv.ConvTranspose2d.weight"), &[CHANNELS, 1, 3, 3])?;
        let normal = self.normal(&name("depth_conv.ConvTranspose2d"), &name("depth_bn"), CHANNELS)?;
        // transposed with stride 1 is the same turned round
        let channel = |channel: usize| (std::array::from_fn(|tap| weights[channel * 9 + 8 - tap] * normal[channel].0), normal[channel].1);
        let depth = (0..CHANNELS).map(channel).collect();

        let weights = self.0.take(&name("point_conv2.weight"), &[CHANNELS, HALF, 1, 1])?;
        let normal = self.normal(&name("point_conv2"), &name("point_bn2"), HALF)?;
        let weight = |output: usize, column: usize| weights[column * HALF + output] * normal[output].0;
        Ok((spread, depth, Layer::from_fn(HALF, CHANNELS, weight, |output| normal[output].1)))
    }

    fn path(&self, names: &PathNames) -> Result<PathLayers, TensorsError> {
        let [low, high] = names.along_bands;
        let along_bands = |numbers, direction| self.gru(numbers, direction, 2, HALF, HALF / 2);
        let [time_low, time_high] = names.along_time;
        let along_time = |numbers| self.gru(numbers, 0, 1, HALF, HALF);
        let after = |number: u16, part: &str| {
            let name = |what: &str| format!("{}.{part}_{what}", names.name);
            let norm = |what: &str| self.0.take(&name(what), &[MIDDLE, CHANNELS]).map(<[f32]>::to_vec);
            let norm = Norm { scale: norm("ln.weight")?, offset: norm("ln.bias")? };
            Ok::<_, TensorsError>((self.dense(number, &name("fc.bias"), CHANNELS)?, norm))
        };
        Ok(PathLayers {
            along_bands: [along_bands(low, 0)?, along_bands(low, 1)?, along_bands(high, 0)?, along_bands(high, 1)?],
            along_time: [along_time(time_low)?, along_time(time_high)?],
            after_bands: after(names.after_bands, "intra")?,
            after_time: after(names.after_time, "inter")?,
        })
    }

    /// A matrix `[input][output]` over all channels, and its bias.
    fn dense(&self, number: u16, bias: &str, outputs: usize) -> Result<Layer, TensorsError> {
        let weights = self.of("MatMul", number, &[CHANNELS, outputs])?;
        let bias = self.0.take(bias, &[outputs])?;
        Ok(Layer::from_fn(outputs, CHANNELS, |output, input| weights[input * outputs + output], |output| bias[output]))
    }

    /// ONNX orders a unit's gates update, reset, candidate, and its biases those of the input before those of the state.
    fn gru(&self, [input, hidden, bias]: [u16; 3], direction: usize, directions: usize, inputs: usize, units: usize) -> Result<GruLayers, TensorsError> {
        let rows = 3 * units;
        let own = |tensor: &'a [f32]| &tensor[direction * tensor.len() / directions..];
        let of_input = own(self.of("GRU", input, &[directions, rows, inputs])?);
        let of_hidden = own(self.of("GRU", hidden, &[directions, rows, units])?);
        let bias = own(self.of("GRU", bias, &[directions, 2 * rows])?);
        let joined = |gate: usize| {
            let row = move |unit: usize| gate * units + unit;
            let weight = |unit: usize, column: usize| match column.checked_sub(inputs) {
                None => of_input[row(unit) * inputs + column],
                Some(column) => of_hidden[row(unit) * units + column],
            };
            Layer::from_fn(units, inputs + units, weight, |unit| bias[row(unit)] + bias[rows + row(unit)])
        };
        let row = |unit: usize| 2 * units + unit;
        Ok(GruLayers {
            update: joined(0),
            reset: joined(1),
            candidate: Layer::from_fn(units, inputs, |unit, column| of_input[row(unit) * inputs + column], |unit| bias[row(unit)]),
            recurrent: Layer::from_fn(units, units, |unit, column| of_hidden[row(unit) * units + column], |unit| bias[rows + row(unit)]),
        })
    }
}

/// Spread, depth and gather of a block.
type BlockConvolutions = (Layer, Vec<([f32; 9], f32)>, Layer);

/// Our columns are `[tap][input]`, the file's `[input][tap]`.
fn side_by_side(column: usize) -> usize {
    column % HALF * 3 + column / HALF
}

/// A transposed convolution with five taps and stride 2: even outputs see three inputs around their own, odd ones the
/// two beside them. Columns are `[tap][input]`.
fn halves(outputs: &[(f32, f32)], inputs: usize, weight: impl Fn(usize, usize, usize) -> f32) -> [Layer; 2] {
    [&[4, 2, 0][..], &[3, 1]].map(|taps| {
        let weight = |output: usize, column: usize| weight(column % inputs, output, taps[column / inputs]) * outputs[output].0;
        Layer::from_fn(outputs.len(), taps.len() * inputs, weight, |output| outputs[output].1)
    })
}
