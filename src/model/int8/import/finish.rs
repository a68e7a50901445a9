//! From a pending operator to a step, once its result's quantization is known.

use super::super::arithmetic::{Bounds, Quantization, factor};
use super::super::convolution::{Convolution, Depthwise};
use super::super::gemm::{Product, Weights};
use super::super::kernels::Family;
use super::super::pointwise::{Operation, Pairwise, Table};
use super::super::pool::{AveragePool, MaxPool};
use super::super::program::{Activation, Operand, Slot, Step, Target};
use super::super::rearrange::{Concat, Gather};
use super::operators::{Input, Operator, Pending};
use super::shapes::row_major_strides;
use super::{Importer, QuantizedConstant, Reason, per_entry};

/// What sums of products are made with, for each output.
struct Sums {
    weights: Vec<i8>,
    /// In units of input scale × weight scale.
    biases: Vec<i32>,
    factors: Vec<f32>,
}

impl<F: Family> Importer<F> {
    /// Adds the step that leaves `pending` as s8 values quantized as `to` says.
    pub(super) fn finish(&mut self, pending: Pending, to: Quantization) -> Result<Slot, Reason> {
        let Pending { operator, dims, clip } = pending;
        let plain = Bounds::of(to);
        let bounds = clip.map_or(plain, |(low, high)| plain.clip(to, low, high));
        let clipped = move |x: f32| clip.map_or(x, |(low, high)| x.max(low).min(high));
        let out = self.draft.activations.len();
        let target = Target::Slot(out, bounds);
        let step = match operator {
            Operator::Convolution { .. } | Operator::Linear { .. } | Operator::Product { .. } => {
                self.product(operator, target, to.scale)?
            }
            Operator::Pair { left, right, multiply } => self.pairwise(left, right, multiply, to, bounds, out)?,
            Operator::Unary { input, function } => {
                let from = self.activation(input).quantization;
                let op = Box::new(Table::of(from, to, |x| clipped(function(x))));
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
                    sums: vec![0; dims[1]],
                };
                Step::AveragePool { op, input, out }
            }
            Operator::Move { input, from } => {
                let place = in_memory(&self.activation(input).dims);
                let out_place = in_memory(&dims);
                let mut in_order = vec![0u32; from.len()];
                for (i, source) in from.into_iter().enumerate() {
                    in_order[out_place(i)] = place(source) as u32;
                }
                let op = Gather {
                    from: in_order,
                    table: self.rescaling(input, to, clipped),
                };
                Step::Gather {
                    op: Box::new(op),
                    input,
                    out,
                }
            }
            Operator::Concat { inputs, axis } => {
                // Axes as they lie in memory: those after `axis` make up a run.
                let order: &[usize] = if dims.len() == 4 {
                    &[0, 2, 3, 1]
                } else {
                    &[0, 1, 2, 3, 4, 5]
                };
                let order = &order[..dims.len()];
                let after = order.iter().position(|a| *a == axis).unwrap_or(0);
                let mut parts = Vec::new();
                let mut operands = Vec::new();
                for input in inputs {
                    let (part_dims, from, operand) = self.operand(input)?;
                    let run = order[after..].iter().map(|a| part_dims[*a]).product();
                    parts.push((run, rescaling(from, to, clipped)));
                    operands.push(operand);
                }
                Step::Concat {
                    op: Concat { parts },
                    inputs: operands,
                    out,
                }
            }
        };
        let least = step.least(&self.draft.activations);
        self.draft.steps.push(step);
        let slot = self.add_activation(dims, to);
        self.draft.activations[slot].least = least;
        Ok(slot)
    }

    /// Adds the step that leaves `pending` as real numbers in a graph output: only sums of products can.
    pub(super) fn finish_real(&mut self, pending: Pending, output: usize) -> Result<(), Reason> {
        if let Operator::Linear { input, .. } = pending.operator
            && self.activation(input).dims.iter().rev().skip(1).any(|d| *d != 1)
        {
            return Err("is several rows and not quantized".into());
        }
        let (low, high) = pending.clip.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let target = Target::Output(output, [low, high]);
        let step = self.product(pending.operator, target, 1.0)?;
        self.draft.steps.push(step);
        Ok(())
    }

    /// A convolution, linear layer or product of two activations; `scale` is the output's, 1 for real numbers.
    fn product(&self, operator: Operator, out: Target, scale: f32) -> Result<Step, Reason> {
        match operator {
            Operator::Convolution {
                input,
                window,
                weights,
                bias,
                depthwise,
            } => {
                let sums = self.sums(input, &weights, bias.as_ref(), scale)?;
                let Activation {
                    quantization, least, ..
                } = *self.activation(input);
                let zero_point = quantization.zero_point as i8;
                if depthwise {
                    let op = Depthwise::new::<F>(window, zero_point, &sums.weights, &sums.biases, &sums.factors);
                    return match out {
                        Target::Slot(out, bounds) => Ok(Step::Depthwise { op, input, bounds, out }),
                        Target::Output(..) => Err("is depthwise and not quantized".into()),
                    };
                }
                let op = Convolution::new::<F>(window, [zero_point, least], &sums.weights, &sums.biases, &sums.factors);
                Ok(Step::Convolution { op, input, out })
            }
            Operator::Linear { input, weights, bias } => {
                if self.activation(input).quantization.zero_point != 0 {
                    return Err("multiplies a matrix whose zero point is not 0".into());
                }
                let sums = self.sums(input, &weights, bias.as_ref(), scale)?;
                let weights = Weights::pack::<F>(&sums.weights, &sums.biases, &sums.factors);
                Ok(Step::Linear { weights, input, out })
            }
            Operator::Product { left, right } => {
                let (a, b) = (self.activation(left), self.activation(right));
                let rank = b.dims.len();
                let by = factor(a.quantization.scale, b.quantization.scale, scale);
                let op = Product::new::<F>(b.dims[rank - 2], b.dims[rank - 1], by);
                Ok(Step::Product {
                    op: Box::new(op),
                    left,
                    right,
                    out,
                })
            }
            _ => Err("is not quantized".into()),
        }
    }

    fn sums(
        &self,
        input: Slot,
        weights: &QuantizedConstant,
        bias: Option<&QuantizedConstant>,
        scale: f32,
    ) -> Result<Sums, Reason> {
        let outputs = weights.dims[0];
        let scale_of = per_entry(&[outputs], 0, weights.scales.len())
            .filter(|_| weights.scales.len() == 1 || weights.axis == 0)
            .ok_or("has weight scales that are not one for each output")?;
        let from = self.activation(input).quantization.scale;
        let weight_scale = |o: usize| weights.scales[scale_of(o)];
        let integers = weights
            .integers
            .iter()
            .map(|w| i8::try_from(*w))
            .collect::<Result<Vec<i8>, _>>()
            .map_err(|_| "has weights whose zero point is not 0")?;
        let biases = match bias {
            None => vec![0; outputs],
            Some(bias) => {
                let bias_scale = per_entry(&bias.dims, 0, bias.scales.len())
                    .filter(|_| bias.integers.len() == outputs)
                    .ok_or("has another number of biases than of outputs")?;
                let in_units = |o: usize| {
                    let unit = f64::from(from) * f64::from(weight_scale(o));
                    let real = f64::from(bias.integers[o]) * f64::from(bias.scales[bias_scale(o)]);
                    (real / unit).round_ties_even() as i32
                };
                (0..outputs).map(in_units).collect()
            }
        };
        let factors = (0..outputs).map(|o| factor(from, weight_scale(o), scale)).collect();
        Ok(Sums {
            weights: integers,
            biases,
            factors,
        })
    }

    fn pairwise(
        &self,
        left: Slot,
        right: Input,
        multiply: bool,
        to: Quantization,
        bounds: Bounds,
        out: Slot,
    ) -> Result<Step, Reason> {
        let a = self.activation(left).quantization;
        let (_, b, right) = self.operand(right)?;
        let operation = if multiply {
            Operation::Multiply {
                factor: factor(a.scale, b.scale, to.scale),
            }
        } else {
            Operation::Add {
                factors: [a.scale / to.scale, b.scale / to.scale],
            }
        };
        let op = Pairwise {
            operation,
            zero_points: [a.zero_point, b.zero_point],
            bounds,
        };
        Ok(Step::Pairwise { op, left, right, out })
    }

    /// An operand's shape, quantization and, if constant, its values as they lie in memory.
    fn operand(&self, operand: Input) -> Result<(Vec<usize>, Quantization, Operand), Reason> {
        match operand {
            Input::Slot(slot) => {
                let Activation { dims, quantization, .. } = self.activation(slot).clone();
                Ok((dims, quantization, Operand::Slot(slot)))
            }
            Input::Constant(constant) => {
                let place = in_memory(&constant.dims);
                let mut values = vec![0i8; constant.integers.len()];
                for (i, v) in constant.integers.iter().enumerate() {
                    values[place(i)] = i8::try_from(*v).map_err(|_| "has a constant whose zero point is not 0")?;
                }
                let quantization = Quantization {
                    scale: constant.scales[0],
                    zero_point: 0,
                };
                Ok((constant.dims, quantization, Operand::Constant(values)))
            }
        }
    }

    /// The table that brings `input` to `to`; none if nothing changes.
    fn rescaling(&self, input: Slot, to: Quantization, clipped: impl Fn(f32) -> f32) -> Option<Table> {
        rescaling(self.activation(input).quantization, to, clipped)
    }
}

fn rescaling(from: Quantization, to: Quantization, clipped: impl Fn(f32) -> f32) -> Option<Table> {
    let table = Table::of(from, to, clipped);
    (!table.is_identity()).then_some(table)
}

/// Where the value at a row-major place lies in memory: channels last in four dimensions.
fn in_memory(dims: &[usize]) -> impl Fn(usize) -> usize + use<> {
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
