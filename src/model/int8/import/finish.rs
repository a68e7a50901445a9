//! From a pending operator to a step, once the quantization of its result is known.

use super::super::operators::arithmetic::{
    Bounds, InputRange, Operation, Pairwise, Quantization, requantization_factor,
};
use super::super::operators::batched_matmul::{BatchedMatmul, MatrixSize};
use super::super::operators::convolution::Convolution;
use super::super::operators::depthwise::DepthwiseConvolution;
use super::super::operators::elementwise::{RealTable, Table};
use super::super::operators::gemm::PackedWeights;
use super::super::operators::grouped_convolution::GroupedConvolution;
use super::super::operators::kernels::Microkernels;
use super::super::operators::layout::MAX_TAPS;
use super::super::operators::pool::{AveragePool, MaxPool};
use super::super::operators::rearrange::{Concat, ConcatPart, Gather};
use super::super::reason::Reason;
use super::super::step::{Activation, Operand, Real, Slot, Step, Target};
use super::importer::{Importer, check_size};
use super::value::{Arithmetic, Input, Operator, Pending, QuantizedConstant, row_major_strides, scale_index};

/// The largest bias as an integer. The sum of products is smaller (`check_depth`), so that both together fit into 32 bits.
const MAX_BIAS: f64 = (1u32 << 30) as f64;

/// The parameters of a convolution or linear layer.
struct LayerParams {
    weights: Vec<i8>,
    /// In units of input scale × weight scale, one per output.
    biases: Vec<i32>,
    /// Requantization factors, one per output.
    factors: Vec<f32>,
}

