//! QuantizeLinear and DequantizeLinear.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::onnx::{Constant, Values};
use super::super::operators::arithmetic::Quantization;
use super::super::operators::kernels::Microkernels;
use super::super::reason::Reason;
use super::super::step::Step;
use super::importer::{Importer, check_size};
use super::value::{Pending, QuantizedConstant, Value, axis_of, scale_index};

/// The scales and zero points of a node.
struct Scales {
    scales: Vec<f32>,
    /// As s8: those of unsigned integers are 128 lower than in the file.
    zero_points: Vec<i32>,
    unsigned: bool,
}

/// The scale and zero point of activations.
struct Scale {
    quantization: Quantization,
    unsigned: bool,
}

impl<M: Microkernels> Importer<'_, M> {
    fn scales(&self, node: &NodeProto) -> Result<Scales, Reason> {
        let scales = self.constant(node, 1)?.floats().ok_or(Reason::ScaleNotF32)?.to_vec();
        if scales.is_empty() || scales.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            return Err(Reason::ScaleNotPositive);
        }
        let (zero_points, unsigned) = match self.optional(node, 2)? {
            // Without a zero point, ONNX means u8 with 0.
            None => (vec![-128; scales.len()], true),
            Some(Value::Constant(zero_point)) => match &zero_point.values {
                Values::I8(z) => (z.iter().map(|z| i32::from(*z)).collect(), false),
                Values::U8(z) => (z.iter().map(|z| i32::from(*z) - 128).collect(), true),
                Values::I32(z) if z.iter().all(|z| *z == 0) => (vec![0; z.len()], false),
                _ => return Err(Reason::ZeroPointType),
            },
            Some(_) => return Err(Reason::ZeroPointNotConstant),
        };
        if zero_points.len() != scales.len() {
            return Err(Reason::ZeroPointCount);
        }
        Ok(Scales {
            scales,
            zero_points,
            unsigned,
        })
    }

    fn scale(&self, node: &NodeProto) -> Result<Scale, Reason> {
        let Scales {
            scales,
            zero_points,
            unsigned,
        } = self.scales(node)?;
        match (&scales[..], &zero_points[..]) {
            (&[scale], &[zero_point]) => Ok(Scale {
                quantization: Quantization { scale, zero_point },
                unsigned,
            }),
            _ => Err(Reason::SeveralActivationScales),
        }
    }

    pub fn quantize(&mut self, node: &NodeProto) -> Result<Value, Reason> {
        if let Value::Constant(constant) = self.value(node, 0)? {
            return self.quantized_constant(node, &constant.clone());
        }
        let Scale {
            quantization: to,
            unsigned,
        } = self.scale(node)?;
        let key = (node.input[0].clone(), (to.scale.to_bits(), to.zero_point));
        if let Some(slot) = self.quantized.get(&key) {
            return Ok(Value::Integers { slot: *slot, unsigned });
        }
        let slot = match self.value(node, 0)?.clone() {
            Value::Float(input) => {
                let dims = self.dims_of(input).to_vec();
                check_size(&dims)?;
                if dims.len() == 4 && dims[0] != 1 {
                    return Err(Reason::Batch);
                }
                let out = self.add_activation(dims, to);
                self.draft.push(Step::Quantize { input, out });
                out
            }
            Value::Pending(pending) => self.finish(*pending, to)?,
            Value::Real(slot) if self.activation(slot).quantization == to => slot,
            Value::Real(slot) => {
                let unchanged = Pending::unary(self.identity(slot), self.activation(slot).dims.clone());
                self.finish(unchanged, to)?
            }
            _ => return Err(Reason::QuantizesIntegers),
        };
        self.quantized.insert(key, slot);
        Ok(Value::Integers { slot, unsigned })
    }

    /// QuantizeLinear of a constant. Networks from quantization-aware training keep their weights as real numbers.
    fn quantized_constant(&self, node: &NodeProto, constant: &Constant) -> Result<Value, Reason> {
        let reals = constant.floats().ok_or(Reason::ConstantNotF32)?;
        let Scales {
            scales,
            zero_points,
            unsigned,
        } = self.scales(node)?;
        let axis = axis_of(node, 1, constant.dims.len());
        let entry = scale_index(&constant.dims, axis, scales.len()).ok_or(Reason::ScaleCount)?;
        let quantize = |(i, x): (usize, &f32)| {
            let (scale, zero_point) = (scales[entry(i)], zero_points[entry(i)]);
            Quantization { scale, zero_point }.quantize(*x)
        };
        self.take_constants(reals.len())?;
        let integers = reals.iter().enumerate().map(quantize);
        Ok(Value::Constant(Rc::new(Constant {
            dims: constant.dims.clone(),
            values: match unsigned {
                true => Values::U8(integers.map(|q| q.cast_unsigned() ^ 128).collect()),
                false => Values::I8(integers.collect()),
            },
        })))
    }

    pub fn dequantize(&mut self, node: &NodeProto) -> Result<Value, Reason> {
        let constant = match self.value(node, 0)? {
            Value::Integers { slot, unsigned } => {
                let (slot, unsigned, from) = (*slot, *unsigned, self.scale(node)?);
                if from.unsigned != unsigned {
                    return Err(Reason::DequantizesDifferently);
                }
                let quantized = self.activation(slot);
                return Ok(Value::Real(match quantized.quantization == from.quantization {
                    true => slot,
                    // The same integers stand for other real numbers.
                    false => self.add_alias(quantized.dims.clone(), from.quantization, slot),
                }));
            }
            Value::Constant(constant) => constant.clone(),
            _ => return Err(Reason::DequantizesReals),
        };
        let Scales {
            scales, zero_points, ..
        } = self.scales(node)?;
        self.take_constants(constant.len())?;
        let mut integers: Vec<i32> = match &constant.values {
            Values::I8(v) => v.iter().map(|v| i32::from(*v)).collect(),
            Values::U8(v) => v.iter().map(|v| i32::from(*v) - 128).collect(),
            Values::I32(v) => v.clone(),
            _ => return Err(Reason::ConstantNotIntegers),
        };
        let axis = axis_of(node, 1, constant.dims.len());
        let entry = scale_index(&constant.dims, axis, scales.len()).ok_or(Reason::ScaleCount)?;
        // 32-bit constants are biases and have no zero point.
        let eight_bits = !matches!(constant.values, Values::I32(_));
        if eight_bits && zero_points.iter().any(|zero_point| *zero_point != 0) {
            for (i, v) in integers.iter_mut().enumerate() {
                *v -= zero_points[entry(i)];
            }
        }
        Ok(Value::Quantized(QuantizedConstant {
            dims: constant.dims.clone(),
            integers: integers.into(),
            zero_point: if eight_bits && scales.len() == 1 {
                zero_points[0]
            } else {
                0
            },
            scales: scales.into(),
            axis,
        }))
    }
}
