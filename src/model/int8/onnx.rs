//! Reading the parts of an ONNX file: attributes, constants, shapes.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "ONNX stores 8-bit values in i32 fields and dimensions in i64 fields"
)]

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

use super::limits::elements;

/// A constant tensor's values.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I8(Vec<i8>),
    U8(Vec<u8>),
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    pub dims: Vec<usize>,
    pub values: Values,
}

impl Constant {
    /// `None` if the data type is not supported, or if the number of values does not fit the dimensions.
    pub fn of(tensor: &TensorProto) -> Option<Constant> {
        let raw = &tensor.raw_data[..];
        let values = match DataType::try_from(tensor.data_type).ok()? {
            DataType::Float if raw.is_empty() => Values::F32(tensor.float_data.clone()),
            DataType::Float => Values::F32(words(raw)?.map(f32::from_le_bytes).collect()),
            DataType::Int32 if raw.is_empty() => Values::I32(tensor.int32_data.clone()),
            DataType::Int32 => Values::I32(words(raw)?.map(i32::from_le_bytes).collect()),
            DataType::Int64 if raw.is_empty() => Values::I64(tensor.int64_data.clone()),
            DataType::Int64 => Values::I64(words(raw)?.map(i64::from_le_bytes).collect()),
            DataType::Int8 if raw.is_empty() => Values::I8(tensor.int32_data.iter().map(|v| *v as i8).collect()),
            DataType::Int8 => Values::I8(raw.iter().map(|v| *v as i8).collect()),
            DataType::Uint8 if raw.is_empty() => Values::U8(tensor.int32_data.iter().map(|v| *v as u8).collect()),
            DataType::Uint8 => Values::U8(raw.to_vec()),
            _ => return None,
        };
        let dims: Vec<usize> = tensor
            .dims
            .iter()
            .map(|d| usize::try_from(*d).ok())
            .collect::<Option<_>>()?;
        let constant = Constant { dims, values };
        (elements(&constant.dims) == Some(constant.len())).then_some(constant)
    }

    pub fn len(&self) -> usize {
        match &self.values {
            Values::F32(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::I32(v) => v.len(),
            Values::I8(v) => v.len(),
            Values::U8(v) => v.len(),
        }
    }

    pub fn floats(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(v) => Some(v),
            _ => None,
        }
    }

    pub fn integers(&self) -> Option<&[i64]> {
        match &self.values {
            Values::I64(v) => Some(v),
            _ => None,
        }
    }
}

fn words<const N: usize>(raw: &[u8]) -> Option<impl Iterator<Item = [u8; N]> + '_> {
    let (words, rest) = raw.as_chunks::<N>();
    rest.is_empty().then(|| words.iter().copied())
}

/// The attributes of a node, by name.
pub trait Attributes {
    fn integer(&self, name: &str, default: i64) -> i64;
    fn integers(&self, name: &str) -> Option<&[i64]>;
    fn float(&self, name: &str, default: f32) -> f32;
    fn text(&self, name: &str) -> Option<&[u8]>;
}

impl Attributes for NodeProto {
    fn integer(&self, name: &str, default: i64) -> i64 {
        self.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.i)
    }

    fn integers(&self, name: &str) -> Option<&[i64]> {
        self.attribute.iter().find(|a| a.name == name).map(|a| &a.ints[..])
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.f)
    }

    fn text(&self, name: &str) -> Option<&[u8]> {
        self.attribute.iter().find(|a| a.name == name).map(|a| &a.s[..])
    }
}

/// The dimensions of a graph's input, if they are fixed.
pub fn static_dims(input: &ValueInfoProto) -> Option<Vec<usize>> {
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
    let fixed = |d: &Dimension| match d.value.as_ref()? {
        dimension::Value::DimValue(n) => usize::try_from(*n).ok(),
        dimension::Value::DimParam(_) => None,
    };
    tensor.shape.as_ref()?.dim.iter().map(fixed).collect()
}

/// The data type of a graph's input.
pub fn input_type(input: &ValueInfoProto) -> Option<DataType> {
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
    DataType::try_from(tensor.elem_type).ok()
}

/// The declaration of a graph's input. tract learns its type and dimensions in another way.
pub fn input_info(name: &str) -> ValueInfoProto {
    float_info(name, &[])
}

/// The declaration of a graph's output.
pub fn output_info(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        ..ValueInfoProto::default()
    }
}

/// The declaration of a graph's f32 input.
pub fn float_info(name: &str, dims: &[usize]) -> ValueInfoProto {
    let dim = |n: &usize| Dimension {
        value: Some(dimension::Value::DimValue(*n as i64)),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto {
            dim: dims.iter().map(dim).collect(),
        }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}
