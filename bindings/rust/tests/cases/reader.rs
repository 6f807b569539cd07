// SPDX-License-Identifier: BSD-3-Clause
//! Reads an exported case: records of one line of text, some followed by raw elements.

use std::error::Error;
use std::fs;
use std::path::Path;

use attention::{Bf16, Dtype, View, ViewMut, F16};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub enum Elements {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Bfloat16(Vec<Bf16>),
    Float16(Vec<F16>),
    Bool(Vec<bool>),
    Int64(Vec<i64>),
    Int32(Vec<i32>),
    Uint8(Vec<u8>),
}

pub struct Tensor {
    pub shape: Vec<usize>,
    pub elements: Elements,
}

/// What a result must be, within an absolute tolerance.
pub struct Expected {
    pub name: String,
    pub tolerance: f64,
    pub shape: Vec<usize>,
    pub elements: Vec<f64>,
}

#[derive(Default)]
pub struct Case {
    pub call: String,
    pub options: Vec<(String, String)>,
    pub tensors: Vec<(String, Tensor)>,
    pub expected: Vec<Expected>,
    pub error: Option<(i32, String)>,
}

impl Tensor {
    pub fn dtype(&self) -> Dtype {
        match self.elements {
            Elements::Float32(_) => Dtype::Float32,
            Elements::Float64(_) => Dtype::Float64,
            Elements::Bfloat16(_) => Dtype::Bfloat16,
            Elements::Float16(_) => Dtype::Float16,
            Elements::Bool(_) => Dtype::Bool,
            Elements::Int64(_) => Dtype::Int64,
            Elements::Int32(_) => Dtype::Int32,
            Elements::Uint8(_) => Dtype::Uint8,
        }
    }

    pub fn view(&self) -> attention::Result<View<'_>> {
        match &self.elements {
            Elements::Float32(data) => View::new(data, &self.shape),
            Elements::Float64(data) => View::new(data, &self.shape),
            Elements::Bfloat16(data) => View::new(data, &self.shape),
            Elements::Float16(data) => View::new(data, &self.shape),
            Elements::Bool(data) => View::new(data, &self.shape),
            Elements::Int64(data) => View::new(data, &self.shape),
            Elements::Int32(data) => View::new(data, &self.shape),
            Elements::Uint8(data) => View::new(data, &self.shape),
        }
    }

    pub fn view_mut(&mut self) -> attention::Result<ViewMut<'_>> {
        match &mut self.elements {
            Elements::Float32(data) => ViewMut::new(data, &self.shape),
            Elements::Float64(data) => ViewMut::new(data, &self.shape),
            Elements::Bfloat16(data) => ViewMut::new(data, &self.shape),
            Elements::Float16(data) => ViewMut::new(data, &self.shape),
            Elements::Bool(data) => ViewMut::new(data, &self.shape),
            Elements::Int64(data) => ViewMut::new(data, &self.shape),
            Elements::Int32(data) => ViewMut::new(data, &self.shape),
            Elements::Uint8(data) => ViewMut::new(data, &self.shape),
        }
    }
}

impl Case {
    pub fn read(path: &Path) -> Result<Case> {
        let bytes = fs::read(path)?;
        let mut rest = bytes.as_slice();
        let mut case = Case::default();
        while !rest.is_empty() {
            let line = std::str::from_utf8(take_line(&mut rest)?)?;
            case.read_record(line, &mut rest)
                .map_err(|problem| format!("\"{}\": {}", line, problem))?;
        }
        Ok(case)
    }

    fn read_record(&mut self, line: &str, rest: &mut &[u8]) -> Result<()> {
        let (record, words) = split_word(line)?;
        match record {
            "call" => self.call = words.to_owned(),
            "option" => {
                let (name, value) = split_word(words)?;
                self.options.push((name.to_owned(), value.to_owned()));
            }
            "tensor" => {
                let (name, words) = split_word(words)?;
                self.tensors
                    .push((name.to_owned(), read_tensor(words, rest)?));
            }
            "expect" => self.expected.push(read_expected(words, rest)?),
            "error" => {
                let (code, text) = split_word(words)?;
                self.error = Some((code.parse()?, text.to_owned()));
            }
            _ => return Err("unknown record".into()),
        }
        Ok(())
    }
}

fn split_word(words: &str) -> Result<(&str, &str)> {
    words
        .split_once(' ')
        .ok_or_else(|| "a word is missing".into())
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let end = rest
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or("a line without its end")?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(line)
}

fn read_expected(words: &str, rest: &mut &[u8]) -> Result<Expected> {
    let (name, words) = split_word(words)?;
    let (tolerance, words) = split_word(words)?;
    let tensor = read_tensor(words, rest)?;
    match tensor.elements {
        Elements::Float64(elements) => Ok(Expected {
            name: name.to_owned(),
            tolerance: tolerance.parse()?,
            shape: tensor.shape,
            elements,
        }),
        _ => Err("an expected result is not float64".into()),
    }
}

/// `words`: DTYPE RANK D0 D1 ...
fn read_tensor(words: &str, rest: &mut &[u8]) -> Result<Tensor> {
    let (dtype, words) = split_word(words)?;
    let numbers = words
        .split(' ')
        .map(str::parse)
        .collect::<std::result::Result<Vec<usize>, _>>()?;
    let (rank, shape) = numbers.split_first().ok_or("no rank")?;
    if *rank != shape.len() {
        return Err("rank and shape differ".into());
    }
    let count = shape.iter().product();
    let elements = match dtype {
        "float32" => Elements::Float32(take(rest, count, f32::from_le_bytes)?),
        "float64" => Elements::Float64(take(rest, count, f64::from_le_bytes)?),
        "bfloat16" => Elements::Bfloat16(take(rest, count, |raw| Bf16(u16::from_le_bytes(raw)))?),
        "float16" => Elements::Float16(take(rest, count, |raw| F16(u16::from_le_bytes(raw)))?),
        "bool" => Elements::Bool(take(rest, count, |byte: [u8; 1]| byte[0] != 0)?),
        "int64" => Elements::Int64(take(rest, count, i64::from_le_bytes)?),
        "int32" => Elements::Int32(take(rest, count, i32::from_le_bytes)?),
        "uint8" => Elements::Uint8(take(rest, count, u8::from_le_bytes)?),
        _ => return Err("unknown dtype".into()),
    };
    Ok(Tensor {
        shape: shape.to_vec(),
        elements,
    })
}

fn take<T, const BYTES: usize>(
    rest: &mut &[u8],
    count: usize,
    decode: impl Fn([u8; BYTES]) -> T,
) -> Result<Vec<T>> {
    if rest.len() < count * BYTES {
        return Err("the file ends within the elements".into());
    }
    let (raw, after) = rest.split_at(count * BYTES);
    *rest = after;
    let decoded = raw.chunks_exact(BYTES).map(|bytes| {
        let mut element = [0; BYTES];
        element.copy_from_slice(bytes);
        decode(element)
    });
    Ok(decoded.collect())
}
