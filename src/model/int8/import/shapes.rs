//! Operators that only move values: where each comes from.

use tract_onnx::pb::NodeProto;

use super::super::kernels::Family;
use super::super::onnx::Attributes;
use super::operators::{Operator, Pending};
use super::{Importer, Reason, Value};

impl<F: Family> Importer<F> {
    pub(super) fn transpose(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.slot(node, 0)?;
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
        Ok(Pending::new(Operator::Move { input, from }, dims))
    }

    pub(super) fn reshape(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.slot(node, 0)?;
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
        Ok(Pending::new(
            Operator::Move {
                input,
                from: (0..count).collect(),
            },
            dims,
        ))
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
