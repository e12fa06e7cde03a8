//! Smart Turn's tensors as the file has them, rearranged for the kernels.
//!
//! The graph is quantised statically: every activation has its fixed 8-bit code (a scale and the code of zero), every
//! weight matrix a scale per column. The names are those that the exporter gave, numbers for the most part; they
//! repeat from layer to layer. Another file lacks one of them or has another shape, and is refused.

use crate::onnx_tensors::{Tensors, TensorsError};

use super::kernel::vector::{HalfErf, Powers, gelu};
use super::kernel::{GROUP, Line, WIDTH, place};

/// Numbers that describe a position.
pub(super) const STATE: usize = 384;
/// Positions of 20 ms that the encoder sees.
pub(super) const POSITIONS: usize = 400;
/// Mel bands.
pub(super) const MELS: usize = voiced_core::model::TURN_MELS;
/// Width of the feed-forward layers.
pub(super) const INNER: usize = 1536;
/// Encoder layers.
pub(super) const LAYERS: usize = 4;
/// Width of the layer that weighs the positions.
pub(super) const POOL: usize = 256;
/// Frames that a convolution sees at once.
pub(super) const TAPS: usize = 3;
/// By what queries and keys are both scaled: together the square root of a head's width.
const ATTENTION_SCALE: f32 = 0.353_553_38;

/// How an activation is coded in 8 bits: `scale * (code - zero)`.
#[derive(Clone, Copy)]
pub(super) struct Code {
    pub(super) scale: f32,
    pub(super) zero: f32,
}

/// A matrix whose products become codes: `(sum + offset) * scale`, rounded, counted from the code of zero.
pub(super) struct Matrix {
    pub(super) panels: Vec<Line>,
    pub(super) offset: Vec<[i32; WIDTH]>,
    pub(super) scale: Vec<[f32; WIDTH]>,
}

impl Matrix {
    /// Puts another matrix's columns after these.
    fn append(&mut self, other: Self) {
        self.panels.extend(other.panels);
        self.offset.extend(other.offset);
        self.scale.extend(other.scale);
    }
}

/// A matrix, the code of its product, and the bias added to what that code means.
pub(super) struct Linear {
    pub(super) matrix: Matrix,
    pub(super) code: Code,
    pub(super) bias: Vec<[f32; WIDTH]>,
}

/// Normalisation over a position's numbers, and the code of its result.
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) code: Code,
}

/// One of query, key and value: its product's code becomes another by a factor and a term for each column.
pub(super) struct Projection {
    pub(super) product: Code,
    pub(super) factor: f32,
    pub(super) term: Vec<[f32; WIDTH]>,
    pub(super) code: Code,
}

/// An encoder layer.
pub(super) struct Layer {
    pub(super) attention_norm: Norm,
    /// Queries, keys and values side by side.
    pub(super) joined: Matrix,
    pub(super) projections: [Projection; 3],
    pub(super) score: Code,
    /// Of the scores' codes.
    pub(super) powers: Powers,
    /// Of the shares' codes, whose zero is 0.
    pub(super) share_scale: f32,
    pub(super) context: Code,
    pub(super) out: Linear,
    pub(super) inner_norm: Norm,
    pub(super) grow: Linear,
    pub(super) inner: Code,
    pub(super) shrink: Linear,
}

/// A fully connected layer of the classifier, small enough to be computed as it is written.
pub(super) struct Dense {
    pub(super) weights: Vec<i32>,
    pub(super) bias: Vec<i32>,
    pub(super) scale: Vec<f32>,
    pub(super) code: Code,
}

/// The model.
pub(super) struct Weights {
    pub(super) features: Code,
    pub(super) stem: [Matrix; 2],
    /// The codes of the first convolution's result after its activation.
    pub(super) first_activation: [u8; 256],
    pub(super) first_code: Code,
    pub(super) first_zero: u8,
    /// What the codes of the second convolution's result mean after its activation.
    pub(super) second_activation: [f32; 256],
    pub(super) second_code: Code,
    pub(super) places: Vec<f32>,
    pub(super) half_erf: HalfErf,
    pub(super) layers: [Layer; LAYERS],
    pub(super) last_norm: Norm,
    pub(super) pool: Linear,
    pub(super) pool_activation: Code,
    pub(super) pool_out: Dense,
    pub(super) pool_bias: f32,
    pub(super) pooled: Code,
    pub(super) dense: [Dense; 3],
    pub(super) dense_norm: Norm,
    pub(super) dense_activations: [Code; 2],
}

