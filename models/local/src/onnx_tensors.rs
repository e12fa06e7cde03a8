//! The tensors inside an ONNX file, for models that we compute ourselves.
//!
//! An ONNX file is a protobuf message: model (field 7) → graph (field 5) → initialisers, each with its dimensions,
//! element type, name, and its elements either as raw little-endian data or, mostly when there is just one, in a field
//! of numbers. Only that path is read; everything else is stepped over.

use std::collections::HashMap;
use std::path::Path;

/// A tensor with its elements, last dimension fastest.
#[derive(Debug)]
struct Tensor {
    dims: Vec<usize>,
    elements: Elements,
}

/// What a tensor holds; 8-bit integers are widened.
#[derive(Debug)]
enum Elements {
    Floats(Vec<f32>),
    Integers(Vec<i32>),
}

/// Why tensors could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The bytes are no ONNX model.
    #[error("not an ONNX model: the message ends early or has an unknown part")]
    Malformed,
    /// A tensor is not there or has another shape.
    #[error("the model holds no tensor {name} of {dims:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What was expected.
        dims: Vec<usize>,
    },
}

/// The initialisers of a model by name: 32-bit floats, and integers of 8 and 32 bits.
#[derive(Debug, Default)]
pub struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, TensorsError> {
        Self::parse(&std::fs::read(path)?)
    }

    /// Reads the bytes of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, TensorsError> {
        let mut tensors = HashMap::new();
        for graph in messages(bytes, MODEL_GRAPH) {
            for initialiser in messages(graph?, GRAPH_INITIALISER) {
                if let Some((name, tensor)) = read_tensor(initialiser?)? {
                    tensors.insert(name, tensor);
                }
            }
        }
        Ok(Self(tensors))
    }

    /// The elements of a tensor of floats that must have this shape.
    pub fn take(&self, name: &str, dims: &[usize]) -> Result<&[f32], TensorsError> {
        match self.0.get(name) {
            Some(Tensor { dims: found, elements: Elements::Floats(values) }) if found == dims => Ok(values),
            _ => Err(TensorsError::Shape { name: name.to_owned(), dims: dims.to_vec() }),
        }
    }

    /// The elements of a tensor of integers that must have this shape.
    pub fn take_integers(&self, name: &str, dims: &[usize]) -> Result<&[i32], TensorsError> {
        match self.0.get(name) {
            Some(Tensor { dims: found, elements: Elements::Integers(values) }) if found == dims => Ok(values),
            _ => Err(TensorsError::Shape { name: name.to_owned(), dims: dims.to_vec() }),
        }
    }
}

// field numbers of onnx.proto
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALISER: u64 = 5;
const TENSOR_DIMS: u64 = 1;
const TENSOR_TYPE: u64 = 2;
const TENSOR_FLOATS: u64 = 4;
const TENSOR_INTEGERS: u64 = 5;
const TENSOR_NAME: u64 = 8;
const TENSOR_RAW_DATA: u64 = 9;
// element types of onnx.proto
const TYPE_FLOAT: u64 = 1;
const TYPE_UINT8: u64 = 2;
const TYPE_INT8: u64 = 3;
const TYPE_INT32: u64 = 6;

/// A named tensor, or none when its elements are of another type or kept elsewhere.
fn read_tensor(bytes: &[u8]) -> Result<Option<(String, Tensor)>, TensorsError> {
    let (mut dims, mut raw, mut name, mut element) = (Vec::new(), None, None, 0);
    let (mut floats, mut integers) = (Vec::new(), Vec::new());
    for field in Fields(bytes) {
        match field? {
            (TENSOR_DIMS, Value::Number(dim)) => dims.push(dim),
            (TENSOR_DIMS, Value::Bytes(packed)) => read_varints(packed, &mut dims)?,
            (TENSOR_TYPE, Value::Number(value)) => element = value,
            (TENSOR_FLOATS, Value::Fixed(&[a, b, c, d])) => floats.push(f32::from_le_bytes([a, b, c, d])),
            (TENSOR_FLOATS, Value::Bytes(packed)) => floats.extend(read_floats(packed)),
            (TENSOR_INTEGERS, Value::Number(integer)) => integers.push(integer),
            (TENSOR_INTEGERS, Value::Bytes(packed)) => read_varints(packed, &mut integers)?,
            (TENSOR_NAME, Value::Bytes(text)) => name = Some(String::from_utf8_lossy(text).into_owned()),
            (TENSOR_RAW_DATA, Value::Bytes(data)) => raw = Some(data),
            _ => {}
        }
    }
    let elements = match (element, raw) {
        (TYPE_FLOAT, Some(raw)) => Elements::Floats(read_floats(raw).collect()),
        (TYPE_FLOAT, None) => Elements::Floats(floats),
        (TYPE_UINT8, Some(raw)) => Elements::Integers(raw.iter().map(|byte| i32::from(*byte)).collect()),
        (TYPE_INT8, Some(raw)) => Elements::Integers(raw.iter().map(|byte| i32::from(byte.cast_signed())).collect()),
        (TYPE_INT32, Some(raw)) => Elements::Integers(raw.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()),
        // a negative number comes as the two's complement of 64 bits
        (TYPE_UINT8 | TYPE_INT8 | TYPE_INT32, None) => Elements::Integers(integers.into_iter().map(|number| number as i32).collect()),
        _ => return Ok(None),
    };
    let found = match &elements {
        Elements::Floats(values) => values.len(),
        Elements::Integers(values) => values.len(),
    };
    let dims: Vec<usize> = dims.into_iter().map(|dim| dim as usize).collect();
    let announced = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    match name {
        Some(name) if announced == Some(found) => Ok(Some((name, Tensor { dims, elements }))),
        // elements in a file beside the model
        Some(_) if found == 0 => Ok(None),
        _ => Err(TensorsError::Malformed),
    }
}

fn read_floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn read_varints(mut packed: &[u8], numbers: &mut Vec<u64>) -> Result<(), TensorsError> {
    while !packed.is_empty() {
        numbers.push(varint(&mut packed)?);
    }
    Ok(())
}

/// The sub-messages in one field of a message.
fn messages(bytes: &[u8], field: u64) -> impl Iterator<Item = Result<&[u8], TensorsError>> {
    Fields(bytes).filter_map(move |item| match item {
        Ok((number, Value::Bytes(message))) if number == field => Some(Ok(message)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// What a field of a message holds.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed(&'a [u8]),
}

/// The fields of a message, in order; ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), TensorsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u64, Value<'a>), TensorsError> {
        let key = varint(&mut self.0)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut self.0)?),
            1 => Value::Fixed(self.take(8)?),
            2 => {
                let len = varint(&mut self.0)?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed(self.take(4)?),
            _ => return Err(TensorsError::Malformed),
        };
        Ok((key >> 3, value))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], TensorsError> {
        let len = usize::try_from(len).map_err(|_| TensorsError::Malformed)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(TensorsError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Seven bits a byte, lowest first, at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Result<u64, TensorsError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(TensorsError::Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(TensorsError::Malformed)
}
