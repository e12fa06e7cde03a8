//! Reads `CTranslate2`'s `model.bin`: a version, the name and revision of its spec, then variables one after another
//! (name, shape, type, bytes) and aliases between them. Everything is little-endian; names end in a NUL.

use std::collections::HashMap;

/// The binary version that we know.
const VERSION: u32 = 6;
/// Dimensions of one variable at most; Whisper's convolutions have 3.
const RANK_MAX: usize = 4;

/// A model's variables as they lie in the file, turned to f32 when asked for.
pub struct Tensors {
    bytes: Vec<u8>,
    variables: HashMap<String, Variable>,
}

#[derive(Clone)]
struct Variable {
    shape: Vec<usize>,
    kind: Kind,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    F32,
    I8,
    I16,
    I32,
    F16,
    Bf16,
}

impl Tensors {
    /// Finds all variables of a file.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let variables = directory(&mut Reader { bytes: &bytes, at: 0 })?;
        Ok(Self { bytes, variables })
    }

    /// The values of a variable that must have this shape; int8 rows are multiplied by their scale.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let variable = self.variables.get(name).ok_or_else(|| format!("no variable {name}"))?;
        if variable.shape != shape {
            return Err(format!("{name} has shape {:?}, not {shape:?}", variable.shape));
        }
        let mut values = self.values(variable);
        if variable.kind == Kind::I8 {
            let scales = self
                .variables
                .get(&format!("{name}_scale"))
                .map(|scale| self.values(scale))
                .filter(|scales| scales.len() == shape[0])
                .ok_or_else(|| format!("no scales for the rows of {name}"))?;
            let row = values.len() / scales.len().max(1);
            // the file holds what a row was multiplied by
            values.chunks_mut(row.max(1)).zip(scales).for_each(|(row, scale)| row.iter_mut().for_each(|v| *v /= scale));
        }
        Ok(values)
    }

    /// A variable that holds one whole number.
    pub fn number(&self, name: &str) -> Result<usize, String> {
        Ok(self.get(name, &[])?.first().copied().unwrap_or(0.0) as usize)
    }

    fn values(&self, variable: &Variable) -> Vec<f32> {
        let bytes = &self.bytes[variable.start..variable.end];
        match variable.kind {
            Kind::I8 => bytes.iter().map(|&byte| f32::from(byte as i8)).collect(),
            Kind::I16 => halves(bytes).map(|half| f32::from(half as i16)).collect(),
            Kind::F16 => halves(bytes).map(from_f16).collect(),
            Kind::Bf16 => halves(bytes).map(|half| f32::from_bits(u32::from(half) << 16)).collect(),
            Kind::I32 => words(bytes).map(|word| word as i32 as f32).collect(),
            Kind::F32 => words(bytes).map(f32::from_bits).collect(),
        }
    }
}

fn directory(reader: &mut Reader<'_>) -> Result<HashMap<String, Variable>, String> {
    let version = reader.u32()?;
    if version != VERSION {
        return Err(format!("version {version} of the format, we read {VERSION}"));
    }
    let (spec, _revision) = (reader.text()?, reader.u32()?);
    if spec != "WhisperSpec" {
        return Err(format!("a {spec}, not a Whisper"));
    }
    let mut variables = HashMap::new();
    for _ in 0..reader.u32()? {
        let name = reader.text()?;
        variables.insert(name, reader.variable()?);
    }
    for _ in 0..reader.u32()? {
        let (alias, name) = (reader.text()?, reader.text()?);
        let variable = variables.get(&name).cloned().ok_or_else(|| format!("{alias} stands for {name}, which is not there"))?;
        variables.insert(alias, variable);
    }
    Ok(variables)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len()).ok_or("the file is cut short")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(self.take(4)?.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)))
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.take(2)?.iter().rev().fold(0, |word, &byte| word << 8 | usize::from(byte));
        let text = self.take(length)?;
        Ok(String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned())
    }

    fn variable(&mut self) -> Result<Variable, String> {
        let rank = usize::from(self.u8()?);
        if rank > RANK_MAX {
            return Err(format!("a variable of {rank} dimensions"));
        }
        let shape = (0..rank).map(|_| self.u32().map(|size| size as usize)).collect::<Result<Vec<_>, _>>()?;
        let (kind, size) = match self.u8()? {
            0 => (Kind::F32, 4),
            1 => (Kind::I8, 1),
            2 => (Kind::I16, 2),
            3 => (Kind::I32, 4),
            4 => (Kind::F16, 2),
            5 => (Kind::Bf16, 2),
            other => return Err(format!("a variable of unknown type {other}")),
        };
        let length = self.u32()? as usize;
        let promised = shape.iter().try_fold(size, |product: usize, &size| product.checked_mul(size));
        if promised != Some(length) {
            return Err(format!("{length} bytes for a variable of shape {shape:?}"));
        }
        let start = self.at;
        self.take(length)?;
        Ok(Variable { shape, kind, start, end: self.at })
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|&half| u16::from_le_bytes(half))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word))
}

/// IEEE half precision: moves the fields to where f32 has them and corrects the exponent's bias by a product, which
/// does subnormal numbers too.
fn from_f16(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff) << 13;
    let magnitude = if rest >= 0x0f80_0000 { f32::from_bits(rest | 0x7f80_0000) } else { f32::from_bits(rest) * f32::from_bits((254 - 15) << 23) };
    f32::from_bits(magnitude.to_bits() | sign)
}
