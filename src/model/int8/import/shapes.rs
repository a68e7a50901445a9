//! Operators that only move values: where each comes from.

use tract_onnx::pb::NodeProto;

use super::super::kernels::Family;
use super::super::onnx::Attributes;
use super::super::program::Slot;
use super::operators::{Operator, Pending};
use super::{Importer, Reason, Value};

impl<F: Family> Importer<'_, F> {
    pub(super) fn transpose(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.movable(node)?;
        let from_dims = &self.activation(input).dims;
        let rank = from_dims.len();
        let axes: Vec<usize> = match node.integers("perm") {
            Some(perm) => perm.iter().map(|a| *a as usize).collect(),
            None => (0..rank).rev().collect(),
        };
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return Err("its perm is not a permutation".into());
        }
        let dims: Vec<usize> = axes.iter().map(|a| from_dims[*a]).collect();
        if dims.len() == 4 && dims[0] != 1 {
            return Err("makes a batch of more than one".into());
        }
        let strides = row_major_strides(from_dims);
        let out_strides = row_major_strides(&dims);
        let from = (0..dims.iter().product())
            .map(|i| {
                let place = |k: usize| i / out_strides[k] % dims[k];
                (0..rank).map(|k| place(k) * strides[axes[k]]).sum()
            })
            .collect();
        self.moved(node, input, from, dims)
    }

    /// `count` values of `axis` from `first` on, every `step`-th.
    fn part(
        &self,
        node: &NodeProto,
        input: Slot,
        axis: usize,
        [first, count, step]: [usize; 3],
    ) -> Result<Pending, Reason> {
        let from_dims = &self.activation(input).dims;
        if axis >= from_dims.len() || (from_dims.len() == 4 && axis == 0) || count == 0 {
            return Err("takes a part of the batch, of an axis that is not there, or nothing".into());
        }
        let mut dims = from_dims.clone();
        dims[axis] = count;
        let [strides, out_strides] = [from_dims, &dims].map(|dims| row_major_strides(dims));
        let along = |i: usize, k: usize| match i / out_strides[k] % dims[k] {
            place if k == axis => first + place * step,
            place => place,
        };
        let from = (0..dims.iter().product())
            .map(|i| (0..dims.len()).map(|k| along(i, k) * strides[k]).sum())
            .collect();
        self.moved(node, input, from, dims)
    }

    /// A Slice of one axis.
    pub(super) fn slice(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.movable(node)?;
        let dims = &self.activation(input).dims;
        let numbers = |index: usize, name: &str| match self.optional(node, index) {
            Ok(Some(Value::Constant(numbers))) => numbers.integers().map(<[i64]>::to_vec),
            _ => node.integers(name).map(<[i64]>::to_vec),
        };
        let one = |numbers: Option<Vec<i64>>, default: i64| match numbers.as_deref() {
            None => Ok(default),
            Some([one]) => Ok(*one),
            Some(_) => Err("takes a part of more than one axis"),
        };
        let starts = numbers(1, "starts").ok_or("its starts are not constant")?;
        let axis = one(numbers(3, "axes"), 0)?.rem_euclid(dims.len() as i64) as usize;
        let length = dims[axis] as i64;
        let step = one(numbers(4, "steps"), 1)?;
        if step < 1 {
            return Err("goes backwards".into());
        }
        let place = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length);
        let (first, end) = (place(one(Some(starts), 0)?), place(one(numbers(2, "ends"), length)?));
        let count = (end - first).max(0) as usize;
        self.part(
            node,
            input,
            axis,
            [first as usize, count.div_ceil(step as usize), step as usize],
        )
    }

    /// The parts that a Split makes, in order.
    pub(super) fn split(&self, node: &NodeProto) -> Result<Vec<Pending>, Reason> {
        let input = self.movable(node)?;
        let dims = &self.activation(input).dims;
        let axis = node.integer("axis", 0).rem_euclid(dims.len() as i64) as usize;
        let lengths = match self.optional(node, 1)? {
            Some(Value::Constant(lengths)) => lengths.integers().map(<[i64]>::to_vec),
            Some(_) => return Err("its lengths are not constant".into()),
            None => node.integers("split").map(<[i64]>::to_vec),
        };
        let parts = node.output.len();
        let each = dims[axis].div_ceil(parts.max(1));
        let lengths: Vec<usize> = match lengths {
            Some(lengths) => lengths.iter().map(|n| *n as usize).collect(),
            None => (0..parts)
                .map(|i| each.min(dims[axis].saturating_sub(i * each)))
                .collect(),
        };
        if lengths.len() != parts || lengths.iter().sum::<usize>() != dims[axis] {
            return Err("its parts do not add up".into());
        }
        let firsts = lengths.iter().scan(0, |at, length| {
            *at += length;
            Some(*at - length)
        });
        firsts
            .zip(&lengths)
            .map(|(first, count)| self.part(node, input, axis, [first, *count, 1]))
            .collect()
    }

    pub(super) fn reshape(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.movable(node)?;
        let from = &self.activation(input).dims;
        let count: usize = from.iter().product();
        let wanted = match node.op_type.as_str() {
            "Reshape" => self.constant(node, 1)?.integers().map(<[i64]>::to_vec),
            "Flatten" => {
                let axis = node.integer("axis", 1);
                let axis = if axis < 0 { axis + from.len() as i64 } else { axis } as usize;
                let front: usize = from.iter().take(axis).product();
                Some(vec![front as i64, -1])
            }
            _ => self.squeezed(node, from)?,
        };
        let wanted = wanted.ok_or("its shape is not a constant of 64-bit integers")?;
        let known: Vec<usize> = wanted
            .iter()
            .enumerate()
            .map(|(i, d)| match d {
                0 => from.get(i).copied().unwrap_or(0),
                d => usize::try_from(*d).unwrap_or(1),
            })
            .collect();
        let product: usize = known.iter().product();
        let dims: Vec<usize> = known
            .iter()
            .zip(&wanted)
            .map(|(d, w)| if *w == -1 { count / product.max(1) } else { *d })
            .collect();
        if dims.iter().product::<usize>() != count || (dims.len() == 4 && dims[0] != 1) {
            return Err(format!("reshapes {from:?} to {wanted:?}"));
        }
        self.moved(node, input, (0..count).collect(), dims)
    }

    /// The activations that a node moves, be it through a function that nothing has quantized.
    fn movable(&self, node: &NodeProto) -> Result<Slot, Reason> {
        match node
            .input
            .first()
            .map(|name| self.function(name))
            .transpose()?
            .flatten()
        {
            Some((slot, ..)) => Ok(slot),
            None => self.slot(node, 0),
        }
    }

    fn moved(&self, node: &NodeProto, input: Slot, from: Vec<usize>, dims: Vec<usize>) -> Result<Pending, Reason> {
        let mut pending = Pending::moved(input, from, dims);
        if let (Some((_, before, nodes)), Operator::Move { function, .. }) =
            (self.function(&node.input[0])?, &mut pending.operator)
        {
            *function = before;
            pending.nodes = nodes;
        }
        Ok(pending)
    }

    /// The shape that Squeeze or Unsqueeze makes.
    fn squeezed(&self, node: &NodeProto, from: &[usize]) -> Result<Option<Vec<i64>>, Reason> {
        let axes = match self.optional(node, 1)? {
            Some(Value::Constant(axes)) => axes.integers().map(<[i64]>::to_vec),
            _ => node.integers("axes").map(<[i64]>::to_vec),
        };
        let unsqueeze = node.op_type == "Unsqueeze";
        let Some(axes) = axes else { return Ok(None) };
        let rank = (from.len() + if unsqueeze { axes.len() } else { 0 }) as i64;
        let named = |i: usize| axes.iter().any(|a| (if *a < 0 { a + rank } else { *a }) == i as i64);
        let mut rest = from.iter().map(|d| *d as i64);
        if unsqueeze {
            return Ok((0..rank as usize)
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

pub fn row_major_strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|k| dims[k + 1..].iter().product()).collect()
}
