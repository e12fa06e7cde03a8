//! From what was heard to the next token. Each of four layers looks back at the tokens so far (their keys and values are
//! kept, so that a token costs one pass), then at the sound, then feeds forward; the embeddings read the result out.

use super::ct2::Tensors;
use super::layers::{HEAD, HEADS, INNER, LayerNorm, Linear, Rows, WIDTH, gelu, softmax};

/// Layers of a tiny Whisper.
const LAYERS: usize = 4;
/// Tokens of the model's context.
pub const POSITIONS: usize = 448;
/// Tokens of an English Whisper.
const TOKENS: usize = 51_864;

/// The decoder's weights.
pub struct Decoder {
    embeddings: Rows,
    positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

struct Layer {
    own_norm: LayerNorm,
    own_in: Rows,
    own_out: Rows,
    sound_norm: LayerNorm,
    sound_query: Rows,
    /// Keys and values of the whole utterance, once.
    sound_in: Linear,
    sound_out: Rows,
    feed_norm: LayerNorm,
    feed_in: Rows,
    feed_out: Rows,
}

/// What one transcription remembers, and room for what lies between the layers.
#[derive(Default)]
pub struct DecoderState {
    sound: [Vec<f32>; LAYERS],
    past: [Vec<f32>; LAYERS],
    position: usize,
    stream: Vec<f32>,
    normed: Vec<f32>,
    wide: Vec<f32>,
    context: Vec<f32>,
    scores: Vec<f32>,
    rounded: Vec<i16>,
    logits: Vec<f32>,
}

impl Decoder {
    /// Takes the decoder's variables.
    pub fn build(tensors: &Tensors) -> Result<Self, String> {
        Ok(Self {
            embeddings: Rows::build_unbiased(tensors, "decoder/embeddings/weight", WIDTH, TOKENS)?,
            positions: tensors.get("decoder/position_encodings/encodings", &[POSITIONS, WIDTH])?,
            layers: (0..LAYERS).map(|layer| Layer::build(tensors, layer)).collect::<Result<_, _>>()?,
            norm: LayerNorm::build(tensors, "decoder/layer_norm")?,
        })
    }

    /// How many tokens the model knows.
    pub fn tokens(&self) -> usize {
        self.embeddings.outputs()
    }

    /// Starts on a new utterance.
    pub fn listen(&self, heard: &[f32], state: &mut DecoderState) {
        for (layer, sound) in self.layers.iter().zip(&mut state.sound) {
            layer.sound_in.run(heard, sound);
        }
        state.past.iter_mut().for_each(Vec::clear);
        state.position = 0;
    }

    /// Takes one token and returns a score for each that may follow. Beyond [`POSITIONS`] tokens the last place is reused.
    pub fn step<'a>(&self, token: usize, state: &'a mut DecoderState) -> &'a mut [f32] {
        let position = state.position.min(POSITIONS - 1) * WIDTH;
        state.position += 1;
        state.stream.clear();
        let placed = self.embeddings.row(token).zip(&self.positions[position..position + WIDTH]);
        state.stream.extend(placed.map(|(value, position)| value + position));
        for (index, layer) in self.layers.iter().enumerate() {
            layer.run(index, state);
        }
        self.norm.run(&state.stream, &mut state.normed);
        self.embeddings.run(&state.normed, &mut state.rounded, &mut state.logits);
        &mut state.logits
    }
}

impl Layer {
    fn build(tensors: &Tensors, layer: usize) -> Result<Self, String> {
        let own = format!("decoder/layer_{layer}/self_attention");
        let sound = format!("decoder/layer_{layer}/attention");
        let feed = format!("decoder/layer_{layer}/ffn");
        Ok(Self {
            own_norm: LayerNorm::build(tensors, &format!("{own}/layer_norm"))?,
            own_in: Rows::build(tensors, &format!("{own}/linear_0"), WIDTH, 3 * WIDTH)?,
            own_out: Rows::build(tensors, &format!("{own}/linear_1"), WIDTH, WIDTH)?,
            sound_norm: LayerNorm::build(tensors, &format!("{sound}/layer_norm"))?,
            sound_query: Rows::build(tensors, &format!("{sound}/linear_0"), WIDTH, WIDTH)?,
            sound_in: Linear::build(tensors, &format!("{sound}/linear_1"), WIDTH, 2 * WIDTH)?,
            sound_out: Rows::build(tensors, &format!("{sound}/linear_2"), WIDTH, WIDTH)?,
            feed_norm: LayerNorm::build(tensors, &format!("{feed}/layer_norm"))?,
            feed_in: Rows::build(tensors, &format!("{feed}/linear_0"), WIDTH, INNER)?,
            feed_out: Rows::build(tensors, &format!("{feed}/linear_1"), INNER, WIDTH)?,
        })
    }

    fn run(&self, index: usize, state: &mut DecoderState) {
        let DecoderState { stream, normed, wide, context, scores, rounded, .. } = state;
        let (sound, past) = (&state.sound[index], &mut state.past[index]);

        self.own_norm.run(stream, normed);
        self.own_in.run(normed, rounded, wide);
        past.extend_from_slice(&wide[WIDTH..]);
        attend(&wide[..WIDTH], past, scores, context);
        self.own_out.add(context, rounded, stream);

        self.sound_norm.run(stream, normed);
        self.sound_query.run(normed, rounded, wide);
        attend(wide, sound, scores, context);
        self.sound_out.add(context, rounded, stream);

        self.feed_norm.run(stream, normed);
        self.feed_in.run(normed, rounded, wide);
        gelu(wide);
        self.feed_out.add(wide, rounded, stream);
    }
}

/// One query gathers from rows of key and value, head by head.
fn attend(query: &[f32], keys_values: &[f32], scores: &mut Vec<f32>, context: &mut Vec<f32>) {
    let scale = 1.0 / (HEAD as f32).sqrt();
    context.clear();
    context.resize(WIDTH, 0.0);
    for head in 0..HEADS {
        let part = head * HEAD..(head + 1) * HEAD;
        let query = &query[part.clone()];
        let rows = || keys_values.chunks_exact(2 * WIDTH).map(|row| row.split_at(WIDTH));
        scores.clear();
        scores.extend(rows().map(|(key, _)| dot(query, &key[part.clone()]) * scale));
        softmax(scores);
        let gathered = &mut context[part.clone()];
        for (share, (_, value)) in scores.iter().zip(rows()) {
            gathered.iter_mut().zip(&value[part.clone()]).for_each(|(sum, value)| *sum += share * value);
        }
    }
}

/// Eight sums side by side, which the compiler may keep in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}
