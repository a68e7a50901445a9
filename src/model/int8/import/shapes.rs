//! Operators that move values.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::limits::{MAX_RANK, elements};
use super::super::onnx::Attributes;
use super::super::operators::kernels::Microkernels;
use super::super::reason::Reason;
use super::super::step::Slot;
use super::importer::{Importer, check_size};
use super::value::{Pending, Value, axis_of, from_end, row_major_strides};

/// Values of one axis: `count` of them from `first` on, every `step`-th.
struct Part {
    axis: usize,
    first: usize,
    count: usize,
    step: usize,
}

impl<M: Microkernels> Importer<'_, M> {
    pub fn transpose(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.movable(node)?;
        let from_dims = self.activation(input).dims.clone();
        let rank = from_dims.len();
        let axes: Vec<usize> = match node.integers("perm") {
            Some(perm) => {
                let axes = perm.iter().map(|a| usize::try_from(*a).ok());
                axes.collect::<Option<_>>().ok_or(Reason::Permutation)?
            }
            None => (0..rank).rev().collect(),
        };
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return Err(Reason::Permutation);
        }
        let dims: Vec<usize> = axes.iter().map(|a| from_dims[*a]).collect();
        if dims.len() == 4 && dims[0] != 1 {
            return Err(Reason::Batch);
        }
        let strides = row_major_strides(&from_dims);
        let out_strides = row_major_strides(&dims);
        let count = check_size(&dims)?;
        self.rearrange(count)?;
        let from = (0..count)
            .map(|i| {
                let place = |k: usize| i / out_strides[k] % dims[k];
                (0..rank).map(|k| place(k) * strides[axes[k]]).sum::<usize>() as u32
            })
            .collect();
        self.moved(node, from, dims)
    }

    fn part(&mut self, node: &NodeProto, input: Slot, part: Part) -> Result<Pending, Reason> {
        let Part {
            axis,
            first,
            count,
            step,
        } = part;
        let from_dims = self.activation(input).dims.clone();
        if axis >= from_dims.len() || (from_dims.len() == 4 && axis == 0) || count == 0 {
            return Err(Reason::Part);
        }
        let mut dims = from_dims.clone();
        dims[axis] = count;
        let [strides, out_strides] = [&from_dims, &dims].map(|dims| row_major_strides(dims));
        let along = |i: usize, k: usize| match i / out_strides[k] % dims[k] {
            place if k == axis => first + place * step,
            place => place,
        };
        let count = check_size(&dims)?;
        self.rearrange(count)?;
        let from = (0..count)
            .map(|i| (0..dims.len()).map(|k| along(i, k) * strides[k]).sum::<usize>() as u32)
            .collect();
        self.moved(node, from, dims)
    }

    /// A Slice of one axis.
    pub fn slice(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.movable(node)?;
        let dims = &self.activation(input).dims;
        let numbers = |index: usize, name: &str| match self.optional(node, index) {
            Ok(Some(Value::Constant(numbers))) => numbers.integers().map(<[i64]>::to_vec),
            _ => node.integers(name).map(<[i64]>::to_vec),
        };
        let one = |numbers: Option<Vec<i64>>, default: i64| match numbers.as_deref() {
            None => Ok(default),
            Some([one]) => Ok(*one),
            Some(_) => Err(Reason::SeveralSlicedAxes),
        };
        let starts = numbers(1, "starts").ok_or(Reason::StartsNotConstant)?;
        let axis = from_end(one(numbers(3, "axes"), 0)?, dims.len())
            .filter(|axis| *axis < dims.len())
            .ok_or(Reason::Part)?;
        let length = dims[axis] as i64;
        let step = one(numbers(4, "steps"), 1)?;
        if step < 1 {
            return Err(Reason::NegativeStep);
        }
        let place = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length);
        let (first, end) = (place(one(Some(starts), 0)?), place(one(numbers(2, "ends"), length)?));
        let count = (end - first).max(0) as usize;
        let step = step as usize;
        let part = Part {
            axis,
            first: first as usize,
            count: count.div_ceil(step),
            step,
        };
        self.part(node, input, part)
    }

    /// The results of a Split, in order.
    pub fn split(&mut self, node: &NodeProto) -> Result<Vec<Pending>, Reason> {
        let input = self.movable(node)?;
        let dims = &self.activation(input).dims;
        let axis = axis_of(node, 0, dims.len());
        if axis >= dims.len() {
            return Err(Reason::Part);
        }
        let lengths = match self.optional(node, 1)? {
            Some(Value::Constant(lengths)) => lengths.integers().map(<[i64]>::to_vec),
            Some(_) => return Err(Reason::LengthsNotConstant),
            None => node.integers("split").map(<[i64]>::to_vec),
        };
        let whole = dims[axis];
        let parts = node.output.len();
        let each = whole.div_ceil(parts.max(1));
        let lengths: Vec<usize> = match lengths {
            Some(lengths) => {
                let lengths = lengths.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n <= whole));
                lengths.collect::<Option<_>>().ok_or(Reason::Lengths)?
            }
            None => (0..parts)
                .map(|i| each.min(whole.saturating_sub(i.saturating_mul(each))))
                .collect(),
        };
        let sum = lengths.iter().try_fold(0usize, |sum, length| sum.checked_add(*length));
        if lengths.len() != parts || sum != Some(whole) {
            return Err(Reason::Lengths);
        }
        let firsts = lengths.iter().scan(0, |at, length| {
            *at += length;
            Some(*at - length)
        });
        firsts
            .zip(&lengths)
            .map(|(first, count)| {
                let part = Part {
                    axis,
                    first,
                    count: *count,
                    step: 1,
                };
                self.part(node, input, part)
            })
            .collect()
    }

    pub fn reshape(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.movable(node)?;
        let from = &self.activation(input).dims.clone();
        let count: usize = from.iter().product();
        let target = match node.op_type.as_str() {
            "Reshape" => self.constant(node, 1)?.integers().map(<[i64]>::to_vec),
            "Flatten" => {
                let axis = from_end(node.integer("axis", 1), from.len());
                let axis = axis.filter(|axis| *axis <= from.len()).ok_or(Reason::Axis)?;
                let front: usize = from.iter().take(axis).product();
                Some(vec![front as i64, -1])
            }
            _ => self.squeezed(node, from)?,
        };
        let target = target.ok_or(Reason::ShapeNotConstant)?;
        let known: Vec<usize> = target
            .iter()
            .enumerate()
            .map(|(i, d)| match d {
                0 => from.get(i).copied().unwrap_or(0),
                d => usize::try_from(*d).unwrap_or(1),
            })
            .collect();
        let product = elements(&known).unwrap_or(0);
        let dims: Vec<usize> = known
            .iter()
            .zip(&target)
            .map(|(d, w)| if *w == -1 { count / product.max(1) } else { *d })
            .collect();
        let unusable = target.iter().any(|d| *d < -1) || dims.len() > MAX_RANK;
        if unusable || elements(&dims) != Some(count) || (dims.len() == 4 && dims[0] != 1) {
            return Err(Reason::Reshape {
                from: from.clone(),
                to: target,
            });
        }
        self.rearrange(count)?;
        self.moved(node, (0..count).map(|i| i as u32).collect(), dims)
    }

    /// The activations that a node moves, also if they pass through a function that is not quantized.
    fn movable(&self, node: &NodeProto) -> Result<Slot, Reason> {
        Ok(self.input_function(node, 0)?.input)
    }

    fn moved(&self, node: &NodeProto, from: Rc<[u32]>, dims: Vec<usize>) -> Result<Pending, Reason> {
        Ok(Pending::moved(self.input_function(node, 0)?, from, dims))
    }

    /// The shape after Squeeze or Unsqueeze.
    fn squeezed(&self, node: &NodeProto, from: &[usize]) -> Result<Option<Vec<i64>>, Reason> {
        let axes = match self.optional(node, 1)? {
            Some(Value::Constant(axes)) => axes.integers().map(<[i64]>::to_vec),
            _ => node.integers("axes").map(<[i64]>::to_vec),
        };
        let unsqueeze = node.op_type == "Unsqueeze";
        let Some(axes) = axes else { return Ok(None) };
        let rank = from.len() + if unsqueeze { axes.len() } else { 0 };
        let named = |i: usize| axes.iter().any(|a| from_end(*a, rank) == Some(i));
        let mut rest = from.iter().map(|d| *d as i64);
        if unsqueeze {
            return Ok((0..rank)
                .map(|i| if named(i) { Some(1) } else { rest.next() })
                .collect());
        }
        Ok(Some(
            from.iter()
                .enumerate()
                .filter(|(i, _)| !named(*i))
                .map(|(_, d)| *d as i64)
                .collect(),
        ))
    }
}