impl Weights {
    pub(super) fn read(tensors: &Tensors) -> Result<Self, TensorsError> {
        let reader = Reader(tensors);
        let features = reader.code("input_features")?;
        let [first_code, second_code] = [reader.code("conv1d")?, reader.code("conv1d_1")?];
        let first_activated = reader.code("gelu")?;
        let stem = [
            reader.convolution("inner.encoder.conv1", MELS, features, first_code)?,
            reader.convolution("inner.encoder.conv2", STATE, first_activated, second_code)?,
        ];
        let meaning = |code: Code, at: usize| gelu(code.scale * (at as f32 - code.zero));
        let activated = |at: usize| {
            let code = meaning(first_code, at) / first_activated.scale;
            (code.round_ties_even() + first_activated.zero).clamp(0.0, 255.0) as u8
        };
        let [layer_0, layer_1, layer_2, layer_3] = [reader.layer(0)?, reader.layer(1)?, reader.layer(2)?, reader.layer(3)?];
        let last_norm = reader.norm("inner.encoder.layer_norm", STATE, "layer_norm_8")?;
        let [pool_activation, pooled] = [reader.code("tanh")?, reader.code("sum_1")?];
        let dense_activations = [reader.code("gelu_6")?, reader.code("gelu_7")?];
        Ok(Self {
            features,
            stem,
            first_activation: std::array::from_fn(activated),
            first_code,
            first_zero: first_activated.zero as u8,
            second_activation: std::array::from_fn(|at| meaning(second_code, at)),
            second_code,
            places: tensors.take("inner.encoder.embed_positions.weight", &[POSITIONS, STATE])?.to_vec(),
            half_erf: HalfErf::new(),
            layers: [layer_0, layer_1, layer_2, layer_3],
            pool: reader.linear("val_311", [STATE, POOL], last_norm.code, "val_312", "inner.pool_attention.0.bias")?,
            last_norm,
            pool_activation,
            pool_out: reader.pool_out(pool_activation)?,
            pool_bias: tensors.take("inner.pool_attention.2.bias", &[1])?[0],
            pooled,
            dense: [
                reader.dense("inner.classifier.0", [256, STATE], pooled, "linear_26")?,
                reader.dense("inner.classifier.4", [64, 256], dense_activations[0], "linear_27")?,
                reader.dense("inner.classifier.6", [1, 64], dense_activations[1], "linear_28")?,
            ],
            dense_norm: reader.norm("inner.classifier.1", 256, "gelu_6")?,
            dense_activations,
        })
    }
}

struct Reader<'a>(&'a Tensors);