impl<M: Microkernels> Importer<'_, M> {
    /// Adds the step that computes `pending` as s8 values with the quantization `to`.
    pub fn finish(&mut self, pending: Pending, to: Quantization) -> Result<Slot, Reason> {
        if let Operator::MatMul { left, right } = pending.operator
            && pending.dims.len() == 4
            && pending.dims[1] != 1
        {
            return self.batched_matmul(left, right, pending, to);
        }
        check_size(&pending.dims)?;
        // Four dimensions lie in memory as one image, channels last.
        if pending.dims.len() == 4 && pending.dims[0] != 1 {
            return Err(Reason::Batch);
        }
        let Pending {
            operator, dims, clip, ..
        } = pending;
        let plain = Bounds::of(to);
        let bounds = clip.map_or(plain, |(low, high)| plain.clip(to, low, high));
        let clipped = move |x: f32| clip.map_or(x, |(low, high)| x.max(low).min(high));
        let out = self.draft.activations.len();
        let target = Target::Slot(out, bounds);
        let step = match operator {
            Operator::Convolution { .. } | Operator::Linear { .. } | Operator::MatMul { .. } => {
                self.product(operator, target, to.scale)?
            }
            Operator::Pairwise {
                left,
                right,
                arithmetic,
            } => self.pairwise(left, right, arithmetic, to, bounds, out)?,
            Operator::Unary { input, function } => {
                let op = Box::new(Table::of_results(&function, to, clipped));
                Step::Table { op, input, out }
            }
            Operator::MaxPool { input, window } => {
                let op = MaxPool {
                    window,
                    channels: dims[1],
                    table: self.rescaling(input, to, clipped),
                };
                Step::MaxPool {
                    op: Box::new(op),
                    input,
                    out,
                }
            }
            Operator::AveragePool {
                input,
                window,
                counts_padding,
            } => {
                let from = self.activation(input).quantization;
                let op = AveragePool {
                    window,
                    channels: dims[1],
                    zero_point: from.zero_point,
                    factor: from.scale / to.scale,
                    counts_padding,
                    bounds,
                };
                Step::AveragePool { op, input, out }
            }
            Operator::Move { input, from, function } => {
                let place = memory_index(&self.activation(input).dims);
                let out_place = memory_index(&dims);
                let table = unless_identity(Table::of_results(&function, to, clipped));
                let mut in_order = vec![0u32; from.len()];
                for (i, source) in from.iter().enumerate() {
                    in_order[out_place(i)] = place(*source as usize) as u32;
                }
                let stays = in_order.iter().zip(0..).all(|(source, i)| *source == i);
                let all = in_order.len() == self.activation(input).dims.iter().product::<usize>();
                match table {
                    None if stays => return Ok(self.add_alias(dims, to, input)),
                    Some(table) if stays && all => Step::Table {
                        op: Box::new(table),
                        input,
                        out,
                    },
                    table => Step::Gather {
                        op: Box::new(Gather::new(in_order, table)),
                        input,
                        out,
                    },
                }
            }
            Operator::Concat { inputs, axis } => {
                // The axes in memory order. Those from `axis` on make up a run.
                let order: Vec<usize> = match dims.len() {
                    4 => vec![0, 2, 3, 1],
                    rank => (0..rank).collect(),
                };
                let after = order.iter().position(|a| *a == axis).unwrap_or(0);
                let mut parts = Vec::new();
                let mut operands = Vec::new();
                for input in inputs.iter().cloned() {
                    let (part_dims, from, mut operand) = self.operand(input)?;
                    let run = order[after..].iter().map(|a| part_dims[*a]).product();
                    operand.keep_one_run(run);
                    let table = rescaling(from, to, clipped);
                    parts.push(ConcatPart { run, table });
                    operands.push(operand);
                }
                Step::Concat {
                    op: Concat { parts },
                    inputs: operands,
                    out,
                }
            }
        };
        let minimum = step.minimum(&self.draft.activations);
        self.draft.push(step);
        let slot = self.add_activation(dims, to);
        self.draft.activations[slot].minimum = minimum;
        Ok(slot)
    }

    /// Four-dimensional activations lie channels last, but a batch of matrices must lie one after the other. So both operands
    /// and the result are rearranged through three dimensions.
    fn batched_matmul(&mut self, left: Slot, right: Slot, product: Pending, to: Quantization) -> Result<Slot, Reason> {
        let [left, right] = [left, right].map(|slot| {
            let Activation { dims, quantization, .. } = self.activation(slot).clone();
            let reshaped = self.reshaped(slot, dims[1..].to_vec())?;
            self.finish(reshaped, quantization)
        });
        let batch = Pending {
            operator: Operator::MatMul {
                left: left?,
                right: right?,
            },
            dims: product.dims[1..].to_vec(),
            ..product
        };
        let result = self.finish(batch, to)?;
        let reshaped = self.reshaped(result, product.dims)?;
        self.finish(reshaped, to)
    }

    fn reshaped(&mut self, input: Slot, dims: Vec<usize>) -> Result<Pending, Reason> {
        let count = check_size(&dims)?;
        self.rearrange(count)?;
        Ok(Pending::moved(
            self.identity(input),
            (0..count).map(|i| i as u32).collect(),
            dims,
        ))
    }

    /// Adds the step that computes `pending` as real numbers. Matrix products, convolutions and functions of one value can do that.
    pub fn finish_real(&mut self, pending: Pending) -> Result<Real, Reason> {
        if let Operator::Linear { input, .. } = pending.operator
            && self.activation(input).dims.iter().rev().skip(1).any(|d| *d != 1)
        {
            return Err(Reason::RowsNotQuantized);
        }
        let (low, high) = pending.clip.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let out = self.draft.reals.len();
        let step = match pending.operator {
            Operator::Unary { input, function } => {
                let op = Box::new(RealTable(function.map(|x| x.max(low).min(high))));
                Step::RealTable { op, input, out }
            }
            operator => self.product(operator, Target::Real(out, [low, high]), 1.0)?,
        };
        self.draft.push(step);
        Ok(self.draft.add_real(pending.dims))
    }

    /// The step of a convolution, a linear layer or a product of two activations. `scale` is the output's, or 1 for real numbers.
    fn product(&self, operator: Operator, out: Target, scale: f32) -> Result<Step, Reason> {
        match operator {
            Operator::Convolution {
                input,
                window,
                weights,
                bias,
                groups,
            } => {
                let params = self.layer_params(input, &weights, bias.as_deref(), scale)?;
                let LayerParams {
                    weights: w,
                    biases,
                    factors,
                } = &params;
                let Activation {
                    quantization, minimum, ..
                } = *self.activation(input);
                let zero_point = quantization.zero_point as i8;
                let range = InputRange { zero_point, minimum };
                if groups == 1 {
                    let op = Convolution::new::<M>(window, range, w, biases, factors);
                    return Ok(Step::Convolution { op, input, out });
                }
                let Target::Slot(out, bounds) = out else {
                    return Err(Reason::GroupsNotQuantized);
                };
                if groups == biases.len() && weights.dims[1] == 1 && window.taps() <= MAX_TAPS {
                    let op = DepthwiseConvolution::new::<M>(window, range, w, biases, factors);
                    return Ok(Step::Depthwise { op, input, bounds, out });
                }
                let op = GroupedConvolution::new::<M>(window, zero_point, groups, w, biases, factors);
                Ok(Step::Grouped { op, input, bounds, out })
            }
            Operator::Linear { input, weights, bias } => {
                let mut params = self.layer_params(input, &weights, bias.as_deref(), scale)?;
                let zero_point = self.activation(input).quantization.zero_point;
                // Moves the zero point into the bias: Σ w (x − z) + b = Σ w x + (b − z Σ w).
                let depth = weights.dims[1].max(1);
                for (bias, row) in params.biases.iter_mut().zip(params.weights.chunks_exact(depth)) {
                    let sum: i32 = row.iter().map(|w| i32::from(*w)).sum();
                    *bias = bias.wrapping_sub(zero_point.wrapping_mul(sum));
                }
                let weights = PackedWeights::pack::<M>(&params.weights, &params.biases, &params.factors);
                Ok(Step::Linear { weights, input, out })
            }
            Operator::MatMul { left, right } => {
                let (a, b) = (self.activation(left), self.activation(right));
                let rank = b.dims.len();
                let size = MatrixSize {
                    rows: a.dims[rank - 2],
                    depth: b.dims[rank - 2],
                    columns: b.dims[rank - 1],
                };
                let factor = requantization_factor(a.quantization.scale, b.quantization.scale, scale);
                let zero_points = [a, b].map(|activation| activation.quantization.zero_point);
                let batch = a.dims[..rank - 2].iter().product();
                let op = BatchedMatmul::new::<M>(batch, size, zero_points, factor);
                if matches!(out, Target::Real(..)) && !op.can_be_real() {
                    return Err(Reason::BatchNotQuantized);
                }
                Ok(Step::MatMul {
                    op: Box::new(op),
                    left,
                    right,
                    out,
                })
            }
            _ => Err(Reason::ResultNotQuantized),
        }
    }

    fn layer_params(
        &self,
        input: Slot,
        weights: &QuantizedConstant,
        bias: Option<&[f64]>,
        scale: f32,
    ) -> Result<LayerParams, Reason> {
        let outputs = weights.dims[0];
        self.take_constants(weights.integers.len())?;
        let scale_of = scale_index(&[outputs], 0, weights.scales.len())
            .filter(|_| weights.scales.len() == 1 || weights.axis == 0)
            .ok_or(Reason::WeightScales)?;
        let from = self.activation(input).quantization.scale;
        let weight_scale = |o: usize| weights.scales[scale_of(o)];
        let integers = weights
            .integers
            .iter()
            .map(|w| i8::try_from(*w))
            .collect::<Result<Vec<i8>, _>>()
            .map_err(|_| Reason::WeightZeroPoint)?;
        let biases = match bias {
            None => vec![0; outputs],
            Some(bias) if bias.len() == outputs => {
                let unit = |o: usize| f64::from(from) * f64::from(weight_scale(o));
                let in_units = |(o, real): (usize, &f64)| {
                    let integer = (real / unit(o)).round_ties_even();
                    match integer.abs() <= MAX_BIAS {
                        true => Ok(integer as i32),
                        false => Err(Reason::BiasTooLarge),
                    }
                };
                bias.iter().enumerate().map(in_units).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(Reason::BiasCount),
        };
        let factor = |o: usize| requantization_factor(from, weight_scale(o), scale);
        let factors = (0..outputs).map(factor).collect();
        Ok(LayerParams {
            weights: integers,
            biases,
            factors,
        })
    }

    fn pairwise(
        &self,
        left: Slot,
        right: Input,
        arithmetic: Arithmetic,
        to: Quantization,
        bounds: Bounds,
        out: Slot,
    ) -> Result<Step, Reason> {
        let a = self.activation(left).quantization;
        let (_, b, right) = self.operand(right)?;
        let [x, y] = [a.scale / to.scale, b.scale / to.scale];
        let operation = match arithmetic {
            Arithmetic::Add => Operation::Add { factors: [x, y] },
            Arithmetic::Subtract => Operation::Add { factors: [x, -y] },
            Arithmetic::SubtractFrom => Operation::Add { factors: [-x, y] },
            Arithmetic::Multiply => Operation::Multiply {
                factor: requantization_factor(a.scale, b.scale, to.scale),
            },
        };
        let op = Pairwise {
            operation,
            zero_points: [a.zero_point, b.zero_point],
            bounds,
        };
        Ok(Step::Pairwise { op, left, right, out })
    }

    /// An operand's shape and quantization and, if it is constant, its values in memory order.
    fn operand(&self, operand: Input) -> Result<(Vec<usize>, Quantization, Operand), Reason> {
        match operand {
            Input::Slot(slot) => {
                let Activation { dims, quantization, .. } = self.activation(slot).clone();
                Ok((dims, quantization, Operand::Slot(slot)))
            }
            Input::Constant(constant) => {
                self.take_constants(constant.integers.len())?;
                let place = memory_index(&constant.dims);
                let mut values = vec![0i8; constant.integers.len()];
                for (i, v) in constant.integers.iter().enumerate() {
                    let value = i8::try_from(v.saturating_add(constant.zero_point));
                    values[place(i)] = value.map_err(|_| Reason::ConstantNot8Bit)?;
                }
                let quantization = Quantization {
                    scale: constant.scales[0],
                    zero_point: constant.zero_point,
                };
                Ok((constant.dims, quantization, Operand::Constant(values)))
            }
        }
    }

    /// The table that converts `input` to the quantization `to`; `None` if it would change nothing.
    fn rescaling(&self, input: Slot, to: Quantization, clipped: impl Fn(f32) -> f32) -> Option<Table> {
        rescaling(self.activation(input).quantization, to, clipped)
    }
}

fn rescaling(from: Quantization, to: Quantization, clipped: impl Fn(f32) -> f32) -> Option<Table> {
    unless_identity(Table::of(from, to, clipped))
}

fn unless_identity(table: Table) -> Option<Table> {
    (!table.is_identity()).then_some(table)
}

/// The memory index of the value at a row-major index: channels last in four dimensions.
fn memory_index(dims: &[usize]) -> impl Fn(usize) -> usize + use<> {
    let strides = row_major_strides(dims);
    let dims = dims.to_vec();
    move |i| match dims[..] {
        [_, channels, height, width] => {
            let (c, rest) = (i / strides[1] % channels, i % strides[1]);
            let batch = i / strides[0];
            (batch * height * width + rest) * channels + c
        }
        _ => i,
    }
}
