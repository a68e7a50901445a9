//! Matrix products and linear layers.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::onnx::Attributes;
use super::super::operators::batched_matmul::MAX_DEPTH_WITH_ZERO_POINTS;
use super::super::operators::kernels::Microkernels;
use super::super::reason::Reason;
use super::super::step::Slot;
use super::importer::{Importer, check_depth, check_size};
use super::value::{Operator, Pending, QuantizedConstant, Value};

impl<M: Microkernels> Importer<'_, M> {
    pub fn matmul(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let left = self.slot(node, 0)?;
        if let Value::Quantized(_) = self.value(node, 1)? {
            let weights = self.weights(node, 1)?;
            return self.linear(left, self.transposed(&weights)?, None);
        }
        let right = self.slot(node, 1)?;
        let mut dims = self.activation(left).dims.clone();
        let right_dims = &self.activation(right).dims;
        let rank = dims.len();
        if rank < 2 || right_dims.len() != rank || dims[..rank - 2] != right_dims[..rank - 2] {
            return Err(Reason::MatrixShapes(dims, right_dims.clone()));
        }
        let depth = dims[rank - 1];
        if depth != right_dims[rank - 2] {
            return Err(Reason::MatrixShapes(dims, right_dims.clone()));
        }
        let offset = [left, right].map(|slot| self.activation(slot).quantization.zero_point != 0);
        if offset.contains(&true) && depth > MAX_DEPTH_WITH_ZERO_POINTS {
            return Err(Reason::DepthWithZeroPoints(depth));
        }
        check_depth(depth)?;
        dims[rank - 1] = right_dims[rank - 1];
        self.take_products(check_size(&dims)?, depth)?;
        Ok(Pending::new(Operator::MatMul { left, right }, dims))
    }

    pub fn gemm(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
        if !plain || node.integer("transA", 0) != 0 {
            return Err(Reason::GemmAttributes);
        }
        let weights = self.weights(node, 1)?;
        let weights = if node.integer("transB", 0) != 0 {
            weights
        } else {
            self.transposed(&weights)?
        };
        self.linear(self.slot(node, 0)?, weights, self.bias(node, 2)?)
    }

    fn linear(&self, input: Slot, weights: QuantizedConstant, bias: Option<Rc<[f64]>>) -> Result<Pending, Reason> {
        let mut dims = self.activation(input).dims.clone();
        let flat = dims.len() != 4 || dims[1] == 1;
        match (dims.last_mut(), &weights.dims[..]) {
            (Some(last), [outputs, depth]) if *last == *depth && flat => *last = *outputs,
            _ => return Err(Reason::LinearShape),
        }
        check_depth(weights.dims[1])?;
        self.take_products(check_size(&dims)?, weights.dims[1])?;
        Ok(Pending::new(Operator::Linear { input, weights, bias }, dims))
    }

    fn take_products(&self, results: usize, depth: usize) -> Result<(), Reason> {
        self.take_work((results as u64).saturating_mul(depth as u64))
    }

    /// From [depth][outputs] to [outputs][depth].
    fn transposed(&self, weights: &QuantizedConstant) -> Result<QuantizedConstant, Reason> {
        let [depth, outputs] = weights.dims[..] else {
            return Err(Reason::WeightShape(weights.dims.clone()));
        };
        self.take_constants(weights.integers.len())?;
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
}
