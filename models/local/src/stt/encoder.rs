//! From the mel picture to what was heard: two convolutions, the second one halving the rate to one vector every 20 ms,
//! positions added, then four layers of self-attention and feed-forward, each added to what came before.

use ndarray::linalg::general_mat_mul;
use ndarray::s;

use super::ct2::Tensors;
use super::layers::{HEAD, HEADS, INNER, LayerNorm, Linear, WIDTH, gelu, matrix, matrix_mut, softmax};
use super::mel::MELS;

/// Layers of a tiny Whisper.
const LAYERS: usize = 4;
/// Vectors of the full window of 30 s, for which positions are known.
const POSITIONS: usize = 1500;

/// The encoder's weights.
pub struct Encoder {
    first_convolution: Linear,
    second_convolution: Linear,
    positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

struct Layer {
    attention_norm: LayerNorm,
    /// Queries, keys and values in one product.
    attention_in: Linear,
    attention_out: Linear,
    feed_norm: LayerNorm,
    feed_in: Linear,
    feed_out: Linear,
}

/// Room for what lies between the layers.
#[derive(Default)]
pub struct EncoderBuffers {
    joined: Vec<f32>,
    convolved: Vec<f32>,
    stream: Vec<f32>,
    normed: Vec<f32>,
    wide: Vec<f32>,
    scores: Vec<f32>,
    context: Vec<f32>,
}

impl Encoder {
    /// Takes the encoder's variables.
    pub fn build(tensors: &Tensors) -> Result<Self, String> {
        let heads = tensors.number("encoder/num_heads")?;
        if heads != HEADS {
            return Err(format!("{heads} heads, not the {HEADS} of a tiny Whisper"));
        }
        Ok(Self {
            first_convolution: Linear::build_convolution(tensors, "encoder/conv1", MELS, WIDTH)?,
            second_convolution: Linear::build_convolution(tensors, "encoder/conv2", WIDTH, WIDTH)?,
            positions: tensors.get("encoder/position_encodings/encodings", &[POSITIONS, WIDTH])?,
            layers: (0..LAYERS).map(|layer| Layer::build(tensors, layer)).collect::<Result<_, _>>()?,
            norm: LayerNorm::build(tensors, "encoder/layer_norm")?,
        })
    }

    /// One vector of [`WIDTH`] for every two frames of features.
    pub fn run<'a>(&self, features: &[f32], buffers: &'a mut EncoderBuffers) -> &'a [f32] {
        join(features, MELS, 1, &mut buffers.joined);
        self.first_convolution.run(&buffers.joined, &mut buffers.convolved);
        gelu(&mut buffers.convolved);
        join(&buffers.convolved, WIDTH, 2, &mut buffers.joined);
        self.second_convolution.run(&buffers.joined, &mut buffers.stream);
        buffers.stream.truncate(self.positions.len());
        gelu(&mut buffers.stream);
        buffers.stream.iter_mut().zip(&self.positions).for_each(|(value, position)| *value += position);
        for layer in &self.layers {
            layer.run(buffers);
        }
        self.norm.run(&buffers.stream, &mut buffers.normed);
        &buffers.normed
    }
}

/// Joins each `stride`th frame with its neighbours, zeros outside, so that a convolution is a product.
fn join(frames: &[f32], width: usize, stride: usize, joined: &mut Vec<f32>) {
    joined.clear();
    for centre in (0..frames.len() / width).step_by(stride) {
        if centre == 0 {
            joined.resize(width, 0.0);
        }
        let start = centre.saturating_sub(1) * width;
        joined.extend_from_slice(&frames[start..frames.len().min((centre + 2) * width)]);
    }
    joined.resize(joined.len().next_multiple_of(3 * width), 0.0);
}

impl Layer {
    fn build(tensors: &Tensors, layer: usize) -> Result<Self, String> {
        let attention = format!("encoder/layer_{layer}/self_attention");
        let feed = format!("encoder/layer_{layer}/ffn");
        Ok(Self {
            attention_norm: LayerNorm::build(tensors, &format!("{attention}/layer_norm"))?,
            attention_in: Linear::build(tensors, &format!("{attention}/linear_0"), WIDTH, 3 * WIDTH)?,
            attention_out: Linear::build(tensors, &format!("{attention}/linear_1"), WIDTH, WIDTH)?,
            feed_norm: LayerNorm::build(tensors, &format!("{feed}/layer_norm"))?,
            feed_in: Linear::build(tensors, &format!("{feed}/linear_0"), WIDTH, INNER)?,
            feed_out: Linear::build(tensors, &format!("{feed}/linear_1"), INNER, WIDTH)?,
        })
    }

    fn run(&self, buffers: &mut EncoderBuffers) {
        self.attention_norm.run(&buffers.stream, &mut buffers.normed);
        self.attention_in.run(&buffers.normed, &mut buffers.wide);
        attend(&buffers.wide, &mut buffers.scores, &mut buffers.context);
        self.attention_out.add(&buffers.context, &mut buffers.stream);
        self.feed_norm.run(&buffers.stream, &mut buffers.normed);
        self.feed_in.run(&buffers.normed, &mut buffers.wide);
        gelu(&mut buffers.wide);
        self.feed_out.add(&buffers.wide, &mut buffers.stream);
    }
}

/// Each vector gathers from all others what its query finds in their keys, head by head.
fn attend(queries_keys_values: &[f32], scores: &mut Vec<f32>, context: &mut Vec<f32>) {
    let count = queries_keys_values.len() / (3 * WIDTH);
    let all = matrix(queries_keys_values, count, 3 * WIDTH);
    scores.resize(count * count, 0.0);
    context.resize(count * WIDTH, 0.0);
    let mut context = matrix_mut(context, count, WIDTH);
    for head in 0..HEADS {
        let part = |which: usize| {
            let start = which * WIDTH + head * HEAD;
            all.slice(s![.., start..start + HEAD])
        };
        let scale = 1.0 / (HEAD as f32).sqrt();
        general_mat_mul(scale, &part(0), &part(1).t(), 0.0, &mut matrix_mut(scores, count, count));
        scores.chunks_exact_mut(count).for_each(softmax);
        let mut gathered = context.slice_mut(s![.., head * HEAD..(head + 1) * HEAD]);
        general_mat_mul(1.0, &matrix(scores, count, count), &part(2), 0.0, &mut gathered);
    }
}
