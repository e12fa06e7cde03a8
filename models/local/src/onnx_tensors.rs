//! The tensors inside an ONNX file, for models that we compute ourselves.
//!
//! An ONNX file is a protobuf message: model (field 7) → graph (field 5) → initialisers, each with its dimensions,
//! element type, name and raw little-endian data. Only that path is read; everything else is stepped over.

use std::collections::HashMap;
use std::path::Path;

/// A tensor of 32-bit floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Length of each dimension.
    pub dims: Vec<usize>,
    /// The elements, last dimension fastest.
    pub values: Vec<f32>,
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

/// The 32-bit float initialisers of a model by name.
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

    /// The elements of a tensor that must have this shape.
    pub fn take(&self, name: &str, dims: &[usize]) -> Result<&[f32], TensorsError> {
        match self.0.get(name) {
            Some(tensor) if tensor.dims == dims => Ok(&tensor.values),
            _ => Err(TensorsError::Shape { name: name.to_owned(), dims: dims.to_vec() }),
        }
    }
}

// field numbers of onnx.proto
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALISER: u64 = 5;
const TENSOR_DIMS: u64 = 1;
const TENSOR_TYPE: u64 = 2;
const TENSOR_NAME: u64 = 8;
const TENSOR_RAW_DATA: u64 = 9;
const TYPE_FLOAT: u64 = 1;

/// A named tensor, or none when its elements are not 32-bit floats in raw form.
fn read_tensor(bytes: &[u8]) -> Result<Option<(String, Tensor)>, TensorsError> {
    let (mut dims, mut raw, mut name, mut element) = (Vec::new(), None, None, 0);
    for field in Fields(bytes) {
        match field? {
            (TENSOR_DIMS, Value::Number(dim)) => dims.push(dim),
            (TENSOR_DIMS, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    dims.push(varint(&mut packed)?);
                }
            }
            (TENSOR_TYPE, Value::Number(value)) => element = value,
            (TENSOR_NAME, Value::Bytes(text)) => name = Some(String::from_utf8_lossy(text).into_owned()),
            (TENSOR_RAW_DATA, Value::Bytes(data)) => raw = Some(data),
            _ => {}
        }
    }
    let (Some(name), Some(raw), TYPE_FLOAT) = (name, raw, element) else { return Ok(None) };
    let values: Vec<f32> = raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let dims: Vec<usize> = dims.into_iter().map(|dim| dim as usize).collect();
    let elements = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    if elements != Some(values.len()) {
        return Err(TensorsError::Malformed);
    }
    Ok(Some((name, Tensor { dims, values })))
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
    Fixed,
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
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = varint(&mut self.0)?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
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