impl Reader<'_> {
    fn code(&self, name: &str) -> Result<Code, TensorsError> {
        let scale = self.0.take(&format!("{name}_scale"), &[])?[0];
        let zero = self.0.take_integers(&format!("{name}_zero_point"), &[])?[0];
        Ok(Code { scale, zero: zero as f32 })
    }

    fn norm(&self, name: &str, width: usize, code: &str) -> Result<Norm, TensorsError> {
        let weight = self.0.take(&format!("{name}.weight"), &[width])?.to_vec();
        let bias = self.0.take(&format!("{name}.bias"), &[width])?.to_vec();
        Ok(Norm { weight, bias, code: self.code(code)? })
    }

    /// A matrix of `[depth, columns]`.
    fn matrix(&self, name: &str, [depth, columns]: [usize; 2], input: Code, output: Code) -> Result<Matrix, TensorsError> {
        let codes = self.0.take_integers(&format!("{name}_quantized"), &[depth, columns])?;
        let scales = self.0.take(&format!("{name}_scale"), &[columns])?;
        Ok(pack(depth, columns, |row, column| codes[row * columns + column], input, |column| (0, scales[column] * input.scale / output.scale)))
    }

    /// A convolution as a matrix over its taps' frames one after the other.
    fn convolution(&self, name: &str, inputs: usize, input: Code, output: Code) -> Result<Matrix, TensorsError> {
        let codes = self.0.take_integers(&format!("{name}.weight_quantized"), &[STATE, inputs, TAPS])?;
        let scales = self.0.take(&format!("{name}.weight_scale"), &[STATE])?;
        let bias = self.0.take_integers(&format!("{name}.bias_quantized"), &[STATE])?;
        let code = |row: usize, column: usize| codes[(column * inputs + row % inputs) * TAPS + row / inputs];
        Ok(pack(TAPS * inputs, STATE, code, input, |column| (bias[column], scales[column] * input.scale / output.scale)))
    }

    fn linear(&self, name: &str, shape: [usize; 2], input: Code, output: &str, bias: &str) -> Result<Linear, TensorsError> {
        let code = self.code(output)?;
        let matrix = self.matrix(name, shape, input, code)?;
        Ok(Linear { matrix, code, bias: self.0.take(bias, &[shape[1]])?.as_chunks().0.to_vec() })
    }

    fn layer(&self, index: usize) -> Result<Layer, TensorsError> {
        // of the exporter's numbers a layer takes 73; two that all layers share precede the first layer's projections
        let number = 19 + 73 * index;
        let shared = if index == 0 { 2 } else { 0 };
        let value = |offset: usize| format!("val_{}", number + offset);
        let projected = |offset: usize| format!("val_{}", number + offset - shared);
        let of_layer = |part: &str| format!("inner.encoder.layers.{index}.{part}");

        let attention_norm = self.norm(&of_layer("self_attn_layer_norm"), STATE, &numbered("layer_norm", 2 * index))?;
        let input = attention_norm.code;
        let products = [self.code(&projected(1))?, self.code(&format!("linear_{}", 6 * index + 1))?, self.code(&projected(16))?];
        let codes = [self.code(&value(45))?, self.code(&value(48))?, self.code(&format!("transpose_{}", 4 * index + 2))?];
        let mut joined = self.matrix(&projected(0), [STATE, STATE], input, products[0])?;
        joined.append(self.matrix(&projected(8), [STATE, STATE], input, products[1])?);
        joined.append(self.matrix(&projected(15), [STATE, STATE], input, products[2])?);
        let no_bias = [0.0; STATE];
        let query_bias = self.0.take(&of_layer("self_attn.q_proj.bias"), &[STATE])?;
        let value_bias = self.0.take(&of_layer("self_attn.v_proj.bias"), &[STATE])?;
        let projection = |index: usize, scale: f32, bias: &[f32]| {
            let (product, code) = (products[index], codes[index]);
            let term = bias.as_chunks().0.iter().map(|bias: &[f32; WIDTH]| bias.map(|bias| bias * scale / code.scale)).collect();
            Projection { product, factor: product.scale * scale / code.scale, term, code }
        };
        let inner_norm = self.norm(&of_layer("final_layer_norm"), STATE, &numbered("layer_norm", 2 * index + 1))?;
        let inner = self.code(&numbered("gelu", index + 2))?;
        let context = self.code(&numbered("scaled_dot_product_attention", index))?;
        let score = self.code(&value(49))?;
        Ok(Layer {
            joined,
            projections: [projection(0, ATTENTION_SCALE, query_bias), projection(1, ATTENTION_SCALE, &no_bias), projection(2, 1.0, value_bias)],
            score,
            powers: Powers::new(score.scale),
            share_scale: self.share_scale(&value(50))?,
            context,
            out: self.linear(&value(56), [STATE, STATE], context, &value(57), &of_layer("self_attn.out_proj.bias"))?,
            grow: self.linear(&value(60), [STATE, INNER], inner_norm.code, &value(61), &of_layer("fc1.bias"))?,
            shrink: self.linear(&value(69), [INNER, STATE], inner, &value(70), &of_layer("fc2.bias"))?,
            attention_norm,
            inner_norm,
            inner,
        })
    }

    fn share_scale(&self, name: &str) -> Result<f32, TensorsError> {
        let code = self.code(name)?;
        if code.zero == 0.0 { Ok(code.scale) } else { Err(TensorsError::Shape { name: name.to_owned(), dims: Vec::new() }) }
    }

    /// The one column that turns a position's pool activation into its weight.
    fn pool_out(&self, input: Code) -> Result<Dense, TensorsError> {
        let code = self.code("val_314")?;
        let weights = self.0.take_integers("val_313_quantized", &[POOL, 1])?.to_vec();
        let scale = self.0.take("val_313_scale", &[1])?[0] * input.scale / code.scale;
        Ok(Dense { weights, bias: vec![0], scale: vec![scale], code })
    }

    fn dense(&self, name: &str, [outputs, inputs]: [usize; 2], input: Code, output: &str) -> Result<Dense, TensorsError> {
        let code = self.code(output)?;
        let weights = self.0.take_integers(&format!("{name}.weight_quantized"), &[outputs, inputs])?.to_vec();
        let bias = self.0.take_integers(&format!("{name}.bias_quantized"), &[outputs])?.to_vec();
        let scales = self.0.take(&format!("{name}.weight_scale"), &[outputs])?;
        Ok(Dense { weights, bias, scale: scales.iter().map(|scale| scale * input.scale / code.scale).collect(), code })
    }
}

/// The exporter's names: the first of a kind has no number.
fn numbered(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}_{index}") }
}

/// Lays a matrix out in panels. `bias_and_scale` are a column's.
fn pack(depth: usize, columns: usize, code: impl Fn(usize, usize) -> i32, input: Code, bias_and_scale: impl Fn(usize) -> (i32, f32)) -> Matrix {
    let (panels, groups) = (columns / WIDTH, depth / GROUP);
    let mut matrix = Matrix { panels: vec![Line::ZERO; panels * groups], offset: vec![[0; WIDTH]; panels], scale: vec![[0.0; WIDTH]; panels] };
    for column in 0..columns {
        let (panel, lane) = (column / WIDTH, column % WIDTH);
        let mut sum = 0;
        for row in 0..depth {
            let (line, at) = place(row, lane);
            matrix.panels[panel * groups + line].0[at] = code(row, column) as i8;
            sum += code(row, column);
        }
        let (bias, scale) = bias_and_scale(column);
        // the input's codes are counted from their zero
        matrix.offset[panel][lane] = bias - input.zero as i32 * sum;
        matrix.scale[panel][lane] = scale;
    }
    matrix
}
