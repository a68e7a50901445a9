//! Matrix products and linear layers.

use tract_onnx::pb::NodeProto;

use super::super::kernels::Family;
use super::super::onnx::Attributes;
use super::super::product::MAX_OFFSET_DEPTH;
use super::super::program::Slot;
use super::operators::{Operator, Pending};
use super::{Importer, QuantizedConstant, Reason, Value};

impl<F: Family> Importer<'_, F> {
    pub(super) fn matmul(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let left = self.slot(node, 0)?;
        if let Value::Quantized(_) = self.value(node, 1)? {
            let weights = self.weights(node, 1)?;
            return self.linear(left, transposed(&weights)?, None);
        }
        let right = self.slot(node, 1)?;
        let mut dims = self.activation(left).dims.clone();
        let right_dims = &self.activation(right).dims;
        let rank = dims.len();
        if rank < 2 || right_dims.len() != rank || dims[..rank - 2] != right_dims[..rank - 2] {
            return Err(format!(
                "multiplies stacks of matrices that differ, {dims:?} and {right_dims:?}"
            ));
        }
        let depth = dims[rank - 1];
        if depth != right_dims[rank - 2] {
            return Err("multiplies matrices that do not fit".into());
        }
        let offset = [left, right].map(|slot| self.activation(slot).quantization.zero_point != 0);
        if offset.contains(&true) && depth > MAX_OFFSET_DEPTH {
            return Err(format!("multiplies activations {depth} deep whose zero point is not 0"));
        }
        dims[rank - 1] = right_dims[rank - 1];
        Ok(Pending::new(Operator::Product { left, right }, dims))
    }

    pub(super) fn gemm(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
        if !plain || node.integer("transA", 0) != 0 {
            return Err("has alpha, beta or transA".into());
        }
        let weights = self.weights(node, 1)?;
        let weights = if node.integer("transB", 0) != 0 {
            weights
        } else {
            transposed(&weights)?
        };
        self.linear(self.slot(node, 0)?, weights, self.bias(node, 2)?)
    }

    fn linear(&self, input: Slot, weights: QuantizedConstant, bias: Option<Vec<f64>>) -> Result<Pending, Reason> {
        let mut dims = self.activation(input).dims.clone();
        let flat = dims.len() != 4 || dims[1] == 1;
        match (dims.last_mut(), &weights.dims[..]) {
            (Some(last), [outputs, depth]) if *last == *depth && flat => *last = *outputs,
            _ => {
                return Err("its weights do not fit its input, or that has more than one channel".into());
            }
        }
        Ok(Pending::new(Operator::Linear { input, weights, bias }, dims))
    }
}

/// [depth][outputs] → [outputs][depth].
fn transposed(weights: &QuantizedConstant) -> Result<QuantizedConstant, Reason> {
    let [depth, outputs] = weights.dims[..] else {
        return Err("its weights are not a matrix".into());
    };
    Ok(QuantizedConstant {
        dims: vec![outputs, depth],
        integers: (0..outputs * depth)
            .map(|i| weights.integers[i % depth * outputs + i / depth])
            .collect(),
        scales: weights.scales.clone(),
        axis: 1 - weights.axis.min(1),
        zero_point: weights.zero_point,
    })
}
