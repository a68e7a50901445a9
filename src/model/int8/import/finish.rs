//! From a pending operator to a step, once its result's quantization is known.

use super::super::arithmetic::{Bounds, Quantization, factor};
use super::super::convolution::{Convolution, Depthwise, MAX_TAPS};
use super::super::gemm::Weights;
use super::super::grouped::Grouped;
use super::super::kernels::Family;
use super::super::pointwise::{Operation, Pairwise, RealTable, Table};
use super::super::pool::{AveragePool, MaxPool};
use super::super::product::Product;
use super::super::program::{Activation, Operand, Real, Slot, Step, Target};
use super::super::rearrange::{Concat, Gather};
use super::operators::{Arithmetic, Input, Operator, Pending};
use super::shapes::row_major_strides;
use super::{Importer, QuantizedConstant, Reason, per_entry};

/// What sums of products are made with, for each output.
struct Sums {
    weights: Vec<i8>,
    /// In units of input scale × weight scale.
    biases: Vec<i32>,
    factors: Vec<f32>,
}

impl<F: Family> Importer<'_, F> {
    /// Adds the step that leaves `pending` as s8 values quantized as `to` says.
    pub(super) fn finish(&mut self, pending: Pending, to: Quantization) -> Result<Slot, Reason> {
        if let Operator::Product { left, right } = pending.operator
            && pending.dims.len() == 4
            && pending.dims[1] != 1
        {
            return self.stacked_product(left, right, pending, to);
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
            Operator::Convolution { .. } | Operator::Linear { .. } | Operator::Product { .. } => {
                self.product(operator, target, to.scale)?
            }
            Operator::Pair {
                left,
                right,
                arithmetic,
            } => self.pairwise(left, right, arithmetic, to, bounds, out)?,
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
            Operator::Move { input, from, function } => {
                let place = in_memory(&self.activation(input).dims);
                let out_place = in_memory(&dims);
                let table = self.rescaling(input, to, |x| clipped(function(x)));
                let mut in_order = vec![0u32; from.len()];
                for (i, source) in from.into_iter().enumerate() {
                    in_order[out_place(i)] = place(source) as u32;
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
                    let (part_dims, from, mut operand) = self.operand(input)?;
                    let run = order[after..].iter().map(|a| part_dims[*a]).product();
                    operand.keep_one_run(run);
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

    /// Four-dimensional activations lie channels last, a stack of matrices one after the other.
    fn stacked_product(&mut self, left: Slot, right: Slot, product: Pending, to: Quantization) -> Result<Slot, Reason> {
        let reshaped = |input: Slot, dims: Vec<usize>| {
            let from = (0..dims.iter().product()).collect();
            Pending::moved(input, from, dims)
        };
        let [left, right] = [left, right].map(|slot| {
            let Activation { dims, quantization, .. } = self.activation(slot).clone();
            self.finish(reshaped(slot, dims[1..].to_vec()), quantization)
        });
        let stack = Pending {
            operator: Operator::Product {
                left: left?,
                right: right?,
            },
            dims: product.dims[1..].to_vec(),
            ..product
        };
        let result = self.finish(stack, to)?;
        self.finish(reshaped(result, product.dims), to)
    }

    /// Adds the step that leaves `pending` as real numbers for `name`: sums of products can, and functions of one value.
    pub(super) fn finish_real(&mut self, pending: Pending, name: &str) -> Result<Real, Reason> {
        if let Operator::Linear { input, .. } = pending.operator
            && self.activation(input).dims.iter().rev().skip(1).any(|d| *d != 1)
        {
            return Err("is several rows and not quantized".into());
        }
        let (low, high) = pending.clip.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        if let Operator::Unary { input, function } = pending.operator {
            let from = self.activation(input).quantization;
            let op = Box::new(RealTable::of(from, |x| function(x).max(low).min(high)));
            let out = self.add_real(name, pending.dims);
            self.draft.steps.push(Step::RealTable { op, input, out });
            return Ok(out);
        }
        let mut step = self.product(pending.operator, Target::Real(Real::MAX, [low, high]), 1.0)?;
        let real = self.add_real(name, pending.dims);
        if let Step::Convolution { out, .. } | Step::Linear { out, .. } | Step::Product { out, .. } = &mut step {
            *out = Target::Real(real, [low, high]);
        }
        self.draft.steps.push(step);
        Ok(real)
    }

    /// A convolution, linear layer or product of two activations; `scale` is the output's, 1 for real numbers.
    fn product(&self, operator: Operator, out: Target, scale: f32) -> Result<Step, Reason> {
        match operator {
            Operator::Convolution {
                input,
                window,
                weights,
                bias,
                groups,
            } => {
                let sums = self.sums(input, &weights, bias.as_deref(), scale)?;
                let Sums {
                    weights: w,
                    biases,
                    factors,
                } = &sums;
                let Activation {
                    quantization, least, ..
                } = *self.activation(input);
                let zero_point = quantization.zero_point as i8;
                if groups == 1 {
                    let op = Convolution::new::<F>(window, [zero_point, least], w, biases, factors);
                    return Ok(Step::Convolution { op, input, out });
                }
                let Target::Slot(out, bounds) = out else {
                    return Err("has groups and is not quantized".into());
                };
                if groups == biases.len() && weights.dims[1] == 1 && window.taps() <= MAX_TAPS {
                    let op = Depthwise::new::<F>(window, [zero_point, least], w, biases, factors);
                    return Ok(Step::Depthwise { op, input, bounds, out });
                }
                let op = Grouped::new::<F>(window, zero_point, groups, w, biases, factors);
                Ok(Step::Grouped { op, input, bounds, out })
            }
            Operator::Linear { input, weights, bias } => {
                let mut sums = self.sums(input, &weights, bias.as_deref(), scale)?;
                let zero_point = self.activation(input).quantization.zero_point;
                // Σ w (x − z) + b = Σ w x + (b − z Σ w).
                let depth = weights.dims[1].max(1);
                for (bias, row) in sums.biases.iter_mut().zip(sums.weights.chunks_exact(depth)) {
                    *bias -= zero_point * row.iter().map(|w| i32::from(*w)).sum::<i32>();
                }
                let weights = Weights::pack::<F>(&sums.weights, &sums.biases, &sums.factors);
                Ok(Step::Linear { weights, input, out })
            }
            Operator::Product { left, right } => {
                let (a, b) = (self.activation(left), self.activation(right));
                let rank = b.dims.len();
                let [rows, depth, columns] = [a.dims[rank - 2], b.dims[rank - 2], b.dims[rank - 1]];
                let by = factor(a.quantization.scale, b.quantization.scale, scale);
                let zero_points = [a, b].map(|activation| activation.quantization.zero_point);
                let stack = a.dims[..rank - 2].iter().product();
                let op = Product::new::<F>(stack, [rows, depth, columns], zero_points, by);
                if matches!(out, Target::Real(..)) && !op.can_be_real() {
                    return Err("is a stack of matrices or has zero points, and is not quantized".into());
                }
                Ok(Step::Product {
                    op: Box::new(op),
                    left,
                    right,
                    out,
                })
            }
            _ => Err("its result is not quantized".into()),
        }
    }

    fn sums(&self, input: Slot, weights: &QuantizedConstant, bias: Option<&[f64]>, scale: f32) -> Result<Sums, Reason> {
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
            Some(bias) if bias.len() == outputs => {
                let unit = |o: usize| f64::from(from) * f64::from(weight_scale(o));
                let in_units = |(o, real): (usize, &f64)| (real / unit(o)).round_ties_even() as i32;
                bias.iter().enumerate().map(in_units).collect()
            }
            Some(_) => return Err("has another number of biases than of outputs".into()),
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
                factor: factor(a.scale, b.scale, to.scale),
            },
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
                    let value = i8::try_from(*v + constant.zero_point);
                    values[place(i)] = value.map_err(|_| "has a constant that is not of eight bits")?;
                }
                let quantization = Quantization {
                    scale: constant.scales[0],
                    zero_point: constant.zero_point,
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
